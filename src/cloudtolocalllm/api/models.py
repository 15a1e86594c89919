"""What the HTTP API takes and gives, as OpenAPI shows it. Times are seconds since the epoch, UTC."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtolocalllm.api.registry import MAX_NAME
from cloudtolocalllm.auth.scopes import MAX_COUNT, MAX_MODELS, MAX_ROUTES

_AT = 1_795_411_281.5
_KEY_ID = "3fomfi6a5lvd"
_BRIDGE_ID = "k2qxv7hd4m3a"

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"\S", examples=["Laptop"])]


def _example(**members: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [members]})


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class SignIn(_Input):
    """The token of a one-time link."""

    token: Annotated[str, Field(max_length=200, examples=["Zk3v1Yb0cJqf9m2W7tR4xN8sLhP5uAeGdQoBiT6wCyE"])]


class NewName(_Input):
    """A name for people."""

    name: Name


class OfferedProvider(BaseModel):
    """A provider to sign in with."""

    model_config = _example(id="oidc", name="Example")

    id: str
    """As in /api/auth/ID/start."""
    name: str


class SessionStatus(BaseModel):
    """Whether somebody is signed in here."""

    model_config = _example(
        signed_in=True, user="u_guq5pi4vzry6glg2sssi", expires=_AT, name="Alice",
        email="alice@example.org", admin=False, providers=[{"id": "oidc", "name": "Example"}], sign_in="oidc",
    )  # fmt: skip

    signed_in: bool
    user: str | None = None
    """None when nobody is, as the members that follow."""
    expires: float | None = None
    name: str | None = None
    email: str | None = None
    admin: bool = False
    providers: list[OfferedProvider]
    """With whom one can sign in."""
    sign_in: Literal["link", "oidc"]
    """How one does: with a one-time link, or with one of the providers."""


class SignedOut(BaseModel):
    """A session that was ended."""

    model_config = _example(redirect_to="https://login.example.org/session/end?client_id=c2l")

    redirect_to: str | None
    """Where to go to end the session with the provider too; None for nowhere."""


class KeyRequest(_Input):
    """What a new API key is to be called and may do; a limit that is left out is none."""

    model_config = _example(
        name="Laptop", days=90, routes=["/v1/"], models=["llama3.2:*"], requests_per_minute=60,
        tokens_per_day=100_000, bridge=_BRIDGE_ID,
    )  # fmt: skip

    name: Name
    days: Annotated[int, Field(ge=1, le=366)] = 90
    """Until it expires."""
    routes: Annotated[list[str] | None, Field(max_length=MAX_ROUTES, examples=[["/v1/"]])] = None
    """Public paths, each exact or, when it ends with "/", with all below it."""
    models: Annotated[list[str] | None, Field(max_length=MAX_MODELS, examples=[["llama3.2:*"]])] = None
    """Patterns: `*` is any text, `?` any character."""
    requests_per_minute: Annotated[int | None, Field(ge=1, le=MAX_COUNT)] = None
    tokens_per_day: Annotated[int | None, Field(ge=1, le=MAX_COUNT)] = None
    bridge: Annotated[str | None, Field(max_length=64, examples=[_BRIDGE_ID])] = None
    """The only machine that it reaches."""


class NewKey(BaseModel):
    """A new API key; the only time that it is shown."""

    model_config = _example(
        id=_KEY_ID, name="Laptop", key="c2l_eyJhbGciOiJFZDI1NTE5Iiwia2lkIjo...", created=_AT, expires=_AT + 7_776_000,
        routes=["/v1/"], models=None, requests_per_minute=60, tokens_per_day=None, bridge=None,
    )  # fmt: skip

    id: str
    name: str
    key: str
    created: float
    expires: float
    routes: list[str] | None
    models: list[str] | None
    requests_per_minute: int | None
    tokens_per_day: int | None
    bridge: str | None


class Engine(BaseModel):
    """One engine, as its bridge reports it."""

    model_config = _example(id="ollama", kind="ollama", state="up")

    id: str
    kind: Literal["ollama", "openai", "demo"]
    state: Literal["up", "down", "loading"]


class Bridge(BaseModel):
    """A paired bridge."""

    model_config = _example(
        id=_BRIDGE_ID, name="Desktop", connected=True, since=_AT, last_seen=_AT, version="0.1.0",
        engines=[{"id": "ollama", "kind": "ollama", "state": "up"}],
    )  # fmt: skip

    id: str
    name: str
    connected: bool
    since: float | None
    """When it connected; None when it is not connected."""
    last_seen: float | None
    """None when it never connected."""
    version: str | None
    engines: list[Engine]
    """Empty when it is not connected."""


class ProxyStatus(BaseModel):
    """The user's streaming proxy."""

    model_config = _example(state="ready")

    state: Literal["starting", "ready", "stopping", "unknown"]
    """`unknown`: the manager does not answer."""


State = Literal["no-bridge", "bridge-offline", "engine-down", "loading", "ready"]


class StreamingStatus(BaseModel):
    """What stands between a user and an answer.

    `no-bridge`: none is paired. `bridge-offline`: none is connected. `engine-down`: a bridge is connected, but no
    engine answers it. `loading`: a request waits while an engine loads its model. `ready`: an engine is up.
    """

    model_config = _example(
        state="ready",
        bridges=[
            {
                "id": _BRIDGE_ID, "name": "Desktop", "connected": True, "since": _AT, "last_seen": _AT,
                "version": "0.1.0", "engines": [{"id": "ollama", "kind": "ollama", "state": "up"}],
            }
        ],
        proxy={"state": "ready"},
    )  # fmt: skip

    state: State
    bridges: list[Bridge]
    proxy: ProxyStatus | None
    """None when there is none now; one is made with the next request."""


class Health(BaseModel):
    """Whether the process lives."""

    model_config = _example(status="ok")

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests can be served."""

    model_config = _example(status="ready", manager=True)

    status: Literal["ready", "not-ready"]
    manager: bool
    """Whether the streaming proxy manager answers."""


class ProblemDocument(BaseModel):
    """A failure (RFC 9457); `type` tells kinds apart."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:c2l:problem:not-found",
                    "title": "There is nothing here",
                    "status": 404,
                    "detail": "You have no API key with this id.",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str


class Overview(BaseModel):
    """How much is going on, for administrators."""

    model_config = _example(
        bridges_connected=3, instances=2, users_active=2, version="0.1.0", sign_up="open", provider="Example"
    )

    bridges_connected: int
    instances: int | None
    """Streaming proxies, spare ones too; None when the manager does not answer."""
    users_active: int | None
    """Users with a streaming proxy."""
    version: str
    sign_up: Literal["open", "allow-list", "closed"]
    provider: str | None
    """None without one: a single owner."""


class AuditEvent(BaseModel):
    """One line of the audit log, for people; the log itself has more."""

    model_config = _example(
        time=_AT,
        event="sign-in",
        outcome="success",
        user="u_guq5pi4vzry6glg2sssi",
        reason=None,
        request_id="a1b2c3d4",
    )

    time: float
    event: str
    outcome: Literal["success", "failure"]
    user: str | None
    reason: str | None
    request_id: str | None


class AuditEvents(BaseModel):
    """The latest events, newest first."""

    model_config = _example(
        events=[
            {
                "time": _AT, "event": "sign-in", "outcome": "success", "user": "u_guq5pi4vzry6glg2sssi",
                "reason": None, "request_id": "a1b2c3d4",
            }
        ]
    )  # fmt: skip

    events: list[AuditEvent]
