"""The whole platform with nginx where the embedded edge stands otherwise: clients and a bridge come through it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import openai
import pytest
from tests.support.engines import EngineProcess
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.nginx_server import NginxServer, running_nginx
from tests.support.second_bridge import second_bridge
from tests.support.stack import Stack

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.settings import EdgeSettings

pytestmark = [pytest.mark.nginx, pytest.mark.timeout(120)]
QUESTION: Any = [{"role": "user", "content": "go"}]


@pytest.fixture(scope="module")
def nginx(paced_stack: Stack) -> Iterator[NginxServer]:
    api = Endpoint(path=str(paced_stack.run_dir / "api.sock"))
    with running_nginx(EdgeSettings(api=(api,))) as server:
        yield server


@pytest.fixture
async def client(nginx: NginxServer, paced_stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"http://127.0.0.1:{nginx.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=paced_stack.api_key, max_retries=0, timeout=30) as found:
        yield found


async def answer(client: openai.AsyncOpenAI, tokens: int, pace: float, on_part: Any = None) -> str:
    options = {"options": {"demo_tokens_per_second": pace, "demo_tokens": tokens}}
    stream = await client.chat.completions.create(
        model="demo:latest", messages=QUESTION, stream=True, extra_body=options
    )
    text = ""
    async for part in stream:
        if part.choices and part.choices[0].delta.content:
            text += part.choices[0].delta.content
            if on_part is not None:
                on_part()
    return text


async def test_an_answer_streams_through(client: openai.AsyncOpenAI, paced_stack: Stack) -> None:
    through = await answer(client, 20, 200)
    async with openai.AsyncOpenAI(base_url=f"{paced_stack.url}/v1", api_key=paced_stack.api_key) as direct:
        assert through == await answer(direct, 20, 200)
    assert len(through) > 20


async def test_a_proxy_that_was_killed_costs_no_later_request(client: openai.AsyncOpenAI, paced_stack: Stack) -> None:
    before = await answer(client, 5, 200)
    paced_stack.kill_proxy()
    assert await answer(client, 5, 200) == before


async def test_reloads_change_no_answer(client: openai.AsyncOpenAI, nginx: NginxServer) -> None:
    expected = await answer(client, 30, 200)
    reloads = 0

    def reload() -> None:
        nonlocal reloads
        reloads += 1
        if reloads % 10 == 1:
            nginx.reload()

    texts = await asyncio.gather(*(answer(client, 30, 60, reload if n == 0 else None) for n in range(10)))
    assert set(texts) == {expected}
    assert reloads >= 10


async def test_a_bridge_dials_through_it(
    client: openai.AsyncOpenAI, nginx: NginxServer, paced_stack: Stack, paced: EngineProcess
) -> None:
    async def lines() -> str:
        return nginx.said()

    expected = await answer(client, 10, 200)
    way = cast("FaultProxy", SimpleNamespace(port=nginx.port))
    async with second_bridge(paced_stack, paced, way):
        assert await answer(client, 10, 200) == expected
    await eventually(lines, lambda said: '"route":"api-websocket","status":"101"' in said)
    await eventually(lines, lambda said: '"route":"tunnel","status":"101"' in said)


async def test_refusals_are_the_apis(nginx: NginxServer) -> None:
    url = f"http://127.0.0.1:{nginx.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError, match="The API key is not valid"):
            await stranger.models.list()
