"""A test's time limit holds whatever the test does. By themselves pytest-timeout and uvloop leave three holes:

- What the alarm raises is swallowed by uvloop, as it is raised in a callback of the loop's own.
- A test that fails stops the clock, for the sake of debuggers; what is torn down after it could take for ever.
- A loop that is closed warns of each connection that a failed test left open, and closes it then. Where warnings are
  errors the warning takes the place of the closing, and the loop waits for that connection: for ever, in C, where no
  alarm is heard.
"""

import asyncio
import signal
import sys
import warnings
from collections.abc import Generator
from typing import Any

import pytest

AGAIN = 1 / 3
"""Of the time limit: after so much more the alarm comes again, for each step of the teardown that hangs, too."""


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop as the services use it, which an alarm ends."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    class BoundedLoop(uvloop.Loop):
        _over: BaseException | None = None

        def call_exception_handler(self, context: dict[str, Any]) -> None:
            error = context.get("exception")
            if isinstance(error, pytest.fail.Exception):
                self._over = error
                self.stop()
            else:
                super().call_exception_handler(context)

        def run_until_complete(self, future: Any) -> Any:
            try:
                return super().run_until_complete(future)
            except RuntimeError:
                if self._over is None:
                    raise
            over, self._over = self._over, None
            raise over

        def close(self) -> None:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                super().close()
            for one in told:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    return BoundedLoop()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(settings: Any) -> Generator[None, object, object]:
    """Have the alarm come again; the settings are pytest-timeout's."""
    done = yield
    if sys.platform != "win32" and signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, settings.timeout * AGAIN)
    return done


@pytest.hookimpl(wrapper=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> Generator[None, object, object]:
    """Keep the alarm for the teardown of a test that failed, unless somebody is going to look at it."""
    if sys.platform == "win32" or node.config.getoption("usepdb", default=False):
        return (yield)
    left, again = signal.getitimer(signal.ITIMER_REAL)
    handler = signal.getsignal(signal.SIGALRM)
    done = yield
    if left:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, max(left, again), again)
    return done
