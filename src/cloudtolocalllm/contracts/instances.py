"""What the manager says of a user's proxy."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from cloudtolocalllm.contracts.endpoint import Endpoint


class InstanceState(Enum):
    """Where a proxy is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Instance:
    """One streaming proxy."""

    id: str
    """"px-" and 16 hex digits; never derived from user input."""
    user: str | None
    """None while it waits in the warm pool."""
    endpoint: Endpoint
    key: str
    """64 hex digits: the HMAC key under which assertions for this proxy are minted. Never logged."""
    state: InstanceState
    created: float
    """Seconds since the epoch."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "id": self.id,
            "user": self.user,
            "endpoint": str(self.endpoint),
            "key": self.key,
            "state": self.state.value,
            "created": self.created,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Instance":
        """Read what `to_json` wrote.

        Raises:
            KeyError: A member is missing.
            ValueError: A member is malformed.
        """
        return cls(
            id=str(value["id"]),
            user=None if value["user"] is None else str(value["user"]),
            endpoint=Endpoint.parse(str(value["endpoint"])),
            key=str(value["key"]),
            state=InstanceState(value["state"]),
            created=float(value["created"]),
        )
