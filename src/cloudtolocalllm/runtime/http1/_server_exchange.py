"""The answer to one request: `Responder` as the server implements it."""

import asyncio
from typing import TYPE_CHECKING

from cloudtolocalllm.runtime.http1._chunked import chunk, last_chunk
from cloudtolocalllm.runtime.http1._encode import framing_line, head, status_line
from cloudtolocalllm.runtime.http1.errors import LocalError
from cloudtolocalllm.runtime.http1.messages import Body, BodyKind, Headers, Request

if TYPE_CHECKING:
    from cloudtolocalllm.runtime.http1._server_connection import ServerConnection
    from cloudtolocalllm.runtime.http1.server import RequestHandler

_JOIN_MAX = 16 * 1024
"""Bytes up to which a chunk is copied into one piece with its framing; longer ones are written as three."""


class ServerExchange:
    """One request's answer. After the client has left, everything is allowed and has no effect."""

    __slots__ = ("_chunked", "_close", "_conn", "_continue", "_mute", "_remaining", "_request", "handler", "started")

    def __init__(self, conn: "ServerConnection", request: Request | None) -> None:
        """Make the answer to `request`; None to a request that could not be read."""
        self._conn: ServerConnection | None = conn
        self._request = request
        self.handler: RequestHandler | None = None
        self.started = False
        self._chunked = False
        self._mute = False
        self._close = request is None or not request.keep_alive
        self._remaining: int | None = None
        self._continue = request is not None and request.expect_continue

    @property
    def peer(self) -> str:
        """The client's address, "" for a Unix socket."""
        return self._conn.peer if self._conn is not None else ""

    def inform(self, status: int, headers: Headers) -> None:
        """Send an informational response."""
        conn = self._conn
        if conn is None:
            return
        if self.started or not 100 <= status < 200 or status == 101:
            raise LocalError("expected an informational status, not 101, before the response")
        if self._request is not None and self._request.http_version == "1.1":
            conn.transport.write(head(status_line(status), headers, b""))

    def send_continue(self) -> None:
        """Send 100 (Continue) if the client waits for it."""
        if self._continue and not self.started and self._conn is not None and self._conn.body_left != 0:
            self._continue = False
            self._conn.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, status: int, headers: Headers, body: Body) -> None:
        """Send the final head."""
        conn = self._conn
        if conn is not None:
            conn.transport.write(self._head(conn, status, headers, body))

    def _head(self, conn: "ServerConnection", status: int, headers: Headers, body: Body) -> bytes:
        request = self._request
        if self.started or not 200 <= status < 600:
            raise LocalError("expected one final head")
        self.started = True
        kind = body.kind
        bodiless = status in (204, 304)
        self._mute = bodiless or (request is not None and request.method == "HEAD")
        left = conn.body_left
        if (
            left is None
            or left > 64 * 1024
            or (left and self._continue)
            or conn.owner.draining
            or (request is not None and request.http_version == "1.0")
        ):
            self._close = True
        extra = conn.owner.date_line() if not _has(headers, b"date") else b""
        if self._mute:
            # What a GET would have said may stand here (RFC 9110 §8.6), but never in a 204.
            keep = status != 204 and kind is BodyKind.NONE
            if not bodiless and not keep:
                extra += framing_line(body)
        else:
            keep = False
            extra += self._frame(body)
        if self._close:
            extra += b"connection: close\r\n"
        return head(status_line(status), headers, extra, keep_length=keep)

    def _frame(self, body: Body) -> bytes:
        """Note how the content is delimited and return the field line that says so."""
        if body.kind is BodyKind.NONE:
            self._remaining = 0
            return b"content-length: 0\r\n"
        if body.kind is BodyKind.LENGTH:
            self._remaining = body.length
            return framing_line(body)
        if body.kind is BodyKind.CHUNKED and self._request is not None and self._request.http_version == "1.1":
            self._chunked = True
            return framing_line(body)
        self._close = True
        return b""

    def write(self, data: bytes) -> None:
        """Send content."""
        conn = self._conn
        if conn is None or not data:
            return
        if self._chunked:
            if len(data) <= _JOIN_MAX:
                conn.transport.write(chunk(data))
            else:
                conn.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            return
        if not self.started:
            raise LocalError("expected a head before content")
        if self._mute:
            return
        if self._remaining is not None:
            if len(data) > self._remaining:
                self.abort()
                raise LocalError(f"expected at most {self._remaining} more bytes of content, got {len(data)}")
            self._remaining -= len(data)
        conn.transport.write(data)

    def end(self, trailers: Headers = ()) -> None:
        """Complete the response."""
        conn = self._conn
        if conn is None:
            return
        if not self.started:
            raise LocalError("expected a head before the end")
        if self._chunked:
            conn.transport.write(last_chunk(trailers))
        elif self._remaining and not self._mute:
            missing = self._remaining
            self.abort()
            raise LocalError(f"expected {missing} more bytes of content, got the end")
        self._conn = None
        conn.response_ended(close=self._close)

    def respond(self, status: int, headers: Headers, content: bytes) -> None:
        """Send a whole response, in one piece."""
        conn = self._conn
        if conn is None:
            return
        data = self._head(conn, status, headers, Body(BodyKind.LENGTH, len(content)))
        conn.transport.write(data if self._mute else data + content)
        self._conn = None
        conn.response_ended(close=self._close)

    def write_refusal(self, status: int, headers: Headers, content: bytes) -> None:
        """Send a whole response to a request that could not be read; the connection sees to its own end."""
        conn, self._conn = self._conn, None
        self._close = True
        if conn is not None and not conn.transport.is_closing():
            data = self._head(conn, status, headers, Body(BodyKind.LENGTH, len(content)))
            conn.transport.write(data if self._mute else data + content)

    def abort(self) -> None:
        """Break the response off."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.cut(visible=self._chunked or bool(self._remaining))

    def pause_body(self) -> None:
        """Stop reading the request's content."""
        if self._conn is not None:
            self._conn.set_body_paused(paused=True)

    def resume_body(self) -> None:
        """Read on."""
        if self._conn is not None:
            self.send_continue()
            self._conn.set_body_paused(paused=False)

    def hijack(self) -> tuple[asyncio.Transport, bytes]:
        """Take the connection over; the protocol must be set in this turn of the loop."""
        conn = self._conn
        if conn is None:
            raise LocalError("expected an open connection")
        if self.started or self._request is None or self._request.upgrade is None:
            raise LocalError("expected an upgrade request that is not answered")
        self._conn = None
        return conn.hand_over()

    def disconnected(self) -> None:
        """The client is gone."""
        self._conn = None
        if self.handler is not None:
            self.handler.on_disconnect()


def _has(headers: Headers, name: bytes) -> bool:
    return any(key == name for key, _ in headers)
