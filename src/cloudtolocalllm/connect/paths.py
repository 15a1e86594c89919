"""Which local requests are served, and what they are called inside the envelope: pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.loopback import NAMES, OWN_SITES, field, host_name

STATUS_PATH: Final = "/c2l/status"
"""Answered here, for `connect status`."""
LISTS: Final = {"/api/tags": "models", "/api/ps": "models", "/v1/models": "data"}
"""Local paths of lists, and the member that holds each; with several homes they are joined."""
_GENERATING: Final = frozenset(
    {
        "/ollama/api/chat", "/ollama/api/generate", "/ollama/api/embed", "/ollama/api/embeddings", "/ollama/api/show",
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/anthropic/v1/messages",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a local request is not served."""

    problem: Problem
    detail: str


def inner_target(target: str) -> str | None:
    """Return a local target as the home knows it; None when nothing is there.

    Args:
        target: Path and query.
    """
    path = target.partition("?")[0]
    if path == "/" or path.startswith("/api/"):
        return "/ollama" + target
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "/anthropic" + target
    if path.startswith(("/v1/", "/anthropic/v1/")):
        return target
    return None


def changes_nothing(method: str, target: str) -> bool:
    """Tell whether a request leaves a home as it was, so that one that was half done there may be begun elsewhere.

    Args:
        method: HTTP method.
        target: As the home knows it.
    """
    return method == "POST" and target.partition("?")[0] in _GENERATING


@dataclass(frozen=True, slots=True)
class Door:
    """Who on this computer may ask."""

    hosts: frozenset[str] = frozenset()
    """Names in Host besides those of the loopback, in lower case."""
    origins: frozenset[str] = frozenset()
    """Origins of pages that may ask; "*" for every one."""

    @classmethod
    def of(cls, hosts: Collection[str], origins: Collection[str]) -> "Door":
        """Return the door for these settings."""
        return cls(frozenset(name.lower() for name in hosts), frozenset(name.rstrip("/") for name in origins))

    def refusal(self, headers: Headers) -> Refusal | None:
        """Return why a request is not served, None when it is.

        A browser sends Host as the page's address has it, so that a name which was made to point here shows (DNS
        rebinding); it sends Origin with what a page could do harm with, and Sec-Fetch-Site with everything.
        """
        host = field(headers, b"host")
        if host is not None and host_name(host) not in NAMES | self.hosts:
            return Refusal(Problem.FORBIDDEN, "Expected Host to be localhost; allow other names with --host.")
        origin = field(headers, b"origin")
        if origin is not None:
            allowed = self.allows_origin(origin) or (host is not None and origin == f"http://{host}")
            return None if allowed else _FOREIGN_PAGE
        site = field(headers, b"sec-fetch-site")
        return None if site is None or site in OWN_SITES or "*" in self.origins else _FOREIGN_PAGE

    def allows_origin(self, origin: str) -> bool:
        """Tell whether a page from elsewhere may ask, by setting."""
        return origin in self.origins or "*" in self.origins

    def cors_fields(self, headers: Headers, *, preflight: bool = False) -> Headers:
        """Return the fields that let an allowed page read the answer; none for anybody else."""
        origin = field(headers, b"origin")
        if origin is None or not self.allows_origin(origin):
            return ()
        fields: Headers = ((b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin"))
        if not preflight:
            return fields
        asked = field(headers, b"access-control-request-headers") or "content-type"
        return (
            *fields,
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
            (b"access-control-allow-headers", asked.encode("latin-1")),
            (b"access-control-max-age", b"600"),
        )


_FOREIGN_PAGE: Final = Refusal(
    Problem.FORBIDDEN, "Pages of a browser may not ask here; allow one by its origin with --origin."
)
