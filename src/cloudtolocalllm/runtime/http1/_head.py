"""Heads from bytes: llhttp splits them; stricter checks beside it refuse whatever two parsers could read differently.

The rules (RFC 9112 unless named): lines end in CRLF and nothing else (§2.2); no obs-fold (§5.2); no whitespace before
the colon (§5.1); no control characters in targets and values (RFC 9110 §5.5); one Host (§3.2); one framing, by one
Content-Length of digits or by Transfer-Encoding "chunked" alone (§6.1, §6.3).
"""

import re
from dataclasses import dataclass

import httptools

from cloudtolocalllm.runtime.http1.errors import BadRequestError, BadResponseError
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY, Body, BodyKind, Headers, HttpLimits, Request

END_OF_HEAD = b"\r\n\r\n"
STRAY_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
"""A bare LF, or a bare CR that is not the last byte so far."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t -~\x80-\xff]*+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]++) HTTP/([0-9])\.([0-9])\r\n")
_ANY_VERSION = re.compile(rb"[^\r\n]+ HTTP/[0-9]+(?:\.[0-9]+)?\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: " + _VALUE + rb")?\r\n")
_FIELD_LINES = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+\r\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._\-]+)(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
"""A petabyte less one at most: no reader of it overflows."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response head; `body` as RFC 9112 §6.3 determines it from the request's method and the head."""

    status: int
    headers: Headers
    body: Body
    keep_alive: bool


class _Fields:
    """Collects what llhttp calls."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp leaves trailing whitespace in; it is no part of the value (RFC 9110 §5.5).
        self.fields.append((name.lower(), value.strip(b" \t")))


def parse_request_head(head: bytes, limits: HttpLimits) -> Request:
    """Read a request head.

    Args:
        head: From the request line to the empty line, both included.
        limits: Of the connection.

    Raises:
        BadRequestError: With the status to answer with.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        if _ANY_VERSION.match(head) and not head[: head.index(b"\r\n")].endswith((b"HTTP/1.1", b"HTTP/1.0")):
            raise BadRequestError(505, "expected HTTP/1.1")
        raise BadRequestError(400, "expected a request line of method, target and version")
    method, target, major, minor = line.groups()
    if major != b"1" or minor not in b"01":
        raise BadRequestError(505, "expected HTTP/1.1")
    if len(target) > limits.max_target:
        raise BadRequestError(414, f"expected a target of at most {limits.max_target} bytes")
    if not _FIELD_LINES.fullmatch(head, line.end()):
        raise BadRequestError(400, "expected field lines of a name, a colon and a value, each ended by CRLF")
    if head.count(b"\n") - 2 > limits.max_fields:
        raise BadRequestError(431, f"expected at most {limits.max_fields} fields")
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError:
        raise BadRequestError(501, "expected a method that is registered") from None
    except httptools.HttpParserError:
        raise BadRequestError(400, "expected a request head as RFC 9112 has it") from None
    return _request(method.decode(), target, tuple(fields.fields), head, http_11=minor == b"1")


def _request(method: str, target: bytes, headers: Headers, head: bytes, *, http_11: bool) -> Request:
    host = _host(headers, required=http_11)
    body = _request_body(headers, http_11=http_11)
    tokens = _connection_tokens(headers)
    expect = [value.lower() for name, value in headers if name == b"expect"]
    if expect and expect != [b"100-continue"]:
        raise BadRequestError(417, "expected no expectation but 100-continue")
    upgrade = None
    # An upgrade of a request with content could be read two ways; RFC 9110 §7.8 lets a server ignore it.
    if http_11 and b"upgrade" in tokens and body.kind is BodyKind.NONE:
        upgrade = next((value.lower().decode("latin-1") for name, value in headers if name == b"upgrade"), None)
    return Request(
        method=method,
        target=_origin_form(target, host),
        headers=headers,
        body=body,
        http_version="1.1" if http_11 else "1.0",
        keep_alive=http_11 and b"close" not in tokens,
        upgrade=upgrade,
        expect_continue=http_11 and bool(expect) and body.kind is not BodyKind.NONE and body != _EMPTY,
        raw_head=head,
    )


_EMPTY = Body(BodyKind.LENGTH, 0)


def _host(headers: Headers, *, required: bool) -> bytes | None:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (required and not hosts):
        raise BadRequestError(400, f"expected one Host field, got {len(hosts)}")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequestError(400, "expected Host to be a name or an address, with a port or without")
    return hosts[0] if hosts else None


def _origin_form(target: bytes, host: bytes | None) -> str:
    if target[:1] != b"/":
        scheme, found, rest = target.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            raise BadRequestError(400, "expected a target that begins with a slash")
        slash = rest.find(b"/")
        authority, target = (rest, b"/") if slash < 0 else (rest[:slash], rest[slash:])
        if host is None or authority.lower() != host.lower():
            raise BadRequestError(400, "expected the target's authority to be the Host")
    if b"#" in target:
        raise BadRequestError(400, "expected a target without a fragment")
    return target.decode("ascii")


def _request_body(headers: Headers, *, http_11: bool) -> Body:
    try:
        return _framing(headers, http_11=http_11) or NO_BODY
    except ValueError as error:
        raise BadRequestError(400, str(error)) from None


def _framing(headers: Headers, *, http_11: bool) -> Body | None:
    """Return what the framing fields say, None without any.

    Raises:
        ValueError: They could be read in more than one way.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        if lengths:
            raise ValueError("expected Content-Length or Transfer-Encoding, got both")
        if not http_11:
            raise ValueError("expected no Transfer-Encoding in HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise ValueError("expected Transfer-Encoding to be chunked and nothing else")
        return CHUNKED
    if not lengths:
        return None
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise ValueError("expected one Content-Length of digits")
    return Body(BodyKind.LENGTH, int(lengths[0]))


def _connection_tokens(headers: Headers) -> set[bytes]:
    return {
        token.strip(b" \t").lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    }


def parse_response_head(head: bytes, method: str, limits: HttpLimits) -> ResponseHead:
    """Read the head of a response to a request with `method`.

    Raises:
        BadResponseError: It is malformed or its framing is ambiguous.
    """
    line = _STATUS_LINE.match(head)
    if line is None or not _FIELD_LINES.fullmatch(head, line.end()):
        raise BadResponseError("expected a response head as RFC 9112 has it")
    if head.count(b"\n") - 2 > limits.max_fields:
        raise BadResponseError(f"expected at most {limits.max_fields} fields")
    fields = _Fields()
    try:
        httptools.HttpResponseParser(fields).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise BadResponseError("expected a response head as RFC 9112 has it") from None
    headers = tuple(fields.fields)
    status = int(line[2])
    http_11 = line[1] == b"1"
    try:
        framing = _framing(headers, http_11=http_11)
    except ValueError as error:
        raise BadResponseError(str(error)) from None
    keep_alive = http_11 and b"close" not in _connection_tokens(headers)
    if method == "HEAD" or status < 200 or status in (204, 304):
        return ResponseHead(status, headers, NO_BODY, keep_alive)
    if framing is None:
        return ResponseHead(status, headers, Body(BodyKind.UNTIL_CLOSE), keep_alive=False)
    return ResponseHead(status, headers, framing, keep_alive)
