"""A stream's life: heads, bodies, ends, resets, and what the owner may not do."""

from collections.abc import Callable

import pytest
from tests.support.tunnel_pair import SESSION_ID, Pair, connected, kept_state

from cloudtolocalllm.tunnel import (
    DataReceived,
    EndReceived,
    GoAwayReason,
    GoAwayReceived,
    Limits,
    LocalError,
    RequestHead,
    RequestReceived,
    ResetReason,
    ResponseHead,
    ResponseReceived,
    Role,
    Session,
    StreamClosedError,
    StreamReset,
)

GET = RequestHead("GET", "/v1/models", ((b"host", b"home"),))
POST = RequestHead("POST", "/v1/chat/completions")
OK = ResponseHead(200, ((b"content-type", b"text/plain"),))


def opened(pair: Pair) -> int:
    """Open a stream and bring it to the bridge."""
    stream_id = pair.proxy.session.open_stream(POST)
    pair.settle()
    pair.bridge.take_events()
    return stream_id


def test_a_request_and_its_response() -> None:
    pair = connected()
    proxy, bridge = pair.proxy.session, pair.bridge.session
    stream_id = proxy.open_stream(GET)
    proxy.send_data(stream_id, b"body")
    proxy.end_stream(stream_id, ((b"checksum", b"1"),))
    pair.settle()
    assert pair.bridge.take_events() == [
        RequestReceived(stream_id, GET),
        DataReceived(stream_id, b"body"),
        EndReceived(stream_id, ((b"checksum", b"1"),)),
    ]
    bridge.send_head(stream_id, ResponseHead(103))
    bridge.send_head(stream_id, OK)
    bridge.send_data(stream_id, b"one")
    bridge.send_data(stream_id, b"two")
    bridge.end_stream(stream_id, ((b"took", b"3"),))
    pair.settle()
    assert pair.proxy.take_events() == [
        ResponseReceived(stream_id, ResponseHead(103)),
        ResponseReceived(stream_id, OK),
        DataReceived(stream_id, b"one"),
        DataReceived(stream_id, b"two"),
        EndReceived(stream_id, ((b"took", b"3"),)),
    ]
    assert proxy.open_streams == bridge.open_streams == 0


def test_a_response_may_end_before_its_request() -> None:
    pair = connected()
    proxy, bridge = pair.proxy.session, pair.bridge.session
    stream_id = opened(pair)
    bridge.send_head(stream_id, OK)
    bridge.end_stream(stream_id)
    pair.settle()
    assert proxy.open_streams == bridge.open_streams == 1
    proxy.send_data(stream_id, b"still going")
    proxy.end_stream(stream_id)
    pair.settle()
    assert pair.bridge.take_events() == [DataReceived(stream_id, b"still going"), EndReceived(stream_id)]
    assert proxy.open_streams == bridge.open_streams == 0


def test_ids_rise_and_are_not_used_again() -> None:
    pair = connected()
    ids = []
    for _ in range(3):
        ids.append(pair.proxy.session.open_stream(GET))
        pair.proxy.session.reset_stream(ids[-1], ResetReason.CANCELLED)
    assert ids == [1, 2, 3]


@pytest.mark.parametrize("by_proxy", [True, False])
def test_a_reset_ends_both_halves_at_once_and_drops_what_is_queued(by_proxy: bool) -> None:
    pair = connected()
    stream_id = opened(pair)
    pair.bridge.session.send_head(stream_id, OK)
    pair.settle()
    pair.proxy.take_events()
    ours, theirs = (pair.proxy, pair.bridge) if by_proxy else (pair.bridge, pair.proxy)
    ours.session.send_data(stream_id, b"never sent")
    ours.session.reset_stream(stream_id, ResetReason.ENGINE_ERROR, "it broke off")
    assert ours.session.open_streams == 0
    assert ours.session.window(stream_id) == 0
    pair.settle()
    assert theirs.take_events() == [StreamReset(stream_id, ResetReason.ENGINE_ERROR, "it broke off")]
    assert theirs.session.open_streams == 0
    ours.session.reset_stream(stream_id, ResetReason.CANCELLED)
    pair.settle()
    assert theirs.take_events() == []


def test_frames_that_cross_with_a_reset_are_dropped() -> None:
    pair = connected()
    stream_id = opened(pair)
    pair.bridge.session.send_head(stream_id, OK)
    pair.bridge.session.send_data(stream_id, b"on its way")
    pair.bridge.session.end_stream(stream_id)
    pair.proxy.session.reset_stream(stream_id, ResetReason.CANCELLED)
    pair.settle()
    assert pair.proxy.take_events() == []
    assert pair.bridge.take_events() == [StreamReset(stream_id, ResetReason.CANCELLED)]
    # They were counted all the same: what comes next is understood.
    again = opened(pair)
    pair.bridge.session.send_head(again, OK)
    pair.settle()
    assert pair.proxy.take_events() == [ResponseReceived(again, OK)]


def test_a_reset_that_crosses_with_the_end_is_ignored() -> None:
    pair = connected()
    stream_id = opened(pair)
    pair.proxy.session.end_stream(stream_id)
    pair.settle()
    pair.bridge.take_events()
    pair.bridge.session.send_head(stream_id, OK)
    pair.bridge.session.end_stream(stream_id)
    pair.collect()  # at the bridge the stream is finished; the proxy has not heard of it
    pair.proxy.session.reset_stream(stream_id, ResetReason.CANCELLED)
    pair.settle()
    assert pair.bridge.take_events() == []


def test_a_stream_reset_before_its_open_was_sent_leaves_nothing() -> None:
    pair = connected()
    before = kept_state(pair.proxy.session)
    stream_id = pair.proxy.session.open_stream(POST)
    pair.proxy.session.send_data(stream_id, b"x")
    pair.proxy.session.reset_stream(stream_id, ResetReason.CANCELLED)
    assert kept_state(pair.proxy.session) == before
    assert pair.proxy.session.data_to_send() is None


def test_opens_beyond_the_limit_are_refused_by_the_bridge() -> None:
    pair = connected(Limits(max_streams=2))
    first, second = opened(pair), opened(pair)
    with pytest.raises(LocalError, match=r"^expected fewer than 2 open streams, got 2$"):
        pair.proxy.session.open_stream(GET)
    # The proxy has reset one and may open another; at a bridge that counts them otherwise, it is refused.
    pair.bridge.session._max_streams = 1
    pair.proxy.session.reset_stream(first, ResetReason.CANCELLED)
    third = pair.proxy.session.open_stream(GET)
    pair.settle()
    assert pair.proxy.take_events() == [StreamReset(third, ResetReason.REFUSED)]
    pair.bridge.session.send_head(second, OK)
    pair.settle()
    assert pair.proxy.take_events() == [ResponseReceived(second, OK)]


def test_the_smaller_limits_hold() -> None:
    pair = connected(Limits(window=1000, max_streams=5), proxy_limits=Limits(window=5000, max_streams=2))
    stream_id = opened(pair)
    assert pair.proxy.session.window(stream_id) == 1000
    opened(pair)
    with pytest.raises(LocalError):
        pair.proxy.session.open_stream(GET)


def test_going_away() -> None:
    pair = connected()
    running = opened(pair)
    pair.bridge.session.go_away(GoAwayReason.SHUTDOWN)
    crossing = pair.proxy.session.open_stream(GET)
    pair.settle()
    assert pair.proxy.take_events() == [
        GoAwayReceived(GoAwayReason.SHUTDOWN),
        StreamReset(crossing, ResetReason.REFUSED),
    ]
    with pytest.raises(
        LocalError, match=r"^expected a session that takes streams, got one that is going away \(SHUTDOWN\)$"
    ):
        pair.proxy.session.open_stream(GET)
    pair.bridge.session.send_head(running, OK)
    pair.settle()
    assert pair.proxy.take_events() == [ResponseReceived(running, OK)]


def test_going_away_is_told_again_on_the_next_connection() -> None:
    pair = connected()
    pair.cut()
    pair.proxy.session.go_away(GoAwayReason.IDLE)
    with pytest.raises(LocalError):
        pair.proxy.session.open_stream(GET)
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events()[-1] == GoAwayReceived(GoAwayReason.IDLE)


def test_a_proxy_opens_nothing_before_the_first_hello() -> None:
    session = Session(Role.PROXY, SESSION_ID)
    with pytest.raises(
        LocalError, match=r"^expected a session that was attached, got one that never was: wait for Attached$"
    ):
        session.open_stream(GET)


def test_calls_of_the_wrong_role() -> None:
    pair = connected()
    stream_id = opened(pair)
    with pytest.raises(LocalError, match=r"^expected the proxy to open streams, got a call at the bridge$"):
        pair.bridge.session.open_stream(GET)
    with pytest.raises(LocalError, match=r"^expected the bridge to send heads, got a call at the proxy$"):
        pair.proxy.session.send_head(stream_id, OK)


def test_calls_in_the_wrong_state() -> None:
    pair = connected()
    stream_id = opened(pair)
    bridge, proxy = pair.bridge.session, pair.proxy.session
    with pytest.raises(LocalError, match=r"^expected no data on stream 1, which is awaiting its head$"):
        bridge.send_data(stream_id, b"x")
    with pytest.raises(LocalError, match=r"^expected no end on stream 1, which is awaiting its head$"):
        bridge.end_stream(stream_id)
    bridge.send_head(stream_id, OK)
    with pytest.raises(LocalError, match=r"^expected no final head on stream 1, which is in its body$"):
        bridge.send_head(stream_id, OK)
    bridge.end_stream(stream_id)
    calls: list[Callable[[], None]] = [
        lambda: bridge.send_data(stream_id, b"x"),
        lambda: bridge.end_stream(stream_id),
        lambda: bridge.send_head(stream_id, OK),
    ]
    for call in calls:
        with pytest.raises(StreamClosedError, match=r"on stream 1, which is complete$"):
            call()
    assert bridge.window(stream_id) == 0
    proxy.reset_stream(stream_id, ResetReason.CANCELLED)
    with pytest.raises(
        StreamClosedError, match=r"^expected an open stream, got stream 1, which has ended or never was$"
    ):
        proxy.send_data(stream_id, b"x")
    with pytest.raises(StreamClosedError):
        proxy.end_stream(77)


def test_session_lost_is_never_sent() -> None:
    pair = connected()
    with pytest.raises(LocalError, match=r"^expected a reason that goes on the wire, got SESSION_LOST$"):
        pair.proxy.session.reset_stream(opened(pair), ResetReason.SESSION_LOST)


def test_informational_heads_are_bounded() -> None:
    pair = connected()
    stream_id = opened(pair)
    for _ in range(16):
        pair.bridge.session.send_head(stream_id, ResponseHead(102))
    with pytest.raises(LocalError, match=r"^expected at most 16 informational heads, got more$"):
        pair.bridge.session.send_head(stream_id, ResponseHead(102))
    pair.bridge.session.send_head(stream_id, OK)
    pair.settle()
    assert len(pair.proxy.take_events()) == 17


def test_a_malformed_head_changes_nothing() -> None:
    pair = connected()
    with pytest.raises(LocalError):
        pair.proxy.session.open_stream(RequestHead("GET", "/", ((b"Te", b""),)))
    assert pair.proxy.session.open_streams == 0
    stream_id = opened(pair)
    with pytest.raises(LocalError):
        pair.bridge.session.send_head(stream_id, ResponseHead(200, ((b"upgrade", b"x"),)))
    pair.bridge.session.send_head(stream_id, OK)
    with pytest.raises(LocalError):
        pair.bridge.session.end_stream(stream_id, ((b"te", b"x"),))
    pair.bridge.session.end_stream(stream_id)


def test_ten_thousand_tiny_streams_leave_no_state() -> None:
    pair = connected()
    proxy, bridge = pair.proxy.session, pair.bridge.session
    most = 0
    for number in range(10_000):
        stream_id = proxy.open_stream(GET)
        if number % 3 == 0:
            proxy.end_stream(stream_id)
        pair.settle()
        bridge.send_head(stream_id, OK)
        bridge.send_data(stream_id, b"tiny")
        bridge.end_stream(stream_id)
        if number % 3 == 1:
            proxy.reset_stream(stream_id, ResetReason.CANCELLED)
        pair.settle()
        if number % 3 == 2:
            bridge.reset_stream(stream_id, ResetReason.TIMED_OUT)
            pair.settle()
        pair.bridge.take_events()
        pair.proxy.take_events()
        most = max(most, kept_state(proxy), kept_state(bridge))
    pair.later(Limits().ack_delay)
    pair.settle()
    pair.later(Limits().ack_delay)
    pair.settle()
    assert proxy.open_streams == bridge.open_streams == 0
    assert kept_state(proxy) == kept_state(bridge) == 0
    assert most < 5 * 32
    assert proxy._last_stream == 10_000
