"""A tunnel's two ends joined by wires in memory."""

import logging

import pytest
from picows import WSCloseCode
from tests.support.link_parts import OK, POST, Echo, MemoryWire, Recorder, Sender, turns

from cloudtolocalllm.link import Stream, StreamHandler, Tunnel
from cloudtolocalllm.link.wire import Wire
from cloudtolocalllm.tunnel import (
    GoAwayReason,
    Headers,
    Limits,
    LocalError,
    RequestHead,
    ResetReason,
    ResponseHead,
    Role,
    Session,
    StreamClosedError,
)

SESSION_ID = bytes(range(16))


class Life:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tunnel_attached(self, tunnel: Tunnel, resumed: bool) -> None:
        self.told.append("resumed" if resumed else "attached")

    def tunnel_detached(self, tunnel: Tunnel) -> None:
        self.told.append("detached")

    def tunnel_drained(self, tunnel: Tunnel) -> None:
        self.told.append("drained")

    def tunnel_ended(self, tunnel: Tunnel, detail: str) -> None:
        self.told.append("ended")


class First:
    """Attaches the proxy's end with the first message, as the server does."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def wire_message(self, wire: Wire, message: bytes, last: bool) -> None:
        self._tunnel.attach(wire, message)

    def wire_writable(self, wire: Wire) -> None: ...

    def wire_lost(self, wire: Wire) -> None: ...


class Pair:
    """A proxy's and a bridge's tunnel."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.handlers: list[StreamHandler] = []
        self.streams: list[Stream] = []
        self.make: type[Echo] | None = Echo
        self.proxy_life, self.bridge_life = Life(), Life()
        self.proxy = Tunnel(Session(Role.PROXY, SESSION_ID, limits=limits), self.proxy_life)
        self.bridge = Tunnel(Session(Role.BRIDGE, SESSION_ID, limits=limits), self.bridge_life, self.accept)
        self.wires = MemoryWire.pair()

    def accept(self, head: RequestHead, stream: Stream) -> StreamHandler:
        handler = Recorder() if self.make is None else self.make(head, stream)
        handler.stream = stream
        self.streams.append(stream)
        self.handlers.append(handler)
        return handler

    async def join(self) -> None:
        """Connect, as after a dial."""
        self.wires = MemoryWire.pair()
        proxy_end, bridge_end = self.wires
        proxy_end.owner = First(self.proxy)
        self.bridge.attach(bridge_end)
        await turns()

    def open(self, handler: Recorder) -> Stream:
        handler.stream = self.proxy.open(POST, handler)
        return handler.stream


@pytest.fixture
async def pair() -> Pair:
    pair = Pair()
    await pair.join()
    assert pair.proxy.attached
    assert pair.bridge.attached
    return pair


async def test_a_request_and_its_answer_pass_both_ways(pair: Pair) -> None:
    answer = Recorder()
    stream = pair.open(answer)
    stream.send_data(b"hello ")
    stream.send_data(b"home")
    stream.end()
    await turns()
    assert answer.heads == [OK]
    assert bytes(answer.data) == b"hello home"
    assert answer.trailers == ()
    assert pair.proxy.open_streams == 0
    assert pair.bridge.open_streams == 0


async def test_what_is_sent_in_one_turn_is_one_message(pair: Pair) -> None:
    stream = pair.open(Recorder())
    before = len(pair.wires[0].sent)
    for _ in range(50):
        stream.send_data(b"token ")
    await turns(1)
    assert len(pair.wires[0].sent) == before + 1


async def test_more_than_the_window_waits_for_credit_and_arrives_whole(pair: Pair) -> None:
    answer = Recorder()
    stream = pair.open(answer)
    content = bytes(range(256)) * 8192  # 2 MiB, eight windows
    sender = Sender(stream, content)
    answer.pump = sender.pump
    sender.pump()
    for _ in range(200):
        await turns()
        if answer.trailers is not None:
            break
    assert bytes(answer.data) == content
    assert answer.writable > 0


async def test_a_full_wire_takes_nothing_more_from_the_session(pair: Pair) -> None:
    pair.wires[1].stalled = True
    senders = []
    for _ in range(4):
        stream = pair.open(Recorder())
        senders.append(Sender(stream, b"x" * 200_000, end=False))
        senders[-1].pump()
    before = sum(map(len, pair.wires[0].sent))
    await turns()
    taken = sum(map(len, pair.wires[0].sent)) - before
    assert 0 < taken < 200_000, "one message goes out and fills the transport; the rest stays in the session"
    assert pair.wires[0].paused


async def test_streams_share_a_wire_that_was_full(pair: Pair) -> None:
    pair.make = None
    answers = [Recorder() for _ in range(4)]
    pair.wires[1].stalled = True
    for answer in answers:
        Sender(pair.open(answer), b"x" * 200_000).pump()
    await turns()
    pair.wires[1].release()
    await turns(3)
    received = [len(h.data) for h in pair.handlers if isinstance(h, Recorder)]
    assert len(received) == 4
    assert max(received) - min(received) <= 64 * 1024, "deficit round robin: no stream is a whole message ahead"


async def test_streams_go_on_over_a_new_wire(pair: Pair) -> None:
    answer = Recorder()
    stream = pair.open(answer)
    stream.send_data(b"before ")
    pair.wires[0].cut()
    await turns()
    assert not pair.proxy.attached
    stream.send_data(b"while away ")
    await pair.join()
    stream.send_data(b"after")
    stream.end()
    await turns()
    assert bytes(answer.data) == b"before while away after"
    assert pair.proxy_life.told == ["attached", "detached", "resumed"]


async def test_a_stream_can_be_opened_while_detached(pair: Pair) -> None:
    pair.wires[0].cut()
    answer = Recorder()
    pair.open(answer).end()
    await pair.join()
    assert answer.heads == [OK]


async def test_a_new_wire_replaces_one_that_seems_alive(pair: Pair) -> None:
    old = pair.wires[0]
    answer = Recorder()
    stream = pair.open(answer)
    pair.wires[1].stalled = True  # half dead: nothing arrives, nothing is lost yet
    stream.send_data(b"kept")
    await turns()
    await pair.join()
    stream.end()
    await turns()
    assert old.aborted
    assert bytes(answer.data) == b"kept"
    pair.proxy.wire_message(old, b"rubbish from the old one", True)
    assert not pair.proxy.ended


async def test_nothing_is_told_after_our_own_reset(pair: Pair) -> None:
    answer = Recorder()
    stream = pair.open(answer)
    stream.send_data(b"hello")
    stream.reset(ResetReason.CANCELLED, "stop")
    await turns()
    assert answer.heads == []
    assert answer.reset is None
    stream.reset(ResetReason.CANCELLED)
    stream.consumed(5)
    assert stream.window == 0


async def test_a_reset_reaches_the_other_handler_with_its_reason(pair: Pair) -> None:
    answer = Recorder()
    stream = pair.open(answer)
    await turns()
    stream.reset(ResetReason.CANCELLED, "the client went away")
    await turns()
    bridge = pair.handlers[0]
    assert isinstance(bridge, Recorder)
    assert bridge.reset == (ResetReason.CANCELLED, "the client went away")
    assert pair.bridge.open_streams == 0


async def test_a_reset_in_the_same_message_as_data_is_no_fault_of_the_handler(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    class Replying(Echo):
        """Answers at once, although the session already knows that the stream is over."""

        def on_data(self, data: bytes) -> None:
            assert self.stream is not None
            self.stream.send_data(data)
            self.stream.end()

    pair.make = Replying
    proxy_end, bridge_end = pair.wires
    stream = pair.open(Recorder())
    await turns()
    stalled = proxy_end.sent[:]
    bridge_end.stalled = True
    stream.send_data(b"x")
    await turns()
    proxy_end.paused = False
    stream.reset(ResetReason.CANCELLED, "stop")
    await turns()
    both = b"".join(proxy_end.sent[len(stalled) :])
    pair.bridge.wire_message(bridge_end, both, True)
    bridge = pair.handlers[0]
    assert isinstance(bridge, Recorder)
    assert bridge.reset == (ResetReason.CANCELLED, "stop")
    assert caplog.text == ""
    assert bridge.stream is not None
    with pytest.raises(StreamClosedError):
        bridge.stream.send_data(b"too late")


async def test_a_handler_that_fails_costs_its_stream_only(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Recorder):
        def on_data(self, data: bytes) -> None:
            raise ZeroDivisionError("a bug")

    faulty, healthy = Faulty(), Recorder()
    bad, good = pair.open(faulty), pair.open(healthy)
    with caplog.at_level(logging.ERROR):
        bad.send_data(b"x")
        good.send_data(b"y")
        await turns()
    assert faulty.reset == (ResetReason.INTERNAL, "the handler failed")
    assert isinstance(pair.handlers[0], Recorder)
    assert pair.handlers[0].reset is not None
    assert pair.handlers[0].reset[0] is ResetReason.INTERNAL
    assert bytes(healthy.data) == b"y"
    assert "handler failed" in caplog.text


async def test_an_acceptor_that_fails_resets_the_stream(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Echo):
        def __init__(self, head: RequestHead, stream: Stream) -> None:
            raise ZeroDivisionError("a bug")

    pair.make = Broken
    answer = Recorder()
    pair.open(answer)
    with caplog.at_level(logging.ERROR):
        await turns()
    assert answer.reset is not None
    assert answer.reset[0] is ResetReason.INTERNAL
    assert pair.bridge.attached


async def test_a_peer_that_breaks_the_protocol_ends_the_session(pair: Pair) -> None:
    answer = Recorder()
    pair.open(answer)
    await turns()
    pair.proxy.wire_message(pair.wires[0], b"\xff" * 40, True)
    await turns()
    assert pair.proxy.ended
    assert pair.wires[0].closed is WSCloseCode.PROTOCOL_ERROR
    assert answer.reset is not None
    assert answer.reset[0] is ResetReason.SESSION_LOST
    assert pair.proxy_life.told[-2:] == ["ended", "detached"]
    with pytest.raises(LocalError):
        pair.proxy.open(POST, Recorder())


async def test_going_away_lets_streams_finish_and_takes_no_more(pair: Pair) -> None:
    answer = Recorder()
    stream = pair.open(answer)
    await turns()
    pair.proxy.go_away(GoAwayReason.SHUTDOWN)
    await turns()
    assert pair.bridge.going_away is GoAwayReason.SHUTDOWN
    assert "drained" not in pair.bridge_life.told
    with pytest.raises(LocalError):
        pair.proxy.open(POST, Recorder())
    stream.send_data(b"last words")
    stream.end()
    await turns()
    assert bytes(answer.data) == b"last words"
    assert "drained" in pair.bridge_life.told
    assert "drained" in pair.proxy_life.told


async def test_a_session_that_said_goodbye_is_not_kept(pair: Pair) -> None:
    pair.bridge.go_away(GoAwayReason.SHUTDOWN)
    await turns()
    with pytest.raises(LocalError):
        pair.open(Recorder())
    pair.wires[1].cut()
    await turns()
    assert pair.proxy.ended
    assert pair.proxy_life.told[-1] == "ended"


async def test_ending_tells_handlers_and_closes_the_wire(pair: Pair) -> None:
    answer = Recorder()
    pair.open(answer)
    await turns()
    pair.proxy.reset_streams(ResetReason.CANCELLED, "the proxy stops")
    pair.proxy.end("the proxy stops")
    await turns()
    assert answer.reset == (ResetReason.CANCELLED, "the proxy stops")
    bridge = pair.handlers[0]
    assert isinstance(bridge, Recorder)
    assert bridge.reset == (ResetReason.CANCELLED, "the proxy stops")
    assert pair.wires[0].closed is WSCloseCode.GOING_AWAY


async def test_heads_informational_ones_and_trailers_pass(pair: Pair) -> None:
    class Answering(Echo):
        def __init__(self, head: RequestHead, stream: Stream) -> None:
            Recorder.__init__(self)
            self.head, self.stream = head, stream
            stream.send_head(ResponseHead(103, ((b"link", b"</style.css>"),)))
            stream.send_head(OK)
            stream.send_data(b"body")
            stream.end(((b"x-checksum", b"1"),))

        def on_end(self, trailers: Headers) -> None:
            self.trailers = trailers

    pair.make = Answering
    answer = Recorder()
    pair.open(answer).end(((b"x-sent", b"2"),))
    await turns()
    assert [head.status for head in answer.heads] == [103, 200]
    assert answer.trailers == ((b"x-checksum", b"1"),)
    bridge = pair.handlers[0]
    assert isinstance(bridge, Recorder)
    assert bridge.trailers == ((b"x-sent", b"2"),)
