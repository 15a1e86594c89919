"""What a hostile or broken peer may try: each ends the session with its documented text, and nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tunnel_pair import SESSION_ID, Pair, connected, split_frames

from cloudtolocalllm.tunnel import (
    GoAwayReason,
    Limits,
    RemoteError,
    RequestHead,
    ResetReason,
    ResponseHead,
    Role,
    Session,
    SessionEnded,
    StreamReset,
    TunnelError,
    frames,
    heads,
)
from cloudtolocalllm.tunnel.frames import ACK, CREDIT, DATA, END, HEAD, HELLO, OPEN, PING, RESET, frame

POST = RequestHead("POST", "/")
OPEN_PAYLOAD = heads.encode_request(POST, 1000)
OK_PAYLOAD = heads.encode_response(ResponseHead(200), 1000)
EARLY_PAYLOAD = heads.encode_response(ResponseHead(103), 1000)
LIMITS = Limits(window=1000, max_head=500)


def one_stream(*, begun: bool = True) -> Pair:
    """Return a pair with stream 1 open, its response begun or not."""
    pair = connected(LIMITS)
    pair.proxy.session.open_stream(POST)
    pair.settle()
    if begun:
        pair.bridge.session.send_head(1, ResponseHead(200))
        pair.settle()
    pair.later(1)
    pair.settle()
    pair.proxy.take_events()
    pair.bridge.take_events()
    return pair


def finished() -> Pair:
    """Return a pair with stream 1 finished."""
    pair = one_stream()
    pair.proxy.session.end_stream(1)
    pair.bridge.session.end_stream(1)
    pair.settle()
    pair.proxy.take_events()
    pair.bridge.take_events()
    return pair


TO_PROXY: dict[str, tuple[Callable[[], Pair], bytes, str]] = {
    "empty message": (one_stream, b"", "expected a frame header of 10 bytes, got 0"),
    "part of a header": (one_stream, bytes(9), "expected a frame header of 10 bytes, got 9"),
    "part of a second header": (
        one_stream,
        frames.encode_ack(1) + b"\0",
        "expected a frame header of 10 bytes, got 1",
    ),
    "part of a payload": (
        one_stream,
        frames.HEADER.pack(DATA, 0, 1, 5) + b"1234",
        "expected whole frames in a message, got 4 of 5 payload bytes",
    ),
    "too long": (
        one_stream,
        frames.HEADER.pack(DATA, 0, 1, 65537) + bytes(65537),
        "expected a payload of at most 65536 bytes, got 65537",
    ),
    "a flag": (one_stream, frames.HEADER.pack(DATA, 1, 1, 1) + b"x", "expected no flags, got 1"),
    "unknown type": (one_stream, frame(99, 0, b""), "expected a frame type of this protocol, got 99"),
    "control frame with a stream": (one_stream, frame(ACK, 1, bytes(8)), "expected stream 0 for ACK, got 1"),
    "second HELLO": (
        one_stream,
        frames.encode_hello(frames.Hello(1, SESSION_ID, 2, 0, 1, 1)),
        "expected one HELLO on a connection, got a second",
    ),
    "ACK of what was not sent": (one_stream, frames.encode_ack(2), "expected an acknowledgement of 1 to 1, got 2"),
    "ACK that goes back": (one_stream, frames.encode_ack(0), "expected an acknowledgement of 1 to 1, got 0"),
    "OPEN by the bridge": (one_stream, frame(OPEN, 2, OPEN_PAYLOAD), "expected no OPEN from a bridge, got one"),
    "DATA for stream 0": (
        one_stream,
        frame(DATA, 0, b"x"),
        "expected an open stream, got DATA for stream 0, which was never opened",
    ),
    "DATA for an unknown stream": (
        one_stream,
        frame(DATA, 2, b"x"),
        "expected an open stream, got DATA for stream 2, which was never opened",
    ),
    "RESET for an unknown stream": (
        one_stream,
        frames.encode_reset(2, ResetReason.INTERNAL, ""),
        "expected an open stream, got RESET for stream 2, which was never opened",
    ),
    "CREDIT for an unknown stream": (
        one_stream,
        frame(CREDIT, 2, b"\0\0\0\1"),
        "expected an open stream, got CREDIT for stream 2, which was never opened",
    ),
    "DATA for a finished stream": (
        finished,
        frame(DATA, 1, b"x"),
        "expected an open stream, got DATA for stream 1, which has ended",
    ),
    "END for a finished stream": (
        finished,
        frame(END, 1, b""),
        "expected an open stream, got END for stream 1, which has ended",
    ),
    "empty DATA": (one_stream, frame(DATA, 1, b""), "expected at least 1 byte in DATA, got 0"),
    "DATA beyond the credit": (
        one_stream,
        frame(DATA, 1, bytes(1001)),
        "expected at most 1000 bytes of DATA on stream 1, got 1001",
    ),
    "DATA beyond the credit in two": (
        one_stream,
        frame(DATA, 1, bytes(900)) + frame(DATA, 1, bytes(101)),
        "expected at most 100 bytes of DATA on stream 1, got 101",
    ),
    "DATA before the head": (
        lambda: one_stream(begun=False),
        frame(DATA, 1, b"x"),
        "expected no data on stream 1, which is awaiting its head",
    ),
    "END before the head": (
        lambda: one_stream(begun=False),
        frame(HEAD, 1, EARLY_PAYLOAD) + frame(END, 1, b""),
        "expected no end on stream 1, which is awaiting its head",
    ),
    "a second final head": (
        one_stream,
        frame(HEAD, 1, OK_PAYLOAD),
        "expected no final head on stream 1, which is in its body",
    ),
    "an informational head after the final one": (
        one_stream,
        frame(HEAD, 1, EARLY_PAYLOAD),
        "expected no informational head on stream 1, which is in its body",
    ),
    "too many informational heads": (
        lambda: one_stream(begun=False),
        frame(HEAD, 1, EARLY_PAYLOAD) * 17,
        "expected at most 16 informational heads, got more",
    ),
    "DATA after END": (
        one_stream,
        frame(END, 1, b"") + frame(DATA, 1, b"x"),
        "expected no data on stream 1, which is complete",
    ),
    "a second END": (
        one_stream,
        frame(END, 1, b"") * 2,
        "expected no end on stream 1, which is complete",
    ),
    "CREDIT for nothing": (
        one_stream,
        frame(CREDIT, 1, b"\0\0\0\1"),
        "expected at most 0 bytes of CREDIT on stream 1, got 1",
    ),
    "CREDIT of nothing": (one_stream, frame(CREDIT, 1, bytes(4)), "expected a CREDIT of at least 1 byte, got 0"),
    "a reason that is never sent": (one_stream, frame(RESET, 1, b"\x08"), "expected a RESET reason of 1 to 7, got 8"),
    "a short PING": (one_stream, frame(PING, 0, b"x"), "expected 8 bytes in PING, got 1"),
    "a head over the limit": (
        lambda: one_stream(begun=False),
        frame(HEAD, 1, bytes(501)),
        "expected a head of at most 500 bytes, got more",
    ),
    "trailers over the limit": (
        one_stream,
        frame(END, 1, bytes(501)),
        "expected a head of at most 500 bytes, got more",
    ),
}

TO_BRIDGE: dict[str, tuple[Callable[[], Pair], bytes, str]] = {
    "HEAD by the proxy": (one_stream, frame(HEAD, 1, OK_PAYLOAD), "expected no HEAD from a proxy, got one"),
    "OPEN of an id again": (one_stream, frame(OPEN, 1, OPEN_PAYLOAD), "expected a stream id above 1, got 1"),
    "OPEN of stream 0": (one_stream, frame(OPEN, 0, OPEN_PAYLOAD), "expected a stream id above 1, got 0"),
    "OPEN with a bad head": (
        one_stream,
        frame(OPEN, 2, b"\3GET\0\1x\0\0"),
        "expected a target in origin form, printable ASCII without spaces, got something else",
    ),
    "OPEN with a head over the limit": (
        one_stream,
        frame(OPEN, 2, bytes(501)),
        "expected a head of at most 500 bytes, got more",
    ),
}


@pytest.mark.parametrize("case", TO_PROXY)
def test_what_breaks_the_protocol_at_the_proxy(case: str) -> None:
    prepare, message, text = TO_PROXY[case]
    pair = prepare()
    check_error(pair.proxy.session, message, text)


@pytest.mark.parametrize("case", TO_BRIDGE)
def test_what_breaks_the_protocol_at_the_bridge(case: str) -> None:
    prepare, message, text = TO_BRIDGE[case]
    pair = prepare()
    check_error(pair.bridge.session, message, text)


def check_error(session: Session, message: bytes, text: str) -> None:
    """Check that a message raises, ends the session, tells the peer, and that what follows is ignored."""
    streams = session.open_streams
    with pytest.raises(RemoteError) as caught:
        session.receive_data(message, 200.0)
    assert str(caught.value) == text
    events = session.events_received()
    assert events[-1] == SessionEnded(text)
    assert len([event for event in events if event == StreamReset(1, ResetReason.SESSION_LOST)]) == streams
    goodbye = session.data_to_send()
    assert goodbye is not None
    assert list(split_frames(goodbye))[-1] == frames.encode_goaway(GoAwayReason.PROTOCOL_ERROR)
    assert session.data_to_send() is None
    assert session.ended
    session.receive_data(message, 200.0)
    assert session.events_received() == []


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", [ACK, PING, DATA, OPEN, RESET])
def test_hello_comes_first(role: Role, kind: int) -> None:
    session = Session(role, SESSION_ID)
    session.attach(0.0)
    with pytest.raises(RemoteError, match=f"^expected HELLO as the first frame, got {frames.KIND_NAMES[kind]}$"):
        session.receive_data(frame(kind, 0 if kind < OPEN else 1, bytes(8)), 0.0)


def test_late_credit_and_reset_for_a_finished_stream_are_ignored() -> None:
    pair = finished()
    late = frame(CREDIT, 1, b"\0\0\0\1") + frames.encode_reset(1, ResetReason.CANCELLED, "")
    for side in (pair.proxy, pair.bridge):
        side.session.receive_data(late, pair.now)
        assert side.session.events_received() == []


def test_opens_that_ignore_the_refusals_do_not_fill_the_memory() -> None:
    pair = connected(Limits(max_streams=1, max_unacked_frames=50))
    bridge = pair.bridge.session
    text = "^expected refused streams to be acknowledged, got more and more OPENs$"

    def flood() -> None:
        for stream_id in range(1, 200):
            bridge.receive_data(frame(OPEN, stream_id, OPEN_PAYLOAD), pair.now)

    with pytest.raises(RemoteError, match=text):
        flood()
    assert bridge.unacked_bytes == 0


@given(st.binary(max_size=100), st.booleans())
def test_garbage_raises_remote_errors_only(message: bytes, to_proxy: bool) -> None:
    pair = one_stream()
    side = pair.proxy if to_proxy else pair.bridge
    with pytest.raises(RemoteError):
        side.session.receive_data(message, pair.now)


@given(
    st.lists(
        st.builds(
            frame,
            st.sampled_from(sorted(frames.KIND_NAMES)),
            st.integers(0, 3),
            st.one_of(
                st.binary(max_size=12),
                st.integers(0, 3).map(lambda number: number.to_bytes(8, "big")),
                st.integers(0, 3).map(lambda number: number.to_bytes(4, "big")),
                st.sampled_from([OPEN_PAYLOAD, OK_PAYLOAD, EARLY_PAYLOAD, b""]),
            ),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_any_well_formed_frames_raise_remote_errors_only(sent: list[bytes], to_proxy: bool) -> None:
    pair = one_stream()
    session = (pair.proxy if to_proxy else pair.bridge).session
    try:
        for data in sent:
            session.receive_data(data, pair.now)
            session.events_received()
            while session.data_to_send() is not None:
                pass
    except TunnelError as fault:
        assert isinstance(fault, RemoteError)  # noqa: PT017  # sequences that break no rule are as welcome
        assert session.ended


def test_a_hello_in_the_first_message_may_be_followed_by_frames() -> None:
    pair = one_stream()
    pair.proxy.session.send_data(1, b"x")
    pair.collect()
    pair.cut()
    pair.connect()
    pair.deliver(pair.proxy)
    first = next(iter(pair.bridge.inbox))
    assert [part[0] for part in split_frames(first)] == [HELLO, DATA]
    pair.settle()
