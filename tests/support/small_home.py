"""A cloud and a home in one, built on `sealed` alone: what a client of the sealed routes needs, and faults on demand.

The real gateway stands in the end-to-end tests; here every byte and every moment is the test's.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.runtime.http1 import Headers, HttpServer, Request, RequestHandler, Responder
from cloudtolocalllm.runtime.http1.messages import CHUNKED
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed import base64url, ohttp, pairing, statement
from cloudtolocalllm.sealed.bhttp import Content, RequestHead, ResponseHead
from cloudtolocalllm.sealed.device import authenticate, proof_message, read_claim, verify
from cloudtolocalllm.sealed.errors import ReplayedError, SealedError, SkewError, UnknownDeviceError, UnknownKeyError
from cloudtolocalllm.sealed.exchange import RequestReader, ResponseWriter
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.fingerprint import fingerprint
from cloudtolocalllm.sealed.key_ring import GatewayKey, KeyRing
from cloudtolocalllm.sealed.ohttp import RequestOpener
from cloudtolocalllm.sealed.pairing import PairingLink, PairingOffers, read_introduction
from cloudtolocalllm.sealed.replay import ReplayGuard
from cloudtolocalllm.sealed.resume import offset_fields, read_resume

API_KEY = "c2l_test-key"
_UNPROVED: dict[type[SealedError], Problem] = {
    UnknownDeviceError: Problem.DEVICE_UNKNOWN,
    SkewError: Problem.DATE,
    ReplayedError: Problem.CONNECTION_LOST,
}
OHTTP_KEY = "https://iana.org/assignments/http-problem-types#ohttp-key"


@dataclass(eq=False)
class Run:
    """One answer of the engine, kept."""

    request: str
    status: int = 0
    fields: Fields = ()
    data: bytearray = field(default_factory=bytearray)
    done: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    def wake(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


Engine = Callable[[RequestHead, bytes, Run], Awaitable[None]]
"""Answers a request by filling a run."""


class SmallHome:
    """One home, and the server in front of it."""

    def __init__(self, engine: Engine, bridge_id: str = "home") -> None:
        self.engine = engine
        self.bridge_id = bridge_id
        self.identity = Ed25519PrivateKey.generate()
        self.ring = KeyRing(GatewayKey(1, secrets.token_bytes(32), int(time.time())), int(time.time()))
        self.offers = PairingOffers()
        self.replays = ReplayGuard()
        self.devices: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.tasks = TaskSet()
        self.port = 0
        # --- what a test may do ---
        self.offline = False
        """The server says that the home is not connected."""
        self.status = 0
        """The server answers sealed requests with this status, and nothing else; 0 for what is right."""
        self.cut: list[int] = []
        """After so many sealed bytes of an answer its connection breaks; one for each answer, then none."""
        self.flip: list[int] = []
        """So many bytes into an answer a bit is flipped; one for each answer."""
        self.stall = False
        """Sealed answers stop being sent, without a word."""
        self.statement = ""
        """Served instead of the true one."""
        self.lose_pairing = False
        """The answer to a pairing is lost on its way."""
        self.repeat = False
        """The next sealed request arrives twice, and the answer to the second is the one that is passed on."""
        self.busy = 0
        """So many sealed requests are refused, sealed, as too many."""
        self.api_key = API_KEY
        # --- what a test may look at ---
        self.asked: list[tuple[str, str, int]] = []
        """Opened requests: method, target, offset."""
        self.started: list[str] = []
        """Requests that the engine got."""
        self.contents: list[bytes] = []
        """What it was asked with."""
        self.stopped: list[str] = []
        """Exchanges that were stopped."""
        self.seen = bytearray()
        """All that the server could read: requests' heads and contents."""
        self.passed = 0
        """Sealed bytes of answers sent."""
        self._told_to_stop: set[str] = set()
        self._writers: set[Responder] = set()
        self._answers: set[_Sealed] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pinned(self) -> bytes:
        return fingerprint(self.identity.public_key().public_bytes_raw())

    def invite(self) -> str:
        """Return a pairing link."""
        secret = secrets.token_bytes(32)
        self.offers.add(secret, time.monotonic())
        return f"{self.url}/pair#{PairingLink(self.bridge_id, self.pinned, secret).fragment}"

    def restart(self, *, key_id: int | None = None) -> None:
        """Lose what is in memory only: keys, runs.

        Args:
            key_id: Of the new key; None for another one than before.
        """
        for run in self.runs.values():
            if run.task is not None:
                run.task.cancel()
        self.runs.clear()
        new = (self.ring.current.key_id + 1) % 256 if key_id is None else key_id
        self.ring = KeyRing(GatewayKey(new, secrets.token_bytes(32), int(time.time())), self.ring.seq + 1)
        self.break_all()

    def break_all(self) -> int:
        """Break the connections of all answers under way."""
        writers, self._writers = self._writers, set()
        for responder in writers:
            responder.abort()
        return len(writers)

    def mute(self) -> int:
        """Have the answers under way say nothing more, on connections that stay open."""
        self._writers.clear()
        for answer in self._answers:
            answer.mute = True
        return len(self._answers)

    # --- the server ---

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        return _Taking(self, request, responder)

    def handle(self, request: Request, responder: Responder, content: bytes, gone: asyncio.Event) -> None:
        self.seen += request.raw_head + content
        if request.path == "/healthz":
            responder.respond(200, (), b"ok")
        elif request.field(b"authorization") != b"Bearer " + self.api_key.encode():
            _problem(responder, Problem.UNAUTHENTICATED)
        elif request.path != f"/e2e/{self.bridge_id}":
            _problem(responder, Problem.NOT_FOUND)
        elif self.offline:
            _problem(responder, Problem.BRIDGE_OFFLINE)
        elif request.method == "GET":
            text = self.statement or statement.sign(
                statement.state_keys(self.ring, self.bridge_id, time.time()), self.identity
            )
            responder.respond(200, ((b"content-type", b"application/c2l-keys+jwt"),), text.encode())
        elif self.status:
            responder.respond(self.status, ((b"content-type", b"text/html"),), b"<p>no</p>")
        elif request.field(b"content-type") == pairing.REQUEST_TYPE.encode():
            self._pair(responder, content)
        else:
            if self.repeat:
                self.repeat = False
                self.tasks.start(self._exchange(_Nobody(), content, asyncio.Event()), "exchange")
            self.tasks.start(self._exchange(responder, content, gone), "exchange")

    # --- the home ---

    def _open(self, content: bytes, **secrets_of: Any) -> tuple[RequestOpener, RequestHead, bytes]:
        opener = RequestOpener(lambda key_id: self.ring.private_key(key_id, time.time()), **secrets_of)
        reader = RequestReader(opener)
        events = reader.receive_data(content) + reader.end()
        (head,) = [event for event in events if isinstance(event, RequestHead)]
        return opener, head, b"".join(event.data for event in events if isinstance(event, Content))

    def _pair(self, responder: Responder, content: bytes) -> None:
        now = time.monotonic()
        try:
            opener, head, body = self._open(content, secrets=lambda each: self.offers.secret(each, now))
        except UnknownKeyError:
            _ohttp_key(responder)
            return
        said = read_introduction(body)
        claim = read_claim(head.fields)
        assert claim.device == said.device_id
        assert verify(said.point, claim.proof, proof_message(opener))
        assert self.offers.take(content[7:23], now)
        self.devices[said.device_id] = said.point
        self.names[said.device_id] = said.name
        if self.lose_pairing:
            responder.abort()
            return
        writer = ResponseWriter(opener.response(secrets.token_bytes(16)))
        data = writer.start(ResponseHead(201)) + writer.write(b"{}", 0) + writer.finish()
        responder.respond(200, ((b"content-type", pairing.RESPONSE_TYPE.encode()),), data)

    async def _exchange(self, responder: Responder, content: bytes, gone: asyncio.Event) -> None:
        try:
            opener, head, body = self._open(content)
        except UnknownKeyError:
            _ohttp_key(responder)
            return
        except SealedError:
            _problem(responder, Problem.BAD_REQUEST)
            return
        responder.start(200, ((b"content-type", ohttp.RESPONSE_TYPE.encode()),), CHUNKED)
        self._writers.add(responder)
        out = _Sealed(self, ResponseWriter(opener.response(secrets.token_bytes(16))), responder)
        self._answers.add(out)
        try:
            device = authenticate(opener, head.fields, self.devices.get, self.replays, time.time())
        except (UnknownDeviceError, SkewError, ReplayedError) as error:
            problem = _UNPROVED[type(error)]
            await out.problem(problem.value.status, problem.value.slug, str(error))
        else:
            await self._answer(out, head, body, device, gone)
        finally:
            self._writers.discard(responder)
            self._answers.discard(out)

    async def _answer(self, out: "_Sealed", head: RequestHead, body: bytes, device: str, gone: asyncio.Event) -> None:
        resume = read_resume(head.fields)
        offset = resume.offset if resume else 0
        method, target = head.method.decode(), head.path.decode()
        self.asked.append((method, target, offset))
        if self.busy:
            self.busy -= 1
            await out.problem(503, "overloaded", "too many")
            return
        if target.startswith("/c2l/exchanges/"):
            assert method == "DELETE"
            name = device + target.rpartition("/")[2]
            self._told_to_stop.add(name)
            run = self.runs.get(name)
            if run is not None:
                self.stopped.append(target.rpartition("/")[2])
                if run.task is not None:
                    run.task.cancel()
            await out.whole(204)
            return
        name = device + (base64url.encode(resume.exchange) if resume else secrets.token_hex(8))
        found = self.runs.get(name)
        if name in self._told_to_stop or (found is None and offset):
            await out.problem(404, "exchange-unknown", "it is not kept")
            return
        if found is None:
            found = self.runs[name] = Run(f"{method} {target}")
            self.started.append(target)
            self.contents.append(body)
            found.task = self.tasks.start(self._run(found, head, body), "run")
        assert found.request == f"{method} {target}"
        await out.follow(found, offset, gone)

    async def _run(self, run: Run, head: RequestHead, body: bytes) -> None:
        try:
            await self.engine(head, body, run)
        finally:
            run.done = True
            run.wake()


class _Nobody:
    """Where an answer goes that is lost."""

    def start(self, *_: Any, **__: Any) -> None:
        pass

    respond = inform = write = end = abort = pause_body = resume_body = start
    peer = ""

    def hijack(self) -> Any:
        raise NotImplementedError


class _Sealed:
    """Seals an answer, with the faults that a test wants."""

    def __init__(self, home: SmallHome, writer: ResponseWriter, responder: Responder) -> None:
        self._home = home
        self._writer = writer
        self._responder = responder
        self._sent = 0
        self.mute = False
        self._cut = home.cut.pop(0) if home.cut else -1
        self._flip = home.flip.pop(0) if home.flip else -1

    async def problem(self, status: int, slug: str, detail: str) -> None:
        content = json.dumps({"type": f"urn:c2l:problem:{slug}", "status": status, "detail": detail}).encode()
        await self.whole(status, ((b"content-type", CONTENT_TYPE.encode()),), content)

    async def whole(self, status: int, fields: Fields = (), content: bytes = b"") -> None:
        data = self._writer.start(ResponseHead(status, fields))
        if content:
            data += self._writer.write(content, 0)
        if self._send(data + self._writer.finish()):
            self._responder.end()

    async def follow(self, run: Run, offset: int, gone: asyncio.Event) -> None:
        while not run.status and not run.done:
            await _either(run.moved, gone)
            if gone.is_set():
                return
        fields = (*run.fields, *(offset_fields(offset) if offset else ()))
        if not self._send(self._writer.start(ResponseHead(run.status or 502, fields))):
            return
        while not gone.is_set():
            if offset < len(run.data):
                data, offset = bytes(run.data[offset:]), len(run.data)
                if not self._send(self._writer.write(data, time.monotonic())):
                    return
            elif run.done:
                if self._send(self._writer.finish()):
                    self._responder.end()
                return
            else:
                moved = run.moved
                deadline = self._writer.deadline
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                await _either(moved, gone, wait)
                if not self._send(self._writer.poll(time.monotonic())):
                    return

    def _send(self, data: bytes) -> bool:
        """Send bytes; return whether they arrive."""
        if self._home.stall or self.mute:
            return False  # it is lost on the way, and the connection stays open
        if 0 <= self._flip - self._sent < len(data):
            at = self._flip - self._sent
            data = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        if 0 <= self._cut <= self._sent + len(data):
            self._responder.write(data[: self._cut - self._sent])
            self._responder.abort()
            return False
        self._sent += len(data)
        self._home.passed += len(data)
        self._responder.write(data)
        return True


class _Taking:
    """Takes a request whole."""

    def __init__(self, home: SmallHome, request: Request, responder: Responder) -> None:
        self._home = home
        self._request = request
        self._responder = responder
        self._content = bytearray()
        self._gone = asyncio.Event()

    def on_body(self, data: bytes) -> None:
        self._content += data

    def on_body_end(self, trailers: Headers) -> None:
        self._home.handle(self._request, self._responder, bytes(self._content), self._gone)

    def on_disconnect(self) -> None:
        self._gone.set()

    def on_writable(self, writable: bool) -> None:
        pass


async def _either(one: asyncio.Event, other: asyncio.Event, timeout: float | None = None) -> None:
    tasks = [asyncio.ensure_future(one.wait()), asyncio.ensure_future(other.wait())]
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _problem(responder: Responder, problem: Problem) -> None:
    content = problem_content(problem, "As the test wants it.")
    responder.respond(problem.value.status, ((b"content-type", CONTENT_TYPE.encode()),), content)


def _ohttp_key(responder: Responder) -> None:
    content = json.dumps({"type": OHTTP_KEY, "title": "key"}).encode()
    responder.respond(400, ((b"content-type", CONTENT_TYPE.encode()),), content)


def engine_at(url: str) -> Engine:
    """Return an engine that is asked over HTTP, as a bridge asks it."""

    async def ask(head: RequestHead, content: bytes, run: Run) -> None:
        target = head.path.decode()
        path = target.removeprefix("/ollama").removeprefix("/anthropic")
        headers = {"content-type": "application/json"} if content else {}
        async with (
            httpx.AsyncClient(base_url=url, timeout=60) as client,
            client.stream(head.method.decode(), path, content=content or None, headers=headers) as response,
        ):
            kept = ("content-type", "c2l-test")
            run.fields = tuple((n.encode(), v.encode()) for n, v in response.headers.items() if n in kept)
            run.status = response.status_code
            run.wake()
            async for data in response.aiter_raw():
                run.data += data
                run.wake()

    return ask


def scripted(status: int = 200, pieces: tuple[bytes, ...] = (b"{}",), *, pace: float = 0.0) -> Engine:
    """Return an engine that says the same to everybody."""

    async def answer(head: RequestHead, content: bytes, run: Run) -> None:
        run.fields = ((b"content-type", b"application/x-ndjson"),)
        run.status = status
        run.wake()
        for piece in pieces:
            await asyncio.sleep(pace)
            run.data += piece
            run.wake()

    return answer


@asynccontextmanager
async def small_home(engine: Engine, bridge_id: str = "home", port: int = 0) -> AsyncIterator[SmallHome]:
    """Run a home and its server."""
    home = SmallHome(engine, bridge_id)
    server = HttpServer(home)
    home.port = await server.listen_tcp("127.0.0.1", port)
    try:
        yield home
    finally:
        try:
            await home.tasks.close()
        finally:
            await server.close(0.1)
