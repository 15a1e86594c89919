"""Tasks that callbacks start: owned, bounded, and never lost."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class TaskSet:
    """Owns tasks that are started from callbacks, where no TaskGroup can be entered.

    A task's exception is logged here, at its edge; `close` cancels what runs and waits for it.
    """

    def __init__(self, *, limit: int = 10_000) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task.

        Raises:
            RuntimeError: `limit` tasks run already.
        """
        if len(self._tasks) >= self._limit:
            work.close()
            raise RuntimeError(f"expected at most {self._limit} tasks at once")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel every task and wait until all have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", exc_info=error, extra={"task": task.get_name()})
