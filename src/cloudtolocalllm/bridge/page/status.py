"""How the machine is, for its own page: in the form of the cloud's status, so that the page reads one form only."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from cloudtolocalllm import __version__
from cloudtolocalllm.contracts.control import EngineState, EngineStatus
from cloudtolocalllm.runtime.http1 import Headers, Responder
from cloudtolocalllm.runtime.http1.messages import CHUNKED
from cloudtolocalllm.runtime.page_fields import SECURITY
from cloudtolocalllm.runtime.tasks import TaskSet

LOCAL = "local"
"""The id by which the page knows the home that serves it."""
LOOK = 1.0
"""Seconds between two looks for news."""
KEEP_ALIVE = 5.0
"""Seconds without news after which a stream says so; the page takes 15 for a lost connection."""
FIELDS: Headers = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), *SECURITY)

Statuses = Callable[[], Iterable[EngineStatus]]


def status_of(name: str, engines: Iterable[EngineStatus]) -> dict[str, Any]:
    """Return the status of the one machine that there is, which is here. Pure.

    Args:
        name: As people see it.
        engines: As they are now.
    """
    listed = list(engines)
    states = {engine.state for engine in listed}
    # Loading first, even beside an engine that is up: a request waits for it right now.
    known = {EngineState.LOADING: "loading", EngineState.UP: "ready"}
    overall = next((word for state, word in known.items() if state in states), "engine-down")
    shown = [{"id": e.id, "kind": e.kind.value, "state": e.state.value} for e in listed]
    machine = {
        "id": LOCAL, "name": name, "connected": True, "since": None, "last_seen": None, "version": __version__,
        "engines": shown,
    }  # fmt: skip
    return {"state": overall, "bridges": [machine], "proxy": None}


class StatusStream:
    """Handles a request for the status as it changes: server-sent events (HTML Standard §9.2)."""

    def __init__(self, responder: Responder, status: Callable[[], dict[str, Any]], holds: Callable[[], bool]) -> None:
        """Expect `begin`.

        Args:
            responder: Answers.
            status: Tells it.
            holds: Tells whether who asks still may.
        """
        self._responder = responder
        self._status = status
        self._holds = holds
        self._ended = asyncio.Event()
        self._writable = True

    def begin(self, tasks: TaskSet, on_over: Callable[["StatusStream"], None]) -> None:
        """Answer in a task.

        Raises:
            RuntimeError: There are too many.
        """
        tasks.start(self._tell(on_over), "status of the page")

    def cut(self) -> None:
        """End it."""
        self._ended.set()

    async def _tell(self, on_over: Callable[["StatusStream"], None]) -> None:
        responder, last, quiet = self._responder, "", 0.0
        try:
            responder.start(200, FIELDS, CHUNKED)
            while self._holds() and not self._ended.is_set():
                text = json.dumps(self._status())
                if self._writable and (text != last or quiet >= KEEP_ALIVE):
                    responder.write(f"data: {text}\n\n".encode() if text != last else b": keep-alive\n\n")
                    last, quiet = text, 0.0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._ended.wait()
                quiet += LOOK
            responder.end()
        finally:
            on_over(self)

    # --- RequestHandler -------------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Not wanted."""

    def on_body_end(self, trailers: Headers) -> None:
        """Nothing to do."""

    def on_disconnect(self) -> None:
        """The browser went away."""
        self._ended.set()

    def on_writable(self, writable: bool) -> None:
        """The connection filled or emptied."""
        self._writable = writable
