"""What the HTTP API takes and gives, as OpenAPI shows it. Times are seconds since the epoch, UTC."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtolocalllm.api.store import MAX_NAME

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


class SessionStatus(BaseModel):
    """Whether somebody is signed in here."""

    model_config = _example(signed_in=True, user="u_guq5pi4vzry6glg2sssi", expires=_AT)

    signed_in: bool
    user: str | None
    """None when nobody is."""
    expires: float | None


class Key(BaseModel):
    """An API key, without its secret."""

    model_config = _example(id=_KEY_ID, name="Laptop", created=_AT, expires=None, last_used=_AT)

    id: str
    name: str
    created: float
    expires: float | None
    last_used: float | None
    """To the minute."""


class NewKey(BaseModel):
    """A new API key; the only time that it is shown."""

    model_config = _example(
        id=_KEY_ID, name="Laptop", key=f"c2l_{_KEY_ID}_OZFdNxEaz5lKY2resCWIIjlt-jrl43m5wttohbF5w0I"
    )

    id: str
    name: str
    key: str


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


class NewBridge(BaseModel):
    """A new bridge; the only time that its credential is shown."""

    model_config = _example(
        bridge_id=_BRIDGE_ID, credential=f"c2lb_{_BRIDGE_ID}_OZFdNxEaz5lKY2resCWIIjlt-jrl43m5wttohbF5w0I"
    )

    bridge_id: str
    credential: str


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
