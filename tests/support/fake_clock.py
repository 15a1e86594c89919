"""A clock that a test moves."""

from dataclasses import dataclass


@dataclass
class FakeClock:
    """Both clocks go together."""

    now: float = 1_800_000_000.0

    def monotonic(self) -> float:
        return self.now - 1_700_000_000.0

    def wall(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
