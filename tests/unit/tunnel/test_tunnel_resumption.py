"""Connections that come and go: epochs, replay, lost sessions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tunnel_pair import SESSION_ID, Pair, connected, kept_state, received_data, split_frames

from cloudtolocalllm.tunnel import (
    Attached,
    DataReceived,
    Detached,
    EndReceived,
    EpochFencedError,
    GoAwayReason,
    GoAwayReceived,
    Hello,
    Limits,
    LocalError,
    RemoteError,
    RequestHead,
    RequestReceived,
    ResetReason,
    ResponseHead,
    Role,
    Session,
    SessionEnded,
    StreamReset,
    frames,
    peek_hello,
)

POST = RequestHead("POST", "/")
OK = ResponseHead(200)


def streaming(pair: Pair) -> int:
    """Open a stream whose response has begun."""
    stream_id = pair.proxy.session.open_stream(POST)
    pair.settle()
    pair.bridge.session.send_head(stream_id, OK)
    pair.settle()
    pair.proxy.take_events()
    pair.bridge.take_events()
    return stream_id


def hello_of(session: Session) -> Hello:
    """Return the HELLO that a bridge has to send."""
    message = session.data_to_send()
    assert message is not None
    return peek_hello(message)


def test_the_first_connection_does_not_resume_and_the_second_does() -> None:
    pair = Pair()
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events() == pair.proxy.take_events() == [Attached(resumed=False, epoch=1)]
    pair.cut()
    assert pair.bridge.take_events() == pair.proxy.take_events() == [Detached()]
    assert not pair.proxy.session.attached
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events() == pair.proxy.take_events() == [Attached(resumed=True, epoch=2)]
    assert pair.bridge.session.attached
    assert pair.bridge.session.epoch == pair.proxy.session.epoch == 2


def test_what_was_lost_on_the_way_is_sent_again_once() -> None:
    pair = connected()
    stream_id = streaming(pair)
    for index in range(10):
        pair.bridge.session.send_data(stream_id, bytes([index]))
        pair.collect()
    pair.deliver(pair.proxy, 4)
    pair.cut()
    pair.connect()
    pair.settle()
    assert received_data(pair.proxy.take_events(), stream_id) == bytes(range(10))


def test_calls_while_detached_take_effect_after_the_next_connection() -> None:
    pair = connected()
    stream_id = streaming(pair)
    pair.cut()
    pair.bridge.session.send_data(stream_id, b"meanwhile")
    pair.bridge.session.end_stream(stream_id)
    other = pair.proxy.session.open_stream(POST)
    assert pair.proxy.session.data_to_send() is None
    pair.connect()
    pair.settle()
    assert pair.proxy.take_events()[-2:] == [DataReceived(stream_id, b"meanwhile"), EndReceived(stream_id)]
    assert pair.bridge.take_events()[-1] == RequestReceived(other, POST)


def test_credit_granted_before_a_loss_counts_exactly_once() -> None:
    pair = connected(Limits(window=1000))
    stream_id = streaming(pair)
    pair.bridge.session.send_data(stream_id, bytes(1000))
    pair.settle()
    pair.proxy.session.consumed(stream_id, 800)
    pair.collect()  # CREDIT is on the way
    pair.cut()
    pair.connect()
    pair.settle()
    assert pair.bridge.session.window(stream_id) == 800
    pair.cut()
    pair.connect()
    pair.settle()
    assert pair.bridge.session.window(stream_id) == 800


def test_a_replay_that_breaks_off_goes_on_at_the_next_connection() -> None:
    pair = connected()
    stream_id = streaming(pair)
    sent = b""
    for index in range(100):
        pair.bridge.session.send_data(stream_id, bytes([index]) * 50)
        sent += bytes([index]) * 50
    pair.collect()
    events = []
    pair.max_bytes = 300
    pair.burst = 1  # the socket takes one message at a time, so most of the replay waits in the session
    for _ in range(4):
        pair.cut()
        pair.connect()
        pair.deliver(pair.proxy)
        pair.deliver(pair.bridge)
        pair.deliver(pair.proxy, 2)
        assert pair.bridge.session._out.replay.pending
        events += pair.proxy.take_events()
    pair.settle()
    events += pair.proxy.take_events()
    assert received_data(events, stream_id) == sent


def test_no_ack_is_sent_while_frames_are_replayed() -> None:
    pair = connected()
    stream_id = streaming(pair)
    for _ in range(10):
        pair.bridge.session.send_data(stream_id, bytes(100))
    pair.proxy.session.send_data(stream_id, b"x")
    pair.collect()
    pair.cut()
    pair.connect()
    pair.max_bytes = 250
    pair.deliver(pair.proxy)
    bridge = pair.bridge.session
    for incoming in list(pair.bridge.inbox):
        bridge.receive_data(incoming, pair.now)
    pair.bridge.inbox.clear()
    bridge.tick(pair.now + 1)
    messages = []
    while (message := bridge.data_to_send(250)) is not None:
        messages.append([frame[0] for frame in split_frames(message)])
    assert len(messages) > 3
    assert [frames.ACK in kinds for kinds in messages] == [False] * (len(messages) - 1) + [True]
    assert messages[-1][-1] == frames.ACK


def test_frames_of_a_reset_stream_that_are_replayed_are_still_dropped() -> None:
    pair = connected()
    stream_id = streaming(pair)
    for _ in range(20):
        pair.bridge.session.send_data(stream_id, b"x" * 100)
    pair.collect()
    pair.proxy.session.reset_stream(stream_id, ResetReason.CANCELLED)
    pair.collect()
    pair.deliver(pair.bridge)  # the bridge has the RESET, its DATA is lost
    pair.cut()
    pair.max_bytes = 250
    pair.connect()
    pair.settle()
    assert [event for event in pair.proxy.take_events() if not isinstance(event, Attached | Detached)] == []
    assert stream_id in pair.proxy.session._out.reset_ids
    pair.proxy.session.open_stream(POST)
    pair.settle()
    pair.later(Limits().ack_delay)
    pair.settle()
    assert not pair.proxy.session._out.reset_ids, "an ACK tells that nothing sent before it is still to come"


# --- epochs -------------------------------------------------------------------------------------------------


def test_an_old_hello_is_fenced_and_the_connection_goes_on() -> None:
    pair = connected()
    stream_id = streaming(pair)
    old = frames.encode_hello(Hello(1, SESSION_ID, 1, 0, 262144, 1024, 0, 0))
    proxy = pair.proxy.session
    pair.proxy.session.send_data(stream_id, b"queued for the good connection")
    proxy.attach(pair.now)
    with pytest.raises(EpochFencedError, match=r"^expected an epoch above 1, got 1$"):
        proxy.receive_data(old, pair.now)
    assert proxy.data_to_send() == frames.encode_goaway(GoAwayReason.EPOCH_FENCED)
    assert proxy.data_to_send() is None
    assert proxy.attached
    assert not proxy.ended
    assert proxy.events_received() == []
    pair.settle()
    assert received_data(pair.bridge.take_events(), stream_id) == b"queued for the good connection"


def test_an_old_hello_is_fenced_while_detached() -> None:
    pair = connected()
    pair.cut()
    pair.proxy.take_events()
    proxy = pair.proxy.session
    proxy.attach(pair.now)
    with pytest.raises(EpochFencedError):
        proxy.receive_data(frames.encode_hello(Hello(1, SESSION_ID, 1, 0, 262144, 1024)), pair.now)
    assert proxy.data_to_send() is not None
    assert proxy.data_to_send() is None
    assert not proxy.attached
    pair.connect()
    pair.settle()
    assert proxy.attached


def test_a_higher_epoch_takes_over_a_half_dead_connection() -> None:
    pair = connected()
    stream_id = streaming(pair)
    pair.bridge.session.send_data(stream_id, b"lost")
    pair.collect()
    pair.bridge.session.detach(pair.now)  # the proxy has not noticed
    pair.connect()
    pair.settle()
    assert pair.proxy.take_events() == [Detached(), Attached(resumed=True, epoch=2), DataReceived(stream_id, b"lost")]
    assert pair.bridge.take_events() == [Detached(), Attached(resumed=True, epoch=2)]


def test_a_bridge_that_attaches_while_attached_replaces_its_connection() -> None:
    pair = connected()
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events() == [Detached(), Attached(resumed=True, epoch=2)]


# --- lost sessions ------------------------------------------------------------------------------------------


def test_a_proxy_that_does_not_know_the_session_makes_the_bridge_begin_again() -> None:
    pair = connected()
    first, second = streaming(pair), streaming(pair)
    pair.bridge.session.send_data(first, b"kept for replay")
    pair.collect()
    pair.cut()
    pair.bridge.take_events()
    pair.restart_proxy()
    pair.connect()
    pair.settle()
    assert pair.proxy.take_events() == [Attached(resumed=False, epoch=2)]
    assert pair.bridge.take_events() == [
        StreamReset(first, ResetReason.SESSION_LOST),
        StreamReset(second, ResetReason.SESSION_LOST),
        Attached(resumed=False, epoch=2),
    ]
    assert pair.bridge.session.open_streams == 0
    assert pair.bridge.session.unacked_bytes == 0
    again = streaming(pair)
    assert again > second, "ids are not used again, even by a proxy that knows nothing of the earlier ones"
    pair.cut()
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events() == [Detached(), Attached(resumed=True, epoch=3)]


def test_what_waited_for_a_lost_session_is_not_sent_to_the_next() -> None:
    pair = connected()
    first, second = streaming(pair), streaming(pair)
    pair.cut()
    pair.bridge.session.reset_stream(first, ResetReason.ENGINE_ERROR)
    pair.bridge.session.send_data(second, b"x")
    pair.bridge.session.end_stream(second)
    pair.restart_proxy()
    pair.connect()
    pair.deliver(pair.proxy)
    pair.deliver(pair.bridge)
    assert pair.bridge.session.attached
    assert not pair.proxy.inbox
    assert kept_state(pair.bridge.session) == 0


def test_a_new_proxy_is_not_taken_to_be_going_away() -> None:
    pair = connected()
    pair.proxy.session.go_away(GoAwayReason.IDLE)
    pair.settle()
    pair.cut()
    pair.restart_proxy()
    pair.connect()
    pair.proxy.session.go_away(GoAwayReason.IDLE)
    pair.settle()
    told = [event for event in pair.bridge.take_events() if isinstance(event, GoAwayReceived)]
    assert told == [GoAwayReceived(GoAwayReason.IDLE)] * 2


def test_a_first_answer_that_is_lost_does_not_mix_two_numberings() -> None:
    pair = connected()
    old = streaming(pair)
    pair.cut()
    pair.restart_proxy()
    pair.connect()
    pair.deliver(pair.proxy)  # the new proxy answers …
    opened = pair.proxy.session.open_stream(POST)  # … and opens a stream …
    pair.cut()  # … but nothing of that arrives
    pair.bridge.take_events()
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events() == [
        StreamReset(old, ResetReason.SESSION_LOST),
        Attached(resumed=False, epoch=3),
        RequestReceived(opened, POST),
    ]
    assert pair.proxy.take_events() == [
        Attached(resumed=False, epoch=2),
        Detached(),
        Attached(resumed=True, epoch=3),
    ]


def test_an_answer_that_arrived_is_not_taken_for_lost() -> None:
    pair = connected()
    pair.cut()
    pair.restart_proxy()
    pair.connect()
    pair.deliver(pair.proxy)
    opened = pair.proxy.session.open_stream(POST)
    pair.collect()
    pair.deliver(pair.bridge, 2)  # the bridge has the answer and the OPEN; nothing of it is acknowledged
    pair.cut()
    pair.bridge.take_events()
    pair.connect()
    pair.settle()
    assert pair.bridge.take_events() == [Attached(resumed=True, epoch=3)], "the request is not made twice"
    pair.bridge.session.send_head(opened, OK)


def test_the_resume_window_ends_the_session() -> None:
    pair = connected()
    stream_id = streaming(pair)
    pair.cut()
    pair.proxy.take_events()
    pair.later(59.9)
    assert pair.proxy.session.next_deadline() == pytest.approx(pair.now + 0.1)
    pair.later(0.1)
    assert pair.proxy.take_events() == [
        StreamReset(stream_id, ResetReason.SESSION_LOST),
        SessionEnded("not attached again within 60 s"),
    ]
    assert pair.proxy.session.ended
    assert pair.proxy.session.next_deadline() is None
    with pytest.raises(
        LocalError, match=r"^expected a session that goes on, got one that has ended: make a new session$"
    ):
        pair.proxy.session.attach(pair.now)
    with pytest.raises(LocalError):
        pair.proxy.session.open_stream(POST)


def test_attempts_to_reconnect_do_not_prolong_the_resume_window() -> None:
    pair = connected()
    pair.cut()
    for _ in range(6):
        pair.later(9.9)
        pair.bridge.session.attach(pair.now)
        pair.bridge.session.detach(pair.now)
    pair.later(0.7)
    assert pair.bridge.session.ended


def test_ending_a_session_by_hand() -> None:
    pair = connected()
    stream_id = streaming(pair)
    pair.proxy.session.go_away(GoAwayReason.SHUTDOWN)
    pair.proxy.session.end("no longer wanted")
    pair.settle()
    assert pair.proxy.take_events() == [
        StreamReset(stream_id, ResetReason.SESSION_LOST),
        SessionEnded("no longer wanted"),
    ]
    assert pair.bridge.take_events() == [
        GoAwayReceived(GoAwayReason.SHUTDOWN),
        StreamReset(stream_id, ResetReason.SESSION_LOST),
        SessionEnded("the peer ended the session"),
    ]
    pair.proxy.session.end("twice")
    pair.proxy.session.detach(pair.now)
    pair.proxy.session.tick(pair.now)
    pair.proxy.session.receive_data(b"late", pair.now)
    pair.proxy.session.go_away(GoAwayReason.IDLE)
    assert pair.proxy.session.events_received() == []
    assert pair.proxy.session.data_to_send() is None


def test_a_request_that_crosses_with_the_end_of_the_bridge_s_session_was_refused() -> None:
    pair = connected()
    begun = streaming(pair)
    crossing = pair.proxy.session.open_stream(POST)
    pair.bridge.session.end("retired")
    pair.settle()
    assert pair.bridge.take_events() == [StreamReset(begun, ResetReason.SESSION_LOST), SessionEnded("retired")]
    assert pair.proxy.take_events() == [
        StreamReset(begun, ResetReason.SESSION_LOST),
        StreamReset(crossing, ResetReason.REFUSED),
        SessionEnded("the peer ended the session"),
    ]
    assert pair.proxy.session.next_deadline() is None


def test_a_bridge_may_end_the_session_before_the_proxy_has_answered_its_hello() -> None:
    pair = connected()
    pair.cut()
    pair.connect()
    waiting = pair.proxy.session.open_stream(POST)
    pair.bridge.session.end("retired")
    pair.settle()
    assert pair.proxy.take_events()[-2:] == [
        StreamReset(waiting, ResetReason.REFUSED),
        SessionEnded("the peer ended the session"),
    ]
    assert pair.bridge.session.data_to_send() is None


def test_a_session_that_ends_while_detached_has_nobody_to_tell() -> None:
    pair = connected()
    pair.cut()
    pair.bridge.session.end("retired")
    pair.proxy.session.end("no longer wanted")
    assert pair.bridge.session.data_to_send() is None
    assert pair.proxy.session.data_to_send() is None


# --- contradictions -----------------------------------------------------------------------------------------


def bridge_hello(pair: Pair) -> Hello:
    """Return the HELLO of the bridge's next connection."""
    pair.cut()
    pair.bridge.session.attach(pair.now)
    return hello_of(pair.bridge.session)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"session_id": bytes(16)}, "expected the id of this session in HELLO, got another"),
        ({"received": 3}, "expected 1 to 2 received frames in HELLO, got 3"),
        ({"received": 0}, "expected 1 to 2 received frames in HELLO, got 0"),
        ({"origin": 2}, "expected an origin below epoch 2, got 2"),
        ({"origin": 0}, "expected origin 1, got 0"),
        ({"window": 5}, "expected the window and max_streams that began the session, got others"),
        ({"max_streams": 5}, "expected the window and max_streams that began the session, got others"),
        ({"last_stream": 3}, "expected a last stream of at most 2, got 3"),
    ],
)
def test_a_hello_of_the_bridge_that_contradicts_the_session(change: dict[str, int], text: str) -> None:
    pair = connected()
    streaming(pair)
    pair.proxy.session.receive_data(frames.encode_ack(1), pair.now)
    pair.proxy.session.open_stream(POST)
    pair.collect()
    hello = replace(bridge_hello(pair), **change)  # type: ignore[arg-type]  # one field of several types
    pair.proxy.session.attach(pair.now)
    with pytest.raises(RemoteError) as caught:
        pair.proxy.session.receive_data(frames.encode_hello(hello), pair.now)
    assert str(caught.value) == text
    assert pair.proxy.session.data_to_send() == frames.encode_goaway(GoAwayReason.PROTOCOL_ERROR)
    assert pair.proxy.session.data_to_send() is None
    assert pair.proxy.session.ended


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"session_id": bytes(16)}, "expected the id of this session in HELLO, got another"),
        ({"epoch": 1, "origin": 1}, "expected epoch 2 to be answered, got 1"),
        ({"received": 2}, "expected 0 to 1 received frames in HELLO, got 2"),
        ({"origin": 7}, "expected origin 1, got 7"),
        ({"origin": 2}, "expected 0 received frames from a proxy that begins, got 1"),
        ({"window": 5}, "expected the window and max_streams that began the session, got others"),
        ({"last_stream": 1}, "expected last stream 0 from a proxy, got 1"),
    ],
)
def test_an_answer_of_the_proxy_that_contradicts_the_session(change: dict[str, int], text: str) -> None:
    pair = connected()
    streaming(pair)
    pair.cut()
    pair.connect()
    pair.deliver(pair.proxy)
    hello = replace(peek_hello(pair.bridge.inbox.popleft()), **change)  # type: ignore[arg-type]  # as above
    with pytest.raises(RemoteError) as caught:
        pair.bridge.session.receive_data(frames.encode_hello(hello), pair.now)
    assert str(caught.value) == text


def test_another_version_is_answered_as_such() -> None:
    session = Session(Role.PROXY, SESSION_ID)
    session.attach(0.0)
    with pytest.raises(RemoteError):
        session.receive_data(frames.frame(frames.HELLO, 0, b"\0\2"), 0.0)
    assert session.data_to_send() == frames.encode_goaway(GoAwayReason.VERSION)


def test_a_goaway_may_come_instead_of_hello() -> None:
    pair = Pair()
    pair.bridge.session.attach(0.0)
    pair.bridge.session.receive_data(frames.encode_goaway(GoAwayReason.EPOCH_FENCED), 0.0)
    assert pair.bridge.session.events_received() == [GoAwayReceived(GoAwayReason.EPOCH_FENCED)]
    assert not pair.bridge.session.ended


def test_a_peer_that_ended_its_session_ends_ours() -> None:
    pair = connected()
    stream_id = streaming(pair)
    pair.bridge.session.receive_data(frames.encode_goaway(GoAwayReason.PROTOCOL_ERROR) + b"rest", pair.now)
    assert pair.bridge.session.events_received() == [
        GoAwayReceived(GoAwayReason.PROTOCOL_ERROR),
        StreamReset(stream_id, ResetReason.SESSION_LOST),
        SessionEnded("the peer ended the session: PROTOCOL_ERROR"),
    ]


# --- properties ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5)), max_size=12),
    st.integers(1, 700),
)
def test_delivery_is_exactly_once_whatever_is_lost(
    chunks: list[bytes], cuts: list[tuple[int, int, int]], max_bytes: int
) -> None:
    """Any suffix of what is on the way is lost, in either direction, again and again."""
    pair = connected(Limits(window=1000, ack_every_frames=4))
    pair.max_bytes = max_bytes
    stream_id = streaming(pair)
    sides = ((pair.bridge, pair.proxy), (pair.proxy, pair.bridge))
    left = {id(side): list(chunks) for side, _ in sides}
    got = {id(side): b"" for side, _ in sides}

    def work(count: int = 100) -> None:
        for side, _ in sides:
            queue = left[id(side)]
            for _ in range(count):
                if queue and side.session.window(stream_id) >= len(queue[0]):
                    side.session.send_data(stream_id, queue.pop(0))
            data = received_data(side.take_events(), stream_id)
            got[id(side)] += data
            side.session.consumed(stream_id, len(data))
        pair.collect()

    for to_proxy, to_bridge, count in cuts:
        work(count)
        pair.deliver(pair.proxy, to_proxy)
        pair.deliver(pair.bridge, to_bridge)
        work(count)
        pair.cut()
        work(count)
        pair.connect()
    for _ in range(200):
        work()
        pair.settle()
        pair.later(Limits().ack_delay)
    assert all(not queue for queue in left.values())
    assert set(got.values()) == {b"".join(chunks)}
