"""Why a request gets a problem document instead of an engine's answer."""

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.runtime.http1 import Headers


class RefusalError(Exception):
    """The request ends here, before its response's head."""

    def __init__(self, problem: Problem, detail: str) -> None:
        """Say why.

        Args:
            problem: The type.
            detail: One sentence for people: what happened and what to do; nothing of the request.
        """
        super().__init__(f"{problem.value.slug}: {detail}")
        self.problem = problem
        self.detail = detail


def problem_response(problem: Problem, detail: str) -> tuple[int, Headers, bytes]:
    """Return status, header fields and content of a problem document."""
    content = problem_content(problem, detail)
    headers = (
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    )
    return problem.value.status, headers, content
