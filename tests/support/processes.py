"""Which tests stay together when several processes run them (`-n 2 --dist loadscope --no-loadscope-reorder`).

A file's tests do, for their parts are started once a file. All that have containers do, for the platform's addresses
are given out once on a machine; they take the longest by far, so they come first.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

CONTAINERS = "containers"


def together(nodeid: str) -> str:
    """Return the name of the group of tests to which one belongs."""
    path = nodeid.partition("::")[0]
    docker = path.startswith("tests/docker/") or (path.startswith("tests/contract/driver/") and "[docker" in nodeid)
    return CONTAINERS if docker else path


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # of which xdist tells no type
    """Hands groups of tests to processes."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Choose who hands out the tests."""
    return ByFile(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first, and see that nothing with containers is elsewhere."""
    for item in items:
        if item.get_closest_marker("docker") and together(item.nodeid) != CONTAINERS:
            raise pytest.UsageError(f"expected tests with containers in tests/docker alone, got {item.nodeid}")
    items.sort(key=lambda item: together(item.nodeid) != CONTAINERS)
