"""How a service's process starts, is told to stop, and ends."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator

from cloudtolocalllm.runtime import sharing

log = logging.getLogger(__name__)


@contextlib.contextmanager
def watched(stop: asyncio.Event, leash: int | None) -> Iterator[None]:
    """Set `stop` at SIGTERM, SIGINT, or the end of the leash.

    Args:
        stop: What the service waits for; it then drains and returns.
        leash: A descriptor whose other end the starting process holds. When that process dies, however it dies, the
            descriptor reads end-of-file and the service stops, so that none is orphaned. None for no leash.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: the default handlers end the process
            loop.add_signal_handler(number, stop.set)
    if leash is not None:
        loop.add_reader(leash, _leash_moved, loop, leash, stop)
    try:
        yield
    finally:
        if leash is not None:
            loop.remove_reader(leash)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)


def _leash_moved(loop: asyncio.AbstractEventLoop, leash: int, stop: asyncio.Event) -> None:
    if os.read(leash, 1024) == b"":
        loop.remove_reader(leash)
        stop.set()


def run(serve: Callable[[asyncio.Event], Awaitable[None]], *, leash: int | None = None) -> None:
    """Run a service until it returns; it should return soon after its event is set.

    On Linux and macOS the loop is uvloop's.
    """

    async def main() -> None:
        stop = asyncio.Event()
        with watched(stop, leash):
            await serve(stop)

    if sys.platform == "win32":
        asyncio.run(main())
    else:
        import uvloop

        # Runner.run's own handling of SIGINT is of no use beside `watched`, and costs a forked proxy 0.2 MB.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loop = runner.get_loop()
            sharing.give_back_zeros(loop)  # its receive buffer, 256 KiB that uvloop clears: it fills from the front
            loop.run_until_complete(main())
