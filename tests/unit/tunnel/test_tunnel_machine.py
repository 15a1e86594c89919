"""Flow control, resumption and resets against a model, in any order that Hypothesis can think of."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.tunnel_pair import Pair, Side, connected, kept_state, split_frames, unacked_data

from cloudtolocalllm.tunnel import (
    DataReceived,
    EndReceived,
    Event,
    Limits,
    RequestHead,
    RequestReceived,
    ResetReason,
    ResponseHead,
    ResponseReceived,
    Session,
    StreamReset,
)

LIMITS = Limits(window=120, max_streams=4, max_unacked_frames=40, ack_every_frames=5, resume_window=1e9)
POST = RequestHead("POST", "/")


@dataclass
class Model:
    """What one stream should be, seen from outside."""

    sent: dict[str, bytes] = field(default_factory=lambda: {"proxy": b"", "bridge": b""})
    got: dict[str, bytes] = field(default_factory=lambda: {"proxy": b"", "bridge": b""})
    ended: set[str] = field(default_factory=set)
    end_seen: set[str] = field(default_factory=set)
    reset_by: set[str] = field(default_factory=set)
    reset_seen: set[str] = field(default_factory=set)
    head_sent: bool = False
    opened_at_bridge: int = 0
    heads_seen: int = 0

    @property
    def live(self) -> bool:
        """Whether nobody has reset it."""
        return not self.reset_by


class TunnelMachine(RuleBasedStateMachine):
    """Two sessions, a wire that loses, and a model of every stream."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair = connected(LIMITS)
        self.models: dict[int, Model] = {}
        self.up = True
        self.counter = 0

    def side(self, name: str) -> Side:
        return self.pair.proxy if name == "proxy" else self.pair.bridge

    def pick(self, index: int, fits: Callable[[Model], bool]) -> int | None:
        """Choose one of the streams that fit."""
        ids = [stream_id for stream_id, model in self.models.items() if fits(model)]
        return ids[index % len(ids)] if ids else None

    @staticmethod
    def can_send(name: str) -> Callable[[Model], bool]:
        def fits(model: Model) -> bool:
            begun = model.head_sent if name == "bridge" else True
            known = model.opened_at_bridge if name == "bridge" else True
            return bool(known and begun and name not in model.ended | model.reset_by | model.reset_seen)

        return fits

    # --- what owners do -------------------------------------------------------------------------------------

    @rule()
    def open(self) -> None:
        if self.pair.proxy.session.open_streams < LIMITS.max_streams:
            self.models[self.pair.proxy.session.open_stream(POST)] = Model()

    @rule(index=st.integers(0, 9))
    def begin_response(self, index: int) -> None:
        stream_id = self.pick(index, lambda m: bool(m.opened_at_bridge) and not m.head_sent and not m.reset_seen)
        if stream_id is not None and "bridge" not in self.models[stream_id].reset_by:
            self.pair.bridge.session.send_head(stream_id, ResponseHead(200))
            self.models[stream_id].head_sent = True

    @rule(index=st.integers(0, 9), name=st.sampled_from(["proxy", "bridge"]), size=st.sampled_from([1, 40, 90]))
    def send(self, index: int, name: str, size: int) -> None:
        stream_id = self.pick(index, self.can_send(name))
        if stream_id is not None:
            session = self.side(name).session
            self.counter += 1
            data = (self.counter.to_bytes(4, "big") * 23)[: min(size, session.window(stream_id))]
            session.send_data(stream_id, data)
            self.models[stream_id].sent[name] += data

    @rule(index=st.integers(0, 9), name=st.sampled_from(["proxy", "bridge"]))
    def end(self, index: int, name: str) -> None:
        stream_id = self.pick(index, self.can_send(name))
        if stream_id is not None:
            self.side(name).session.end_stream(stream_id)
            self.models[stream_id].ended.add(name)

    @rule(index=st.integers(0, 9), name=st.sampled_from(["proxy", "bridge"]))
    def reset(self, index: int, name: str) -> None:
        stream_id = self.pick(index, lambda m: m.live and (name == "proxy" or bool(m.opened_at_bridge)))
        if stream_id is not None and stream_id in self.side(name).session._streams:
            self.side(name).session.reset_stream(stream_id, ResetReason.CANCELLED)
            self.models[stream_id].reset_by.add(name)

    @rule(index=st.integers(0, 9), name=st.sampled_from(["proxy", "bridge"]), part=st.integers(1, 3))
    def consume(self, index: int, name: str, part: int) -> None:
        streams = self.side(name).session._streams
        if streams:
            stream_id = sorted(streams)[index % len(streams)]
            self.side(name).session.consumed(stream_id, streams[stream_id].unconsumed // part)

    # --- what the network does ------------------------------------------------------------------------------

    @precondition(lambda self: self.up)
    @rule(to_proxy=st.integers(0, 5), to_bridge=st.integers(0, 5), max_bytes=st.sampled_from([1, 60, 10_000]))
    def deliver(self, to_proxy: int, to_bridge: int, max_bytes: int) -> None:
        self.pair.max_bytes = max_bytes
        self.pair.collect()
        self.pair.deliver(self.pair.proxy, to_proxy)
        self.pair.deliver(self.pair.bridge, to_bridge)
        self.note_events()

    @precondition(lambda self: self.up)
    @rule()
    def deliver_and_consume_all(self) -> None:
        """A calm moment; without it half a window is rarely consumed, and CREDIT hardly ever flows."""
        self.pair.settle()
        self.note_events()
        for side, _ in self.pair.sides:
            for stream in list(side.session._streams.values()):
                side.session.consumed(stream.id, stream.unconsumed)

    @precondition(lambda self: self.up)
    @rule()
    def lose_connection(self) -> None:
        self.pair.cut()
        self.up = False
        self.note_events()

    @rule(burst=st.sampled_from([1, 2, 10**9]))
    def reconnect(self, burst: int) -> None:
        self.pair.burst = 10**9
        self.pair.connect()
        self.pair.burst = burst
        self.up = True

    @rule(seconds=st.sampled_from([0.1, Limits().ack_delay]))
    def pass_time(self, seconds: float) -> None:
        self.pair.later(seconds)

    # --- what must hold -------------------------------------------------------------------------------------

    def note_events(self) -> None:
        for name in ("proxy", "bridge"):
            for event in self.side(name).take_events():
                self.note(name, event)

    def note(self, name: str, event: Event) -> None:
        other = "bridge" if name == "proxy" else "proxy"
        if not hasattr(event, "stream_id"):
            return
        model = self.models[event.stream_id]
        assert name not in model.reset_by, "nothing is told of a stream after our own reset"
        assert name not in model.reset_seen, "nothing is told of a stream after its reset"
        if isinstance(event, DataReceived):
            assert name not in model.end_seen
            model.got[name] += event.data
            assert model.sent[other].startswith(model.got[name])
        elif isinstance(event, EndReceived):
            assert other in model.ended
            assert model.got[name] == model.sent[other]
            model.end_seen.add(name)
        elif isinstance(event, StreamReset):
            assert model.reset_by == {other}
            model.reset_seen.add(name)
        elif isinstance(event, RequestReceived):
            model.opened_at_bridge += 1
            assert model.opened_at_bridge == 1
        elif isinstance(event, ResponseReceived):
            model.heads_seen += 1
            assert model.heads_seen == 1

    @invariant()
    def memory_is_bounded(self) -> None:
        for side, _ in self.pair.sides:
            session = side.session
            assert all(size <= LIMITS.window for size in unacked_data(session).values())
            assert len(session._out.replay.unacked) <= LIMITS.max_unacked_frames
            for stream in session._streams.values():
                queued = sum(map(len, stream.queue))
                assert queued + stream.in_flight + stream.window == LIMITS.window
                assert stream.credit + stream.unconsumed + stream.to_grant <= LIMITS.window
            check_tally(session)

    def teardown(self) -> None:
        """Let everything arrive: what was not reset is complete, and nothing is kept."""
        self.pair.max_bytes = 10_000
        self.pair.burst = 10**9
        self.pair.connect()
        for _ in range(40):
            self.pair.settle()
            self.note_events()
            for side, _ in self.pair.sides:
                for stream in list(side.session._streams.values()):
                    side.session.consumed(stream.id, stream.unconsumed)
            self.pair.later(Limits().ack_delay)
        for stream_id, model in self.models.items():
            if model.live:
                assert model.got["bridge"] == model.sent["proxy"], stream_id
                assert model.got["proxy"] == model.sent["bridge"], stream_id
                assert model.end_seen == {"bridge" if name == "proxy" else "proxy" for name in model.ended}
        for side, _ in self.pair.sides:
            session = side.session
            lingering = len(session._out.reset_ids) + len(session._out._reset_numbers)  # until the next ACK
            assert kept_state(session) == session.open_streams + lingering


def check_tally(session: Session) -> None:
    """Check that the byte count of the replay is right."""
    replay = session._out.replay
    assert replay.unacked_bytes == sum(map(len, (*replay.unacked, *replay.pending)))


TunnelMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestTunnelMachine = TunnelMachine.TestCase


@given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=20), st.data())
def test_any_grouping_of_frames_into_messages_gives_the_same_events(chunks: list[bytes], data: st.DataObject) -> None:
    def run(group: bool) -> list[Event]:
        pair = connected()
        stream_id = pair.proxy.session.open_stream(POST)
        pair.settle()
        bridge = pair.bridge.session
        bridge.send_head(stream_id, ResponseHead(103))
        bridge.send_head(stream_id, ResponseHead(200))
        for chunk in chunks:
            bridge.send_data(stream_id, chunk)
        bridge.end_stream(stream_id, ((b"a", b"b"),))
        pair.collect()
        frames = [part for message in pair.proxy.inbox for part in split_frames(message)]
        while frames:
            count = data.draw(st.integers(1, len(frames))) if group else 1
            pair.proxy.session.receive_data(b"".join(frames[:count]), pair.now)
            del frames[:count]
        return pair.proxy.take_events()

    assert run(group=True) == run(group=False)
