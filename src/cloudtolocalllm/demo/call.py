"""One HTTP request to the engine: its content is collected, then its route is called."""

import json
import logging
from collections.abc import Callable
from typing import Any

from cloudtolocalllm.demo.answer import JSON, Answer, Engine, encode
from cloudtolocalllm.demo.request import MalformedError
from cloudtolocalllm.demo.settings import Pace
from cloudtolocalllm.runtime.http1 import Headers, Request, Responder

log = logging.getLogger(__name__)

MAX_CONTENT = 64 * 1024 * 1024
"""Bytes of a request; images come as base64 inside the JSON."""

TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
ErrorShape = Callable[[int, str], dict[str, Any]]


class Refused(Exception):  # noqa: N818 - an outcome that its route answers, not a fault
    """The request is answered with an error in its API's shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call:
    """A request whose content is collected until it is complete."""

    def __init__(self, engine: Engine, pace: Pace, request: Request, responder: Responder, route: "Route") -> None:
        self.engine = engine
        self.pace = pace
        self.request = request
        self.responder = responder
        self.answer: Answer | None = None
        self.extra: Headers = ()
        """Fields that every response carries."""
        self.on_gone: Callable[[], None] | None = None
        self._route = route
        self._parts: list[bytes] = []
        self._size = 0

    # --- runtime.http1.RequestHandler -----------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Collect content."""
        self._size += len(data)
        if self._size <= MAX_CONTENT:
            self._parts.append(data)
        else:
            self._parts.clear()

    def on_body_end(self, trailers: Headers) -> None:
        """Answer."""
        if self._size > MAX_CONTENT:
            self._refuse(413, f"expected at most {MAX_CONTENT} bytes")
            return
        try:
            self._route.run(self)
        except MalformedError as error:
            self._refuse(400, str(error))
        except Refused as error:
            self._refuse(error.status, str(error))
        except Exception:
            log.exception("request failed")
            self._refuse(500, "internal error")

    def on_disconnect(self) -> None:
        """The client went away."""
        if self.answer is not None:
            self.answer.on_disconnect()
        if self.on_gone is not None:
            self.on_gone()

    def on_writable(self, writable: bool) -> None:
        """Pass the client's pace on."""
        if self.answer is not None:
            self.answer.on_writable(writable)

    # --- for routes -----------------------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """Return the content.

        Raises:
            Refused: It is not a JSON object.
        """
        content = b"".join(self._parts)
        if not content:
            raise Refused(400, "missing request body")
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise Refused(400, "invalid JSON: expected an object") from None
        if not isinstance(value, dict):
            raise Refused(400, "invalid JSON: expected an object")
        return value

    def respond_json(self, status: int, value: Any) -> None:
        """Send a JSON response."""
        self.responder.respond(status, JSON + self.extra, encode(value))

    def respond_text(self, status: int, text: str) -> None:
        """Send a text."""
        self.responder.respond(status, TEXT + self.extra, text.encode())

    def begin(self, answer: Answer) -> None:
        """Let an answer take over."""
        self.answer = answer
        answer.start()

    def paced(self, options: dict[str, Any]) -> Pace:
        """Return the pace with a request's options.

        Raises:
            MalformedError: An option has the wrong type.
        """
        try:
            return self.pace.overridden(options)
        except ValueError as error:
            raise MalformedError(str(error)) from None

    def _refuse(self, status: int, message: str) -> None:
        self.respond_json(status, self._route.shape(status, message))


class Route:
    """What answers a path, and how its errors look."""

    __slots__ = ("run", "shape")

    def __init__(self, run: Callable[[Call], None], shape: ErrorShape) -> None:
        self.run = run
        self.shape = shape
