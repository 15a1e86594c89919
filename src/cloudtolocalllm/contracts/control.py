"""Messages of a bridge's control connection (/ws/bridge): JSON texts, one object each.

Nothing that a user says to a model ever crosses this connection. A new API key's name and model patterns do, on their
way to the list at home, the only place that keeps them.
"""

import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

SUBPROTOCOL = "c2l-control.v1"
HEARTBEAT = 5.0
"""Seconds between the bridge's WebSocket pings."""
DEAD_AFTER = 12.0
"""Seconds of silence after which either side takes the connection for dead: two missed pings and some slack."""
MAX_MESSAGE = 16 * 1024


class EngineState(Enum):
    """What a bridge knows of an engine."""

    UP = "up"
    DOWN = "down"
    LOADING = "loading"
    """A request waits while the engine loads its model."""


class EngineKind(Enum):
    """Which API an engine speaks natively."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    DEMO = "demo"
    """The scripted engine that stands in where none was found; speaks Ollama's API."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine, as its bridge reports it."""

    id: str
    kind: EngineKind
    state: EngineState


@dataclass(frozen=True, slots=True)
class Hello:
    """Bridge to API, first."""

    version: str
    name: str
    engines: tuple[EngineStatus, ...]


@dataclass(frozen=True, slots=True)
class Presence:
    """Bridge to API, whenever an engine's state changes."""

    engines: tuple[EngineStatus, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """API to bridge, in answer to Hello."""

    bridge_id: str
    nonce: str = ""
    """For the bridge's next proof of possession (RFC 9449 §8)."""


@dataclass(frozen=True, slots=True)
class Wake:
    """API to bridge: dial the tunnel, for the user's proxy `instance` waits for it."""

    instance: str
    nonce: str = ""
    """For the proof at that dial, so that it takes one round trip."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """API to bridge: the credential is void; do not come back with it."""


@dataclass(frozen=True, slots=True)
class KeyAdded:
    """API to bridge: the user made an API key."""

    key_id: str
    name: str
    """For people."""
    created: int
    """Seconds since the epoch, as `expires`."""
    expires: int
    scope: str
    """A JSON object, as in the field C2L-Scope (contracts.home)."""


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """API to bridge: an API key is void."""

    key_id: str


Message = Hello | Presence | Welcome | Wake | Revoked | KeyAdded | KeyRevoked


class ControlMessageError(ValueError):
    """A control message that is not one; the text says what was expected and never quotes the message."""


def encode(message: Message) -> str:
    """Return the message's JSON text."""
    value = asdict(message)
    if "engines" in value:
        value["engines"] = [
            {"id": e["id"], "kind": e["kind"].value, "state": e["state"].value} for e in value["engines"]
        ]
    return json.dumps({"type": type(message).__name__.lower(), **value})


def decode(text: str) -> Message:
    """Read a message.

    Raises:
        ControlMessageError: It is over the limit, not JSON, of no known type, or a member is missing or malformed.
    """
    if len(text) > MAX_MESSAGE:
        raise ControlMessageError(f"expected at most {MAX_MESSAGE} characters, got {len(text)}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ControlMessageError("expected a JSON text") from None
    if not isinstance(value, dict):
        raise ControlMessageError("expected a JSON object")
    kind = value.get("type")
    match kind:
        case "hello":
            return Hello(_text(value, "version", 64), _text(value, "name", 128), _engines(value))
        case "presence":
            return Presence(_engines(value))
        case "welcome":
            return Welcome(_text(value, "bridge_id", 64), _optional(value, "nonce", 256))
        case "wake":
            return Wake(_text(value, "instance", 64), _optional(value, "nonce", 256))
        case "revoked":
            return Revoked()
        case "keyadded":
            times = _whole(value, "created"), _whole(value, "expires")
            return KeyAdded(
                _text(value, "key_id", 64), _text(value, "name", 128), *times, _text(value, "scope", 4096)
            )
        case "keyrevoked":
            return KeyRevoked(_text(value, "key_id", 64))
        case _:
            raise ControlMessageError("expected a known type, such as hello, presence, welcome, wake or revoked")


def _text(value: dict[str, Any], member: str, limit: int) -> str:
    text = value.get(member)
    if not isinstance(text, str) or len(text) > limit:
        raise ControlMessageError(f"expected member {member} to be a text of at most {limit} characters")
    return text


def _whole(value: dict[str, Any], member: str) -> int:
    number = value.get(member)
    if type(number) is not int or not 0 <= number < 2**53:
        raise ControlMessageError(f"expected member {member} to be a whole number")
    return number


def _optional(value: dict[str, Any], member: str, limit: int) -> str:
    return _text(value, member, limit) if member in value else ""


def _engines(value: dict[str, Any]) -> tuple[EngineStatus, ...]:
    engines = value.get("engines")
    if not isinstance(engines, list) or len(engines) > 32:
        raise ControlMessageError("expected member engines to be a list of at most 32")
    result = []
    for engine in engines:
        if not isinstance(engine, dict):
            raise ControlMessageError("expected each engine to be an object")
        try:
            result.append(
                EngineStatus(
                    _text(engine, "id", 64), EngineKind(engine.get("kind")), EngineState(engine.get("state"))
                )
            )
        except ValueError as error:
            if isinstance(error, ControlMessageError):
                raise
            raise ControlMessageError("expected a known engine kind and state") from None
    return tuple(result)
