"""A value that is fetched when it is first needed, kept for a time, and fetched by one caller at once."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from cloudtolocalllm.api.oidc.transport import ProviderUnavailableError
from cloudtolocalllm.runtime.clock import Clock

T = TypeVar("T")

FRESH = 3600.0
"""Seconds for which a value is used without asking."""
STALE = 24 * 3600.0
"""Seconds for which it is used when the provider does not answer."""
RETRY = 5.0
"""Seconds after a failure in which the provider is not asked again."""
FORCED = 30.0
"""Seconds between two fetches that a token with an unknown key causes: anybody can make such tokens."""


class Cached(Generic[T]):
    """One value."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Clock) -> None:
        """Make an empty one.

        Args:
            fetch: Gets the value; raises ProviderUnavailableError.
            clock: For ages.
        """
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._fetched = -math.inf
        self._failed = -math.inf
        self._forced = -math.inf

    async def get(self, *, fresh: float = FRESH, stale: float = STALE) -> T:
        """Return the value.

        Args:
            fresh: Seconds for which it is used without asking.
            stale: Seconds for which it is used when it cannot be had.

        Raises:
            ProviderUnavailableError: It cannot be had, and there is no usable old one.
        """
        if (value := self._young(fresh)) is not None:
            return value
        async with self._lock:
            if (value := self._young(fresh)) is not None:
                return value
            try:
                return await self._renew()
            except ProviderUnavailableError:
                if (value := self._young(stale)) is not None:
                    return value
                raise

    async def newer(self, than: T) -> T | None:
        """Return a value that was fetched after `than`; None when it is too early to fetch one.

        Raises:
            ProviderUnavailableError: It cannot be had.
        """
        async with self._lock:
            if self._value is not None and self._value is not than:
                return self._value
            if self._clock.monotonic() - self._forced < FORCED:
                return None
            self._forced = self._clock.monotonic()
            return await self._renew()

    def _young(self, age: float) -> T | None:
        return self._value if self._clock.monotonic() - self._fetched < age else None

    async def _renew(self) -> T:
        if self._clock.monotonic() - self._failed < RETRY:
            raise ProviderUnavailableError("failed a moment ago")
        try:
            value = await self._fetch()
        except ProviderUnavailableError:
            self._failed = self._clock.monotonic()
            raise
        self._value, self._fetched = value, self._clock.monotonic()
        return value
