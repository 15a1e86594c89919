"""A streamed answer of the scripted engine, which says the same to the same question however it is asked."""

import asyncio
import json
import time
from collections.abc import Mapping, Sized

import httpx
from tests.support.eventually import eventually


def question(tokens: int, pace: float, *, prompt: str = "go") -> dict[str, object]:
    """Return a request to chat.

    Args:
        tokens: How long the answer is.
        pace: Tokens a second; 0 for as fast as can be.
        prompt: What is asked.
    """
    return {
        "model": "demo:latest",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "options": {"demo_tokens_per_second": pace, "demo_tokens": tokens},
    }


async def text_of(response: httpx.Response, arrived: list[float] | None = None) -> str:
    """Read a streamed answer whole; `arrived` gets the time of each line."""
    parts = []
    async for line in response.aiter_lines():
        if arrived is not None:
            arrived.append(time.monotonic())
        parts.append(json.loads(line)["message"]["content"])
    return "".join(parts)


async def some_more(arrived: Sized, answer: "asyncio.Task[str] | None" = None) -> None:
    """Wait until some more of an answer has come than now; not when that is over."""
    wanted = len(arrived) + 5
    over = answer.done if answer is not None else lambda: False
    await eventually(lambda: asyncio.sleep(0, len(arrived)), lambda found: found >= wanted or over(), within=40)


async def ask(
    url: str,
    headers: Mapping[str, str],
    tokens: int,
    pace: float,
    arrived: list[float] | None = None,
    *,
    prompt: str = "go",
) -> str:
    """Ask at an engine's address, or below the platform's /ollama; return the whole text."""
    async with (
        httpx.AsyncClient(timeout=60, headers=dict(headers)) as client,
        client.stream("POST", f"{url}/api/chat", json=question(tokens, pace, prompt=prompt)) as response,
    ):
        assert response.status_code == 200, await response.aread()
        return await text_of(response, arrived)
