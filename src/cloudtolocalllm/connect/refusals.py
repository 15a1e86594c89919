"""What an answer that is not sealed says: the cloud's refusals, and the gateway's of what it cannot open. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, TYPE_PREFIX, Problem
from cloudtolocalllm.runtime.http1 import Headers

MAX_PROBLEM: Final = 64 * 1024
"""Bytes of a problem document."""
_MAX_SENTENCE: Final = 500
_SILENT: Final = "The server is there, but something on the way to the home failed"


@dataclass(frozen=True, slots=True)
class Said:
    """A problem document that somebody sent."""

    type: str
    detail: str
    """Made harmless to print; "" when there is none."""

    @property
    def slug(self) -> str:
        """The end of a type of this platform; "" for another."""
        return self.type.removeprefix(TYPE_PREFIX) if self.type.startswith(TYPE_PREFIX) else ""

    def problem(self, otherwise: Problem) -> Problem:
        """Return the problem with that slug, `otherwise` for one that is not known."""
        try:
            return Problem.by_slug(self.slug)
        except KeyError:
            return otherwise


def is_problem(headers: Headers) -> bool:
    """Tell whether a head announces a problem document."""
    return any(name == b"content-type" and value.startswith(CONTENT_TYPE.encode()) for name, value in headers)


def read_problem(content: bytes) -> Said:
    """Read a problem document; nothing in it is believed but its type."""
    try:
        value: Any = json.loads(content[:MAX_PROBLEM])
    except (ValueError, RecursionError):
        value = {}
    found: Mapping[str, Any] = value if isinstance(value, dict) else {}
    kind, detail = found.get("type"), found.get("detail")
    text = "".join(c for c in detail if c.isprintable())[:_MAX_SENTENCE] if isinstance(detail, str) else ""
    return Said(kind if isinstance(kind, str) else "", text)


def refused_in_the_clear(status: int, headers: Headers, content: bytes) -> HomeError:
    """Return what an answer means that is not the sealed one."""
    said = read_problem(content) if is_problem(headers) else Said("", "")
    if status == 400 and said.type == Problem.OHTTP_KEY.value.uri:
        return HomeError(
            Fault.STALE_KEY, Problem.BRIDGE_OFFLINE, "The home does not know its own key; look at the bridge there."
        )
    if status == 400:
        return HomeError(
            Fault.DAMAGED, Problem.ENGINE_UNREACHABLE, "What was sent arrived changed; somebody on the way alters it."
        )
    if status == 401:
        return HomeError(
            Fault.REFUSED, Problem.UNAUTHENTICATED,
            "The server refuses this computer's API key: it was revoked or has expired. Give another: "
            "`cloudtolocalllm connect set HOME --key-file FILE`.",
        )  # fmt: skip
    if status == 404 and said.slug:
        return HomeError(
            Fault.REFUSED, Problem.NOT_FOUND,
            "The account of this API key has no such machine: it was removed, or it belongs to another account.",
        )  # fmt: skip
    if status in (403, 404, 405, 413, 415, 421) and said.slug:
        problem = said.problem(Problem.FORBIDDEN)
        return HomeError(Fault.REFUSED, problem, said.detail or "The server does not let this request through.")
    if status == 429:
        return HomeError(
            Fault.NOT_TAKEN, Problem.RATE_LIMITED, said.detail or "Too many requests in too short a time.",
            retry_after=_retry_after(headers),
        )  # fmt: skip
    if status == 503 and said.slug and said.slug != Problem.CONNECTION_LOST.value.slug:
        problem = said.problem(Problem.OVERLOADED)
        fault = Fault.AWAY if problem is Problem.BRIDGE_OFFLINE else Fault.NOT_TAKEN
        return HomeError(fault, problem, said.detail or "The home is not reachable now.")
    if status < 500 and not said.slug:  # a sign-in page of a network, another server in its place
        return HomeError(
            Fault.NOT_TAKEN, Problem.BRIDGE_OFFLINE,
            f"Something else than the server answered (status {status}); does this network want you to sign in?",
        )  # fmt: skip
    return HomeError(Fault.LOST, Problem.TIMED_OUT, said.detail or f"{_SILENT} (status {status}).")


def _retry_after(headers: Headers) -> float | None:
    value = next((value for name, value in headers if name == b"retry-after"), b"")
    return float(value) if value.isdigit() and len(value) < 6 else None
