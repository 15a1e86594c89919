"""What the reconciler asks of whatever runs the proxies.

The verbs are idempotent, so that after any failure the same verb may simply be called again. Deadlines are the
caller's: it cancels a verb that takes too long.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cloudtolocalllm.contracts.endpoint import Endpoint


class DriverError(Exception):
    """The driver could not do what was asked. The text is for the log; it holds no key."""


class DriverUnavailableError(DriverError):
    """Nothing can be made now, whoever asks: what makes it does not answer. The text may be shown to the caller."""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """An instance to be made."""

    id: str
    user: str | None
    """None for the warm pool."""
    key: str
    """64 hex digits; never logged."""
    created: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Found:
    """An instance that an earlier manager started and that lives and answers."""

    spec: InstanceSpec
    endpoint: Endpoint


GoneCallback = Callable[[str], None]


class Driver(Protocol):
    """Makes, binds, lists and ends instances."""

    @property
    def ready(self) -> bool:
        """Whether new instances can be made now."""
        ...

    async def open(self, on_gone: GoneCallback) -> list[Found]:
        """Take up the work; called once, first.

        Before: nothing of this driver runs in this process; an earlier manager may have crashed.
        After: what it left and still answers is returned and is watched like one's own; the rest of what it left is
        removed (processes, folders).

        Args:
            on_gone: Called with an id, on the loop's thread, as soon as a started or adopted instance ended, also
                when `start` or `stop` is just dealing with it.

        Raises:
            DriverError: The work cannot be taken up, and why.
        """
        ...

    async def start(self, spec: InstanceSpec) -> Endpoint:
        """Make an instance.

        Before: the id is new.
        During: `list` may name it already.
        After: it accepts requests at the returned endpoint, and is recorded so that the next manager can adopt it.
        If it raises or is cancelled: the instance is not there, or `stop` removes what is.

        Raises:
            DriverUnavailableError: What makes instances does not answer.
            DriverError: It could not be made, or ended before it was ready.
        """
        ...

    async def assign(self, instance: str, user: str) -> None:
        """Record whose an instance of the warm pool is from now on.

        After: a manager that starts later and adopts the instance knows the user.

        Raises:
            DriverError: The instance is not there, or the record cannot be written.
        """
        ...

    async def stop(self, instance: str, grace: float) -> None:
        """End an instance and remove everything of it.

        Before: it may be running, starting, ended, or unknown.
        During: for `grace` seconds it may finish what is in flight; then it is ended by force.
        After: no process, socket or folder of it is left.

        Raises:
            DriverError: Something of it is left; call again.
        """
        ...

    async def list(self) -> set[str]:
        """Return the ids of all instances that are there, whoever started them."""
        ...

    def outdated(self) -> set[str]:
        """Return the ids of instances that a start of today would make of something newer."""
        ...

    async def close(self) -> None:
        """End the driver's own helpers; instances live on unless they were stopped. Idempotent."""
        ...
