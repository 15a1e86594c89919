"""One sealed request on its way in.

The states and what ends them:

    SEALED      nothing opened yet     head          -> authenticate; then OPEN, INTRODUCED or READ_OVER
    OPEN        content to a handler   end           -> the handler answers
    INTRODUCED  a device's own words   end           -> the reception answers
    READ_OVER   answered already       end

Nothing is done for a request, and no content of it is kept, before its device is proved.
"""

import logging
import secrets
from enum import Enum, auto
from typing import TYPE_CHECKING

from cloudtolocalllm.bridge.caller import Caller
from cloudtolocalllm.bridge.gateway.refusals import refuse, unopened, unproved
from cloudtolocalllm.bridge.gateway.sealed_port import SealedPort
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import Stream, StreamHandler
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.sealed.bhttp import Content, Event, RequestHead
from cloudtolocalllm.sealed.errors import SealedError, UnknownDeviceError
from cloudtolocalllm.sealed.exchange import RequestReader
from cloudtolocalllm.sealed.ohttp import RESPONSE_NONCE_BYTES, RESPONSE_TYPE, RequestOpener
from cloudtolocalllm.sealed.pairing import MAX_INTRODUCTION, PATH
from cloudtolocalllm.tunnel import ResetReason

if TYPE_CHECKING:
    from cloudtolocalllm.bridge.gateway.gateway import Gateway

log = logging.getLogger(__name__)


class _State(Enum):
    SEALED = auto()
    OPEN = auto()
    INTRODUCED = auto()
    READ_OVER = auto()


class SealedStream:
    """The handler of a stream that carries a sealed request."""

    def __init__(self, gateway: "Gateway", stream: Stream, caller: Caller, opener: RequestOpener) -> None:
        """Expect a request.

        Args:
            gateway: Who took it.
            stream: Of the tunnel.
            caller: As whom the cloud let it pass.
            opener: Of this request.
        """
        self._gateway = gateway
        self._stream = stream
        self.caller = caller
        self._opener = opener
        self._reader = RequestReader(opener)
        self._state = _State.SEALED
        self._inner: StreamHandler | None = None
        self.port: SealedPort | None = None
        self.device = ""
        self.is_endless = False
        """Whether its answer goes on for as long as somebody reads."""
        self.removes_itself = False
        """Whether it is the request by which its device is removed, which is answered still."""
        self.named = False
        """Whether its answer can be taken up again by a name."""
        self._head: RequestHead | None = None
        self._said = bytearray()
        self._owed = 0
        """Bytes of the stream whose credit was not given back yet."""
        self._held = 0
        """Bytes of content that were handed on and not consumed."""

    # --- what the tunnel calls ------------------------------------------------------------------------------------

    def on_head(self, head: object) -> None:
        """Never called in the role of a bridge."""

    def on_data(self, data: bytes) -> None:
        """Sealed bytes."""
        self._owed += len(data)
        if self._state is not _State.READ_OVER:
            try:
                self._take(self._reader.receive_data(data))
            except SealedError as error:
                self._unopened(error)
        self._grant()

    def on_end(self, trailers: Headers) -> None:
        """The sealed bytes are complete; whether the request is, its final chunk tells."""
        if self._state is _State.READ_OVER:
            return
        try:
            self._take(self._reader.end())
        except SealedError as error:
            self._unopened(error)
            return
        if self._state is _State.OPEN and self._inner is not None:
            self._inner.on_end(())
        elif self._state is _State.INTRODUCED:
            self._introduced()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The client or the tunnel went away: whoever is named goes on without a reader."""
        self._leave(ResetReason.SESSION_LOST if self.named else reason)

    def on_writable(self) -> None:
        """The stream's window opened."""
        if self.port is not None and self.port.writable() and self._inner is not None:
            self._inner.on_writable()

    # --- for the gateway ------------------------------------------------------------------------------------------

    def cut(self, reason: ResetReason) -> None:
        """End it at once."""
        self._leave(reason)
        self._stream.reset(reason)

    def open_port(self) -> SealedPort:
        """Begin the answer to an opened request."""
        sealer = self._opener.response(secrets.token_bytes(RESPONSE_NONCE_BYTES))
        self.port = SealedPort(
            self._stream, sealer, RESPONSE_TYPE, consumed=self._consumed, on_over=self._over, on_broken=self._broken,
            policy=self._gateway.padding,
        )  # fmt: skip
        return self.port

    # --- the request ----------------------------------------------------------------------------------------------

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, RequestHead):
                self._begin(event)
            elif isinstance(event, Content):
                self._content(event.data)
            if self._state is _State.READ_OVER:
                return

    def _content(self, data: bytes) -> None:
        if self._state is _State.INTRODUCED:
            self._said += data
            if len(self._said) > MAX_INTRODUCTION:
                self._refuse_all(RefusalError(Problem.BAD_REQUEST, "Expected a device's key, and a name for it."))
        elif self._inner is not None:
            self._held += len(data)
            self._inner.on_data(data)

    def _begin(self, head: RequestHead) -> None:
        """Find out whose request it is; then only it begins."""
        gateway = self._gateway
        self._head = head
        try:
            self.device = gateway.authenticate(self._opener, head.fields)
        except UnknownDeviceError as error:
            if (head.method, head.path) != (b"POST", PATH):
                self._refuse_all(unproved(error))
                return
            self._state = _State.INTRODUCED
            return
        except SealedError as error:
            self._refuse_all(unproved(error))
            return
        self._state = _State.OPEN
        gateway.admit(self)
        port = self.open_port()
        try:
            self._inner = gateway.begin(self, head, port)
        except RefusalError as refusal:
            self._state = _State.READ_OVER
            refuse(port, refusal, gateway.clock.wall())

    def _introduced(self) -> None:
        self._state = _State.READ_OVER
        if self._head is not None:
            self._gateway.introduce(self.open_port(), self._opener, self._head, bytes(self._said))

    def _refuse_all(self, refusal: RefusalError) -> None:
        self._state = _State.READ_OVER
        refuse(self.open_port(), refusal, self._gateway.clock.wall())

    def _unopened(self, error: SealedError) -> None:
        """Say in the clear that it is no whole sealed request; where an answer had begun, break it off."""
        log.info("a sealed request could not be opened", extra={"fault": type(error).__name__})
        port = self.port
        self._leave(ResetReason.CANCELLED)
        if port is not None and port.begun:
            self._stream.reset(ResetReason.CANCELLED, "the request is not whole")
            return
        refuse(self._stream, unopened(error), self._gateway.clock.wall())

    # --- credit -----------------------------------------------------------------------------------------------------

    def _consumed(self, size: int) -> None:
        self._held -= size
        self._grant()

    def _grant(self) -> None:
        """Give credit back for all but the content that somebody holds; the envelope's own bytes nobody does."""
        size = self._owed - self._held
        if size > 0:
            self._owed -= size
            self._stream.consumed(size)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _leave(self, reason: ResetReason) -> None:
        """Have nothing more sent, and tell whoever answers."""
        self._state = _State.READ_OVER
        self._held = 0
        if self.port is not None:
            self.port.close()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.on_reset(reason, "")

    def _broken(self) -> None:
        """The answer cannot be sealed, and its stream was reset."""
        self._leave(ResetReason.CANCELLED)

    def _over(self) -> None:
        self._gateway.forget(self)
