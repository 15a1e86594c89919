"""Connections to the API's replicas: each in turn, and one that cannot be reached is left out for a while."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.http1 import ConnectError, Connection, Pool

SKIP = 2.0
"""Seconds for which a replica that accepted no connection is asked only if no other does."""
MAX_REPLICAS = 64


@dataclass(slots=True)
class _Replica:
    pool: Pool
    skipped_until: float = float("-inf")
    """Monotonic seconds."""


class Replicas:
    """A pool over several endpoints of which any may serve any request; to be used as a `Pool`."""

    def __init__(self, pools: Sequence[Pool], now: Callable[[], float]) -> None:
        """Take turns.

        Args:
            pools: One each replica; at least one.
            now: Monotonic seconds.
        """
        self._replicas = [_Replica(pool) for pool in pools]
        self._now = now
        self._turn = 0

    @property
    def host(self) -> bytes:
        """A value for Host, which any replica takes."""
        return self._replicas[0].pool.host

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Return a connection to the replica whose turn it is, or to the next that can be reached.

        Nothing was sent to those that cannot, so this is right for any request.

        Args:
            fresh: Whether it must be new.

        Raises:
            ConnectError: None can be reached.
        """
        failure: ConnectError | None = None
        for replica in self._in_turn():
            try:
                connection = await replica.pool.acquire(fresh=fresh)
            except ConnectError as error:
                replica.skipped_until = self._now() + SKIP
                failure = error
            else:
                replica.skipped_until = float("-inf")
                return connection
        raise failure or ConnectError("expected a replica, got none")

    async def close(self) -> None:
        """Close the idle connections."""
        for replica in self._replicas:
            await replica.pool.close()

    def _in_turn(self) -> list[_Replica]:
        first = self._turn = (self._turn + 1) % len(self._replicas)
        now = self._now()
        turns = self._replicas[first:] + self._replicas[:first]
        return sorted(turns, key=lambda replica: replica.skipped_until > now)  # stable: the order of turns is kept


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Read endpoints, separated by commas.

    Raises:
        ValueError: One is none, or there is not one, or there are too many.
    """
    found = tuple(Endpoint.parse(part.strip()) for part in text.split(",") if part.strip())
    if not 0 < len(found) <= MAX_REPLICAS:
        raise ValueError(f"expected 1 to {MAX_REPLICAS} endpoints, separated by commas")
    return found
