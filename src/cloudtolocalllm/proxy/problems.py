"""How this proxy says that something failed (RFC 9457)."""

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.proxy.limits import Refusal
from cloudtolocalllm.runtime.http1 import Headers, Responder
from cloudtolocalllm.tunnel import ResetReason

EXCHANGE_ID = b"c2l-exchange-id"

_RETRY_AFTER = {Problem.OVERLOADED: b"1", Problem.BRIDGE_OFFLINE: b"5", Problem.CONNECTION_LOST: b"5"}
"""Seconds: a queue moves within one; a machine that wakes up dials within five."""

_OF_RESET: dict[ResetReason, tuple[Problem, str]] = {
    ResetReason.CANCELLED: (Problem.ENGINE_ERROR, "The request was stopped before its answer began."),
    ResetReason.REFUSED: (Problem.OVERLOADED, "The bridge takes no more requests now; try again shortly."),
    ResetReason.ENGINE_UNREACHABLE: (
        Problem.ENGINE_UNREACHABLE,
        "The bridge is connected but its model engine does not answer; start it there.",
    ),
    ResetReason.ENGINE_ERROR: (Problem.ENGINE_ERROR, "The model engine broke off before its answer began."),
    ResetReason.TOO_LARGE: (Problem.TOO_LARGE, "The bridge refuses a request of this size."),
    ResetReason.TIMED_OUT: (Problem.TIMED_OUT, "The model engine gave no answer in time."),
    ResetReason.INTERNAL: (Problem.INTERNAL, "The bridge failed; its log says why."),
    ResetReason.SESSION_LOST: (
        Problem.CONNECTION_LOST,  # not `bridge-offline`: the bridge may have the request, and be at it
        "The connection to the machine at home was lost and did not come back in time.",
    ),
}


def of_reset(reason: ResetReason) -> tuple[Problem, str]:
    """Return what a stream's reset before its answer means to the client: problem type and sentence."""
    return _OF_RESET[reason]


def respond(
    responder: Responder,
    problem: Problem,
    detail: str,
    exchange_id: bytes | None = None,
    fields: Headers = (),
    refusal: Refusal | None = None,
) -> None:
    """Answer a request with a problem document.

    Args:
        responder: The request's.
        problem: Its type.
        detail: One sentence for people.
        exchange_id: The exchange's name, when there is one.
        fields: Further header fields.
        refusal: The limit that is reached, if that is the problem.
    """
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"cache-control", b"no-store"),
        *fields,
    ]
    members: dict[str, object] = {}
    if exchange_id is not None:
        headers.append((EXCHANGE_ID, exchange_id))
        members["exchange"] = exchange_id.decode("ascii")
    retry_after = _RETRY_AFTER.get(problem)
    if refusal is not None:
        retry_after = str(refusal.retry_after).encode()
        members["violated-policies"] = [refusal.policy]
    if retry_after is not None:
        headers.append((b"retry-after", retry_after))
    if problem is Problem.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §11.6.1: a 401 must say how
    answer: Headers = tuple(headers)
    responder.respond(problem.value.status, answer, problem_content(problem, detail, **members))
