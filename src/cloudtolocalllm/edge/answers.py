"""Answers that the edge itself gives."""

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.edge.headers import SECURITY
from cloudtolocalllm.runtime.http1 import Headers, Responder


def send_problem(
    responder: Responder, problem: Problem, detail: str, *, status: int | None = None, retry_after: str | None = None
) -> None:
    """Answer with a problem document.

    Args:
        responder: Of the request.
        problem: Its type.
        detail: A sentence for people.
        status: None for the type's own.
        retry_after: Seconds; None for no Retry-After.
    """
    headers: Headers = ((b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store"), *SECURITY)
    if retry_after is not None:
        headers = (*headers, (b"retry-after", retry_after.encode()))
    if problem is Problem.METHOD_NOT_ALLOWED:
        headers = (*headers, (b"allow", b"GET, HEAD"))  # only the page's files are answered so, here
    if problem is Problem.UNAUTHENTICATED:
        headers = (*headers, (b"www-authenticate", b'Bearer realm="cloudtolocalllm"'))
    responder.respond(status or problem.value.status, headers, problem_content(problem, detail))


class Answered:
    """Handles the rest of a request that was answered at once."""

    __slots__ = ()

    def on_body(self, data: bytes) -> None:
        """Content that nobody needs."""

    def on_body_end(self, trailers: Headers) -> None:
        """Nothing to do."""

    def on_disconnect(self) -> None:
        """Nothing to do."""

    def on_writable(self, writable: bool) -> None:
        """Nothing to do."""
