"""The local side: what programs on this computer take for the engine."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from cloudtolocalllm.connect.again import Repeats
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.household import Household
from cloudtolocalllm.connect.journey import Journey
from cloudtolocalllm.connect.local_answer import LocalRequest, refuse
from cloudtolocalllm.connect.paths import LISTS, STATUS_PATH, Door, inner_target
from cloudtolocalllm.connect.recovery import Recovery
from cloudtolocalllm.connect.stops import Stops
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers, Request, RequestHandler, Responder
from cloudtolocalllm.runtime.http1.answered import Answered
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

MAX_CONTENT: Final = 64 * 1024 * 1024
"""Bytes of one request."""
MAX_HELD: Final = 256 * 1024 * 1024
"""Bytes of all requests under way."""
MAX_REQUESTS: Final = 128
"""Requests at once."""

_PATHS: Final = "Ollama's API is below /api/, OpenAI's and Anthropic's below /v1/."
_BUSY: Final = "Too many requests are under way on this computer."

Status = Callable[[], dict[str, Any]]
"""Tells how everything stands, for `connect status`."""


class LocalApp:
    """Takes local requests."""

    def __init__(
        self, household: Household, stops: Stops, tasks: TaskSet, clock: Clock, door: Door, status: Status,
        *, patience: float, deadline: float, repeats: Repeats,
    ) -> None:  # fmt: skip
        """Make the application.

        Args:
            household: The homes.
            stops: Tells homes to stop.
            tasks: Runs the requests.
            clock: For deadlines.
            door: Who may ask.
            status: How everything stands.
            patience: Seconds; see Recovery.
            deadline: Seconds; see Recovery.
            repeats: Finds the requests that may be asked anew.
        """
        self.household = household
        self.stops = stops
        self.tasks = tasks
        self.clock = clock
        self.held = 0
        """Bytes of content of the requests under way."""
        self._door = door
        self._status = status
        self._patience = patience
        self._deadline = deadline
        self._repeats = repeats

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request."""
        refusal = self._door.refusal(request.headers)
        if refusal is not None:
            log.warning("a local request was refused", extra={"cause": refusal.problem.value.slug})
            return _answered(responder, refusal.problem, refusal.detail)
        cors = self._door.cors_fields(request.headers, preflight=request.method == "OPTIONS")
        if request.method == "OPTIONS" and cors:
            responder.respond(204, cors, b"")
            return Answered()
        path = request.path
        if path == STATUS_PATH and request.method in ("GET", "HEAD"):
            content = json.dumps(self._status()).encode()
            fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), *cors)
            responder.respond(200, fields, content)
            return Answered()
        target = inner_target(request.target)
        if target is None:
            return _answered(responder, Problem.NOT_FOUND, _PATHS, cors)
        if request.body.length > MAX_CONTENT:
            return _answered(responder, Problem.TOO_LARGE, f"Expected at most {MAX_CONTENT} bytes.", cors)
        if len(self.tasks) >= MAX_REQUESTS:
            return _answered(responder, Problem.OVERLOADED, _BUSY, cors)
        return LocalExchange(self, request, target, responder, cors)

    async def serve(self, request: LocalRequest, answer: "LocalExchange", path: str) -> None:
        """Answer a request that is here whole."""
        if path in LISTS and request.method in ("GET", "HEAD"):
            try:
                found = await self.household.listing(path)
            except HomeError as error:
                refuse(answer, error)
            else:
                answer.whole(found.status, found.headers, found.content)
            return
        recovery = Recovery(self._patience, self._deadline, self.clock.monotonic())
        await Journey(request, answer, self.household, self.stops, recovery, self._repeats, self.clock).run()


class LocalExchange:
    """One local request: takes its content, then carries its answer."""

    def __init__(self, app: LocalApp, request: Request, target: str, responder: Responder, cors: Headers) -> None:
        """Expect the content of a request whose head has come."""
        self._app = app
        self._request = request
        self._target = target
        self._responder = responder
        self._cors = cors
        self._content = bytearray()
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._done = False
        self._writable = asyncio.Event()
        self._writable.set()

    # --- RequestHandler ---

    def on_body(self, data: bytes) -> None:
        """Content came."""
        if self._done:
            return
        self._held += len(data)
        self._app.held += len(data)
        if self._held > MAX_CONTENT or self._app.held > MAX_HELD:
            problem = Problem.TOO_LARGE if self._held > MAX_CONTENT else Problem.OVERLOADED
            self._release()
            self._refuse(problem, f"Expected at most {MAX_CONTENT} bytes, and {MAX_HELD} at once.")
            return
        self._content += data

    def on_body_end(self, trailers: Headers) -> None:
        """The request is complete."""
        if self._done:
            return
        request = LocalRequest(self._request.method, self._target, self._request.headers, bytes(self._content))
        self._content = bytearray()
        try:
            self._task = self._app.tasks.start(self._run(request), "local request")
        except RuntimeError:
            self._release()
            self._refuse(Problem.OVERLOADED, _BUSY)
        else:
            self._task.add_done_callback(lambda _: self._release())  # of one that never ran, too

    def on_disconnect(self) -> None:
        """The client went away: stop."""
        self._done = True
        self._writable.set()
        if self._task is None:
            self._release()
        else:
            self._task.cancel()

    def on_writable(self, writable: bool) -> None:
        """The client's connection filled or emptied."""
        if writable:
            self._writable.set()
        else:
            self._writable.clear()

    async def _run(self, request: LocalRequest) -> None:
        try:
            await self._app.serve(request, self, self._request.path)
        except Exception:
            log.exception("a local request failed")
            self.abort()

    def _release(self) -> None:
        self._app.held -= self._held
        self._held = 0

    def _refuse(self, problem: Problem, detail: str) -> None:
        refuse(self, HomeError(Fault.REFUSED, problem, detail))

    # --- LocalAnswer ---

    def inform(self, status: int, headers: Headers) -> None:
        """Send an informational head."""
        self._responder.inform(status, headers)

    def start(self, status: int, headers: Headers) -> None:
        """Send the head."""
        self._responder.start(status, (*headers, *self._cors), NO_BODY if status in (204, 304) else CHUNKED)

    async def write(self, data: bytes) -> None:
        """Send content, and wait until more can be taken."""
        self._responder.write(data)
        await self._writable.wait()

    def end(self, trailers: Headers) -> None:
        """It is complete."""
        self._done = True
        self._responder.end(trailers)

    def whole(self, status: int, headers: Headers, content: bytes) -> None:
        """Send all of it."""
        self._done = True
        self._responder.respond(status, (*headers, *self._cors), content)

    def abort(self) -> None:
        """Break it off."""
        self._done = True
        self._responder.abort()


def _answered(responder: Responder, problem: Problem, detail: str, cors: Headers = ()) -> Answered:
    fields = ((b"content-type", CONTENT_TYPE.encode()), *cors)
    responder.respond(problem.value.status, fields, problem_content(problem, detail))
    return Answered()
