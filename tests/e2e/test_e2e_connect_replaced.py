"""Parts of the platform that are replaced in the middle of an answer at `connect`: nginx, and all of the API."""

import asyncio
import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from tests.support.connect_process import laptop
from tests.support.deployment import Deployment, await_connected, running_deployment
from tests.support.engines import EngineProcess, demo_stats
from tests.support.fault_proxy import FaultProxy
from tests.support.long_answer import ask, some_more
from tests.support.nginx_server import running_nginx
from tests.support.second_bridge import second_bridge
from tests.support.stack import Stack, running_stack

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.settings import EdgeSettings

pytestmark = pytest.mark.timeout(150)
TOKENS, PACE = 160, 25
"""Some six seconds."""


@pytest.mark.nginx
async def test_nginx_is_restarted(short_dir: Path, paced: EngineProcess, tmp_path: Path) -> None:
    """It holds the client's connection and the tunnel's: both end with it."""
    expected = await ask(paced.url, {}, TOKENS, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        api = Endpoint(path=str(stack.run_dir / "api.sock"))
        with running_nginx(EdgeSettings(api=(api,))) as nginx:
            way = cast("FaultProxy", SimpleNamespace(port=nginx.port))
            server = f"http://127.0.0.1:{nginx.port}"
            async with (
                second_bridge(stack, paced, way),
                laptop(stack, tmp_path / "laptop", bridge="second", server=server) as url,
            ):
                before = await asyncio.to_thread(demo_stats, paced.url)
                arrived: list[float] = []
                async with asyncio.TaskGroup() as tasks:
                    answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
                    await some_more(arrived)
                    await asyncio.to_thread(nginx.stop)
                    count = len(arrived)
                    await asyncio.sleep(1.0)
                    await asyncio.to_thread(nginx.start)
                    back = time.monotonic()
                assert answer.result() == expected
                assert 0 < count < len(arrived)
                first = next(at for at in arrived if at > back)
                print(f"nginx restarted: new text {first - back:.2f} s after it was back")
                after = await asyncio.to_thread(demo_stats, paced.url)
                assert after["started"] - before["started"] == 1


async def test_all_replicas_of_the_api_are_replaced(tmp_path: Path) -> None:
    """Running answers need none; what is asked next finds the new ones."""
    with running_deployment(3) as deployment:
        key = deployment.cli("keys", "create", "Rack", "--days", "1").stdout.strip()
        await asyncio.to_thread(_home, deployment, key)
        shown = SimpleNamespace(data_dir=deployment.homes, url=deployment.url, api_key=key)
        engine = deployment.engine.url
        expected = await ask(engine, {}, TOKENS, 0)
        async with laptop(cast("Stack", shown), tmp_path / "laptop", bridge="rack") as url:
            for how in ("one after the other", "at once"):
                before = await asyncio.to_thread(demo_stats, engine)
                arrived: list[float] = []
                async with asyncio.TaskGroup() as tasks:
                    answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
                    await some_more(arrived)
                    await asyncio.to_thread(deployment.replace_apis, at_once=how == "at once")
                assert answer.result() == expected, how
                gap = max(late - early for early, late in itertools.pairwise(arrived)) - 1 / PACE
                print(f"all API replicas replaced {how}: longest gap {max(gap, 0):.2f} s")
                after = await asyncio.to_thread(demo_stats, engine)
                assert after["started"] - before["started"] == 1, how
            assert await ask(url, {}, 5, 0)


def _home(deployment: Deployment, key: str) -> None:
    rack = deployment.bridge("rack", environ={"C2L_BRIDGE_PAIRING_KEY": key})
    with httpx.Client(base_url=deployment.url, headers={"x-api-key": key}, timeout=20) as client:
        await_connected(client, "rack", rack)
