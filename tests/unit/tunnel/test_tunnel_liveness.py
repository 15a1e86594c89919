"""Pings, silence, acknowledgements by time: the clock is an argument, so nothing here waits."""

import ast
from pathlib import Path

import pytest
from tests.support.tunnel_pair import SESSION_ID, Pair, connected, kept_state

import cloudtolocalllm.tunnel
from cloudtolocalllm.tunnel import (
    Attached,
    ConnectionDead,
    Detached,
    Limits,
    RemoteError,
    RequestHead,
    Role,
    Session,
    frames,
)

POST = RequestHead("POST", "/")


def test_the_bridge_pings_and_the_proxy_answers() -> None:
    pair = connected()
    assert pair.bridge.session.next_deadline() == pair.now + 5
    pair.later(4.9)
    assert not pair.proxy.inbox
    pair.later(0.1)
    assert list(pair.proxy.inbox) == [frames.encode_ping(frames.PING, 1)]
    pair.deliver(pair.proxy)
    assert list(pair.bridge.inbox) == [frames.encode_ping(frames.PONG, 1)]
    pair.settle()
    pair.later(5)
    assert list(pair.proxy.inbox) == [frames.encode_ping(frames.PING, 2)]


def test_a_connection_with_answered_pings_lives_on() -> None:
    pair = connected()
    for _ in range(100):
        pair.later(5)
        pair.settle()
    assert pair.bridge.take_events() == pair.proxy.take_events() == []


def test_two_unanswered_pings_are_the_end_of_the_connection() -> None:
    pair = connected()
    start = pair.now
    while not (events := pair.bridge.take_events()):
        deadline = pair.bridge.session.next_deadline()
        assert deadline is not None
        pair.later(deadline - pair.now)
    assert events == [ConnectionDead()]
    assert pair.now == start + 15
    assert len(pair.proxy.inbox) == 2
    assert not pair.bridge.session.attached
    # Both sides notice, the proxy by having heard nothing at all.
    assert pair.proxy.take_events() == [ConnectionDead()]
    pair.cut()
    assert pair.bridge.take_events() == pair.proxy.take_events() == [Detached()]
    pair.connect()
    pair.settle()
    assert pair.proxy.take_events() == [Attached(resumed=True, epoch=2)]


def test_any_frame_is_a_sign_of_life() -> None:
    pair = connected()
    for _ in range(10):
        pair.now += 4
        pair.bridge.session.tick(pair.now)
        pair.proxy.session.open_stream(POST)
        pair.collect()
        pair.proxy.inbox.clear()  # whatever the bridge sends is lost: no PONG ever comes
        pair.deliver(pair.bridge)
    assert pair.bridge.session.attached
    assert ConnectionDead() not in pair.bridge.take_events()


def test_what_comes_over_a_dead_connection_is_ignored_and_comes_again() -> None:
    pair = connected()
    pair.proxy.session.open_stream(POST)
    pair.collect()
    pair.bridge.session.tick(pair.now + 15)
    late = pair.bridge.inbox.popleft()
    pair.bridge.session.receive_data(late, pair.now + 15)
    assert pair.bridge.session.events_received() == [ConnectionDead()]
    assert pair.bridge.session.data_to_send() is None
    pair.connect()
    pair.settle()
    assert pair.bridge.session.open_streams == 1


@pytest.mark.parametrize("role", list(Role))
def test_a_handshake_has_a_deadline(role: Role) -> None:
    session = Session(role, SESSION_ID)
    session.attach(50.0)
    assert session.next_deadline() == 60.0
    session.tick(59.9)
    assert session.events_received() == []
    session.tick(60.0)
    assert session.events_received() == [ConnectionDead()]
    assert session.next_deadline() is None
    session.detach(60.0)
    assert session.events_received() == [], "Detached follows only on Attached"


def test_a_dead_connection_starts_the_resume_window_even_if_nobody_detaches() -> None:
    pair = connected()
    pair.bridge.session.tick(pair.now + 15)
    assert pair.bridge.session.next_deadline() == pair.now + 75
    pair.bridge.session.tick(pair.now + 75)
    assert pair.bridge.session.ended


def test_detaching_late_does_not_prolong_the_resume_window() -> None:
    pair = connected()
    pair.bridge.session.tick(pair.now + 15)
    pair.bridge.session.detach(pair.now + 40)
    assert pair.bridge.session.next_deadline() == pair.now + 75


def test_a_refused_connection_is_no_sign_of_life() -> None:
    pair = connected()
    proxy = pair.proxy.session
    proxy.attach(pair.now + 14)
    with pytest.raises(RemoteError):
        proxy.receive_data(frames.encode_hello(frames.Hello(1, SESSION_ID, 1, 0, 262144, 1024)), pair.now + 14)
    assert proxy.next_deadline() == pair.now + 15


def test_frames_are_acknowledged_after_a_while() -> None:
    pair = connected()
    pair.proxy.session.open_stream(POST)
    pair.settle()
    assert pair.bridge.session.next_deadline() == pytest.approx(pair.now + Limits().ack_delay)
    pair.later(Limits().ack_delay)
    assert list(pair.proxy.inbox) == [frames.encode_ack(1)]
    pair.settle()
    assert kept_state(pair.proxy.session) == 1  # the stream itself
    pair.later(Limits().ack_delay)
    assert not pair.proxy.inbox


def test_frames_are_acknowledged_after_a_number_or_size() -> None:
    pair = connected()
    for _ in range(31):
        pair.proxy.session.open_stream(POST)
        pair.collect()
        pair.deliver(pair.bridge)
    assert not pair.proxy.inbox
    pair.proxy.session.open_stream(POST)
    pair.collect()
    pair.deliver(pair.bridge)
    assert list(pair.proxy.inbox) == [frames.encode_ack(32)]
    pair.settle()
    pair.proxy.session.send_data(1, bytes(32 * 1024))
    pair.collect()
    pair.deliver(pair.bridge)
    assert list(pair.proxy.inbox) == [frames.encode_ack(33)]


def test_an_ack_travels_with_whatever_is_sent() -> None:
    pair = connected()
    pair.proxy.session.open_stream(POST)
    pair.collect()
    pair.deliver(pair.bridge)
    pair.later(5)
    (message,) = pair.proxy.inbox
    assert message == frames.encode_ping(frames.PING, 1) + frames.encode_ack(1)


def test_a_pong_that_nobody_asked_for() -> None:
    pair = connected()
    text = "^expected the bytes of a PING of this connection in PONG, got others$"
    with pytest.raises(RemoteError, match=text):
        pair.bridge.session.receive_data(frames.encode_ping(frames.PONG, 1), pair.now)


def test_only_the_latest_of_many_pings_is_answered() -> None:
    pair = connected()
    for number in range(1000):
        pair.proxy.session.receive_data(frames.encode_ping(frames.PING, number), pair.now)
    assert pair.proxy.session.data_to_send() == frames.encode_ping(frames.PONG, 999)
    assert pair.proxy.session.data_to_send() is None


def test_times_are_the_callers() -> None:
    pair = Pair(Limits(ping_interval=1, ping_misses=1, resume_window=2, handshake_timeout=3))
    pair.now = -1000.0
    pair.connect()
    assert pair.bridge.session.next_deadline() == -997.0
    pair.settle()
    assert pair.bridge.session.next_deadline() == -999.0


def test_limits_that_could_not_move_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected a window of 1 to 2147483647 bytes, got 0$"):
        Limits(window=0)
    with pytest.raises(ValueError, match=r"^expected max_head of 1 to 65536 bytes, got 65537$"):
        Limits(max_head=65537)
    with pytest.raises(
        ValueError, match=r"^expected max_streams, max_unacked_frames and ack_every_\* of at least 1$"
    ):
        Limits(max_streams=0)
    with pytest.raises(ValueError, match=r"^expected a session id of 16 bytes, got 3$"):
        Session(Role.PROXY, b"abc")


def test_the_package_reads_no_clock_and_does_no_io() -> None:
    banned = {"asyncio", "time", "random", "secrets", "os", "logging", "socket", "datetime", "threading"}
    folder = Path(cloudtolocalllm.tunnel.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & banned, path.name
