"""Services stop at signals, and when whoever started them is gone."""

import asyncio
import os
import signal
import sys

import pytest

SERVICE = """
import asyncio, sys
from cloudtolocalllm.runtime import lifecycle

async def serve(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopped", flush=True)

lifecycle.run(serve, leash=int(sys.argv[1]) if len(sys.argv) > 1 else None)
"""


async def start(*arguments: str, **options: object) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVICE,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        **options,  # type: ignore[arg-type] # passed on
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
    return process


async def ended(process: asyncio.subprocess.Process) -> None:
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert out == b"stopped\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals(number: int) -> None:
    process = await start()
    process.send_signal(number)
    await ended(process)


async def test_the_leash() -> None:
    ours, theirs = os.pipe()
    process = await start(str(ours), pass_fds=(ours,))
    os.close(ours)
    os.write(theirs, b"still here")
    await asyncio.sleep(0.05)
    assert process.stdout is not None
    assert not process.stdout.at_eof()
    os.close(theirs)
    await ended(process)
