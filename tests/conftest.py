"""What every test has: no leaked descriptors across the whole run is checked by tests/integration/test_leaks.py."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def event_loop_policy() -> Iterator[object]:
    """Tests run on the loop that the services use: uvloop, where there is one."""
    import asyncio

    if sys.platform == "win32":
        yield asyncio.DefaultEventLoopPolicy()
    else:
        import uvloop

        yield uvloop.EventLoopPolicy()
