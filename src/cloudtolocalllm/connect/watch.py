"""Notices that answers under way will bring nothing more, although no connection says so.

A sealed answer is silent while a model thinks, so silence alone means nothing. When one is silent, the server is
asked for a sign of life on a connection of its own. Once it did not give any and then does, or this computer has
another address by then, or was asleep, the silent connections are taken for broken: their readers take up again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet

TICK: Final = 0.5
"""Seconds between two looks."""
SILENT: Final = 3.0
"""Seconds without a byte after which the server is asked."""
EVERY: Final = 5.0
"""Seconds between two questions while it answers."""
PATIENT: Final = 3.0
"""Seconds that an answer may take while the last one came."""
EAGER: Final = 1.0
"""The same while none came; the next question follows at once."""
ASLEEP: Final = 5.0
"""Seconds by which the wall's clock ran ahead of the other one, which stands still while a computer sleeps."""


class Watched(Protocol):
    """An answer under way."""

    local: str
    """This computer's address on its connection."""
    heard: float
    """When something came last."""

    def break_off(self, why: str) -> None:
        """Take its connection for broken."""


Probe = Callable[[float], Awaitable[str | None]]
"""Asks for a sign of life within so many seconds; returns this computer's address then, None without one."""


Sleep = Callable[[float], Awaitable[None]]


class Watch:
    """Over the answers of one server. It does nothing while there are none."""

    def __init__(self, tasks: TaskSet, clock: Clock, *, sleep: Sleep = asyncio.sleep) -> None:
        """Watch nothing yet.

        Args:
            tasks: Runs the looking.
            clock: For it.
            sleep: Waits so many seconds.
        """
        self._tasks = tasks
        self._clock = clock
        self._sleep = sleep
        self._probe: Probe | None = None
        self._answers: set[Watched] = set()
        self._task: asyncio.Task[None] | None = None
        self.down = False
        """Whether the server gave no sign of life when it was last asked."""

    def probe_by(self, probe: Probe) -> None:
        """Set how to ask."""
        self._probe = probe

    def add(self, answer: Watched) -> Callable[[], None]:
        """Watch an answer, until what is returned is called."""
        self._answers.add(answer)
        if self._task is None or self._task.done():
            self._task = self._tasks.start(self._run(), "watch")
        return lambda: self._answers.discard(answer)

    async def _run(self) -> None:
        clock = self._clock
        ahead = clock.wall() - clock.monotonic()
        probed = -EVERY
        while self._answers:
            await self._sleep(TICK)
            now = clock.monotonic()
            drift, ahead = clock.wall() - now - ahead, clock.wall() - now
            if drift > ASLEEP:
                self._break(self._answers, "this computer was asleep")
                continue
            silent = [answer for answer in self._answers if now - answer.heard >= SILENT]
            if not silent:
                self.down = False
            elif self.down or now - probed >= EVERY:
                probed = now
                await self._look(silent)
        self.down = False

    async def _look(self, silent: list[Watched]) -> None:
        if self._probe is None:
            return
        asked = self._clock.monotonic()
        address = await self._probe(EAGER if self.down else PATIENT)
        still = [answer for answer in silent if answer in self._answers and answer.heard <= asked]
        if address is None:
            self.down = True
        elif self.down:
            self.down = False
            self._break(self._answers & {a for a in self._answers if a.heard <= asked}, "the network was away")
        else:
            moved = [a for a in still if a.local and address and _family(a.local) == _family(address) != ""
                     and a.local != address]  # fmt: skip
            self._break(moved, "this computer has another address")

    def _break(self, answers: "set[Watched] | list[Watched]", why: str) -> None:
        for answer in list(answers):
            self._answers.discard(answer)
            answer.break_off(why)


def _family(address: str) -> str:
    return "6" if ":" in address else "4" if "." in address else ""
