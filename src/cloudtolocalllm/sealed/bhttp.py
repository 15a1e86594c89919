"""Binary HTTP (RFC 9292): messages as values, and how they are written.

    request   framing indicator 0 or 2, method, scheme, authority, path      (each with its length)
              header section, content, trailer section, padding
    response  framing indicator 1 or 3, { informational status, field section }, final status
              header section, content, trailer section, padding

With a known length (0, 1) a section is preceded by its bytes' number. With an indeterminate one (2, 3) it ends with a
zero byte, and the content is any number of chunks, each preceded by its length, that a zero byte ends: this is what a
stream is written in. Padding is zero bytes at the end.
"""

from dataclasses import dataclass, field
from typing import Final

from cloudtolocalllm.sealed import varint
from cloudtolocalllm.sealed.errors import MisuseError
from cloudtolocalllm.sealed.fields import Fields, check_control, check_fields, check_status

KNOWN_REQUEST: Final = 0
KNOWN_RESPONSE: Final = 1
STREAMED_REQUEST: Final = 2
STREAMED_RESPONSE: Final = 3

MEDIA_TYPE: Final = "message/bhttp"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's control data and header fields."""

    method: bytes
    path: bytes
    fields: Fields = ()
    scheme: bytes = b"https"
    authority: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what no recipient would take.

        Raises:
            MalformedError: A part is not valid.
        """
        check_control(self.method, self.scheme, self.authority, self.path)
        check_fields(self.fields)


@dataclass(frozen=True, slots=True)
class InformationalHead:
    """A head with a status of 100 to 199 that comes before the final one."""

    status: int
    fields: Fields = ()

    def __post_init__(self) -> None:
        """Refuse what no recipient would take.

        Raises:
            MalformedError: A part is not valid.
        """
        check_status(self.status, informational=True)
        check_fields(self.fields)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's final status and header fields."""

    status: int
    fields: Fields = ()

    def __post_init__(self) -> None:
        """Refuse what no recipient would take.

        Raises:
            MalformedError: A part is not valid.
        """
        check_status(self.status, informational=False)
        check_fields(self.fields)


@dataclass(frozen=True, slots=True)
class Content:
    """Some bytes of the content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The message is whole."""

    trailers: Fields = ()


Event = RequestHead | InformationalHead | ResponseHead | Content | End


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message."""

    head: RequestHead | ResponseHead
    content: bytes = b""
    trailers: Fields = ()
    informational: tuple[InformationalHead, ...] = field(default=())


def encode_known(message: Message, *, padding: int = 0) -> bytes:
    """Return a whole message with known lengths.

    Args:
        message: Whose heads are valid, being heads.
        padding: Zero bytes to put after it.

    Raises:
        MisuseError: A request has informational heads.
        MalformedError: A trailer is not valid.
    """
    check_fields(message.trailers)
    trailers = _section(message.trailers)
    parts = [_start(message, streamed=False)]
    parts += [varint.encode(len(message.content)), message.content]
    parts += [varint.encode(len(trailers)), trailers, bytes(padding)]
    return b"".join(parts)


def encode_streamed(message: Message, *, padding: int = 0) -> bytes:
    """Return a whole message as the stream that it could have been.

    Args:
        message: As in encode_known.
        padding: Zero bytes to put after it.

    Raises:
        MisuseError: A request has informational heads.
        MalformedError: A trailer is not valid.
    """
    return _start(message, streamed=True) + content_chunk(message.content) + stream_end(message.trailers, padding)


def request_start(head: RequestHead) -> bytes:
    """Return what a streamed request begins with; content_chunk and stream_end follow."""
    return varint.encode(STREAMED_REQUEST) + _control(head) + _section(head.fields) + b"\0"


def response_start() -> bytes:
    """Return what a streamed response begins with; status_and_fields follows."""
    return varint.encode(STREAMED_RESPONSE)


def status_and_fields(head: InformationalHead | ResponseHead) -> bytes:
    """Return a head of a streamed response; more of them, or content_chunk and stream_end, follow."""
    return varint.encode(head.status) + _section(head.fields) + b"\0"


def content_chunk(data: bytes) -> bytes:
    """Return a chunk of a streamed message's content; nothing for no bytes, as a chunk of none would end it."""
    return varint.encode(len(data)) + data if data else b""


def stream_end(trailers: Fields = (), padding: int = 0) -> bytes:
    """Return what a streamed message ends with.

    Raises:
        MalformedError: A trailer is not valid.
    """
    check_fields(trailers)
    return b"\0" + _section(trailers) + b"\0" + bytes(padding)


def _start(message: Message, *, streamed: bool) -> bytes:
    head = message.head

    def section(fields: Fields) -> bytes:
        lines = _section(fields)
        return lines + b"\0" if streamed else varint.encode(len(lines)) + lines

    if isinstance(head, RequestHead):
        if message.informational:
            raise MisuseError("expected no informational heads in a request")
        kind = STREAMED_REQUEST if streamed else KNOWN_REQUEST
        return varint.encode(kind) + _control(head) + section(head.fields)
    heads: tuple[InformationalHead | ResponseHead, ...] = (*message.informational, head)
    kind = STREAMED_RESPONSE if streamed else KNOWN_RESPONSE
    return varint.encode(kind) + b"".join(varint.encode(each.status) + section(each.fields) for each in heads)


def _control(head: RequestHead) -> bytes:
    return b"".join(_sized(part) for part in (head.method, head.scheme, head.authority, head.path))


def _section(fields: Fields) -> bytes:
    return b"".join(_sized(name) + _sized(value) for name, value in fields)


def _sized(data: bytes) -> bytes:
    return varint.encode(len(data)) + data
