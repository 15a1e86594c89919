"""A bridge of its own process that dials through a network which can fail."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import httpx
from tests.support.engines import EngineProcess
from tests.support.fault_proxy import FaultProxy
from tests.support.stack import Stack

START_TIMEOUT = 20.0


@contextlib.asynccontextmanager
async def second_bridge(stack: Stack, engine: EngineProcess, fault: FaultProxy) -> AsyncIterator[int]:
    """Run a bridge that dials through the fault proxy. The newest bridge is the first choice, so it serves.

    Returns:
        Its process id.
    """
    command = [sys.executable, "-m", "cloudtolocalllm", "bridge", "--server", f"http://127.0.0.1:{fault.port}"]
    command += ["--key", stack.api_key, "--engine", engine.url, "--data-dir", str(stack.data_dir / "second")]
    process = await asyncio.create_subprocess_exec(*command, "--name", "second", stdout=asyncio.subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(headers=stack.headers) as client, asyncio.timeout(START_TIMEOUT):
            while True:
                bridges = (await client.get(f"{stack.url}/api/bridge")).json()
                if any(bridge["name"] == "second" and bridge["connected"] for bridge in bridges):
                    break
                await asyncio.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), START_TIMEOUT)
