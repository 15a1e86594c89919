"""What every case is given, and what it is."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from tests.support.engines import EngineProcess
from tests.support.stack import Stack

from bench.engines import paced_engine
from bench.peers import Peer, peers
from bench.platform import platform
from bench.report import Result


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: the engine, the platform in front of it, and the peers in front of the same engine."""

    engine: EngineProcess
    stack: Stack
    peers: dict[str, Peer]
    missing: list[str]
    """Notes on peers that are not installed."""
    quick: bool

    def rounds(self, usual: int) -> int:
        """Return how many rounds to make."""
        return max(1, usual // 3) if self.quick else usual

    def seconds(self, usual: float) -> float:
        """Return how long to measure."""
        return max(2.0, usual / 3) if self.quick else usual


Case = Callable[[Bench], Awaitable[list[Result]]]


@contextlib.contextmanager
def bench(*, quick: bool) -> Iterator[Bench]:
    """Start what the cases share."""
    with (
        paced_engine() as engine,
        peers(int(engine.url.rpartition(":")[2])) as (urls, missing),
        platform(engine) as stack,
    ):
        yield Bench(engine, stack, urls, missing, quick)
