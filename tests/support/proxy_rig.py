"""A real streaming proxy with real bridges and a plain HTTP client, for tests."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace

from tests.support.fault_proxy import FaultProxy
from tests.support.link_parts import Recorder, until

from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, Assertion, manager_token, mint
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.link import DialTarget, Stream, StreamHandler, TunnelClient
from cloudtolocalllm.proxy.service import ProxyServer
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.tunnel import Headers, Limits, RequestHead, ResponseHead

KEY = bytes(range(32))
INSTANCE = "px-0123456789abcdef"


def assertion(*, kind: str = CLIENT, bridges: Iterable[str] = ("home",), key: bytes = KEY, **claims: object) -> str:
    """An assertion as the API mints it."""
    now = int(time.time())
    made = Assertion(INSTANCE, "user-1", kind, "key-1", now, now + 60, tuple(bridges), "req-1")
    return mint(replace(made, **claims), key)  # type: ignore[arg-type] # the tests name real members


@dataclass
class Reply:
    """A response as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = field(default_factory=dict)
    informational: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cut: bool = False
    """Whether the connection ended before the body did."""


class Client:
    """One HTTP/1.1 connection, read strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(
        self,
        method: str = "POST",
        target: str = "/v1/chat/completions",
        headers: Iterable[tuple[str, str]] = (),
        *,
        body: bytes | None = None,
        token: str | None = None,
    ) -> None:
        """Send a request; `body` with its Content-Length, None for the caller to frame one."""
        lines = [f"{method} {target} HTTP/1.1", "Host: relay"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines.append(f"C2L-Assertion: {assertion() if token is None else token}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode("latin-1")
        first, *lines = text.rstrip("\r\n").split("\r\n")
        return int(first.split(" ")[1]), dict(_fields(lines))

    async def reply(self, method: str = "POST") -> Reply:
        informational = []
        status, headers = await self.head()
        while status < 200:
            informational.append((status, headers))
            status, headers = await self.head()
        reply = Reply(status, headers, b"", informational=informational)
        try:
            async for chunk in self.chunks(method, reply):
                reply.body += chunk
        except (asyncio.IncompleteReadError, ConnectionError):
            reply.cut = True
        return reply

    async def chunks(self, method: str, reply: Reply) -> AsyncIterator[bytes]:
        """Yield content as it comes, chunk by chunk as the server framed it."""
        if method == "HEAD" or reply.status in (204, 304):
            return
        if reply.headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            lines = []
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                lines.append(line.decode("latin-1").rstrip("\r\n"))
            reply.trailers = dict(_fields(lines))
        else:
            yield await self.reader.readexactly(int(reply.headers.get("content-length", "0")))

    async def get(self, target: str, headers: Iterable[tuple[str, str]] = ()) -> Reply:
        """A request without an assertion."""
        lines = [f"GET {target} HTTP/1.1", "Host: relay", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.writer.write("\r\n".join(lines).encode())
        return await self.reply("GET")

    def close(self) -> None:
        self.writer.close()


def _fields(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


class Home(Recorder):
    """A bridge's handler under a test's control."""

    def __init__(self, head: RequestHead, stream: Stream) -> None:
        super().__init__()
        self.head = head
        self.stream: Stream = stream
        self.bridge = ""
        """The id of the bridge that has it."""

    def field(self, name: bytes) -> bytes | None:
        return dict(self.head.headers).get(name)

    def answer(self, status: int = 200, headers: Headers = (), content: bytes = b"", trailers: Headers = ()) -> None:
        self.stream.send_head(ResponseHead(status, headers))
        if content:
            self.stream.send_data(content)
        self.stream.end(trailers)


class ProxyRig:
    """One proxy, its bridges (each through a network of its own that can fail), its clients."""

    def __init__(self, proxy: ProxyServer, endpoint: Endpoint) -> None:
        self.proxy = proxy
        self.endpoint = endpoint
        self.homes: list[Home] = []
        self.make: type[Home] = Home
        self.on_request: Callable[[Home], None] = lambda home: None
        self.tunnels: dict[str, TunnelClient] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[Client] = []
        self._networks = contextlib.AsyncExitStack()

    async def network(self) -> FaultProxy:
        assert self.endpoint.host is not None
        assert self.endpoint.port is not None
        return await self._networks.enter_async_context(FaultProxy(self.endpoint.host, self.endpoint.port))

    async def bridge(self, bridge_id: str = "home", *, limits: Limits | None = None, wait: bool = True) -> FaultProxy:
        """Attach a bridge and return its network."""
        network = await self.network()

        async def target() -> DialTarget:
            token = assertion(kind=BRIDGE, bridges=(), subject=bridge_id)
            return DialTarget(f"ws://127.0.0.1:{network.port}/ws/tunnel", {"C2L-Assertion": token})

        def accept(head: RequestHead, stream: Stream) -> StreamHandler:
            home = self.make(head, stream)
            home.bridge = bridge_id
            self.homes.append(home)
            self.on_request(home)
            return home

        client = self.tunnels[bridge_id] = TunnelClient(target, accept, limits=limits)
        self._tasks.append(asyncio.get_running_loop().create_task(client.run()))
        if wait:
            await until(lambda: bridge_id in self.proxy.tunnels.attached_bridges())
        return network

    async def client(self) -> Client:
        if self.endpoint.path is not None:
            reader, writer = await asyncio.open_unix_connection(self.endpoint.path)
        else:
            reader, writer = await asyncio.open_connection(self.endpoint.host, self.endpoint.port)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def home(self, number: int = 0) -> Home:
        """Return the bridge's handler of a request, once it is there."""
        await until(lambda: len(self.homes) > number)
        return self.homes[number]

    async def manager(self, target: str) -> Reply:
        client = await self.client()
        return await client.get(target, [("Authorization", f"Bearer {manager_token(KEY)}")])

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.proxy.close(0.2)
        await self._networks.aclose()


@contextlib.asynccontextmanager
async def proxy_rig(
    *, limits: Limits | None = None, listen: Endpoint | None = None, **settings: object
) -> AsyncIterator[ProxyRig]:
    """A proxy that listens, without a bridge."""
    settings.setdefault("attach_timeout", 0.1)
    made = ProxySettings(
        instance=INSTANCE,
        key=KEY,
        listen=listen or Endpoint(host="127.0.0.1", port=0),
        **settings,  # type: ignore[arg-type] # the tests name real members
    )
    proxy = ProxyServer(made, limits=limits)
    rig = ProxyRig(proxy, await proxy.start())
    try:
        yield rig
    finally:
        await rig.close()
