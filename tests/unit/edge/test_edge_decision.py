"""The API's answers as the edge reads them: all statuses, and whatever else comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.contracts import authorize as contract
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge.authorize import Allowed, Refused, _decision, _question
from cloudtolocalllm.runtime.http1 import Headers, Request, Response
from cloudtolocalllm.runtime.http1.messages import NO_BODY

SLUGS = [problem.value.slug.encode() for problem in Problem]


def answer(status: int, /, **fields: bytes) -> Response:
    headers: Headers = tuple((f"c2l-{name.replace('_', '-')}".encode(), value) for name, value in fields.items())
    return Response(status, headers, b"")


def test_allowed() -> None:
    decision = _decision(answer(200, endpoint=b"unix:/run/x.sock", assertion=b"v1.a.b"))
    assert decision == Allowed("unix:/run/x.sock", b"v1.a.b")


@pytest.mark.parametrize(
    "endpoint", [b"", b"nonsense", b"unix:relative", b"h:0", b"h:99999", b":80", b"h:\xb2", b"\xff"]
)
def test_an_endpoint_that_is_none(endpoint: bytes) -> None:
    assert _decision(answer(200, endpoint=endpoint, assertion=b"a")) == unreadable()


@pytest.mark.parametrize(
    "fields", [{}, {"endpoint": b"h:1"}, {"assertion": b"a"}, {"endpoint": b"h:1", "assertion": b""}]
)
def test_an_allowance_without_what_it_needs(fields: dict[str, bytes]) -> None:
    assert _decision(answer(200, **fields)) == unreadable()


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("status", [401, 403])
def test_every_problem_is_passed_on(status: int, slug: bytes) -> None:
    problem = Problem.by_slug(slug.decode())
    given_status = str(problem.value.status).encode()
    decision = _decision(answer(status, problem=slug, status=given_status, detail=b"Do this.", retry_after=b"7"))
    assert decision == Refused(problem, problem.value.status, "Do this.", "7")
    assert _decision(answer(status, problem=slug)) == Refused(problem, problem.value.status, "")


def test_a_bridge_gets_its_challenge_with_401_only() -> None:
    fields = (
        (contract.PROBLEM, b"unauthenticated"), (contract.DPOP_NONCE, b"n1"), (contract.CHALLENGE, b'DPoP error="x"'),
    )  # fmt: skip
    decision = _decision(Response(401, fields, b""))
    assert isinstance(decision, Refused)
    assert decision.fields == ((b"www-authenticate", b'DPoP error="x"'), (b"dpop-nonce", b"n1"))
    decision = _decision(Response(403, (*fields, (contract.STATUS, b"503")), b""))
    assert isinstance(decision, Refused)
    assert decision.fields == ()


@pytest.mark.parametrize(
    "status", [100, 201, 204, 301, 302, 304, 400, 402, 404, 405, 407, 413, 429, 500, 502, 503, 599]
)
def test_another_status_is_no_decision(status: int) -> None:
    full = {"endpoint": b"h:1", "assertion": b"a", "problem": b"forbidden", "status": b"403"}
    assert _decision(answer(status, **full)) == unreadable()


@pytest.mark.parametrize(
    "stated", [b"200", b"101", b"302", b"0", b"-1", b"600", b"99999", b"x", b"4_03", b" 403", b"\xb2"]
)
def test_a_status_that_is_no_refusal_does_not_reach_the_client(stated: bytes) -> None:
    decision = _decision(answer(403, problem=b"forbidden", status=stated))
    assert isinstance(decision, Refused)
    assert 400 <= decision.status < 600


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_without_a_problem_stays_one(status: int) -> None:
    for fields in ({}, {"problem": b"nonsense"}, {"problem": b"\xff"}, {"problem": b"forbidden", "status": b"ok"}):
        decision = _decision(answer(status, **fields))
        assert isinstance(decision, Refused)
        assert decision.status == status
        assert decision.problem is (Problem.UNAUTHENTICATED if status == 401 else Problem.FORBIDDEN)


@pytest.mark.parametrize("seconds", [b"soon", b"-1", b"1\xb2", b"Wed, 21 Oct 2015 07:28:00 GMT", b""])
def test_retry_after_is_a_number_or_left_out(seconds: bytes) -> None:
    decision = _decision(answer(403, problem=b"overloaded", retry_after=seconds))
    assert isinstance(decision, Refused)
    assert decision.retry_after is None


fields = st.dictionaries(
    st.sampled_from(["endpoint", "assertion", "status", "problem", "detail", "retry_after"]),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"forbidden", b"403", b"unix:/x", b"v1.a.b", b"9" * 5000])),
)


@given(st.integers(100, 599), fields)
def test_whatever_the_api_answers_is_a_decision(status: int, sent: dict[str, bytes]) -> None:
    decision = _decision(answer(status, **sent))
    if isinstance(decision, Allowed):
        assert status == 200
        assert decision.endpoint
        assert decision.assertion
    else:
        assert 400 <= decision.status < 600
        decision.detail.encode()


def unreadable() -> Refused:
    return Refused(Problem.INTERNAL, 500, "The API's decision could not be read.")


def test_the_question_carries_the_original_and_nothing_that_a_client_forged() -> None:
    sent = (
        (b"host", b"localhost"),
        (b"authorization", b"Bearer k"),
        (b"cookie", b"a=b"),
        (b"x-request-id", b"theirs"),
        (contract.ORIGINAL_URI, b"/forged"),
        (contract.FRESH, b"1"),
        (contract.ASSERTION, b"forged"),
        (b"x-forwarded-for", b"forged"),
    )
    request = Request("POST", "/v1/x?y=z", sent, NO_BODY, "1.1", True, None, False, b"")
    question = _question(request, b"ours", False)
    assert sorted(question) == [
        (b"authorization", b"Bearer k"),
        (b"cookie", b"a=b"),
        (b"x-original-host", b"localhost"),
        (b"x-original-method", b"POST"),
        (b"x-original-uri", b"/v1/x?y=z"),
        (b"x-request-id", b"ours"),
    ]
    assert (contract.FRESH, b"1") in _question(request, b"ours", True)


def test_a_bridge_is_told_what_its_next_proof_needs() -> None:
    fields: Headers = (
        (contract.PROBLEM, b"unauthenticated"),
        (contract.DPOP_NONCE, b"abc-_1"),
        (contract.CHALLENGE, b'DPoP error="revoked", algs="Ed25519"'),
    )
    decision = _decision(Response(401, fields, b""))
    assert isinstance(decision, Refused)
    assert dict(decision.fields) == {
        b"www-authenticate": b'DPoP error="revoked", algs="Ed25519"',
        b"dpop-nonce": b"abc-_1",
    }
    without = _decision(Response(401, fields[:2], b""))
    assert isinstance(without, Refused)
    assert dict(without.fields)[b"www-authenticate"] == b'DPoP error="use_dpop_nonce"'


@pytest.mark.parametrize("nonce", [b"a b", b"", b"x" * 257, b"a\r\nb: c", b"\xff"])
def test_a_nonce_that_is_none_is_not_passed_on(nonce: bytes) -> None:
    fields: Headers = ((contract.PROBLEM, b"unauthenticated"), (contract.DPOP_NONCE, nonce))
    decision = _decision(Response(401, fields, b""))
    assert isinstance(decision, Refused)
    assert decision.fields == ()


def test_no_other_challenge_is_passed_on() -> None:
    fields: Headers = ((contract.PROBLEM, b"unauthenticated"), (contract.CHALLENGE, b"Basic"))
    decision = _decision(Response(401, fields, b""))
    assert isinstance(decision, Refused)
    assert decision.fields == ()
