"""Fields on their way in and out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.contracts import authorize
from cloudtolocalllm.edge.headers import (
    ASSERTED_BY_US,
    CREDENTIALS,
    SECURITY,
    request_id,
    to_api,
    to_client,
    to_proxy,
)
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.http1.messages import HOP_BY_HOP

names = st.sampled_from(
    sorted(
        ASSERTED_BY_US
        | CREDENTIALS
        | HOP_BY_HOP
        | {name for name, _ in SECURITY}
        | {b"host", b"accept", b"content-type", b"content-length", b"set-cookie", b"x-accel-buffering", b"x-custom"}
        | {b"access-control-allow-origin", b"access-control-expose-headers"}
    )
)
ON_THE_ORIGIN = {
    *(b"clear-site-data", b"strict-transport-security", b"service-worker-allowed", b"alt-svc", b"refresh", b"nel"),
    *(b"report-to", b"reporting-endpoints", b"content-security-policy-report-only", b"set-cookie"),
}
values = st.sampled_from([b"forged", b"close", b"c2l-assertion, x-request-id", b"x-custom", b"host", b""])
headers = st.lists(st.tuples(names, values), max_size=12).map(tuple)


def count(fields: Headers, name: bytes) -> int:
    return sum(1 for key, _ in fields if key == name)


@given(headers)
def test_a_proxy_gets_our_assertion_and_nobody_elses(sent: Headers) -> None:
    kept = to_proxy(sent, b"our-id", b"v1.ours.mac")
    assert [value for name, value in kept if name == authorize.ASSERTION] == [b"v1.ours.mac"]
    assert [value for name, value in kept if name == b"x-request-id"] == [b"our-id"]
    others = {name for name, _ in kept} - {authorize.ASSERTION, b"x-request-id"}
    assert not others & (ASSERTED_BY_US | CREDENTIALS | HOP_BY_HOP)


@given(headers)
def test_the_api_learns_the_address_from_us(sent: Headers) -> None:
    kept = to_api(sent, b"our-id", "192.0.2.7")
    ours = {b"x-request-id": b"our-id", b"x-forwarded-for": b"192.0.2.7", b"x-forwarded-proto": b"http"}
    for name, value in ours.items():
        assert [v for n, v in kept if n == name] == [value]
    assert not ({name for name, _ in kept} - set(ours)) & (ASSERTED_BY_US | HOP_BY_HOP)


@given(headers, st.booleans())
def test_a_client_gets_our_security_fields_once(answered: Headers, data: bool) -> None:
    kept = to_client(answered, data=data)
    for name, value in SECURITY:
        assert [v for n, v in kept if n == name] == [value]
    assert not any(name.startswith(b"access-control-") or name in HOP_BY_HOP for name, _ in kept)
    if data:
        assert count(kept, b"set-cookie") == 0
        assert [v for n, v in kept if n == b"x-accel-buffering"] == [b"no"]


def test_what_is_not_ours_to_judge_passes_in_order() -> None:
    sent = ((b"host", b"h"), (b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3"))
    assert to_proxy(sent, b"i", b"a")[:4] == sent
    assert to_api(sent, b"i", "p")[:4] == sent
    assert to_client(sent, data=True)[:4] == sent


def test_the_api_may_set_its_cookie() -> None:
    assert count(to_client(((b"set-cookie", b"a=b"),), data=False), b"set-cookie") == 1


@pytest.mark.parametrize("name", sorted(ON_THE_ORIGIN))
def test_home_does_not_act_on_the_pages_origin(name: bytes) -> None:
    assert count(to_client(((name, b"x"),), data=True), name) == 0


@pytest.mark.parametrize("sent", [b"abcdef-123", b"a", b"x" * 64, b"A.b_c-9"])
def test_a_harmless_request_id_is_kept(sent: bytes) -> None:
    assert request_id(sent) == sent


@given(st.one_of(st.none(), st.binary(max_size=80)))
def test_a_request_id_is_always_harmless(sent: bytes | None) -> None:
    made = request_id(sent)
    assert re.fullmatch(rb"[A-Za-z0-9_.-]{1,64}", made)
    if sent is None:
        assert len(made) == 16
        assert made != request_id(None)
