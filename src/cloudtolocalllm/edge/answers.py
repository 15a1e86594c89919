"""Answers that the edge itself gives."""

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.edge.headers import SECURITY
from cloudtolocalllm.runtime.http1 import Headers, Responder
from cloudtolocalllm.runtime.http1.answered import Answered as Answered

NOT_PASSED_ON = "The request could not be passed on."
_BEARER: Headers = ((b"www-authenticate", b'Bearer realm="cloudtolocalllm"'),)


def problem_answer(
    problem: Problem, detail: str, extra: Headers = (), *, status: int | None = None
) -> tuple[int, Headers, bytes]:
    """Return an answer with a problem document, as `Responder.respond` takes it.

    Args:
        problem: Its type.
        detail: A sentence for people.
        extra: Further fields.
        status: None for the type's own.
    """
    headers: Headers = ((b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store"), *SECURITY, *extra)
    if problem is Problem.METHOD_NOT_ALLOWED:
        headers = (*headers, (b"allow", b"GET, HEAD"))  # only the page's files are answered so, here
    if problem is Problem.UNAUTHENTICATED and not any(name == b"www-authenticate" for name, _ in extra):
        headers = (*headers, *_BEARER)
    status = status or problem.value.status
    return status, headers, problem_content(problem, detail, status=status)


def send_problem(
    responder: Responder, problem: Problem, detail: str, extra: Headers = (), *, status: int | None = None
) -> None:
    """Answer with a problem document; see `problem_answer`."""
    responder.respond(*problem_answer(problem, detail, extra, status=status))


def retry_after(seconds: str | None) -> Headers:
    """Return the field, or none for None."""
    return () if seconds is None else ((b"retry-after", seconds.encode()),)
