"""Frames and heads: there and back, and every way in which they can be malformed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.tunnel import (
    MAX_PAYLOAD,
    GoAwayReason,
    Headers,
    Hello,
    LocalError,
    RemoteError,
    RequestHead,
    ResetReason,
    ResponseHead,
    VersionError,
    frames,
    heads,
    peek_hello,
)

HELLO = Hello(1, bytes(range(16)), 3, 7, 262144, 1024, 2, 9)

names = st.text("abcdefghijklmnopqrstuvwxyz-0123456789_", min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=20).filter(lambda value: not set(value) & {0, 10, 13})
fields = st.lists(st.tuples(names.filter(lambda name: name not in heads.HOP_BY_HOP), values), max_size=6).map(tuple)
targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map("/".__add__)


@given(st.sampled_from(["GET", "POST", "M-SEARCH"]), targets, fields)
def test_request_heads_come_back(method: str, target: str, headers: Headers) -> None:
    head = RequestHead(method, target, headers)
    assert heads.decode_request(heads.encode_request(head, MAX_PAYLOAD), MAX_PAYLOAD) == head


@given(st.integers(100, 599).filter(lambda status: status != 101), fields)
def test_response_heads_come_back(status: int, headers: Headers) -> None:
    head = ResponseHead(status, headers)
    assert heads.decode_response(heads.encode_response(head, MAX_PAYLOAD), MAX_PAYLOAD) == head


@given(fields)
def test_trailers_come_back(trailers: Headers) -> None:
    assert heads.decode_trailers(heads.encode_trailers(trailers, MAX_PAYLOAD), MAX_PAYLOAD) == trailers


def test_hello_comes_back() -> None:
    assert peek_hello(frames.encode_hello(HELLO)) == HELLO


def test_peek_hello_ignores_what_follows() -> None:
    assert peek_hello(frames.encode_hello(HELLO) + b"anything") == HELLO


@given(st.binary(max_size=120))
def test_peek_hello_of_garbage_raises_remote_error_only(message: bytes) -> None:
    with pytest.raises(RemoteError):
        peek_hello(message)


@given(st.binary(max_size=200), st.sampled_from(["request", "response", "trailers", "hello", "reset"]))
def test_garbage_payloads_raise_remote_error_only(payload: bytes, what: str) -> None:
    decoders: dict[str, Callable[[], object]] = {
        "request": lambda: heads.decode_request(payload, MAX_PAYLOAD),
        "response": lambda: heads.decode_response(payload, MAX_PAYLOAD),
        "trailers": lambda: heads.decode_trailers(payload, MAX_PAYLOAD),
        "hello": lambda: frames.decode_hello(payload),
        "reset": lambda: frames.decode_reset(payload),
    }
    try:
        decoders[what]()
    except RemoteError as fault:
        assert str(fault).startswith("expected ")  # noqa: PT017  # most inputs raise, a few are well-formed


HELLO_FAULTS = {
    b"": "expected a frame header of 10 bytes, got 0",
    frames.frame(frames.PING, 0, bytes(8)): "expected HELLO as the first frame, got type 3",
    frames.frame(frames.HELLO, 0, b"\0"): "expected a HELLO of 54 bytes, got 1",
    frames.frame(frames.HELLO, 0, b"\0\1short"): "expected a HELLO of 54 bytes, got 7",
    frames.frame(frames.HELLO, 4, b""): "expected stream 0 for HELLO, got 4",
    frames.HEADER.pack(1, 1, 0, 54) + bytes(54): "expected no flags, got 1",
    frames.HEADER.pack(1, 0, 0, 54) + bytes(50): "expected whole frames in a message, got 50 of 54 payload bytes",
    frames.HEADER.pack(1, 0, 0, 65537): "expected a payload of at most 65536 bytes, got 65537",
}


@pytest.mark.parametrize(("message", "text"), HELLO_FAULTS.items())
def test_peek_hello_says_what_is_wrong(message: bytes, text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        peek_hello(message)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        (
            Hello(1, bytes(16), 1, 0, 0, 1),
            "expected a window of 1 to 2147483647 bytes in HELLO, got 0",
        ),
        (
            Hello(1, bytes(16), 1, 0, 2**31, 1),
            "expected a window of 1 to 2147483647 bytes in HELLO, got 2147483648",
        ),
        (Hello(1, bytes(16), 1, 0, 1, 0), "expected max_streams of at least 1 in HELLO, got 0"),
        (Hello(1, bytes(16), 0, 0, 1, 1), "expected an epoch of at least 1 in HELLO, got 0"),
    ],
)
def test_hello_with_impossible_values(hello: Hello, text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        peek_hello(frames.encode_hello(hello))
    assert str(caught.value) == text


def test_another_version_is_told_apart() -> None:
    with pytest.raises(VersionError) as caught:
        peek_hello(frames.frame(frames.HELLO, 0, b"\0\2whatever a later version has here"))
    assert str(caught.value) == "expected protocol version 1, got 2"
    assert caught.value.goaway is GoAwayReason.VERSION


NOT_A_NAME = "expected a lower-case token as a field name, got something else"
NOT_A_TARGET = "expected a target in origin form, printable ASCII without spaces, got something else"
NOT_A_METHOD = "expected a token of at most 255 characters as the method, got something else"

REQUEST_FAULTS = [
    (RequestHead("", "/"), NOT_A_METHOD),
    (RequestHead("GE T", "/"), NOT_A_METHOD),
    (RequestHead("GET\n", "/"), NOT_A_METHOD),
    (RequestHead("M" * 256, "/"), NOT_A_METHOD),
    (RequestHead("GET", ""), NOT_A_TARGET),
    (RequestHead("GET", "http://elsewhere/"), NOT_A_TARGET),
    (RequestHead("GET", "/a b"), NOT_A_TARGET),
    (RequestHead("GET", "/a\r\nb"), NOT_A_TARGET),
    (RequestHead("GET", "/\u00e9"), NOT_A_TARGET),
    (RequestHead("GET", "/", ((b":method", b"GET"),)), NOT_A_NAME),
    (RequestHead("GET", "/", ((b"Host", b"x"),)), NOT_A_NAME),
    (RequestHead("GET", "/", ((b"", b"x"),)), NOT_A_NAME),
    (RequestHead("GET", "/", ((b"a b", b"x"),)), NOT_A_NAME),
    (RequestHead("GET", "/", ((b"a\n", b"x"),)), NOT_A_NAME),
    (RequestHead("GET", "/", ((b"a", b"x\r\ny"),)), "expected no CR, LF or NUL in a field value, got one in a"),
    (RequestHead("GET", "/", ((b"a", b"x\0"),)), "expected no CR, LF or NUL in a field value, got one in a"),
    *(
        (RequestHead("GET", "/", ((name, b"x"),)), f"expected no hop-by-hop field, got {name.decode()}")
        for name in sorted(heads.HOP_BY_HOP)
    ),
]


def raw_request(head: RequestHead) -> bytes:
    """Encode a request head without looking at it."""
    method = head.method.encode("latin-1")
    target = head.target.encode("latin-1")
    start = bytes((len(method) % 256,)) + method + len(target).to_bytes(2, "big") + target
    return start + raw_fields(head.headers)


def raw_fields(headers: Headers) -> bytes:
    parts = [len(headers).to_bytes(2, "big")]
    for name, value in headers:
        parts += [len(name).to_bytes(2, "big"), len(value).to_bytes(2, "big"), name, value]
    return b"".join(parts)


@pytest.mark.parametrize(("head", "text"), REQUEST_FAULTS)
def test_malformed_request_heads_are_refused_when_sending(head: RequestHead, text: str) -> None:
    with pytest.raises(LocalError) as caught:
        heads.encode_request(head, MAX_PAYLOAD)
    assert str(caught.value) == text


@pytest.mark.parametrize(("head", "text"), [fault for fault in REQUEST_FAULTS if len(fault[0].method) < 256])
def test_malformed_request_heads_are_refused_when_received(head: RequestHead, text: str) -> None:
    if not head.target.isascii():
        text = "expected a method and a target in OPEN, got something else"
    with pytest.raises(RemoteError) as caught:
        heads.decode_request(raw_request(head), MAX_PAYLOAD)
    assert str(caught.value) == text


@pytest.mark.parametrize("status", [0, 99, 101, 600, 65535])
def test_statuses_out_of_range(status: int) -> None:
    text = f"expected a status of 100 to 599 other than 101, got {status}"
    with pytest.raises(LocalError) as local:
        heads.encode_response(ResponseHead(status), MAX_PAYLOAD)
    with pytest.raises(RemoteError) as remote:
        heads.decode_response(status.to_bytes(2, "big") + b"\0\0", MAX_PAYLOAD)
    assert str(local.value) == str(remote.value) == text


def test_malformed_fields_in_responses_and_trailers() -> None:
    bad = ((b"connection", b"close"),)
    with pytest.raises(LocalError):
        heads.encode_response(ResponseHead(200, bad), MAX_PAYLOAD)
    with pytest.raises(LocalError):
        heads.encode_trailers(bad, MAX_PAYLOAD)
    with pytest.raises(RemoteError):
        heads.decode_response(b"\0\xc8" + raw_fields(bad), MAX_PAYLOAD)
    with pytest.raises(RemoteError):
        heads.decode_trailers(raw_fields(bad), MAX_PAYLOAD)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "expected a method and a target in OPEN, got something else"),
        (b"\3GET\0", "expected a method and a target in OPEN, got something else"),
        (b"\3GET\0\1/", "expected whole fields in a head, got fewer bytes"),
        (b"\3GET\0\1/\0\1\0\1", "expected whole fields in a head, got fewer bytes"),
        (b"\3GET\0\1/\0\0more", "expected a head to fill its frame, got another length"),
        (b"\3GET\0\1/\0\1\0\1\0\5ab", "expected a head to fill its frame, got another length"),
    ],
)
def test_truncated_heads(payload: bytes, text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        heads.decode_request(payload, MAX_PAYLOAD)
    assert str(caught.value) == text


def test_a_response_without_status() -> None:
    with pytest.raises(RemoteError, match=r"^expected a status in HEAD, got nothing$"):
        heads.decode_response(b"\0", MAX_PAYLOAD)


def test_heads_over_the_limit() -> None:
    text = "^expected a head of at most 100 bytes, got more$"
    long = ((b"a", b"x" * 100),)
    with pytest.raises(LocalError, match=text):
        heads.encode_request(RequestHead("GET", "/" + "x" * 200), 100)
    with pytest.raises(LocalError, match=text):
        heads.encode_request(RequestHead("GET", "/", long), 100)
    with pytest.raises(LocalError, match=text):
        heads.encode_response(ResponseHead(200, long), 100)
    with pytest.raises(LocalError, match=text):
        heads.encode_trailers(long, 100)
    with pytest.raises(RemoteError, match=text):
        heads.decode_request(bytes(101), 100)
    with pytest.raises(RemoteError, match=text):
        heads.decode_response(bytes(101), 100)
    with pytest.raises(RemoteError, match=text):
        heads.decode_trailers(bytes(101), 100)


def test_a_head_of_exactly_the_limit_passes() -> None:
    head = ResponseHead(200, ((b"a", b"x" * (100 - 2 - 2 - 4 - 1)),))
    assert len(heads.encode_response(head, 100)) == 100


def test_a_reset_text_is_cut_and_made_printable() -> None:
    payload = frames.encode_reset(1, ResetReason.INTERNAL, "caf\u00e9\n" + "x" * 300)[frames.HEADER_BYTES :]
    reason, detail = frames.decode_reset(payload)
    assert reason is ResetReason.INTERNAL
    assert detail == "caf??" + "x" * 195


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "expected a RESET of 1 to 201 bytes, got 0"),
        (b"\1" + b"x" * 201, "expected a RESET of 1 to 201 bytes, got 202"),
        (b"\0", "expected a RESET reason of 1 to 7, got 0"),
        (b"\x08", "expected a RESET reason of 1 to 7, got 8"),
        (b"\1\n", "expected printable ASCII in the text of RESET, got something else"),
    ],
)
def test_malformed_resets(payload: bytes, text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        frames.decode_reset(payload)
    assert str(caught.value) == text


def test_malformed_fixed_payloads() -> None:
    with pytest.raises(RemoteError, match=r"^expected 8 bytes in ACK, got 7$"):
        frames.decode_ack(bytes(7))
    with pytest.raises(RemoteError, match=r"^expected 8 bytes in PING, got 9$"):
        frames.decode_ping(bytes(9), frames.PING)
    with pytest.raises(RemoteError, match=r"^expected 4 bytes in CREDIT, got 0$"):
        frames.decode_credit(b"")
    with pytest.raises(RemoteError, match=r"^expected a CREDIT of at least 1 byte, got 0$"):
        frames.decode_credit(bytes(4))
    with pytest.raises(RemoteError, match=r"^expected 1 bytes in GOAWAY, got 2$"):
        frames.decode_goaway(bytes(2))
    with pytest.raises(RemoteError, match=r"^expected a GOAWAY reason of 1 to 8, got 9$"):
        frames.decode_goaway(b"\x09")
