"""Tunnels over real sockets: cut, stalled, slow, refused; and a foreign client's malformed WebSockets."""

import asyncio
import base64
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.support.fault_proxy import FaultProxy
from tests.support.link_parts import POST, Echo, Recorder, Sender, listen, until

from cloudtolocalllm.link import DialTarget, RefusedError, Stream, StreamHandler, Tunnel, TunnelClient, TunnelServer
from cloudtolocalllm.link.wire import MAX_MESSAGE
from cloudtolocalllm.tunnel import SUBPROTOCOL, GoAwayReason, Limits, RequestHead, ResetReason


class Rig:
    """A proxy's end, a bridge's end, and the network between them."""

    def __init__(self, server: TunnelServer, port: int, network: FaultProxy) -> None:
        self.server = server
        self.port = port
        self.network = network
        self.handlers: list[Recorder] = []
        self.make: Callable[[RequestHead, Stream], Recorder] = Echo
        self.clients: list[tuple[TunnelClient, asyncio.Task[None]]] = []

    def accept(self, head: RequestHead, stream: Stream) -> StreamHandler:
        handler = self.make(head, stream)
        handler.stream = stream
        self.handlers.append(handler)
        return handler

    async def bridge(self, bridge_id: str = "home", *, limits: Limits | None = None) -> TunnelClient:
        async def target() -> DialTarget:
            return DialTarget(f"ws://127.0.0.1:{self.network.port}/{bridge_id}", {"Authorization": "Bearer x"})

        client = TunnelClient(target, self.accept, limits=limits)
        task = asyncio.get_running_loop().create_task(client.run())
        self.clients.append((client, task))
        await until(lambda: any(tunnel.attached for tunnel in self.server.tunnels(bridge_id)))
        return client

    def tunnel(self, bridge_id: str = "home") -> Tunnel:
        return self.server.tunnels(bridge_id)[0]

    def send(self, content: bytes, answer: Recorder, *, tunnel: Tunnel | None = None) -> Sender:
        answer.stream = (tunnel or self.tunnel()).open(POST, answer)
        sender = Sender(answer.stream, content)
        answer.pump = sender.pump
        sender.pump()
        return sender

    async def stop(self) -> None:
        for _, task in self.clients:
            task.cancel()
        for _, task in self.clients:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.server.close(GoAwayReason.SHUTDOWN, 0.1)


@contextlib.asynccontextmanager
async def rig_with(limits: Limits | None = None) -> AsyncIterator[Rig]:
    server = TunnelServer(limits=limits)
    listener, port = await listen(server)
    async with FaultProxy("127.0.0.1", port) as network:
        rig = Rig(server, port, network)
        try:
            yield rig
        finally:
            await rig.stop()
            listener.close()
            await listener.wait_closed()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rig_with() as rig:
        yield rig


CONTENT = random.Random(7).randbytes(2 * 1024 * 1024)


async def test_two_megabytes_pass_both_ways_at_once(rig: Rig) -> None:
    await rig.bridge()
    answers = [Recorder() for _ in range(3)]
    for answer in answers:
        rig.send(CONTENT, answer)
    for answer in answers:
        await asyncio.wait_for(answer.done.wait(), 20)
        assert bytes(answer.data) == CONTENT
    assert rig.tunnel().open_streams == 0


async def test_fifty_cuts_at_random_lose_and_repeat_nothing(rig: Rig) -> None:
    client = await rig.bridge()
    answer = Recorder()
    rng = random.Random(11)
    rig.network.up.bytes_per_second = 30_000_000
    stream = answer.stream = rig.tunnel().open(POST, answer)
    sender = Sender(stream, CONTENT, chunk=4096)
    step = len(CONTENT) // 50
    cuts = 0
    for part in range(50):
        while sender.sent < (part + 1) * step:
            sender_limit = min((part + 1) * step, len(CONTENT))
            size = min(stream.window, 4096, sender_limit - sender.sent)
            if size:
                stream.send_data(CONTENT[sender.sent : sender.sent + size])
                sender.sent += size
            await asyncio.sleep(rng.uniform(0, 0.0002))
        cuts += bool(rig.network.cut("rst" if rng.random() < 0.7 else "fin"))
    answer.pump = sender.pump
    sender.pump()
    await asyncio.wait_for(answer.done.wait(), 30)
    assert answer.reset is None
    assert bytes(answer.data) == CONTENT
    assert cuts > 10, "the connection was up at most of the cuts"
    assert rig.tunnel().epoch > 10
    assert client.tunnel.open_streams == 0


def test_it_works_on_asyncios_own_loop() -> None:
    """As on macOS and Windows, where there is no uvloop."""

    async def transfer() -> None:
        async with rig_with() as rig:
            await rig.bridge()
            answer = Recorder()
            rig.send(CONTENT, answer)
            await asyncio.sleep(0.01)
            rig.network.cut()
            await asyncio.wait_for(answer.done.wait(), 20)
            assert bytes(answer.data) == CONTENT

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(transfer())


async def test_a_killed_connection_is_resumed_well_under_a_second(rig: Rig) -> None:
    await rig.bridge()
    answer = Recorder()
    answer.stream = stream = rig.tunnel().open(POST, answer)
    stream.send_data(b"one ")
    await until(lambda: bytes(answer.data) == b"one ")
    rig.network.cut()
    stream.send_data(b"two")
    await until(lambda: bytes(answer.data) == b"one two", 2.0)


async def test_a_client_that_stalls_bounds_what_its_stream_holds(rig: Rig) -> None:
    await rig.bridge()
    stalled, brisk = Recorder(granting=False), Recorder()
    sender = rig.send(CONTENT, stalled)
    rig.send(CONTENT, brisk)
    await asyncio.wait_for(brisk.done.wait(), 20)
    assert bytes(brisk.data) == CONTENT, "another stream of the same tunnel is not held up"
    window = Limits().window
    assert len(stalled.data) == window
    assert sender.sent <= 3 * window, "one window each way, and one between them at the bridge"
    stalled.grant()
    await asyncio.wait_for(stalled.done.wait(), 20)
    assert bytes(stalled.data) == CONTENT


async def test_a_network_that_stalls_bounds_what_is_buffered(rig: Rig) -> None:
    client = await rig.bridge()
    rig.network.up.stalled = True
    produced = 0

    class Gushing(Recorder):
        def __init__(self, head: RequestHead, stream: Stream) -> None:
            super().__init__()
            self.stream = stream
            Echo(head, stream)  # for the response head

        def on_writable(self) -> None:
            nonlocal produced
            assert self.stream is not None
            while size := self.stream.window:
                self.stream.send_data(b"x" * size)
                produced += size

        def on_end(self, trailers: object) -> None:
            self.on_writable()

    rig.make = Gushing
    answers = [Recorder() for _ in range(20)]
    for answer in answers:
        answer.stream = rig.tunnel().open(POST, answer)
        answer.stream.end()
    await until(lambda: produced >= 20 * Limits().window)
    await asyncio.sleep(0.2)
    assert produced == 20 * Limits().window, "a window a stream, whatever the network does"
    assert client.tunnel.open_streams == 20
    rig.network.up.stalled = False
    await until(lambda: produced > 40 * Limits().window)


async def test_an_old_connection_that_arrives_late_is_fenced(rig: Rig) -> None:
    await rig.bridge()
    answer = Recorder()
    answer.stream = stream = rig.tunnel().open(POST, answer)
    stream.send_data(b"a")
    await until(lambda: bytes(answer.data) == b"a")
    # The bridge loses its side only; the proxy keeps a connection that seems alive, until the new dial replaces it.
    rig.network.cut("rst", "client")
    await until(lambda: rig.tunnel().epoch == 2)
    rig.network.release()
    stream.send_data(b"b")
    await until(lambda: bytes(answer.data) == b"ab")
    assert len(rig.server.tunnels()) == 1


async def test_a_bridge_that_restarts_gets_a_session_of_its_own(rig: Rig) -> None:
    await rig.bridge()
    old = rig.tunnel()
    held = Recorder()
    held.stream = old.open(POST, held)
    await until(lambda: held.heads != [])
    rig.network.cut("rst", "client")
    rig.clients[0][1].cancel()
    await until(lambda: not old.attached or rig.clients[0][1].done())
    rig.network.release()
    await until(lambda: not old.attached)
    await rig.bridge()
    assert rig.tunnel() is not old
    fresh = Recorder()
    rig.send(b"hello", fresh)
    await asyncio.wait_for(fresh.done.wait(), 5)
    assert bytes(fresh.data) == b"hello"
    assert held.reset is None, "its stream waits for its own session"
    assert not old.ended


async def test_streams_are_lost_when_the_resume_window_is_over() -> None:
    async with rig_with(Limits(resume_window=0.2)) as rig:
        await rig.bridge()
        answer = Recorder()
        answer.stream = rig.tunnel().open(POST, answer)
        await until(lambda: answer.heads != [])
        rig.network.refusing = True
        rig.network.cut()
        await asyncio.wait_for(answer.done.wait(), 5)
        assert answer.reset is not None
        assert answer.reset[0] is ResetReason.SESSION_LOST
        assert rig.server.tunnels() == []
        rig.network.refusing = False
        await until(lambda: rig.server.attached_bridges() == ["home"])
        again = Recorder()
        rig.send(b"back", again)
        await asyncio.wait_for(again.done.wait(), 5)
        assert bytes(again.data) == b"back"


async def test_a_bridge_that_connects_and_says_nothing_is_dropped() -> None:
    async with rig_with(Limits(handshake_timeout=0.2)) as rig:
        reader, writer = await upgraded(rig.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert rig.server.tunnels() == []


async def test_a_proxy_that_says_nothing_is_dialled_again() -> None:
    async with rig_with(Limits(handshake_timeout=0.3)) as rig:
        rig.network.down.blackhole = True

        async def target() -> DialTarget:
            return DialTarget(f"ws://127.0.0.1:{rig.network.port}/home", {})

        client = TunnelClient(target, rig.accept, limits=Limits(handshake_timeout=0.3))
        rig.clients.append((client, asyncio.get_running_loop().create_task(client.run())))
        await until(lambda: rig.network.accepted >= 2)
        rig.network.down.blackhole = False
        await until(lambda: rig.server.attached_bridges() == ["home"])


async def test_a_dead_link_is_noticed_by_pings() -> None:
    limits = Limits(ping_interval=0.1, ping_misses=2)
    async with rig_with(limits) as rig:
        await rig.bridge(limits=limits)
        rig.network.up.blackhole = rig.network.down.blackhole = True
        await until(lambda: not rig.tunnel().attached, 5)
        rig.network.up.blackhole = rig.network.down.blackhole = False
        await until(lambda: rig.tunnel().attached, 5)


async def test_goaway_ends_the_client_once_its_streams_have_ended(rig: Rig) -> None:
    await rig.bridge()
    answer = Recorder()
    answer.stream = stream = rig.tunnel().open(POST, answer)
    await until(lambda: answer.heads != [])
    closing = asyncio.get_running_loop().create_task(rig.server.close(GoAwayReason.SHUTDOWN, 10))
    task = rig.clients[0][1]
    await asyncio.sleep(0.1)
    assert not task.done()
    assert not closing.done()
    stream.send_data(b"last words")
    stream.end()
    await asyncio.wait_for(closing, 5)
    await asyncio.wait_for(task, 5)
    assert bytes(answer.data) == b"last words"


async def test_a_client_that_closes_finishes_its_streams_and_says_goodbye(rig: Rig) -> None:
    client = await rig.bridge()
    answer = Recorder()
    answer.stream = stream = rig.tunnel().open(POST, answer)
    await until(lambda: answer.heads != [])
    closing = asyncio.get_running_loop().create_task(client.close(grace=5))
    await asyncio.sleep(0.05)
    stream.send_data(b"done")
    stream.end()
    await asyncio.wait_for(closing, 5)
    await asyncio.wait_for(rig.clients[0][1], 5)
    await asyncio.wait_for(answer.done.wait(), 5)
    assert bytes(answer.data) == b"done"
    await until(lambda: rig.server.tunnels() == [])


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_that_dialling_cannot_mend_ends_the_client(status: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        writer.close()

    with pytest.raises(RefusedError) as refused:
        await dial_stub(answer)
    assert refused.value.status == status


async def test_a_relay_that_is_busy_is_dialled_again() -> None:
    seen = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        await reader.readuntil(b"\r\n\r\n")
        status = b"401 No" if seen == 3 else b"503 Later"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    with pytest.raises(RefusedError):
        await dial_stub(answer)
    assert seen == 3


async def dial_stub(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def target() -> DialTarget:
        return DialTarget(f"ws://127.0.0.1:{port}/", {})

    async with server:
        await asyncio.wait_for(TunnelClient(target, Echo).run(), 10)


# --- a foreign client ---------------------------------------------------------------------------------------------


async def upgraded(
    port: int, *, protocol: str = SUBPROTOCOL, options: str = "Upgrade"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(bytes(16)).decode()
    writer.write(
        f"GET /home HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: {options}\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b"101" not in head.splitlines()[0]:
        writer.close()
    assert b"101" in head.splitlines()[0], head
    assert f"sec-websocket-protocol: {SUBPROTOCOL}".encode() in head.lower()
    return reader, writer


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, claim: int | None = None) -> bytes:
    """A client's frame; the mask is zero. `claim` is a length other than the payload's."""
    size = len(payload) if claim is None else claim
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(1, b"text"), 1003),
        (frame(2, b"part", fin=False), 1003),
        (frame(0, b"rest"), 1002),
        (frame(2, b"compressed", rsv=4), 1002),
        (frame(3, b"unknown opcode"), 1002),
        (frame(2, b"", claim=MAX_MESSAGE + 1), 1009),
        (frame(2, b"\xff" * 64), 1002),
        (frame(2, b""), 1002),
    ],
    ids=["text", "fragment", "continuation", "rsv", "opcode", "too-big", "not-hello", "empty"],
)
async def test_what_is_no_tunnel_message_is_closed_with_its_code(rig: Rig, sent: bytes, code: int) -> None:
    reader, writer = await upgraded(rig.port)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer[0] == 0x88
    assert struct.unpack(">H", answer[2:4])[0] == code
    writer.close()
    await rig.bridge()  # and the server goes on


async def test_the_subprotocol_must_be_offered(rig: Rig) -> None:
    with pytest.raises(AssertionError, match="400"):
        await upgraded(rig.port, protocol="chat")
    _, writer = await upgraded(rig.port, protocol=f"chat, {SUBPROTOCOL}")
    writer.close()


async def test_upgrade_may_be_one_of_several_connection_options(rig: Rig) -> None:
    _, writer = await upgraded(rig.port, options="keep-alive, Upgrade")
    writer.close()


async def test_pings_are_answered_and_closing_is_polite(rig: Rig) -> None:
    reader, writer = await upgraded(rig.port)
    writer.write(frame(9, b"there?"))
    assert await reader.readexactly(8) == b"\x8a\x06there?"
    writer.write(frame(8, struct.pack(">H", 1000)))
    assert (await asyncio.wait_for(reader.read(), 5))[:1] == b"\x88"
    writer.close()
