"""A local request, and where its answer goes."""

from dataclasses import dataclass
from typing import Protocol

from cloudtolocalllm.connect.errors import HomeError
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, problem_content
from cloudtolocalllm.runtime.http1 import Headers


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """What a local client asked, whole."""

    method: str
    target: str
    """As the home knows it."""
    headers: Headers
    content: bytes = b""


class LocalAnswer(Protocol):
    """Where the answer goes."""

    def inform(self, status: int, headers: Headers) -> None:
        """Send an informational head."""

    def start(self, status: int, headers: Headers) -> None:
        """Send the head."""

    async def write(self, data: bytes) -> None:
        """Send content, and wait until more can be taken."""

    def end(self, trailers: Headers) -> None:
        """It is complete."""

    def whole(self, status: int, headers: Headers, content: bytes) -> None:
        """Send all of it."""

    def abort(self) -> None:
        """Break it off, so that the client sees that it is cut short."""


def refuse(answer: LocalAnswer, error: HomeError) -> None:
    """Tell a local client why there is no answer."""
    headers: list[tuple[bytes, bytes]] = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    answer.whole(error.problem.value.status, tuple(headers), problem_content(error.problem, error.detail))
