"""What goes into the home API and comes out of it, whatever carries it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Whoever carries the request has made sure of it; nothing here does."""

    device: str | None
    """Id of a paired device; None for somebody at the machine itself."""

    @property
    def name(self) -> str:
        """Return how an approval by it is noted."""
        return self.device or "local"


@dataclass(frozen=True, slots=True)
class Request:
    """A request."""

    method: str
    path: str
    """Such as /conversations, without a query."""
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is whole."""

    status: int
    content: bytes = b""
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Events:
    """An answer that goes on: JSON objects. Whoever takes it closes it."""

    events: AsyncGenerator[dict[str, Any], None]


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are not JSON."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Nothing:
    """An answer without content."""
