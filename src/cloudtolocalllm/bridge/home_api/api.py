"""Takes a request to its handler, and makes problem documents (RFC 9457) of what goes wrong."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from cloudtolocalllm.bridge.home_api import answers, chats, house
from cloudtolocalllm.bridge.home_api.home import ROUTES, Home
from cloudtolocalllm.bridge.home_api.messages import Blob, Caller, Events, Nothing, Reply, Request
from cloudtolocalllm.bridge.home_api.routing import Route, description
from cloudtolocalllm.bridge.home_api.schema import SchemaError, encoded, from_text, read, write
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store.errors import (
    ConflictError,
    NotHereError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    TooOldError,
)
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content

log = logging.getLogger(__name__)

HANDLERS = (chats, answers, house)
"""The modules whose handlers are in the table."""

_PROBLEMS: tuple[tuple[type[Exception], Problem], ...] = (
    (SchemaError, Problem.BAD_REQUEST),
    (NotHereError, Problem.NOT_FOUND),
    (ConflictError, Problem.CONFLICT),
    (TooOldError, Problem.RELOAD),
    (StoreFullError, Problem.HOME_FULL),
    (StoreBusyError, Problem.OVERLOADED),
)


class HomeApi:
    """The home API."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def handle(self, caller: Caller, request: Request) -> Reply | Events:
        """Answer a request. What goes wrong before the first event is a problem document; later, the last event."""
        try:
            return await self._handle(caller, request)
        except Exception as error:
            return _problem_reply(*_problem_of(error))

    async def _handle(self, caller: Caller, request: Request) -> Reply | Events:
        route, path, other = ROUTES.find(request.method, request.path)
        if route is None:
            if other:
                raise RefusalError(Problem.METHOD_NOT_ALLOWED, "This route has other methods.")
            raise RefusalError(Problem.NOT_FOUND, "The home API has no such route.")
        arguments = {**path, **_query(route, request), **_body(route, request)}
        if route.streams:
            return await _begun(route.handler(self._home, caller, **arguments))
        result = await route.handler(self._home, caller, **arguments)
        if isinstance(result, Nothing):
            return Reply(204)
        if isinstance(result, Blob):
            return Reply(200, result.content, "application/octet-stream")
        return Reply(200, encoded(result))


def describe_api() -> str:
    """Return the description of the whole API, as docs/reference/home-api.json has it."""
    return json.dumps(description(ROUTES, "CloudToLocalLLM home API"), indent=1) + "\n"


def _query(route: Route, request: Request) -> dict[str, Any]:
    unknown = set(request.query) - set(route.query)
    if unknown:
        raise SchemaError("expected only the parameters " + (", ".join(sorted(route.query)) or "(none)"))
    missing = [
        name for name, p in route.query.items() if p.default is p.empty and name not in request.query
    ]  # fmt: skip
    if missing:
        raise SchemaError("expected the parameters " + ", ".join(missing))
    return {name: from_text(route.hints[name], text, name) for name, text in request.query.items()}


def _body(route: Route, request: Request) -> dict[str, Any]:
    if len(request.content) > route.max_content:
        raise RefusalError(Problem.TOO_LARGE, f"Expected at most {route.max_content} bytes of content.")
    if route.body is None:
        if request.content:
            raise SchemaError("expected no content")
        return {}
    if route.body is bytes:
        return {"body": request.content}
    try:
        value = json.loads(request.content)
    except (ValueError, RecursionError):
        raise SchemaError("expected content in JSON") from None
    return {"body": read(route.body, value)}


async def _begun(events: AsyncGenerator[Any, None]) -> Events:
    """Return a stream whose first event is there, so that a refusal is a problem document and no stream."""
    try:
        first = [await anext(events)]
    except StopAsyncIteration:
        first = []
    except BaseException:
        await events.aclose()
        raise
    return Events(_written(first, events))


async def _written(first: list[Any], events: AsyncGenerator[Any, None]) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(events):
        try:
            for event in first:
                yield write(event)
            async for event in events:
                yield write(event)
        except Exception as error:
            problem, detail = _problem_of(error)
            yield {"problem": json.loads(problem_content(problem, detail))}


def _problem_of(error: Exception) -> tuple[Problem, str]:
    if isinstance(error, RefusalError):
        return error.problem, error.detail
    for kind, problem in _PROBLEMS:
        if isinstance(error, kind):
            text = str(error)
            return problem, text[:1].upper() + text[1:] + "."
    if isinstance(error, StoreError):
        log.error("the home store failed", extra={"fault": str(error)})
        return Problem.INTERNAL, "The home store does not work now; the bridge's log says why."
    log.error("a request to the home failed", exc_info=error)
    return Problem.INTERNAL, "The bridge has logged what it was."


def _problem_reply(problem: Problem, detail: str) -> Reply:
    return Reply(problem.value.status, problem_content(problem, detail), CONTENT_TYPE)
