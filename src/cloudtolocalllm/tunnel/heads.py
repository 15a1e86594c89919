"""Heads and trailers as they cross the tunnel, and what makes one well-formed.

    OPEN  method length (1), method, target length (2), target, fields
    HEAD  status (2), fields
    END   fields, or nothing at all

where fields is a count (2) and, for each, name length (2), value length (2), name, value. The rules are HTTP's
(RFC 9110 §5): both the sender and the receiver keep them, so that neither end can smuggle through the other.
"""

import re
from struct import Struct, error
from typing import Final

from cloudtolocalllm.tunnel.errors import LocalError, RemoteError, TunnelError
from cloudtolocalllm.tunnel.events import Headers, RequestHead, ResponseHead

HOP_BY_HOP: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade")
)
"""RFC 9110 §7.6.1: fields that are for one connection only and are never forwarded."""

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_TARGET: Final = re.compile(r"/[!-~]*").fullmatch
# RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
_FORBIDDEN: Final = re.compile(rb"[\r\n\0]").search

_COUNT: Final = Struct(">H")
_FIELD: Final = Struct(">HH")
_MAX_METHOD: Final = 255


def encode_request(head: RequestHead, max_head: int) -> bytes:
    """Return the payload of OPEN.

    Raises:
        LocalError: The head is malformed or longer than `max_head` bytes.
    """
    _check_request(head, LocalError)
    start = bytes((len(head.method),)) + head.method.encode("ascii")
    if len(head.target) > max_head:
        raise _too_long(LocalError, max_head)
    start += _COUNT.pack(len(head.target)) + head.target.encode("ascii")
    return _encode_fields(start, head.headers, max_head)


def decode_request(payload: bytes, max_head: int) -> RequestHead:
    """Read the payload of OPEN.

    Raises:
        RemoteError: The head is malformed or longer than `max_head` bytes.
    """
    if len(payload) > max_head:
        raise _too_long(RemoteError, max_head)
    try:
        position = 1 + payload[0]
        method = payload[1:position].decode("ascii")
        (size,) = _COUNT.unpack_from(payload, position)
        start = position + _COUNT.size
        position = start + size
        target = payload[start:position].decode("ascii")
    except (IndexError, error, UnicodeDecodeError):
        raise RemoteError("expected a method and a target in OPEN, got something else") from None
    head = RequestHead(method, target, _decode_fields(payload, position))
    _check_request(head, RemoteError)
    return head


def encode_response(head: ResponseHead, max_head: int) -> bytes:
    """Return the payload of HEAD.

    Raises:
        LocalError: The head is malformed or longer than `max_head` bytes.
    """
    _check_status(head.status, LocalError)
    check_fields(head.headers, LocalError)
    return _encode_fields(_COUNT.pack(head.status), head.headers, max_head)


def decode_response(payload: bytes, max_head: int) -> ResponseHead:
    """Read the payload of HEAD.

    Raises:
        RemoteError: The head is malformed or longer than `max_head` bytes.
    """
    if len(payload) > max_head:
        raise _too_long(RemoteError, max_head)
    if len(payload) < _COUNT.size:
        raise RemoteError("expected a status in HEAD, got nothing")
    (status,) = _COUNT.unpack_from(payload)
    _check_status(status, RemoteError)
    headers = _decode_fields(payload, _COUNT.size)
    check_fields(headers, RemoteError)
    return ResponseHead(status, headers)


def encode_trailers(trailers: Headers, max_head: int) -> bytes:
    """Return the payload of END: empty without trailers.

    Raises:
        LocalError: The trailers are malformed or longer than `max_head` bytes.
    """
    if not trailers:
        return b""
    check_fields(trailers, LocalError)
    return _encode_fields(b"", trailers, max_head)


def decode_trailers(payload: bytes, max_head: int) -> Headers:
    """Read the payload of END.

    Raises:
        RemoteError: The trailers are malformed or longer than `max_head` bytes.
    """
    if not payload:
        return ()
    if len(payload) > max_head:
        raise _too_long(RemoteError, max_head)
    trailers = _decode_fields(payload, 0)
    check_fields(trailers, RemoteError)
    return trailers


def check_fields(fields: Headers, fault: type[TunnelError]) -> None:
    """Check names and values.

    Raises:
        TunnelError: Of the type `fault`: a name is no lower-case token or is hop-by-hop, or a value has CR, LF
            or NUL in it.
    """
    for name, value in fields:
        if not _NAME(name):
            raise fault("expected a lower-case token as a field name, got something else")
        if name in HOP_BY_HOP:
            raise fault(f"expected no hop-by-hop field, got {name.decode('ascii')}")
        if _FORBIDDEN(value):
            raise fault(f"expected no CR, LF or NUL in a field value, got one in {name[:64].decode('ascii')}")


def _check_request(head: RequestHead, fault: type[TunnelError]) -> None:
    if len(head.method) > _MAX_METHOD or not _METHOD(head.method):
        raise fault(f"expected a token of at most {_MAX_METHOD} characters as the method, got something else")
    if not _TARGET(head.target):
        raise fault("expected a target in origin form, printable ASCII without spaces, got something else")
    check_fields(head.headers, fault)


def _check_status(status: int, fault: type[TunnelError]) -> None:
    if not 100 <= status <= 599 or status == 101:
        raise fault(f"expected a status of 100 to 599 other than 101, got {status}")


def _encode_fields(start: bytes, fields: Headers, max_head: int) -> bytes:
    size = len(start) + _COUNT.size + sum(_FIELD.size + len(name) + len(value) for name, value in fields)
    # Before packing: with at most 64 KiB in all, every length and the count fit into their 16 bits.
    if size > max_head:
        raise _too_long(LocalError, max_head)
    parts = [start, _COUNT.pack(len(fields))]
    for name, value in fields:
        parts += (_FIELD.pack(len(name), len(value)), name, value)
    return b"".join(parts)


def _decode_fields(payload: bytes, position: int) -> Headers:
    try:
        (count,) = _COUNT.unpack_from(payload, position)
        position += _COUNT.size
        fields = []
        for _ in range(count):
            name_size, value_size = _FIELD.unpack_from(payload, position)
            start = position + _FIELD.size
            middle = start + name_size
            position = middle + value_size
            fields.append((payload[start:middle], payload[middle:position]))
    except error:
        raise RemoteError("expected whole fields in a head, got fewer bytes") from None
    if position != len(payload):
        raise RemoteError("expected a head to fill its frame, got another length")
    return tuple(fields)


def _too_long(fault: type[TunnelError], max_head: int) -> TunnelError:
    return fault(f"expected a head of at most {max_head} bytes, got more")
