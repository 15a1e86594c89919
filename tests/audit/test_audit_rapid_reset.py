"""Rapid reset (CVE-2023-44487): questions over HTTP/2 that are taken back at once, hundreds of thousands of them."""

import asyncio
import json
import sys
from collections.abc import Iterator

import pytest
from tests.support.audit_probe import watch
from tests.support.audit_target import APP, Target, given_target, running_target
from tests.support.stack import ROOT, Stack

pytestmark = [pytest.mark.audit, pytest.mark.slow, pytest.mark.timeout(60)]
SECONDS = 6


@pytest.fixture
def server(stack: Stack) -> Iterator[Target]:
    """One of its own: the scanners look at another meanwhile."""
    if given_target() is not None:
        pytest.skip("nobody's server is attacked but our own")
    with running_target(stack) as found:
        yield found


async def test_questions_taken_back_at_once(server: Target, stack: Stack) -> None:
    there = (str(server.address), str(server.tls_port), str(server.root), APP, "/v1/models", str(SECONDS))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.rapid_reset", *there, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        seen = await watch(server, stack.api_key, lambda: process.returncode is not None)
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    counts = json.loads(out)
    print(f"rapid reset: {counts['asked']} on {counts['connections']} connections, {seen.says()}")
    assert counts["asked"] >= 10_000
    seen.judge()
