"""A script: Ollama's API in front of the real llama.cpp engine.

`python -m tests.support.standin ENGINE_URL [TOKENS_PER_SECOND]`.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

from cloudtolocalllm.demo.request import Generate
from cloudtolocalllm.demo.script import ToolCall
from cloudtolocalllm.demo.service import serve
from cloudtolocalllm.demo.settings import PREFIX, DemoSettings
from cloudtolocalllm.demo.source import Generation, TokenSink
from cloudtolocalllm.runtime import lifecycle
from cloudtolocalllm.runtime.settings import environment, load
from cloudtolocalllm.runtime.tasks import TaskSet

LINE_LIMIT = 1024 * 1024


class RealSource:
    """Takes tokens from an engine that speaks OpenAI's API; one connection an answer."""

    def __init__(self, url: str, pace: float = 0) -> None:
        """Make a source.

        Args:
            url: Of the engine.
            pace: Tokens a second at most; 0 for as fast as the engine is.
        """
        parts = urlsplit(url)
        self._rest = 1 / pace if pace else 0.0
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._tasks = TaskSet()

    def start(self, request: Generate, sink: TokenSink) -> Generation:
        return _Relay(self._tasks, self._address, request, sink, self._rest)


class _Relay:
    """One answer of the real engine."""

    def __init__(
        self, tasks: TaskSet, address: tuple[str, int], request: Generate, sink: TokenSink, rest: float
    ) -> None:
        self._address = address
        self._rest = rest
        self._request = request
        self._sink = sink
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._task = tasks.start(self._run(), "relay")

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def cancel(self) -> None:
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async with contextlib.aclosing(self._events()) as events:
                async for event in events:
                    await self._flowing.wait()
                    if self._pass_on(event):
                        return
                    if self._rest:
                        await asyncio.sleep(self._rest)
            self._sink.on_failed("the engine broke off")
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            self._sink.on_failed(f"{type(error).__name__} at the engine")

    def _pass_on(self, event: dict[str, Any]) -> bool:
        """Give one chunk to the sink; return whether it was the last."""
        if "error" in event:
            self._sink.on_failed(str(event["error"].get("message", "error")))
            return True
        choice = event["choices"][0]
        delta = choice.get("delta", {})
        text = delta.get("content") if "delta" in choice else choice.get("text")
        if text:
            self._sink.on_token(text)
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            arguments = json.loads(function["arguments"] or "{}")
            self._sink.on_tool_call(ToolCall(call.get("id", ""), function["name"], arguments))
        if choice.get("finish_reason"):
            self._sink.on_done("length" if choice["finish_reason"] == "length" else "stop")
            return True
        return False

    async def _events(self) -> AsyncGenerator[dict[str, Any]]:
        path, content = self._question()
        reader, writer = await asyncio.open_connection(*self._address, limit=LINE_LIMIT)
        try:
            # HTTP/1.0 asks for a body without chunk framing, which ends with the connection.
            head = f"POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            status = int((await reader.readline()).split()[1])
            async for line in reader:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])
                elif status != 200 and line.startswith(b"{"):
                    yield json.loads(line)
        finally:
            writer.close()

    def _question(self) -> tuple[str, bytes]:
        request = self._request
        value: dict[str, Any] = {"model": "tiny", "stream": True, "temperature": 0}
        if request.max_tokens is not None and request.max_tokens >= 0:
            value["max_tokens"] = request.max_tokens
        if request.messages:
            # The made model has no eyes: images, which this stand-in takes like Ollama, stay here.
            kept = [{k: m[k] for k in ("role", "content") if k in m} for m in request.messages]
            return "/v1/chat/completions", json.dumps({**value, "messages": kept}).encode()
        return "/v1/completions", json.dumps({**value, "prompt": request.prompt}).encode()


def main() -> None:
    settings = load(DemoSettings, PREFIX, environment())
    source = RealSource(sys.argv[1], float(sys.argv[2]) if sys.argv[2:] else 0)

    async def run(stop: asyncio.Event) -> None:
        await serve(settings, stop, source=source)

    lifecycle.run(run, leash=settings.leash_fd)


if __name__ == "__main__":
    main()
