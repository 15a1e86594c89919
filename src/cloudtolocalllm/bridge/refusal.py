"""Why a request gets a problem document instead of an engine's answer."""

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.runtime.http1 import Headers


class RefusalError(Exception):
    """The request ends here, before its response's head."""

    def __init__(self, problem: Problem, detail: str, *, retry_after: int | None = None) -> None:
        """Say why.

        Args:
            problem: The type.
            detail: One sentence for people: what happened and what to do; nothing of the request.
            retry_after: Seconds after which to try again, when that is known.
        """
        super().__init__(f"{problem.value.slug}: {detail}")
        self.problem = problem
        self.detail = detail
        self.retry_after = retry_after


def problem_response(refusal: RefusalError) -> tuple[int, Headers, bytes]:
    """Return status, header fields and content of a problem document."""
    status = refusal.problem.value.status
    content = problem_content(refusal.problem, refusal.detail)
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §11.6.1: a 401 must say how
    return status, tuple(headers), content
