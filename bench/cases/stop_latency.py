"""From the client's going away to the engine's standing still."""

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable

from tests.support.engines import llama_server
from tests.support.gguf_model import SLOW

from bench.case import Bench
from bench.http import Client, Target
from bench.platform import CHAT, chat, direct, platform, stamped
from bench.report import Result, percentile

TIMES = 20
TIMES_REAL = 5
BAR = 200.0
"""Milliseconds, the slowest of all."""
PATIENCE = 5.0


async def run(bench: Bench) -> list[Result]:
    """Stop answers of the paced engine, which tells when it stopped, and of the real one, whose slots show it."""
    stats = Target.at("stats", bench.engine.url + "/demo/stats")
    content = stamped(100)
    through = await _stops(chat(bench.stack, bench.stack.api_key, content), stats, _no_answer, TIMES)
    own = await _stops(direct(bench.engine, content), stats, _no_answer, TIMES)
    return [
        _result("stop_latency", through, own, f"slowest of {TIMES}; baseline: the engine directly"),
        *await _real(),
    ]


async def _real() -> list[Result]:
    if importlib.util.find_spec("xllamacpp") is None:
        print("  stop_latency_real_engine: PyPI xllamacpp is not installed; not measured")
        return []
    with llama_server(SLOW) as real, platform(real) as stack:
        slots = Target.at("slots", real.url + "/slots")
        content = json.dumps({"messages": [{"role": "user", "content": "go"}], "stream": True})
        headers = {"authorization": f"Bearer {stack.api_key}"}
        target = Target.at("through", stack.url + "/v1/chat/completions", _with_model(content), headers)
        through = await _stops(target, slots, _no_slot, TIMES_REAL)
        engine = Target.at("direct", real.url + "/v1/chat/completions", _with_model(content))
        own = await _stops(engine, slots, _no_slot, TIMES_REAL)
    note = f"slowest of {TIMES_REAL}, llama.cpp's own slots; baseline: the engine directly"
    return [_result("stop_latency_real_engine", through, own, note)]


def _with_model(content: str) -> str:
    return json.dumps({**json.loads(content), "model": "tiny"})


def _result(name: str, through: list[float], own: list[float], note: str) -> Result:
    note += f"; p50 {percentile(through, 50):.1f}"
    return Result(name, max(through), "ms", max(own), BAR, note=note)


def _no_answer(content: bytes) -> bool:
    return bool(json.loads(content)["running"] == 0)


def _no_slot(content: bytes) -> bool:
    return not any(slot["is_processing"] for slot in json.loads(content))


class _Observer:
    """Asks the engine again and again, on a new connection whenever it closes the old one."""

    def __init__(self, stats: Target, is_idle: Callable[[bytes], bool]) -> None:
        self._stats = stats
        self._is_idle = is_idle
        self._client: Client | None = None

    async def idle(self) -> bool:
        while True:
            if self._client is None or self._client.transport.is_closing():
                self._client = await Client.connect(self._stats)
            try:
                return self._is_idle((await self._client.fetch(self._stats.message))[1])
            except ConnectionError:
                self._client.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


async def _stops(target: Target, stats: Target, is_idle: Callable[[bytes], bool], times: int) -> list[float]:
    observer = _Observer(stats, is_idle)
    found = []
    for i in range(times):
        if not await observer.idle():
            raise RuntimeError("expected the engine to be idle before the next answer")
        client = await Client.connect(target)
        flowing = asyncio.Event()
        client.send(target.message, lambda _, seen=flowing: seen.set(), _ignore)  # type: ignore[misc] # the default binds this round's event
        await asyncio.wait_for(flowing.wait(), 20)
        await asyncio.sleep(0.1 + 0.01 * i)
        began = time.monotonic()
        client.close()
        while not await observer.idle():
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"expected {target.name}{CHAT} to be stopped within {PATIENCE} s")
            await asyncio.sleep(0.001)
        found.append((time.monotonic() - began) * 1000)
    observer.close()
    return found


def _ignore(_error: Exception | None) -> None:
    pass
