"""Which requests a bridge serves: exactly the table below, and nothing else, even when the cloud asks.

The engine's path comes from the table, never from the request, so there is nothing to normalise: a target with "..",
"%2e", "//", another case or an absolute form is in no table and therefore refused. Queries are dropped.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum


class ApiFamily(Enum):
    """Which API a route belongs to."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class RouteRefusedError(Exception):
    """The bridge does not serve this route. The text names no part of the request."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a public route leads."""

    method: str
    family: ApiFamily
    path: str
    """The engine's path."""
    names_model: bool = False
    """Whether the request's JSON names a model."""
    journalled: bool = False
    """Whether the answer is generated text, which is kept for re-attaching."""
    merged: str = ""
    """With several engines, the member of the JSON answers whose lists are joined; "" for an answer of one."""


@dataclass(frozen=True, slots=True)
class JournalRoute:
    """A request to the bridge's own journal: GET or HEAD attaches, DELETE stops the exchange."""

    method: str
    exchange_id: str
    offset: int


OPTIONAL_ROUTES = frozenset({"pull", "delete", "copy"})
"""Routes of Ollama that are served only when switched on at home; create, push and blobs never are."""

EXCHANGE_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_JOURNAL_PATH = re.compile(r"/c2l/exchanges/([A-Za-z0-9_-]{16,64})")
_OFFSET = re.compile(r"offset=([0-9]{1,15})")


def _openai(prefix: str) -> dict[tuple[str, str], Route]:
    family = ApiFamily.OPENAI
    return {
        ("GET", f"{prefix}/v1/models"): Route("GET", family, "/v1/models", merged="data"),
        ("POST", f"{prefix}/v1/chat/completions"): Route("POST", family, "/v1/chat/completions", True, True),
        ("POST", f"{prefix}/v1/completions"): Route("POST", family, "/v1/completions", True, True),
        ("POST", f"{prefix}/v1/responses"): Route("POST", family, "/v1/responses", True, True),
        ("POST", f"{prefix}/v1/embeddings"): Route("POST", family, "/v1/embeddings", True),
    }


def _ollama() -> dict[tuple[str, str], Route]:
    family = ApiFamily.OLLAMA
    return {
        ("GET", "/ollama/"): Route("GET", family, "/"),
        ("GET", "/ollama/api/version"): Route("GET", family, "/api/version"),
        ("GET", "/ollama/api/tags"): Route("GET", family, "/api/tags", merged="models"),
        ("GET", "/ollama/api/ps"): Route("GET", family, "/api/ps", merged="models"),
        ("POST", "/ollama/api/chat"): Route("POST", family, "/api/chat", True, True),
        ("POST", "/ollama/api/generate"): Route("POST", family, "/api/generate", True, True),
        ("POST", "/ollama/api/embed"): Route("POST", family, "/api/embed", True),
        ("POST", "/ollama/api/embeddings"): Route("POST", family, "/api/embeddings", True),
        ("POST", "/ollama/api/show"): Route("POST", family, "/api/show", True),
    }


ROUTES: dict[tuple[str, str], Route] = {
    **_openai(""),
    # Clients with OLLAMA_HOST=…/ollama find Ollama's OpenAI-compatible routes below the same base.
    **_openai("/ollama"),
    **_ollama(),
    ("POST", "/anthropic/v1/messages"): Route("POST", ApiFamily.ANTHROPIC, "/v1/messages", True, True),
}

SWITCHED: dict[tuple[str, str], tuple[str, Route]] = {
    ("POST", "/ollama/api/pull"): ("pull", Route("POST", ApiFamily.OLLAMA, "/api/pull", True)),
    ("DELETE", "/ollama/api/delete"): ("delete", Route("DELETE", ApiFamily.OLLAMA, "/api/delete", True)),
    ("POST", "/ollama/api/copy"): ("copy", Route("POST", ApiFamily.OLLAMA, "/api/copy", True)),
}


def admit(method: str, target: str, allow: Collection[str] = ()) -> Route | JournalRoute:
    """Return where a request leads.

    Args:
        method: As received; methods are case-sensitive (RFC 9110 §9.1).
        target: As received, in origin form.
        allow: Which of OPTIONAL_ROUTES are switched on.

    Raises:
        RouteRefusedError: It leads nowhere.
    """
    path, _, query = target.partition("?")
    asked = "GET" if method == "HEAD" else method
    route = ROUTES.get((asked, path))
    if route is None and (switched := SWITCHED.get((asked, path))) is not None:
        name, route = switched
        if name not in allow:
            raise RouteRefusedError(f"It is switched off at home; allow {name} in the bridge's settings to use it.")
    if route is not None:
        return route if method == asked else Route("HEAD", route.family, route.path, merged=route.merged)
    journal = _JOURNAL_PATH.fullmatch(path)
    if journal is not None and asked in ("GET", "DELETE"):
        return JournalRoute(method, journal.group(1), _offset(query))
    raise RouteRefusedError("Only listing, chat, completion and embedding routes are served; see the documentation.")


def _offset(query: str) -> int:
    if not query:
        return 0
    match = _OFFSET.fullmatch(query)
    if match is None:
        raise RouteRefusedError("Expected no query, or offset and a number of bytes.")
    return int(match.group(1))
