"""The problem types of the platform (RFC 9457), told apart by a machine-readable `type`."""

import json
from dataclasses import dataclass
from enum import Enum

TYPE_PREFIX = "urn:c2l:problem:"
REGISTRY = "https://iana.org/assignments/http-problem-types#"
"""Begins the types that others know too (RFC 9457 §4.2)."""
CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of failure: what `type`, `title` and status it has."""

    slug: str
    status: int
    title: str
    registered: bool = False
    """Whether the type is one of IANA's registry, by the name of the slug."""

    @property
    def uri(self) -> str:
        """The value of the member `type`."""
        return (REGISTRY if self.registered else TYPE_PREFIX) + self.slug


class Problem(Enum):
    """Every problem type. Documented in docs/reference/problems.md."""

    UNAUTHENTICATED = ProblemType("unauthenticated", 401, "Sign in or send an API key")
    FORBIDDEN = ProblemType("forbidden", 403, "Not allowed")
    BAD_REQUEST = ProblemType("bad-request", 400, "The request is malformed")
    NOT_FOUND = ProblemType("not-found", 404, "There is nothing here")
    METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "This route has other methods")
    KEY_SCOPE = ProblemType("key-scope", 403, "This API key does not reach that far")
    RATE_LIMITED = ProblemType("rate-limited", 429, "Too many in too short a time")
    ROUTE_REFUSED = ProblemType("route-refused", 403, "The bridge does not serve this route")
    PLAIN_OFF = ProblemType("plain-off", 403, "Readable requests are switched off at home")
    DEVICE_UNKNOWN = ProblemType("device-unknown", 401, "The machine at home does not know this device")
    EXCHANGE_UNKNOWN = ProblemType("exchange-unknown", 404, "This answer cannot be taken up again")
    OHTTP_KEY = ProblemType("ohttp-key", 400, "This key is not held any more", registered=True)
    DATE = ProblemType("date", 400, "The clocks differ too much", registered=True)
    MODEL_NOT_FOUND = ProblemType("model-not-found", 404, "No engine at home has this model")
    TOO_LARGE = ProblemType("too-large", 413, "The request is too large")
    NO_BRIDGE_PAIRED = ProblemType("no-bridge-paired", 503, "No machine is paired with this account")
    BRIDGE_OFFLINE = ProblemType("bridge-offline", 503, "The machine at home is not connected")
    CONNECTION_LOST = ProblemType("connection-lost", 503, "The connection was lost on the way")
    ENGINE_UNREACHABLE = ProblemType("engine-unreachable", 502, "The model engine at home does not answer")
    ENGINE_ERROR = ProblemType("engine-error", 502, "The model engine broke off")
    CONFLICT = ProblemType("conflict", 409, "It does not fit what is there")
    RELOAD = ProblemType("reload", 410, "These changes are not known any more")
    HOME_FULL = ProblemType("home-full", 507, "The home store has no room")
    OVERLOADED = ProblemType("overloaded", 503, "Too much at once")
    TIMED_OUT = ProblemType("timed-out", 504, "No answer in time")
    INTERNAL = ProblemType("internal", 500, "Something went wrong here")

    @classmethod
    def by_slug(cls, slug: str) -> "Problem":
        """Return the type with this slug.

        Raises:
            KeyError: There is none.
        """
        return _BY_SLUG[slug]


_BY_SLUG = {problem.value.slug: problem for problem in Problem}


def problem_content(problem: Problem, detail: str, **members: object) -> bytes:
    """Return a problem document (RFC 9457 §3) as JSON.

    Args:
        problem: Its type, title and status.
        detail: One sentence for people: what happened and what to do. Never bytes of a request.
        members: Extension members.
    """
    value = problem.value
    # "error" makes the official OpenAI and Ollama clients show the sentence instead of raw JSON.
    document: dict[str, object] = {
        "type": value.uri,
        "title": value.title,
        "status": value.status,
        "detail": detail,
        "error": {"message": f"{value.title}. {detail}", "type": value.slug, "code": value.slug},
        **members,
    }
    return json.dumps(document).encode()
