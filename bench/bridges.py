"""Many bridges in one process: `python -m bench.bridges`; a job on stdin, "ready" on stdout; ends with stdin."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from cloudtolocalllm.bridge.control import Uplink
from cloudtolocalllm.bridge.identity import BridgeIdentity, Prover
from cloudtolocalllm.bridge.service import Bridge
from cloudtolocalllm.bridge.settings import BridgeSettings

AT_ONCE = 20
"""Bridges that connect at the same time: homes do not all come online in one instant."""


async def _active(job: dict[str, Any], group: asyncio.TaskGroup) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(path: str) -> None:
        settings = BridgeSettings(
            server=job["server"], credential_file=Path(path), engines=(job["engine"],), drain_grace=0.1
        )
        bridge = Bridge(settings)
        welcomed = asyncio.Event()
        bridge.on_welcome = welcomed.set
        async with gate:
            await bridge.start()
            group.create_task(bridge.run())
            await welcomed.wait()

    await asyncio.gather(*(one(path) for path in job["credentials"]))


async def _idle(job: dict[str, Any], group: asyncio.TaskGroup) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(path: str) -> None:
        identity = BridgeIdentity.load(Path(path))
        welcomed = asyncio.Event()
        uplink = Uplink(
            job["server"], Prover(job["server"], lambda: identity), name="idle", version="0", statuses=lambda: (),
            on_wake=_ignore, on_welcome=welcomed.set,
        )  # fmt: skip
        async with gate:
            group.create_task(uplink.run())
            await welcomed.wait()

    await asyncio.gather(*(one(path) for path in job["credentials"]))


def _ignore(_instance: str) -> None:
    pass


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    job = json.loads(await reader.readline())
    async with asyncio.TaskGroup() as group:
        work = group.create_task((_idle if job["idle"] else _active)(job, group))
        await work
        print("ready", flush=True)
        await reader.read()
        raise SystemExit(0)  # their server goes away as well; nobody waits for a drain


if __name__ == "__main__":
    import uvloop

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    uvloop.run(_main())
