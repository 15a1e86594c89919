"""What every test has: the loop that the services run on, an end, and its place when several processes run them."""

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest
from hypothesis import settings
from tests.support.time_limit import new_loop, pytest_exception_interact, pytest_timeout_set_timer

__all__ = ["pytest_exception_interact", "pytest_timeout_set_timer"]

# An example that takes long on a loaded machine is no fault; the tests' own timeout bounds all of them. All else is
# Hypothesis' own choice, which is the same examples in every run where CI is set.
settings.register_profile("unhurried", parent=settings.default, deadline=None)
settings.load_profile("unhurried")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on uvloop, as the services do, where there is one."""
    return {"asyncio" if sys.platform == "win32" else "uvloop": new_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`-n 2 --dist loadgroup`), tell which stay together.

    A file's tests do, for their parts are started once a file. All that have containers do, for the platform's
    addresses are given out once on a machine; they take the longest by far, so they come first.
    """
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        together = "docker" if item.get_closest_marker("docker") else str(item.path.relative_to(config.rootpath))
        item.add_marker(pytest.mark.xdist_group(together))
    items.sort(key=lambda item: item.get_closest_marker("docker") is None)
