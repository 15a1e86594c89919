"""One bridge's control connection, framed by the sans-I/O core of `websockets`.

uvicorn hands a connection over when it asks for an upgrade. Its own WebSocket classes run an ASGI task with queues
for each connection; this protocol has neither. Measured with 2,000 idle connections, private memory each: 24.6 KB
with uvicorn's and a Starlette endpoint that does nothing, 6 KB with this.
"""

import asyncio
import logging
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from cloudtolocalllm.api.identity import Identity, challenge
from cloudtolocalllm.api.presence import Presence
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import ControlMessageError, Hello, Message
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content

log = logging.getLogger(__name__)

_ws_log = logging.getLogger("cloudtolocalllm.api.websocket")
_ws_log.setLevel(logging.CRITICAL)  # the library's own lines say nothing that ours do not

HELLO_TIMEOUT = 10.0
"""Seconds for the handshake and the first message."""
CLOSE_TIMEOUT = 2.0
"""Seconds for the peer to answer a close before the connection is cut."""
MAX_MESSAGES = 20
"""Messages that a bridge may send between two sweeps (one second)."""

NORMAL = 1000
GOING_AWAY = 1001
POLICY = 1008
"""RFC 6455 §7.4.1: the peer broke a rule of ours."""
SERVICE_RESTART = 1012
"""RFC 6455's registry: come back after a moment."""


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """The upgrade is not granted."""

    def __init__(
        self, problem: Problem, detail: str, *, nonce: str | None = None, error: str = "use_dpop_nonce"
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.nonce = nonce
        """For the bridge's next proof (RFC 9449 §8)."""
        self.error = error
        """With a nonce: what was wrong (RFC 9449 §7.1)."""


class Hub(Protocol):
    """What a connection needs of the hub that owns it."""

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    async def admit(self, path: str, headers: list[tuple[bytes, bytes]]) -> Identity:
        """Return the bridge that asks for an upgrade.

        Raises:
            Refusal: It may not come in.
        """
        ...

    def start(self, coroutine: Coroutine[None, None, None]) -> bool:
        """Run an admission beside everything else; False when too many run already."""
        ...

    def opened(self, socket: "ControlSocket") -> None:
        """A connection was made; not yet known whose."""

    def said(self, socket: "ControlSocket", message: Message) -> None:
        """A bridge said something that it may say now.

        Raises:
            ControlMessageError: It may not.
        """

    def closed(self, socket: "ControlSocket") -> None:
        """The connection is gone."""


class ControlSocket(asyncio.Protocol):
    """A connection from its upgrade request on."""

    __slots__ = ("_asked", "_core", "_hub", "_transport", "heard", "identity", "messages", "opened_at", "presence")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._core = ServerProtocol(
            subprotocols=[Subprotocol(control.SUBPROTOCOL)], max_size=control.MAX_MESSAGE, logger=_ws_log
        )
        self._transport: asyncio.Transport | None = None
        self._asked = False
        """Whether the upgrade was asked for."""
        self.identity: Identity | None = None
        self.presence: Presence | None = None
        """Set once the bridge said hello."""
        self.opened_at = self.heard = hub.now()
        """Monotonic seconds when anything last came, a ping too."""
        self.messages = 0
        """Since the last sweep."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; uvicorn calls it with the HTTP connection's transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance, only by behaviour
        self._hub.opened(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes: first the head of the upgrade request, then frames."""
        self.heard = self._hub.now()
        if self._asked and self._core.state is State.CONNECTING:
            # RFC 6455 §4.1: the client must wait for the answer. The core would answer its pings before we do.
            self.abort()
            return
        self._core.receive_data(data)
        for event in self._core.events_received():
            if isinstance(event, Request):
                self._asked = True
                if not self._hub.start(self._admit(event)):
                    self.abort()
            elif isinstance(event, Frame):
                self._on_frame(event)
        self._flush()

    def eof_received(self) -> None:
        """The peer will send no more, so it cannot answer: close."""
        self._core.receive_eof()
        self._flush()

    def pause_writing(self) -> None:
        """A bridge that does not read what little we send is not served: what waits for it must not grow."""
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._hub.closed(self)

    def send(self, message: Message) -> None:
        """Send a message; without effect when the connection is closing."""
        if self.is_open:
            self._core.send_text(control.encode(message).encode())
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close with a code; cut when the peer does not answer within CLOSE_TIMEOUT."""
        if not self.is_open:
            self.abort()
            return
        self._core.send_close(code, reason)
        self._flush()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Cut the connection; `Hub.closed` follows."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and self._core.state is State.OPEN

    @property
    def said_farewell(self) -> bool:
        """Whether the peer closed it of its own will, because it ends."""
        said = self._core.close_rcvd
        return said is not None and said.code == GOING_AWAY and self._core.close_rcvd_then_sent is True

    async def _admit(self, request: Request) -> None:
        response = await self._answer(request)
        if self._transport is not None and self._core.state is State.CONNECTING:
            self._core.send_response(response)
            self._flush()

    async def _answer(self, request: Request) -> Response:
        try:
            headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in request.headers.raw_items()]
            identity = await self._hub.admit(request.path, headers)
        except Refusal as refusal:
            return self._refuse(refusal)
        response = self._core.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            detail = f"Expected a WebSocket upgrade for {control.SUBPROTOCOL}."
            return self._refuse(Refusal(Problem.BAD_REQUEST, detail))
        self.identity = identity
        return response

    def _refuse(self, refusal: Refusal) -> Response:
        value = refusal.problem.value
        response = self._core.reject(value.status, "")
        body = problem_content(refusal.problem, refusal.detail)
        for name, text in (("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))):
            del response.headers[name]
            response.headers[name] = text
        if refusal.nonce is not None:
            response.headers["DPoP-Nonce"] = refusal.nonce
            response.headers["WWW-Authenticate"] = challenge(refusal.error)
        response.body = body
        log.info("control connection refused", extra={"problem": value.slug})
        return response

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE) or not self.is_open:
            return  # the core answers pings and closes
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            self.close(POLICY, f"expected at most {MAX_MESSAGES} messages a second")
            return
        if frame.opcode is not Opcode.TEXT or not frame.fin:
            self.close(POLICY, "expected each message to be one text frame")
            return
        try:
            self._hub.said(self, control.decode(bytes(frame.data).decode()))
        except UnicodeDecodeError:
            self.close(1007, "expected UTF-8")
        except ControlMessageError as error:
            self.close(POLICY, str(error)[:120])

    def _flush(self) -> None:
        for data in self._core.data_to_send():
            if self._transport is None:
                return
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def expects_hello(message: Message) -> Hello:
    """Return the message if it is a hello.

    Raises:
        ControlMessageError: It is another.
    """
    if not isinstance(message, Hello):
        raise ControlMessageError("expected hello first")
    return message
