"""Waiting between attempts."""

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential backoff with full jitter, as in "Exponential Backoff And Jitter" (AWS, 2015).

    Full jitter spreads the reconnects of many bridges evenly after a relay restarts.
    """

    first: float = 0.1
    """Upper bound in seconds of the first delay."""
    factor: float = 2.0
    maximum: float = 15.0
    """Upper bound in seconds of every delay."""
    rng: random.Random = field(default_factory=random.SystemRandom)
    _attempt: int = 0

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        bound = min(self.maximum, self.first * self.factor**self._attempt)
        if bound < self.maximum:
            self._attempt += 1
        return self.rng.uniform(0, bound)

    def reset(self) -> None:
        """Start over, after an attempt that succeeded."""
        self._attempt = 0
