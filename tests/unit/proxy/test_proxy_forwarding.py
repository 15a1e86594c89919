"""Heads as they cross the proxy."""

import pytest

from cloudtolocalllm.auth.assertion import CLIENT, Assertion
from cloudtolocalllm.proxy import forwarding
from cloudtolocalllm.runtime.http1 import Body, BodyKind, Headers, Request
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY
from cloudtolocalllm.tunnel import ResponseHead

CLAIMS = Assertion("px-1", "user-1", CLIENT, "key-1", 0, 60, ("home",), "req-1")


def request(headers: Headers = (), *, method: str = "POST") -> Request:
    return Request(
        method=method,
        target="/v1/chat/completions?x=1",
        headers=((b"host", b"relay"), *headers),
        body=NO_BODY,
        http_version="1.1",
        keep_alive=True,
        upgrade=None,
        expect_continue=False,
        raw_head=b"",
    )


def test_credentials_and_addresses_stay_in_the_cloud() -> None:
    private = [
        (b"authorization", b"Bearer secret"),
        (b"x-api-key", b"secret"),
        (b"cookie", b"secret"),
        (b"c2l-assertion", b"v1.secret"),
        (b"x-forwarded-for", b"198.51.100.7"),
        (b"x-real-ip", b"198.51.100.7"),
        (b"forwarded", b"for=198.51.100.7"),
        (b"connection", b"keep-alive, x-hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
        (b"c2l-request-id", b"forged"),
    ]
    head = forwarding.request_head(request((*private, (b"accept", b"*/*"), (b"content-length", b"3"))), CLAIMS, b"x1")
    assert head.headers == (
        (b"accept", b"*/*"),
        (b"content-length", b"3"),
        (b"c2l-exchange-id", b"x1"),
        (b"c2l-request-id", b"req-1"),
    )
    assert head.target == "/v1/chat/completions?x=1"


@pytest.mark.parametrize("given", [b"abcdefghijklmnop", b"A-Z_0-9-a-z_0123456789", b"x" * 64])
def test_a_client_may_name_its_exchange(given: bytes) -> None:
    assert forwarding.exchange_id(request(((b"c2l-exchange-id", given),))) == given


@pytest.mark.parametrize(
    "given", [None, b"", b"short", b"x" * 65, b"spaces are not allowed", b"../../../etc/passwd__"]
)
def test_any_other_name_is_replaced(given: bytes | None) -> None:
    headers: Headers = () if given is None else ((b"c2l-exchange-id", given),)
    made = {forwarding.exchange_id(request(headers)) for _ in range(2)}
    assert len(made) == 2
    assert given not in made
    assert all(16 <= len(name) <= 64 for name in made)


def test_content_length_is_kept_and_anything_else_is_chunked() -> None:
    assert forwarding.response_body("POST", ResponseHead(200)) == (CHUNKED, None)
    sized = ResponseHead(200, ((b"content-length", b"12"),))
    assert forwarding.response_body("POST", sized) == (Body(BodyKind.LENGTH, 12), 12)
    assert forwarding.response_body("HEAD", sized) == (NO_BODY, 0)
    assert forwarding.response_body("GET", ResponseHead(204)) == (NO_BODY, 0)
    assert forwarding.response_body("GET", ResponseHead(304, ((b"content-length", b"9"),))) == (NO_BODY, 0)


@pytest.mark.parametrize("values", [[b"-1"], [b"1", b"2"], [b"0x10"], [b""], [b"1,1"], [b"9" * 16]])
def test_a_malformed_length_is_refused(values: list[bytes]) -> None:
    head = ResponseHead(200, tuple((b"content-length", value) for value in values))
    with pytest.raises(forwarding.ResponseError):
        forwarding.response_body("GET", head)


def test_an_answer_loses_hop_by_hop_fields_and_its_own_exchange_id() -> None:
    fields = ((b"connection", b"close, x-hop"), (b"x-hop", b"1"), (b"c2l-exchange-id", b"other"), (b"server", b"e"))
    assert forwarding.response_fields(fields) == ((b"server", b"e"),)
