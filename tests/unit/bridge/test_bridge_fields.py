"""Header fields between cloud and engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.bridge.fields import FieldsRefusedError, framing, from_engine, is_encoded, to_engine
from cloudtolocalllm.runtime.http1 import Body, BodyKind
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY


def test_what_identifies_or_betrays_the_client_is_dropped() -> None:
    secret = b"do-not-pass"
    dropped = [
        b"host",
        b"origin",
        b"referer",
        b"cookie",
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"c2l-assertion",
        b"c2l-exchange-id",
        b"c2l-request",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-real-ip",
        b"via",
        b"accept-encoding",
        b"sec-fetch-site",
        b"access-control-request-method",
        b"expect",
        b"te",
        b"connection",
        b"upgrade",
        b"transfer-encoding",
        b"content-length",
    ]
    kept = ((b"content-type", b"application/json"), (b"accept", b"text/event-stream"), (b"anthropic-version", b"1"))
    headers = to_engine((*((name, secret) for name in dropped), *kept), b"127.0.0.1:11434", None)
    assert headers == ((b"host", b"127.0.0.1:11434"), *kept)


def test_the_engines_key_comes_from_here_only() -> None:
    headers = to_engine(((b"authorization", b"Bearer cloud"),), b"h:1", b"Bearer local")
    assert headers == ((b"host", b"h:1"), (b"authorization", b"Bearer local"))


def test_fields_that_connection_names_are_dropped() -> None:
    headers = to_engine(((b"connection", b"x-mine, close"), (b"x-mine", b"1"), (b"x-yours", b"2")), b"h:1", None)
    assert headers == ((b"host", b"h:1"), (b"x-yours", b"2"))


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nhost: other"),
        (b"x", b"a\nb"),
        (b"x", b"a\x00b"),
        (b"x\r\ny", b"1"),
        (b"x y", b"1"),
        (b"", b"1"),
        (b"X-Upper", b"1"),
        (b"x:y", b"1"),
    ],
)
def test_fields_that_could_begin_another_request_are_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(FieldsRefusedError) as caught:
        to_engine((field,), b"h:1", None)
    assert "host" not in str(caught.value)


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(FieldsRefusedError, match="at most 100"):
        to_engine(tuple((b"x-%d" % i, b"1") for i in range(101)), b"h:1", None)


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=6))
def test_whatever_the_fields_no_line_break_reaches_the_engine(pairs: list[tuple[bytes, bytes]]) -> None:
    try:
        headers = to_engine(tuple(pairs), b"h:1", None)
    except FieldsRefusedError:
        return
    assert headers[0] == (b"host", b"h:1")
    assert not any(control in name + value for name, value in headers for control in (b"\r", b"\n", b"\x00"))
    assert [name for name, _ in headers].count(b"host") == 1


def test_what_an_engine_may_not_set_is_dropped() -> None:
    dropped = (
        b"set-cookie",
        b"server",
        b"access-control-allow-origin",
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"location",
        b"www-authenticate",
        b"c2l-exchange-id",
        b"alt-svc",
    )
    kept = ((b"content-type", b"text/event-stream"), (b"content-length", b"3"), (b"cache-control", b"no-cache"))
    assert from_engine((*((name, b"x") for name in dropped), *kept)) == kept


def test_framing_follows_the_announced_length() -> None:
    assert framing("POST", ((b"content-length", b"12"),)) == Body(BodyKind.LENGTH, 12)
    assert framing("POST", ((b"content-length", b"0"),)) == Body(BodyKind.LENGTH, 0)
    assert framing("POST", ()) == CHUNKED
    assert framing("GET", ()) == NO_BODY
    assert framing("GET", ((b"content-length", b"0"),)) == NO_BODY
    assert framing("DELETE", ((b"content-length", b"2"),)) == Body(BodyKind.LENGTH, 2)


@pytest.mark.parametrize(
    "lengths", [(b"1", b"1"), (b"1", b"2"), (b"-1",), (b"+1",), (b"1,1",), (b"0x1",), (b"",), (b"9" * 16,)]
)
def test_ambiguous_lengths_are_refused(lengths: tuple[bytes, ...]) -> None:
    with pytest.raises(FieldsRefusedError):
        framing("POST", tuple((b"content-length", length) for length in lengths))


def test_compressed_content_is_recognised() -> None:
    assert is_encoded(((b"content-encoding", b"gzip"),))
    assert not is_encoded(((b"content-encoding", b"identity"),))
    assert not is_encoded(())
