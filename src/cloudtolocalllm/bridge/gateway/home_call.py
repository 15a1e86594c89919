"""One request to the home API: its content is held until it is whole; then it is answered in a task."""

import asyncio
import json
import logging
from contextlib import aclosing
from urllib.parse import parse_qsl

from cloudtolocalllm.bridge.caller import AT_HOME
from cloudtolocalllm.bridge.follower import StreamFollower
from cloudtolocalllm.bridge.home_api.api import HomeApi
from cloudtolocalllm.bridge.home_api.home import ROUTES
from cloudtolocalllm.bridge.home_api.messages import Caller, Events, Reply, Request
from cloudtolocalllm.bridge.home_api.routing import MAX_CONTENT
from cloudtolocalllm.bridge.intake import MAX_READ_TOGETHER, Memory
from cloudtolocalllm.bridge.journal import Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError, problem_response
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.tunnel import RequestHead, ResetReason

log = logging.getLogger(__name__)

PREFIX = "/c2l"
"""Before the home API's own paths."""
STALL = 120.0
"""Seconds for which a stream of events waits for a reader that takes nothing; the edge waits as long."""
MAX_PARAMETERS = 16
EVENTS_TYPE = b"application/x-ndjson"


class HomeCall:
    """The handler of such a request."""

    def __init__(
        self, api: HomeApi, tasks: TaskSet, memory: Memory, clock: Clock, device: str, head: RequestHead, port: Port,
        record: Record,
    ) -> None:  # fmt: skip
        """Begin to take the content.

        Args:
            api: Answers.
            tasks: Runs the answering.
            memory: Counts what all requests hold.
            clock: The time.
            device: Who asks; may be AT_HOME.
            head: Of the request.
            port: Where the answer goes.
            record: Where it is written; kept only if it is of a name and no stream of events.
        """
        self._api = api
        self._tasks = tasks
        self._memory = memory
        self._clock = clock
        self._caller = Caller(None if device == AT_HOME else device)
        self._method = head.method
        path, _, query = head.target.removeprefix(PREFIX).partition("?")
        self._path = path
        self._query: dict[str, str] = {}
        route, _, _ = ROUTES.find(head.method, path)
        self._most = route.max_content if route is not None else MAX_CONTENT
        self._port = port
        self._record = record
        self._follower = StreamFollower(record, port, bodyless=head.method == "HEAD")
        self._chunks: list[bytes] = []
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._streams = False
        record.arriving = True
        record.cancel = self._release  # where it is stopped, the stream is reset, and tells us nothing more
        try:
            self._query = _parameters(query)
        except RefusalError as refusal:
            self._refuse(refusal)

    # --- the request ----------------------------------------------------------------------------------------------

    def on_head(self, head: object) -> None:
        """Never called in the role of a bridge."""

    def on_data(self, data: bytes) -> None:
        """Content came."""
        self._port.consumed(len(data))
        if self._record.ended or self._task is not None:
            return
        self._chunks.append(data)
        self._held += len(data)
        self._memory.held += len(data)
        if self._held > self._most:
            self._refuse(RefusalError(Problem.TOO_LARGE, f"Expected at most {self._most} bytes of content."))
        elif self._memory.held > MAX_READ_TOGETHER:
            self._refuse(RefusalError(Problem.OVERLOADED, "Too many large requests at once; try again soon."))

    def on_end(self, trailers: Headers) -> None:
        """The request is whole: only now anything is done for it."""
        self._record.arriving = False
        if self._record.ended:
            return
        content = b"".join(self._chunks)
        self._chunks = []
        try:
            self._task = self._tasks.start(self._answer(content), "home API")
        except RuntimeError:
            self._refuse(RefusalError(Problem.OVERLOADED, "The bridge has too many requests at once."))

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The reader went away. What is being done is done to its end; a stream of events ends."""
        self._follower.leave()
        if self._task is None:
            self._release()
            self._record.break_off("the request broke off", self._clock.monotonic())
        elif self._streams:
            self._task.cancel()

    def on_writable(self) -> None:
        """The stream's window opened."""
        if self._follower.pump():
            self._record.drained()

    # --- the answer -----------------------------------------------------------------------------------------------

    async def _answer(self, content: bytes) -> None:
        record = self._record
        try:
            request = Request(self._method, self._path, self._query, content)
            answer = await self._api.handle(self._caller, request)
            del content, request
            self._release()
            if isinstance(answer, Events):
                self._streams = True
                await self._stream(answer)
            else:
                self._reply(answer)
        except Exception:
            log.exception("a request to the home failed")
            record.break_off("failed", self._clock.monotonic())
        finally:
            self._release()
            record.break_off("ended", self._clock.monotonic())  # no effect on an answer that is complete

    def _reply(self, reply: Reply) -> None:
        if self._record.ended:  # stopped meanwhile
            return
        fields = [(b"content-type", reply.media_type.encode())] if reply.content else []
        self._record.start(reply.status, (*fields, (b"cache-control", b"no-store")))
        if reply.content:
            self._record.write(reply.content)
        self._record.finish((), self._clock.monotonic())

    async def _stream(self, answer: Events) -> None:
        record, drained = self._record, asyncio.Event()
        record.on_drained = drained.set
        async with aclosing(answer.events) as events:
            if not record.readers:
                return
            record.start(200, ((b"content-type", EVENTS_TYPE), (b"cache-control", b"no-store")))
            async for event in events:
                if record.ended:
                    return
                drained.clear()
                line = json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"
                if not record.write(line.encode("utf-8", "replace")):
                    try:
                        async with asyncio.timeout(STALL):
                            await drained.wait()
                    except TimeoutError:
                        record.break_off("nobody reads", self._clock.monotonic())
                        return
        record.finish((), self._clock.monotonic())

    def _refuse(self, refusal: RefusalError) -> None:
        self._release()
        status, headers, content = problem_response(refusal)
        self._record.start(status, headers)
        self._record.write(content)
        self._record.finish((), self._clock.monotonic())

    def _release(self) -> None:
        self._memory.held -= self._held
        self._held = 0
        self._chunks = []


def _parameters(query: str) -> dict[str, str]:
    """Read a query.

    Raises:
        RefusalError: It is none, or names a parameter twice.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise RefusalError(Problem.BAD_REQUEST, "Expected a query of names and values.") from None
    if len(dict(pairs)) != len(pairs):
        raise RefusalError(Problem.BAD_REQUEST, "Expected each parameter once.")
    return dict(pairs)


def streams(head: RequestHead) -> bool:
    """Tell whether a request to the home API is answered by events, which have offsets of their own."""
    route, _, _ = ROUTES.find(head.method, head.target.removeprefix(PREFIX).partition("?")[0])
    return route is not None and route.streams
