"""A proxy ends by itself when no manager asks for it any more, and not before."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from cloudtolocalllm.auth.assertion import manager_token
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.proxy.service import serve
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.runtime.http1 import Pool, fetch

KEY = b"k" * 32
TIMEOUT = 0.6


@pytest.fixture
def listen() -> Endpoint:
    return Endpoint(path=str(Path(tempfile.mkdtemp(prefix="c2l-test-")) / "http.sock"))


async def test_a_proxy_that_nobody_asks_ends(listen: Endpoint) -> None:
    settings = ProxySettings(instance="px-1", key=KEY, listen=listen, orphan_timeout=TIMEOUT)
    async with asyncio.timeout(10):
        await serve(settings, asyncio.Event())
    assert not _exists(listen)


async def test_a_proxy_that_is_asked_stays(listen: Endpoint) -> None:
    settings = ProxySettings(instance="px-1", key=KEY, listen=listen, orphan_timeout=TIMEOUT)
    stop = asyncio.Event()
    pool = Pool(str(listen))
    headers = ((b"authorization", b"Bearer " + manager_token(KEY).encode()),)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(serve(settings, stop))
        await asyncio.sleep(0.1)
        for _ in range(8):
            assert (await fetch(pool, "GET", "/stats", headers, timeout=2)).status == 200
            await asyncio.sleep(TIMEOUT / 3)
        assert not running.done()
        stop.set()
    await pool.close()


def _exists(endpoint: Endpoint) -> bool:
    return Path(endpoint.path or "/").exists()
