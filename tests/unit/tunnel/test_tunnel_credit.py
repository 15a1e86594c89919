"""Credit, fairness and the bounds on memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tunnel_pair import Pair, connected, received_data, split_frames, unacked_data

from cloudtolocalllm.tunnel import (
    MAX_PAYLOAD,
    CreditExceededError,
    DataReceived,
    Limits,
    LocalError,
    RemoteError,
    RequestHead,
    ResetReason,
    ResponseHead,
    Writable,
)
from cloudtolocalllm.tunnel.frames import ACK, CREDIT, DATA, END, HEADER, HEADER_BYTES
from cloudtolocalllm.tunnel.limits import QUANTUM

POST = RequestHead("POST", "/")
KIB = 1024


def streaming(pair: Pair) -> int:
    """Open a stream whose response has begun."""
    stream_id = pair.proxy.session.open_stream(POST)
    pair.settle()
    pair.bridge.session.send_head(stream_id, ResponseHead(200))
    pair.settle()
    pair.proxy.take_events()
    pair.bridge.take_events()
    return stream_id


def data_frames(message: bytes) -> list[tuple[int, int]]:
    """Return stream and size of each DATA frame."""
    headers = [HEADER.unpack_from(frame) for frame in split_frames(message)]
    return [(stream_id, length) for kind, _, stream_id, length in headers if kind == DATA]


def test_no_more_than_the_window_can_be_queued() -> None:
    pair = connected(Limits(window=1000))
    bridge, stream_id = pair.bridge.session, streaming(pair)
    bridge.send_data(stream_id, bytes(600))
    assert bridge.window(stream_id) == 400
    with pytest.raises(CreditExceededError, match=r"^expected at most 400 bytes on stream 1, got 401$"):
        bridge.send_data(stream_id, bytes(401))
    bridge.send_data(stream_id, bytes(400))
    assert bridge.window(stream_id) == 0
    bridge.send_data(stream_id, b"")


def test_credit_comes_back_in_steps_and_makes_the_stream_writable() -> None:
    pair = connected(Limits(window=1000))
    bridge, proxy, stream_id = pair.bridge.session, pair.proxy.session, streaming(pair)
    bridge.send_data(stream_id, bytes(1000))
    pair.settle()
    proxy.consumed(stream_id, 499)
    pair.settle()
    assert pair.bridge.take_events() == []
    proxy.consumed(stream_id, 1)
    pair.settle()
    assert pair.bridge.take_events() == [Writable(stream_id)]
    assert bridge.window(stream_id) == 500
    proxy.consumed(stream_id, 500)
    pair.settle()
    assert pair.bridge.take_events() == []
    assert bridge.window(stream_id) == 1000


def test_credit_for_the_same_bytes_twice_is_refused() -> None:
    pair = connected(Limits(window=1000))
    stream_id = streaming(pair)
    pair.bridge.session.send_data(stream_id, bytes(500))
    pair.settle()
    pair.proxy.session.consumed(stream_id, 500)
    pair.settle()
    with pytest.raises(RemoteError, match=r"^expected at most 0 bytes of CREDIT on stream 1, got 500$"):
        pair.bridge.session.receive_data(HEADER.pack(CREDIT, 0, stream_id, 4) + (500).to_bytes(4, "big"), pair.now)


def test_consuming_more_than_came() -> None:
    pair = connected()
    stream_id = streaming(pair)
    pair.bridge.session.send_data(stream_id, bytes(10))
    pair.settle()
    with pytest.raises(LocalError, match=r"^expected at most 10 consumed bytes on stream 1, got 11$"):
        pair.proxy.session.consumed(stream_id, 11)
    with pytest.raises(LocalError):
        pair.proxy.session.consumed(stream_id, -1)
    pair.proxy.session.consumed(99, 5)  # finished streams and unknown ones are alike: nothing to grant


def test_an_ack_goes_before_the_credit_that_it_covers() -> None:
    pair = connected(Limits(window=1000))
    stream_id = streaming(pair)
    pair.bridge.session.send_data(stream_id, bytes(500))
    pair.settle()
    pair.proxy.session.consumed(stream_id, 500)
    message = pair.proxy.session.data_to_send()
    assert message is not None
    assert [frame[0] for frame in split_frames(message)] == [ACK, CREDIT]


def test_a_stalled_reader_stops_its_own_producer_only() -> None:
    pair = connected(Limits(window=1000))
    stalled, live = streaming(pair), streaming(pair)
    bridge = pair.bridge.session
    bridge.send_data(stalled, bytes(1000))
    pair.settle()
    for _ in range(10):
        bridge.send_data(live, bytes(1000))
        pair.settle()
        pair.proxy.session.consumed(live, 1000)
        pair.settle()
    assert bridge.window(stalled) == 0
    assert bridge.window(live) == 1000


def test_large_data_is_cut_into_frames() -> None:
    pair = connected()
    stream_id = streaming(pair)
    data = bytes(range(256)) * 1024
    pair.bridge.session.send_data(stream_id, data)
    pair.bridge.session.end_stream(stream_id)
    message = pair.bridge.session.data_to_send(10**9)
    assert message is not None
    assert data_frames(message) == [(stream_id, MAX_PAYLOAD)] * 4
    assert [frame[0] for frame in split_frames(message)] == [DATA] * 4 + [END]
    pair.proxy.session.receive_data(message, pair.now)
    assert received_data(pair.proxy.session.events_received(), stream_id) == data


def test_chunks_pass_as_they_came() -> None:
    pair = connected()
    stream_id = streaming(pair)
    chunks = [b"a", b"bb", b"ccc"]
    for chunk in chunks:
        pair.bridge.session.send_data(stream_id, chunk)
    pair.settle()
    assert pair.proxy.take_events() == [DataReceived(stream_id, chunk) for chunk in chunks]


def test_messages_grow_to_about_the_size_asked_for() -> None:
    pair = connected()
    stream_id = streaming(pair)
    for _ in range(100):
        pair.bridge.session.send_data(stream_id, bytes(100))
    message = pair.bridge.session.data_to_send(1)
    assert message is not None
    assert len(message) == HEADER_BYTES + 100
    message = pair.bridge.session.data_to_send(1000)
    assert message is not None
    assert 1000 <= len(message) <= 1000 + HEADER_BYTES + 100


@given(st.integers(1, 8), st.integers(1, 3000), st.integers(1, 40_000))
def test_a_backlog_delays_another_stream_by_one_quantum_each(backlogs: int, small: int, max_bytes: int) -> None:
    pair = connected()
    bridge = pair.bridge.session
    heavy = [streaming(pair) for _ in range(backlogs)]
    light = streaming(pair)
    for stream_id in heavy:
        bridge.send_data(stream_id, bytes(200 * KIB))
    bridge.data_to_send(max_bytes)  # the round is somewhere in the middle
    bridge.send_data(light, bytes(small))
    before = 0
    while True:
        message = bridge.data_to_send(max_bytes)
        assert message is not None
        frames = data_frames(message)
        position = next((index for index, (stream_id, _) in enumerate(frames) if stream_id == light), None)
        before += sum(length for _, length in frames[:position])
        if position is not None:
            break
    assert before <= backlogs * QUANTUM


def test_equal_backlogs_share_the_wire_equally() -> None:
    pair = connected()
    bridge = pair.bridge.session
    many_small, few_large, odd = streaming(pair), streaming(pair), streaming(pair)
    for _ in range(2000):
        bridge.send_data(many_small, bytes(100))
    bridge.send_data(few_large, bytes(200_000))
    for _ in range(20):
        bridge.send_data(odd, bytes(10_000))
    sent = dict.fromkeys((many_small, few_large, odd), 0)
    message = bridge.data_to_send(300_000)
    assert message is not None
    for stream_id, length in data_frames(message):
        sent[stream_id] += length
    assert max(sent.values()) - min(sent.values()) <= 2 * QUANTUM


def test_order_within_a_stream_is_kept_under_contention() -> None:
    pair = connected()
    bridge = pair.bridge.session
    streams = [streaming(pair) for _ in range(3)]
    want = {stream_id: bytes([stream_id]) * 50_000 + b"end" for stream_id in streams}
    for stream_id in streams:
        bridge.send_data(stream_id, want[stream_id][:20_000])
        bridge.send_data(stream_id, want[stream_id][20_000:])
        bridge.end_stream(stream_id)
    pair.max_bytes = 30_000
    pair.settle()
    events = pair.proxy.take_events()
    assert {stream_id: received_data(events, stream_id) for stream_id in streams} == want


def test_a_reset_goes_before_the_backlog_of_others() -> None:
    pair = connected()
    bridge = pair.bridge.session
    first, second = streaming(pair), streaming(pair)
    bridge.send_data(first, bytes(200_000))
    bridge.send_data(second, bytes(200_000))
    bridge.reset_stream(second, ResetReason.ENGINE_ERROR)
    message = bridge.data_to_send()
    assert message is not None
    kinds = [(HEADER.unpack_from(frame)[0], HEADER.unpack_from(frame)[2]) for frame in split_frames(message)]
    assert kinds[0] == (20, second)
    assert {stream_id for kind, stream_id in kinds if kind == DATA} == {first}


def test_unacknowledged_frames_stop_the_sender() -> None:
    pair = connected(Limits(max_unacked_frames=10))
    bridge = pair.bridge.session
    stream_id = streaming(pair)
    pair.later(Limits().ack_delay)
    pair.settle()
    for _ in range(25):
        bridge.send_data(stream_id, b"x")
    pair.collect()
    assert len(bridge._out.replay.unacked) == 10
    for _ in range(3):
        pair.later(Limits().ack_delay)
        pair.settle()
    assert received_data(pair.proxy.take_events(), stream_id) == b"x" * 25


def test_unacknowledged_bytes_stop_the_sender_when_a_peer_grants_without_acknowledging() -> None:
    pair = connected(Limits(max_streams=1))
    bridge = pair.bridge.session
    stream_id = streaming(pair)
    for _ in range(30):
        if bridge.window(stream_id) >= 200 * KIB:
            bridge.send_data(stream_id, bytes(200 * KIB))
            while bridge.data_to_send() is not None:
                pass
        stream = bridge._streams[stream_id]
        if stream.in_flight:
            bridge.receive_data(HEADER.pack(CREDIT, 0, stream_id, 4) + stream.in_flight.to_bytes(4, "big"), pair.now)
    assert bridge.unacked_bytes <= 1024 * KIB + MAX_PAYLOAD + HEADER_BYTES


def test_many_tiny_chunks_in_a_queue_are_joined() -> None:
    pair = connected()
    bridge, stream_id = pair.bridge.session, streaming(pair)
    pair.cut()
    for _ in range(50_000):
        bridge.send_data(stream_id, b"tiny")
    assert len(bridge._streams[stream_id].queue) < 200
    pair.connect()
    pair.settle()
    assert received_data(pair.proxy.take_events(), stream_id) == b"tiny" * 50_000


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 400), st.booleans()), max_size=60))
def test_unacked_data_never_exceeds_the_window(steps: list[tuple[int, int, bool]]) -> None:
    pair = connected(Limits(window=500, ack_every_frames=1000, ack_every_bytes=10**6))
    streams = [streaming(pair) for _ in range(3)]
    bridge, proxy = pair.bridge.session, pair.proxy.session
    for index, size, consume in steps:
        stream_id = streams[index]
        size = min(size, bridge.window(stream_id))
        bridge.send_data(stream_id, bytes(size))
        pair.settle()
        if consume:
            proxy.consumed(stream_id, proxy._streams[stream_id].unconsumed)
        pair.settle()
        assert all(size <= 500 for size in unacked_data(bridge).values())
        assert bridge.unacked_bytes <= 3 * 500 + HEADER_BYTES * len(bridge._out.replay.unacked)
