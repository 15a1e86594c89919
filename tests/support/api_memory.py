"""What the API's parts are tested on without a socket: a state that can fail, and the loop's turns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.api.state.port import Hit


class FailingState:
    """The real state, which at a test's wish does not answer, and notes what it is asked."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.fails = False
        self.loses_answers = 0
        """How many calls of `put` to come that change something do so, but their answer is lost."""
        self.asked: list[str] = []
        self.after_members: Callable[[], Awaitable[None]] | None = None
        """Run between a look at groups and its answer, as what others do while it is on its way."""
        self.before_remove: Callable[[], Awaitable[None]] | None = None
        self.after_remove: Callable[[], Awaitable[None]] | None = None

    @property
    def real(self) -> State:
        """What is behind it, which tells no test and fails none."""
        return self._state

    async def replace_with(self, state: State) -> None:
        """Have another in its place, as a store that lost everything."""
        await self._state.close()
        self._state = state

    def _ask(self, what: str) -> State:
        self.asked.append(what)
        if self.fails:
            raise StateUnavailableError("as the test wants it")
        return self._state

    async def get(self, key: str) -> bytes | None:
        return await self._ask("get").get(key)

    async def put(self, key: str, value: bytes, ttl: float, *, only_new: bool = False) -> bool:
        done = await self._ask("put").put(key, value, ttl, only_new=only_new)
        if done and self.loses_answers:
            self.loses_answers -= 1
            raise StateUnavailableError("done, but the test wants nobody to hear of it")
        return done

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        return await self._ask("replace").replace(key, old, new, ttl)

    async def take(self, key: str) -> bytes | None:
        return await self._ask("take").take(key)

    async def delete(self, key: str) -> bool:
        return await self._ask("delete").delete(key)

    async def add(self, group: str, member: str, value: bytes, ttl: float, *, limit: int | None = None) -> bool:
        return await self._ask("add").add(group, member, value, ttl, limit=limit)

    async def remove(self, group: str, member: str) -> bytes | None:
        if self.before_remove is not None:
            await self.before_remove()
        removed = await self._ask("remove").remove(group, member)
        if self.after_remove is not None:
            await self.after_remove()
        return removed

    async def members(self, *groups: str) -> list[dict[str, bytes]]:
        found = await self._ask("members").members(*groups)
        if self.after_members is not None:
            await self.after_members()
        return found

    async def hit(self, key: str, *, limit: int, window: float, cost: int = 1) -> Hit:
        return await self._ask("hit").hit(key, limit=limit, window=window, cost=cost)

    async def sweep(self) -> int:
        return await self._ask("sweep").sweep()

    async def close(self) -> None:
        await self._state.close()


class Turns:
    """Lets tasks that need nothing but the loop go on; no time passes but the loop's own."""

    async def pass_(self, count: int = 50) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def until(self, holds: Callable[[], Any]) -> None:
        for _ in range(10_000):
            if holds():
                return
            await asyncio.sleep(0)
        raise AssertionError("expected it to come about")
