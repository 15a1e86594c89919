"""Pulls and deletions of models, if they are switched on at home; a pull goes on whoever watches."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from cloudtolocalllm.bridge.exchange import Desk, Exchange
from cloudtolocalllm.bridge.naming import canonical
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.runs.asking import ask, route_of
from cloudtolocalllm.bridge.runs.writer import reason_of
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.tunnel import ResetReason, ResponseHead

MAX_PULLS = 8
"""Pulls at once, and as many that have ended and are still known."""
MAX_LINE = 64 * 1024
MAX_STATUS = 200
"""Characters of an engine's word for what it does."""
QUIET = 15.0
"""Seconds without progress after which a watcher is told that the pull goes on."""
DELETE_TIME = 30.0
_WINDOW = 64 * 1024


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is."""

    model: str
    state: str
    """pulling, done, stopped or failed."""
    status: str = ""
    """What the engine says it does."""
    done_bytes: int = 0
    """Of the layer that it pulls now."""
    total_bytes: int = 0
    reason: str = ""
    """Why it failed: a problem's slug."""
    detail: str = ""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return self.state != "pulling"


class _Small:
    """The port of an exchange whose answer is lines of JSON."""

    def __init__(self, on_line: Callable[[bytes], None], on_end: Callable[[str, str], None]) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._rest = bytearray()
        self._status = 0
        self._ended = False
        self.exchange: Exchange | None = None

    @property
    def window(self) -> int:
        return _WINDOW

    def send_head(self, head: ResponseHead) -> None:
        if head.status >= 200:
            self._status = head.status

    def send_data(self, data: bytes) -> None:
        self._rest += data
        if self._status == 200:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._on_line(bytes(line))
        if len(self._rest) > MAX_LINE:
            self._over(Problem.ENGINE_ERROR.value.slug, "The engine sent a line that is too long.")

    def end(self, trailers: Headers = ()) -> None:
        if self._status == 200:
            if self._rest:
                self._on_line(bytes(self._rest))
            self._over("", "")
        else:
            self._over(*reason_of(bytes(self._rest), self._status))

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        self._over(Problem.ENGINE_ERROR.value.slug, "The engine broke off.")

    def consumed(self, size: int) -> None:
        pass

    def _over(self, slug: str, detail: str) -> None:
        if not self._ended:
            self._ended = True
            self._rest.clear()
            self._on_end(slug, detail)
            if slug and self.exchange is not None:
                asyncio.get_running_loop().call_soon(self.exchange.cancel)


class Pull:
    """One pull."""

    def __init__(self, model: str, on_succeeded: Callable[["Pull"], None]) -> None:
        """Begin.

        Args:
            model: Which.
            on_succeeded: Called when the engine has it all; whoever is called then calls `done`.
        """
        self.progress = Progress(model, "pulling")
        self.port = _Small(self._line, self._end)
        self._on_succeeded = on_succeeded
        self._rung = asyncio.Event()
        self._succeeded = False

    def stop(self) -> None:
        """Break it off; the engine keeps what it has for the next time."""
        self._set(replace(self.progress, state="stopped"))
        if self.port.exchange is not None:
            self.port.exchange.cancel()

    def done(self) -> None:
        """Tell that the model is there."""
        self._set(replace(self.progress, state="done"))

    async def watch(self) -> AsyncGenerator[Progress, None]:
        """Yield the progress as it is now and whenever it has changed; a slow watcher misses what is outdated."""
        told = None
        while True:
            if (now := self.progress) is not told:
                told = now
                yield now
                if now.ended:
                    return
                continue
            try:
                async with asyncio.timeout(QUIET):
                    await self._rung.wait()
            except TimeoutError:
                yield now

    def _line(self, line: bytes) -> None:
        try:
            value = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        if "error" in value:
            slug, detail = reason_of(line, 200)
            self._end(slug, detail)
            return
        status, done, total = value.get("status"), value.get("completed"), value.get("total")
        if isinstance(status, str):
            self._succeeded = status == "success"
            self._set(
                replace(
                    self.progress,
                    status=status[:MAX_STATUS],
                    done_bytes=done if type(done) is int else 0,
                    total_bytes=total if type(total) is int else 0,
                )
            )

    def _end(self, slug: str, detail: str) -> None:
        if slug:
            self._set(replace(self.progress, state="failed", reason=slug, detail=detail))
        elif self._succeeded:
            self._on_succeeded(self)
        else:
            cut = "The engine ended the pull without saying that it succeeded."
            self._set(replace(self.progress, state="failed", reason=Problem.ENGINE_ERROR.value.slug, detail=cut))

    def _set(self, progress: Progress) -> None:
        if not self.progress.ended:
            self.progress = progress
            rung, self._rung = self._rung, asyncio.Event()
            rung.set()


class ModelDesk:
    """Changes the engines' models."""

    def __init__(self, desk: Desk, allow: tuple[str, ...]) -> None:
        """Make a desk.

        Args:
            desk: The engines.
            allow: Which routes that change models are switched on at home.
        """
        self._desk = desk
        self._allow = allow
        self._pulls: dict[str, Pull] = {}

    def pull(self, model: str) -> Pull:
        """Begin to pull a model, or return the pull of it that goes on.

        Raises:
            RefusalError: It is switched off at home, or too many go on.
        """
        route = route_of("POST", "/ollama/api/pull", self._allow)
        name = canonical(model)
        known = self._pulls.get(name)
        if known is not None and not known.progress.ended:
            return known
        self._forget_ended()
        if len(self._pulls) >= MAX_PULLS:
            raise RefusalError(Problem.OVERLOADED, f"At most {MAX_PULLS} models are pulled at once; wait for one.")
        pull = self._pulls[name] = Pull(name, self._pulled)
        content = json.dumps({"model": model, "stream": True}).encode()
        pull.port.exchange = ask(self._desk, route, content, pull.port)
        return pull

    def pulls(self) -> list[Progress]:
        """Return the pulls that go on or have lately ended."""
        return [pull.progress for pull in self._pulls.values()]

    def find(self, model: str) -> Pull:
        """Return the pull of a model.

        Raises:
            RefusalError: There is none.
        """
        pull = self._pulls.get(canonical(model))
        if pull is None:
            raise RefusalError(Problem.NOT_FOUND, "This model is not being pulled.")
        return pull

    async def delete(self, model: str) -> None:
        """Delete a model.

        Raises:
            RefusalError: It is switched off at home, or the engine does not do it.
        """
        route = route_of("DELETE", "/ollama/api/delete", self._allow)
        done: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

        def ended(slug: str, detail: str) -> None:
            if not done.done():
                done.set_result((slug, detail))

        port = _Small(lambda line: None, ended)
        port.exchange = ask(self._desk, route, json.dumps({"model": model}).encode(), port)
        try:
            async with asyncio.timeout(DELETE_TIME):
                slug, detail = await done
        except TimeoutError:
            port.exchange.cancel()
            raise RefusalError(Problem.TIMED_OUT, "The engine did not delete the model in time.") from None
        if slug:
            raise RefusalError(Problem.by_slug(slug), detail)
        await self._refresh()

    def close(self) -> None:
        """Break every pull off."""
        for pull in self._pulls.values():
            pull.stop()

    def _pulled(self, pull: Pull) -> None:
        self._desk.tasks.start(self._list(pull), "listing a model that was pulled")

    async def _list(self, pull: Pull) -> None:
        """Whoever sees that a pull is done finds the model in the list."""
        await self._refresh()
        pull.done()

    async def _refresh(self) -> None:
        await asyncio.gather(*(engine.refresh_models() for engine in self._desk.catalog.engines))

    def _forget_ended(self) -> None:
        ended = [name for name, pull in self._pulls.items() if pull.progress.ended]
        for name in ended[: max(0, len(self._pulls) - MAX_PULLS + 1)]:
            del self._pulls[name]
