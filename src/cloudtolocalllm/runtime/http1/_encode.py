"""Heads to bytes."""

from http import HTTPStatus

from cloudtolocalllm.runtime.http1.errors import LocalError
from cloudtolocalllm.runtime.http1.messages import Body, BodyKind, Headers

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def status_line(status: int) -> bytes:
    """Return the first line of a response."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def framing_line(body: Body) -> bytes:
    """Return the field line that announces a body; b"" for none and for one that the connection's end delimits."""
    if body.kind is BodyKind.CHUNKED:
        return b"transfer-encoding: chunked\r\n"
    if body.kind is BodyKind.LENGTH:
        return b"content-length: %d\r\n" % body.length
    return b""


def head(first_line: bytes, headers: Headers, extra: bytes, *, keep_length: bool = False) -> bytes:
    """Return a head.

    Args:
        first_line: Request or status line with its CRLF.
        headers: Fields; framing fields among them are left out.
        extra: Field lines that end the head, framing among them.
        keep_length: Whether Content-Length is taken from `headers`: it describes content that is not sent.

    Raises:
        LocalError: A field has a line end or NUL in it, which would split the message.
    """
    lines = [first_line]
    for name, value in headers:
        if name in _FRAMING and not (keep_length and name == b"content-length"):
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    data = b"".join(lines) + extra + b"\r\n"
    expected = len(lines) + extra.count(b"\n") + 1
    if data.count(b"\n") != expected or data.count(b"\r") != expected or b"\0" in data:
        raise LocalError("expected fields without line ends and NUL")
    return data
