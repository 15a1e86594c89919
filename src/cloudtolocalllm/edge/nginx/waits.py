"""Waiting for the first of several."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*waits: Coroutine[Any, Any, object], within: float | None) -> None:
    """Wait until one of them has returned, or for so many seconds; the others are cancelled.

    Args:
        waits: Each may be cancelled at any time.
        within: Seconds; None for no end.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait) for wait in waits]
        await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
