"""Applications and response handlers that write down what they were called with."""

from dataclasses import dataclass, field

from tests.support.memory_transport import MemoryTransport

from cloudtolocalllm.runtime.http1 import Body, Headers, HttpLimits, HttpServer, Request, Responder
from cloudtolocalllm.runtime.http1._server_connection import ServerConnection


@dataclass
class ServerCall:
    """One request as an application saw it; implements RequestHandler."""

    request: Request
    responder: Responder
    body: bytearray = field(default_factory=bytearray)
    events: list[object] = field(default_factory=list)

    def on_body(self, data: bytes) -> None:
        assert data
        self.body += data
        if not self.events or self.events[-1] != "body":
            self.events.append("body")

    def on_body_end(self, trailers: Headers) -> None:
        self.events.append(("end", trailers))

    def on_disconnect(self) -> None:
        self.events.append("disconnect")

    def on_writable(self, writable: bool) -> None:
        self.events.append(("writable", writable))


class RecordingServer:
    """A server whose application only records; tests answer by `calls[i].responder`."""

    def __init__(self, limits: HttpLimits | None = None) -> None:
        self.calls: list[ServerCall] = []
        self.pause_at_start = False
        self.server = HttpServer(self._app, limits=limits, error_headers=((b"x-frame-options", b"DENY"),))

    def _app(self, request: Request, responder: Responder) -> ServerCall:
        call = ServerCall(request, responder)
        self.calls.append(call)
        if self.pause_at_start:
            responder.pause_body()
        return call

    def connect(self) -> MemoryTransport:
        return MemoryTransport(ServerConnection(self.server))


@dataclass
class ClientCall:
    """One response as a caller saw it; implements ResponseHandler."""

    informational: list[tuple[int, Headers]] = field(default_factory=list)
    status: int = 0
    headers: Headers = ()
    framing: Body | None = None
    body: bytearray = field(default_factory=bytearray)
    trailers: Headers | None = None
    error: Exception | None = None
    writable: list[bool] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.trailers is not None

    def on_informational(self, status: int, headers: Headers) -> None:
        self.informational.append((status, headers))

    def on_head(self, status: int, headers: Headers, body: Body) -> None:
        assert self.status == 0
        self.status, self.headers, self.framing = status, headers, body

    def on_body(self, data: bytes) -> None:
        assert data
        assert self.trailers is None
        self.body += data

    def on_end(self, trailers: Headers) -> None:
        assert self.trailers is None
        self.trailers = trailers

    def on_error(self, error: Exception) -> None:
        assert self.trailers is None
        self.error = error

    def on_writable(self, writable: bool) -> None:
        self.writable.append(writable)
