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
async def second_bridge(
    stack: Stack, engine: EngineProcess, fault: FaultProxy | None = None, *, api_key: str = ""
) -> AsyncIterator[int]:
    """Run one more bridge. The newest bridge is the first choice, so it serves.

    Args:
        stack: The platform.
        engine: What it serves.
        fault: What it dials through; None for the edge itself.
        api_key: Of the user whose bridge it becomes; "" for the owner's.

    Returns:
        Its process id.
    """
    key = api_key or stack.api_key
    port = stack.port if fault is None else fault.port
    command = [sys.executable, "-m", "cloudtolocalllm", "bridge", "--server", f"http://127.0.0.1:{port}"]
    command += ["--key", key, "--engine", engine.url, "--data-dir", str(stack.data_dir / "second")]
    process = await asyncio.create_subprocess_exec(*command, "--name", "second", stdout=asyncio.subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(headers={"x-api-key": key}) as client, asyncio.timeout(START_TIMEOUT):
            while True:
                bridges = (await client.get(f"{stack.url}/api/bridge")).json()
                if any(bridge["name"] == "second" and bridge["connected"] for bridge in bridges):
                    break
                await asyncio.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), START_TIMEOUT)
