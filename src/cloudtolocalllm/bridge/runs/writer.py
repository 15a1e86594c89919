"""Takes an engine's answer into a run that goes on."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

from cloudtolocalllm.bridge.exchange import Exchange
from cloudtolocalllm.bridge.runs.answer import AnswerReader, Text, error_text
from cloudtolocalllm.bridge.runs.echo import DivergedError, Echo
from cloudtolocalllm.bridge.runs.live import LiveRun
from cloudtolocalllm.bridge.store.messages import MAX_CONTENT
from cloudtolocalllm.bridge.store.runs import INTERRUPTED, LENGTH, End, RunState
from cloudtolocalllm.contracts.problems import TYPE_PREFIX, Problem
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.tunnel import ResetReason, ResponseHead

WINDOW = 256 * 1024
"""Bytes that a run takes while its text can be stored."""
MAX_UNSTORED = 512 * 1024
"""Bytes of text that may wait for the disk; then the engine has to wait, too."""
MOST_BYTES = 4
"""Of a character in UTF-8."""
MAX_ERROR = 64 * 1024
"""Bytes of an engine's error."""

STOPPED = End(RunState.STOPPED)
AT_LIMIT = End(
    RunState.DONE, LENGTH, "The answer ended at a limit of tokens, its own or the engine's; there may be more to say."
)
DIVERGED = End(
    RunState.INTERRUPTED,
    INTERRUPTED,
    "The bridge ended while this answer was being written. The engine, asked again, did not say the same; "
    "here is all of it that was stored.",
)


class RunWriter:
    """The port of a run's exchange."""

    def __init__(self, live: LiveRun, on_dirty: Callable[[bool], None]) -> None:
        """Begin.

        Args:
            live: The run.
            on_dirty: Called when there is something to store; with True when at once.
        """
        self._live = live
        self._on_dirty = on_dirty
        self._reader = AnswerReader()
        self._status = 0
        self._error = bytearray()
        self._left = False
        """Whether it is to go on another time; nothing is taken any more."""
        self.exchange: Exchange | None = None
        self.echo: Echo | None = None
        """What the engine has to say once more first; None for nothing."""

    # --- what the exchange calls ----------------------------------------------------------------------------------

    @property
    def window(self) -> int:
        """Bytes that are taken now."""
        return WINDOW if self._live.unstored < MAX_UNSTORED else 0

    def send_head(self, head: ResponseHead) -> None:
        """Take the head."""
        if head.status < 200:
            return
        self._status = head.status
        if head.status == 200 and self.echo is None:
            self._streams()

    def send_data(self, data: bytes) -> None:
        """Take content."""
        if self._live.ending is not None or self._left:
            return
        if self._status != 200:
            self._error += data[: MAX_ERROR - len(self._error)]
            return
        self._take(self._reader.feed(data))

    def end(self, trailers: Headers = ()) -> None:
        """The answer is complete, as far as HTTP can tell."""
        if self._live.ending is not None or self._left:
            return
        if self._status != 200:
            slug, detail = reason_of(bytes(self._error), self._status)
            self._finish(End(RunState.FAILED, slug, detail))
            return
        reader = self._reader
        self._take(reader.end())
        if self.echo is not None:
            self._break_off(DIVERGED)
        elif not reader.complete:
            self._fail(Problem.ENGINE_ERROR, "The answer was cut short: the engine ended it without saying so.")
        elif self._live.ending is None:
            end = AT_LIMIT if reader.at_limit else End(RunState.DONE)
            self._finish(replace(end, prompt_tokens=reader.prompt_tokens, answer_tokens=reader.answer_tokens))

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        """The answer broke off."""
        self._fail(Problem.ENGINE_ERROR, "The answer was cut short: the engine broke off.")

    def consumed(self, size: int) -> None:
        """The request's content came from here; nobody waits for credit."""

    # --- what the desk calls --------------------------------------------------------------------------------------

    def loading(self) -> None:
        """The engine has to load the model first."""
        self._live.is_now(RunState.LOADING)
        self._on_dirty(False)

    def stop(self, end: End) -> None:
        """Break the answer off, with an end that is not the engine's."""
        if self._live.ending is None:
            self._finish(end)
        if self.exchange is not None:
            self.exchange.cancel()

    def leave(self) -> None:
        """Break the answer off without an end."""
        if self._live.ending is None:
            self._left = True
            if self.exchange is not None:
                self.exchange.cancel()

    def stored(self) -> None:
        """Text was stored: take what had to wait."""
        exchange = self.exchange
        if exchange is not None and self.window and exchange.follower.pump():
            exchange.record.drained()

    def _take(self, texts: list[Text]) -> None:
        if self.echo is not None:
            texts = self._new(self.echo, texts)
        for text in texts:
            if self._live.size + MOST_BYTES * len(text.text) > MAX_CONTENT:
                self._fail(Problem.TOO_LARGE, f"The answer is longer than {MAX_CONTENT} bytes.")
                break
            self._live.append(text.kind, text.text)
        if texts:
            self._on_dirty(False)
        if self._reader.error:
            self._fail(Problem.ENGINE_ERROR, self._reader.error)

    def _new(self, echo: Echo, texts: list[Text]) -> list[Text]:
        """Return what of a text is new."""
        try:
            found = [new for text in texts if (new := echo.rest(text)) is not None]
        except DivergedError:
            self._break_off(DIVERGED)
            return []
        if echo.over:
            self.echo = None
            self._streams()
        return found

    def _streams(self) -> None:
        self._live.is_now(RunState.STREAMING)
        self._on_dirty(False)

    def _fail(self, problem: Problem, detail: str) -> None:
        self._break_off(End(RunState.FAILED, problem.value.slug, detail))

    def _break_off(self, end: End) -> None:
        if self._live.ending is None and not self._left:
            self._finish(end)
            # Not from inside the exchange's own call.
            if self.exchange is not None:
                asyncio.get_running_loop().call_soon(self.exchange.cancel)

    def _finish(self, end: End) -> None:
        self._live.ending = end
        self._on_dirty(True)


def reason_of(content: bytes, status: int) -> tuple[str, str]:
    """Return a problem's slug and a text for people out of an answer that is an error."""
    fallback = f"The engine answered with status {status}."
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return Problem.ENGINE_ERROR.value.slug, fallback
    if not isinstance(value, dict):
        return Problem.ENGINE_ERROR.value.slug, fallback
    kind, detail = value.get("type"), value.get("detail")
    if isinstance(kind, str) and kind.startswith(TYPE_PREFIX) and isinstance(detail, str):
        return kind.removeprefix(TYPE_PREFIX), detail  # the bridge's own
    slug = Problem.MODEL_NOT_FOUND.value.slug if status == 404 else Problem.ENGINE_ERROR.value.slug
    return slug, error_text(value) if "error" in value else fallback
