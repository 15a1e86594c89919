"""An event loop in a thread of its own, for tests that cannot have one: while Playwright runs, theirs is taken."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
WAIT = 60.0
"""Seconds for which anything is waited for at most."""


class LoopThread:
    """Runs asynchronous parts of a test beside it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something there; return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a context there; it is left when the thread ends."""
        return self.call(self._stack.enter_async_context(manager))

    def close(self) -> None:
        """Leave all contexts, the newest first, and end."""
        try:
            self.call(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()


@contextmanager
def loop_thread() -> Iterator[LoopThread]:
    """Run one until the block ends."""
    running = LoopThread()
    try:
        yield running
    finally:
        running.close()
