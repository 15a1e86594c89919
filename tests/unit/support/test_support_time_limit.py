"""Tests that hang, in a pytest of their own: each ends at its time limit, and so does what is torn down after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import time_limit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no alarm")

BEGINNING = """
import asyncio
import pytest
from tests.support.time_limit import new_loop, pytest_exception_interact, pytest_timeout_set_timer

def pytest_asyncio_loop_factories():
    return {"loop": new_loop}

@pytest.fixture
async def never_left():
    yield
    await asyncio.Event().wait()

async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
timeout = 1.5
"""
LEFT_OPEN = """
async def test():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    test.left = await asyncio.open_connection(*server.sockets[0].getsockname())
"""
HANGING = {
    "a test that waits": ("async def test(): await asyncio.Event().wait()", "1 failed in"),
    "a teardown": ("async def test(never_left): pass", "1 passed, 1 error in"),
    "a teardown after a failure": ("async def test(never_left): assert 0", "1 failed, 1 error in"),
    "both": ("async def test(never_left): await asyncio.Event().wait()", "1 failed, 1 error in"),
    "a task that is not to be cancelled": (
        "async def test():\n    test.task = asyncio.create_task(stubborn())\n    await asyncio.sleep(0)",
        "1 passed, 1 error in",
    ),
    "a connection that is left open": (
        LEFT_OPEN,
        "1 passed, 1 error in",
    ),
}


@pytest.mark.parametrize("hanging", HANGING)
def test_what_hangs_ends(tmp_path: Path, hanging: str) -> None:
    text, outcome = HANGING[hanging]
    (tmp_path / "conftest.py").write_text(BEGINNING)
    (tmp_path / "test_one.py").write_text(f"import asyncio\nfrom conftest import stubborn\n{text}\n")
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    root = Path(time_limit.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert outcome in ended.stdout, ended.stdout + ended.stderr
