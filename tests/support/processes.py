"""Which tests stay together when several processes run them (`-n 2 --dist loadscope --no-loadscope-reorder`).

A file's tests do, for their parts are started once a file. All that have containers do, for the platform's addresses
are given out once on a machine; and all that have a browser do with them, for one gives up its requests whenever a
network comes or goes on the machine (ERR_NETWORK_CHANGED). They take half of the time, so they come first.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ALONE = "containers and browsers"


def together(nodeid: str) -> str:
    """Return the name of the group of tests to which one belongs."""
    path = nodeid.partition("::")[0]
    docker = path.startswith("tests/contract/driver/") and "[docker" in nodeid
    return ALONE if docker or path.startswith(("tests/docker/", "tests/browser/")) else path


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # of which xdist tells no type
    """Hands groups of tests to processes."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Choose who hands out the tests."""
    return ByFile(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first, and see that nothing with containers or a browser is elsewhere."""
    for item in items:
        if together(item.nodeid) != ALONE and any(map(item.get_closest_marker, ("docker", "browser"))):
            raise pytest.UsageError(
                f"expected tests with containers or a browser in tests/docker or tests/browser, got {item.nodeid}"
            )
    items.sort(key=lambda item: together(item.nodeid) != ALONE)
