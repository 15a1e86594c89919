"""One request of the page to the home or an engine."""

from collections.abc import Callable

from cloudtolocalllm.auth.scopes import NO_SCOPE
from cloudtolocalllm.bridge.caller import AT_HOME, Caller
from cloudtolocalllm.bridge.gateway.inside import Inside
from cloudtolocalllm.bridge.gateway.refusals import refuse
from cloudtolocalllm.bridge.page.door import REQUEST_FIELD
from cloudtolocalllm.bridge.page.port import PagePort
from cloudtolocalllm.bridge.page.sessions import Session
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.home import KEY_ID, KEY_SCOPE, VIA
from cloudtolocalllm.link import StreamHandler
from cloudtolocalllm.runtime.http1 import Headers, Request, Responder
from cloudtolocalllm.runtime.http1.messages import end_to_end
from cloudtolocalllm.tunnel import RequestHead, ResetReason

PERSON = Caller(session=True, scope=NO_SCOPE, device=AT_HOME)
"""Whoever is signed in here."""
_OURS = frozenset({b"host", b"cookie", b"origin", b"referer", REQUEST_FIELD, VIA, KEY_ID, KEY_SCOPE})
"""Fields that end here."""


class Visit:
    """Handles such a request, and is the visitor that `Inside` is told of."""

    def __init__(self, session: Session, responder: Responder, on_over: Callable[["Visit"], None]) -> None:
        """Expect `begin`.

        Args:
            session: Who asks.
            responder: Answers.
            on_over: Called when it is over.
        """
        self.session = session
        self.is_endless = False
        self.removes_itself = False
        self.named = False
        self._port = PagePort(responder, lambda: on_over(self))
        self._handler: StreamHandler | None = None

    def begin(self, inside: Inside, request: Request, now: float) -> None:
        """Hand the request on.

        Args:
            inside: Where to.
            request: Its head.
            now: Seconds since the epoch.
        """
        fields = tuple(field for field in end_to_end(request.headers) if field[0] not in _OURS)
        head = RequestHead(request.method, request.target, fields)
        try:
            self._handler = inside.begin(self, head, self._port, PERSON)
        except RefusalError as refusal:
            refuse(self._port, refusal, now)

    def cut(self) -> None:
        """End it at once."""
        self._leave(ResetReason.CANCELLED, abort=True)

    # --- RequestHandler -------------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Content came."""
        if self._handler is not None and not self._port.over:
            self._port.took(len(data))
            self._handler.on_data(data)

    def on_body_end(self, trailers: Headers) -> None:
        """The request is complete."""
        if self._handler is not None and not self._port.over:
            self._handler.on_end(())

    def on_disconnect(self) -> None:
        """The browser went away; whoever is named goes on without a reader."""
        self._leave(ResetReason.SESSION_LOST if self.named else ResetReason.CANCELLED, abort=False)

    def on_writable(self, writable: bool) -> None:
        """The connection filled or emptied."""
        self._port.set_writable(writable=writable)
        if writable and self._handler is not None and not self._port.over:
            self._handler.on_writable()

    def _leave(self, reason: ResetReason, *, abort: bool) -> None:
        if self._port.over:
            return
        if abort:
            self._port.reset(reason)
        else:
            self._port.close()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_reset(reason, "")
