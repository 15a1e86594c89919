"""The status that is true, once or as it changes, and the user's proxy."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from starlette.responses import StreamingResponse

from cloudtolocalllm.api.bus import BusClosedError, SlowSubscriberError, user_topic
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.manager_client import RETRY_AFTER, ManagerError
from cloudtolocalllm.api.models import StreamingStatus
from cloudtolocalllm.api.parts import Parts, parts_of, user
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.contracts.problems import Problem

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/streaming", tags=["streaming"])

KEEP_ALIVE = 10.0
"""Seconds after which a stream without news sends a comment, and looks whether its user still may read it."""
MAX_STREAMS = 20
"""Event streams of one user at once: tabs and devices."""

PartsOf = Annotated[Parts, Depends(parts_of)]
User = Annotated[Identity, Depends(user)]
_NOT_IN = (Problem.UNAUTHENTICATED, Problem.FORBIDDEN)


@router.get("/status", responses=described(*_NOT_IN))
async def status(identity: User, parts: PartsOf, response: Response) -> StreamingStatus:
    """Tell what stands between you and an answer."""
    response.headers["cache-control"] = "no-store"
    return await parts.status.status(identity.user)


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events (HTML Standard §9.2): the document of /api/streaming/status, at once "
            "and whenever it changes. The stream ends with the session.",
            "content": {
                "text/event-stream": {"schema": {"type": "string"}, "example": 'data: {"state":"ready"}\n\n'}
            },
        },
        **described(*_NOT_IN, Problem.OVERLOADED),
    },
)
async def events(identity: User, parts: PartsOf) -> Response:
    """Tell it again whenever it changes."""
    if parts.event_streams.get(identity.user, 0) >= MAX_STREAMS:
        raise ProblemError(
            Problem.OVERLOADED,
            f"Expected at most {MAX_STREAMS} event streams at once; close some pages.",
            headers={"retry-after": "10"},
        )
    fields = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(parts, identity), 200, fields, "text/event-stream")


@router.delete("/proxy", status_code=204, responses=described(*_NOT_IN, Problem.OVERLOADED))
async def remove_proxy(identity: User, parts: PartsOf) -> Response:
    """Remove your streaming proxy and what streams through it; the next request gets a new one."""
    try:
        await parts.manager.remove(identity.user)
    except ManagerError:
        detail = "The streaming proxy manager does not answer."
        raise ProblemError(Problem.OVERLOADED, detail, headers={"retry-after": str(RETRY_AFTER)}) from None
    parts.bus.publish(user_topic(identity.user), {"changed": "proxy"})
    return Response(status_code=204)


async def _events(parts: Parts, identity: Identity) -> AsyncIterator[str]:
    counts = parts.event_streams
    counts[identity.user] = counts.get(identity.user, 0) + 1
    subscription = parts.bus.subscribe(user_topic(identity.user))
    try:
        yield "retry: 1000\n\n"
        with contextlib.suppress(SlowSubscriberError, BusClosedError):  # `get` will tell
            await subscription.ready()
        last = ""
        while parts.identifier.still_holds(identity):
            text = await _status(parts, identity) or last
            yield f"data: {text}\n\n" if text != last else ": keep-alive\n\n"
            last = text
            try:
                async with asyncio.timeout(_pause(parts, identity)):
                    await subscription.get()
            except TimeoutError:
                pass  # nothing changed that we were told of; look anyway, since the proxy's end is not told
            except SlowSubscriberError:
                subscription = parts.bus.subscribe(user_topic(identity.user))
            except BusClosedError:
                return
    finally:
        subscription.close()
        counts[identity.user] -= 1
        if not counts[identity.user]:
            del counts[identity.user]


async def _status(parts: Parts, identity: Identity) -> str | None:
    try:
        return (await parts.status.status(identity.user)).model_dump_json()
    except StateUnavailableError as error:
        log.warning("the state does not answer", extra={"cause": str(error)})
        return None


def _pause(parts: Parts, identity: Identity) -> float:
    if identity.expires is None:
        return KEEP_ALIVE
    return max(0.0, min(KEEP_ALIVE, identity.expires - parts.clock.wall()))
