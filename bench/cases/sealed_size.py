"""What sealing adds to the page: compressed bytes of code that seals, opens and proves, built as the page is."""

import asyncio
import contextlib
import os
import re
import shutil
import signal

from tests.support.engines import ROOT

from bench.case import Bench
from bench.report import Result

CRYPTO_BAR, ALL_BAR = 8_000, 11_500
"""Bytes, as the page's own test has them."""
TEST = "tests/protocol/sealed/size.test.ts"
SIZES = re.compile(rb"sealed client (\d+) B gzip; of it sealing and proofs (\d+), of it hpke (\d+)")
DEADLINE = 180.0


async def run(bench: Bench) -> list[Result]:
    """Have the page's test build and weigh it.

    Raises:
        RuntimeError: It cannot be built.
    """
    said = await _said()
    found = SIZES.search(said)
    if found is None:
        raise RuntimeError(f"expected the sizes from {TEST}: {said.decode(errors='replace')[-2000:]}")
    whole, crypto, hpke = (int(each) for each in found.groups())
    return [
        Result(
            "sealed_crypto_gzip", crypto, "B", None, CRYPTO_BAR,
            note=f"in the page, of what seals, opens and proves; of it hpke {hpke}",
        ),
        Result(
            "sealed_client_gzip", whole, "B", None, ALL_BAR,
            note="with key statement, Binary HTTP, pairing and padding",
        ),
    ]  # fmt: skip


async def _said() -> bytes:
    node = shutil.which("node")
    runner = ROOT / "web" / "node_modules" / "vitest" / "vitest.mjs"
    if node is None or not runner.exists():
        raise RuntimeError("expected Node, and the page's packages: make install")
    process = await asyncio.create_subprocess_exec(
        node, str(runner), "run", TEST, cwd=ROOT / "web", stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it has workers
        await process.wait()
        raise
    return said
