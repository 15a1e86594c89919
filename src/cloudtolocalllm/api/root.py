"""The outermost ASGI application: the hot route by itself, bounds, and one log line a request."""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from cloudtolocalllm.api.authorize import Authorizer
from cloudtolocalllm.contracts.authorize import AUTHORIZE_TARGET
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = (b"connection", b"close")
MAX_CONTENT = 64 * 1024
"""Bytes of a request's content; no route takes more than a name."""


class Root:
    """Routes `/internal/authorize` past the framework and everything else into it."""

    def __init__(self, app: Asgi, authorizer: Authorizer, clock: Clock) -> None:
        self._app = app
        self._authorizer = authorizer
        self._clock = clock
        self.closing = False
        """Whether each answer is the last one of its connection, so that the edge asks another replica next."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected an HTTP request, got {scope['type']}")
        if scope["path"] == AUTHORIZE_TARGET:
            status, headers = await self._authorizer.answer(scope["headers"])
            if self.closing:
                headers = [*headers, CLOSE]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock.monotonic()
        status = 0
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_CONTENT:
                raise HTTPException(Problem.TOO_LARGE.value.status, headers={"connection": "close"})
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.closing:
                    message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception:
            # The framework has answered 500 and raised again, so that it is logged here, once.
            log.exception("request failed", extra={"route": _route(scope)})
        finally:
            log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "route": _route(scope),
                    "status": status,
                    "ms": round((self._clock.monotonic() - began) * 1000, 1),
                    "request_id": _request_id(scope),
                },
            )


def _route(scope: Scope) -> str | None:
    """Return the path as the route has it: what a client puts into it may be a pairing code, or anything."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


def _request_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value[:64].decode("latin-1"))
    return None
