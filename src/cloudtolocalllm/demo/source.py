"""Where tokens come from: the interface between the APIs in front and whatever generates behind them."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from cloudtolocalllm.demo.request import Generate
from cloudtolocalllm.demo.script import ToolCall, lengthened, write

BURST = 64
"""Tokens sent in one turn of the loop at most, so that one fast answer does not hold up the others."""


class TokenSink(Protocol):
    """Takes an answer as it is made. Methods must not block."""

    def on_thinking(self, text: str) -> None:
        """A token of thinking."""

    def on_tool_call(self, call: ToolCall) -> None:
        """A whole call of a tool."""

    def on_token(self, text: str) -> None:
        """A token of the answer."""

    def on_done(self, reason: str) -> None:
        """The answer is complete: "stop", or "length" when the limit of tokens ended it."""

    def on_failed(self, message: str) -> None:
        """The answer cannot be completed; nothing more is called."""


class Generation(Protocol):
    """An answer under way."""

    def pause(self) -> None:
        """Make no more tokens: the reader is slow."""

    def resume(self) -> None:
        """Go on."""

    def cancel(self) -> None:
        """Stop at once; the sink is not called again."""


class TokenSource(Protocol):
    """Makes answers."""

    def start(self, request: Generate, sink: TokenSink) -> Generation:
        """Begin an answer. The sink is called later, never from within this call."""
        ...


class ScriptedSource:
    """Answers with what `script.write` says, at the request's pace."""

    def start(self, request: Generate, sink: TokenSink) -> Generation:
        """Begin an answer."""
        return _Recital(request, sink, asyncio.get_running_loop())


class _Recital:
    """One scripted answer: one timer of the loop, set anew for each token."""

    __slots__ = ("_handle", "_interval", "_left", "_loop", "_next", "_paused", "_sink", "_stamps", "_steps")

    def __init__(self, request: Generate, sink: TokenSink, loop: asyncio.AbstractEventLoop) -> None:
        pace = request.pace
        self._sink = sink
        self._loop = loop
        self._interval = 1.0 / pace.tokens_per_second if pace.tokens_per_second > 0 else 0.0
        self._stamps = pace.timestamps
        self._left = request.max_tokens if request.max_tokens is not None and request.max_tokens >= 0 else -1
        self._steps = self._script(request)
        self._paused = False
        self._next = loop.time()
        self._handle: asyncio.Handle = loop.call_soon(self._turn)

    def _script(self, request: Generate) -> Iterator[tuple[Callable[..., None], object]]:
        script = write(request)
        width = request.pace.token_bytes
        yield from ((self._sink.on_thinking, text) for text in script.thinking)
        yield from ((self._sink.on_tool_call, call) for call in script.tool_calls)
        on_token = self._sink.on_token
        for text in lengthened(script.tokens, request.pace.tokens):
            yield on_token, text if not width else text.ljust(width + len(text) - len(text.encode()), ".")

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._handle.cancel()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._next = self._loop.time()
            self._handle = self._loop.call_soon(self._turn)

    def cancel(self) -> None:
        self._paused = True
        self._handle.cancel()
        self._steps = iter(())

    def _turn(self) -> None:
        """Send what is due, and set the timer for what comes next."""
        now = self._loop.time()
        for _ in range(BURST):
            if not self._step() or self._paused:  # by the sink, while it took the token
                return
            self._next += self._interval
            if self._interval and self._next > now:
                self._handle = self._loop.call_at(self._next, self._turn)
                return
        self._handle = self._loop.call_soon(self._turn)

    def _step(self) -> bool:
        step = next(self._steps, None)
        if step is None or self._left == 0:
            self._paused = True
            self._sink.on_done("stop" if step is None else "length")
            return False
        self._left -= 1
        call, value = step
        call(f"{time.monotonic_ns()} " if self._stamps else value)
        return True
