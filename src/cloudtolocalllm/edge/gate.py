"""How many connections one client address may have open, WebSockets among them."""

from collections.abc import Callable

from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge.answers import problem_answer
from cloudtolocalllm.edge.clients import Clients, direct
from cloudtolocalllm.edge.watch import Watch
from cloudtolocalllm.runtime.http1 import Headers

POLICY = "connections"
RETRY_AFTER = b"10"
"""Seconds; a connection may end at any time, so this only keeps clients from hammering."""
TELL_EVERY = 60.0
"""Seconds in which the watch hears of a client once at most."""


class ConnectionGate:
    """Counts connections by client (runtime.http1.Gate). Bounded by what the system lets us open."""

    def __init__(
        self, limit: int, clients: Clients, watch: Watch, now: Callable[[], float], *, exempts_loopback: bool
    ) -> None:
        """Serve `limit` connections of each client; those of trusted proxies carry many clients and do not count."""
        self._limit = limit
        self._clients = clients
        self._watch = watch
        self._now = now
        self._exempts_loopback = exempts_loopback
        self._open: dict[str, int] = {}
        self._told: set[str] = set()
        self._told_until = 0.0

    @property
    def clients(self) -> int:
        """How many clients have a connection that counts."""
        return len(self._open)

    def opened(self, peer: str) -> bool:
        """Count a connection and return whether it is served."""
        bucket = self._bucket(peer)
        if bucket is None:
            return True
        count = self._open[bucket] = self._open.get(bucket, 0) + 1
        if count == self._limit + 1:
            self._tell(peer, bucket)
        return count <= self._limit

    def refusal(self, peer: str) -> tuple[int, Headers, bytes] | None:
        """Return what a connection too many is told; nothing once as many again wait for theirs to be read."""
        bucket = self._bucket(peer)
        if bucket is None or self._open.get(bucket, 0) > 2 * self._limit:
            return None
        detail = f"Expected at most {self._limit} connections from one address; close some."
        return problem_answer(Problem.RATE_LIMITED, detail, ((b"retry-after", RETRY_AFTER),))

    def closed(self, peer: str) -> None:
        """A connection is gone."""
        bucket = self._bucket(peer)
        if bucket is None:
            return
        count = self._open[bucket] - 1
        if count:
            self._open[bucket] = count
        else:
            del self._open[bucket]

    def _bucket(self, peer: str) -> str | None:
        client = direct(peer)
        if (self._exempts_loopback and client.loopback) or self._clients.trusts(peer):
            return None
        return client.bucket

    def _tell(self, peer: str, bucket: str) -> None:
        now = self._now()
        if now >= self._told_until:
            self._told.clear()
            self._told_until = now + TELL_EVERY
        if bucket not in self._told:
            self._told.add(bucket)
            self._watch.on_limited(direct(peer), POLICY, None, b"")
