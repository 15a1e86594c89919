"""What every test has: the loop that the services run on, an end, and its place when several processes run them."""

import asyncio
import sys
from collections.abc import Callable, Mapping

from hypothesis import settings
from tests.support.processes import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from tests.support.time_limit import new_loop, pytest_exception_interact, pytest_timeout_set_timer

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_exception_interact",
    "pytest_timeout_set_timer",
    "pytest_xdist_make_scheduler",
]

# An example that takes long on a loaded machine is no fault; the tests' own timeout bounds all of them. All else is
# Hypothesis' own choice, which is the same examples in every run where CI is set.
settings.register_profile("unhurried", parent=settings.default, deadline=None)
settings.load_profile("unhurried")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on uvloop, as the services do, where there is one."""
    return {"asyncio" if sys.platform == "win32" else "uvloop": new_loop}
