"""A replica that is told to stop: new connections go elsewhere at once, kept ones get one more answer each."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import RunningApi, question, running_api
from tests.support.eventually import eventually

GRACE = 8.0


async def refuses(api: RunningApi) -> bool:
    """Tell whether nobody accepts a new connection."""
    try:
        _, writer = await asyncio.open_unix_connection(api.socket)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    writer.close()
    return False


@pytest.mark.parametrize("target", ["/healthz", "/internal/authorize"])
async def test_a_kept_connection_gets_its_answer_and_is_the_last(tmp_path: Path, target: str) -> None:
    async with running_api(tmp_path, drain_idle=GRACE) as api:
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=api.socket), base_url="http://api", timeout=5
        ) as client:
            headers = question("GET", "/v1/models")
            first = await client.get(target, headers=headers)
            assert "connection" not in first.headers
            began = time.monotonic()
            api.stop.set()
            await eventually(lambda: refuses(api), bool)
            assert not api.task.done()
            last = await client.get(target, headers=headers)  # as the edge, which may not know yet
            assert last.status_code == first.status_code
            assert last.headers["connection"] == "close"
        await asyncio.wait_for(api.task, GRACE)
        assert time.monotonic() - began < GRACE - 1  # it does not wait for what is not there


async def test_it_does_not_wait_for_ever_for_an_idle_connection(tmp_path: Path) -> None:
    async with running_api(tmp_path, drain_idle=0.5) as api, api.client() as client:
        await client.get("/healthz")
        api.stop.set()
        await asyncio.wait_for(api.task, 5)


async def test_by_default_idle_connections_end_at_once(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api, api.client() as client:
        await client.get("/healthz")
        began = time.monotonic()
        api.stop.set()
        await asyncio.wait_for(api.task, 5)
        assert time.monotonic() - began < 3
