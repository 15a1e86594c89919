"""`cloudtolocalllm status`: the state of every part, asked of the parts themselves."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.cli.lock import is_held, read_running
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch

TIMEOUT = 5.0
"""Seconds for each question."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One line."""

    part: str
    ok: bool
    detail: str


def status(data_dir: Path, *, as_json: bool) -> int:
    """Print the state and return 0 when everything works, 1 when something does not, 3 when nothing runs."""
    layout = Layout(data_dir.absolute())
    running = read_running(layout.lock)
    if running is None or not is_held(layout.lock):
        if as_json:
            print(json.dumps({"running": False, "parts": []}))
        else:
            sys.stderr.write(f"cloudtolocalllm does not run on {layout.root}\n")
        return 3
    parts = asyncio.run(_ask(layout, running.url))
    if as_json:
        document = {
            "running": True,
            "pid": running.pid,
            "url": running.url,
            "parts": [{"part": p.part, "ok": p.ok, "detail": p.detail} for p in parts],
        }
        print(json.dumps(document))
    else:
        print(f"process {running.pid}, {running.url}")
        for part in parts:
            print(f"  {'ok ' if part.ok else 'NOT'}  {part.part:10} {part.detail}")
    return 0 if all(part.ok for part in parts) else 1


async def _ask(layout: Layout, url: str) -> list[PartStatus]:
    edge = Pool(url.removeprefix("http://"))
    api = Pool(f"unix:{layout.run}/api.sock")
    manager = Pool(f"unix:{layout.run}/manager.sock")
    host = url.removeprefix("http://").encode()
    try:
        async with asyncio.timeout(TIMEOUT * 3):
            return [
                await _health("edge", edge, "/healthz", host),
                await _health("api", api, "/readyz", b"api"),
                await _health("manager", manager, "/readyz", b"manager"),
                *await _platform(layout, edge, host),
            ]
    finally:
        for pool in (edge, api, manager):
            await pool.close()


async def _health(name: str, pool: Pool, target: str, host: bytes) -> PartStatus:
    try:
        response = await fetch(pool, "GET", target, ((b"host", host),), timeout=TIMEOUT)
    except (HttpError, TimeoutError, OSError) as error:
        return PartStatus(name, False, f"does not answer ({type(error).__name__})")
    return PartStatus(name, response.status == 200, f"answers {response.status}")


async def _platform(layout: Layout, edge: Pool, host: bytes) -> list[PartStatus]:
    """What the platform says of the owner's proxy, bridges and engines."""
    headers = ((b"host", host), (b"authorization", b"Bearer " + layout.owner_key.read_bytes().strip()))
    try:
        response = await fetch(edge, "GET", "/api/streaming/status", headers, timeout=TIMEOUT)
        document: dict[str, Any] = json.loads(response.body)
        bridges: list[dict[str, Any]] = document["bridges"]
    except (HttpError, TimeoutError, OSError, ValueError, KeyError) as error:
        return [PartStatus("streaming", False, f"state unknown ({type(error).__name__})")]
    proxy = document.get("proxy")
    parts = [PartStatus("proxy", True, proxy["state"] if proxy else "none: made when a request comes")]
    for bridge in bridges:
        connected = bool(bridge["connected"])
        parts.append(PartStatus("bridge", connected, f"{bridge['name']}: {'connected' if connected else 'offline'}"))
        parts.extend(
            PartStatus(
                "engine", engine["state"] != "down", f"{engine['kind']} of {bridge['name']}: {engine['state']}"
            )
            for engine in bridge["engines"]
        )
    if not bridges:
        parts.append(PartStatus("bridge", False, "no machine is paired"))
    return parts
