"""Reading Binary HTTP (RFC 9292) from any pieces of its bytes.

The rules, as a table; `n` is a length, `0` a zero byte:

    state           takes                                            goes to
    INDICATOR       0..3, of the expected role                       CONTROL or STATUS
    CONTROL         n method n scheme n authority n path             HEADERS
    STATUS          100..199                                         HEADERS (informational)
                    200..599                                         HEADERS
    HEADERS         known: n, then field lines of n bytes            STATUS (informational) or CONTENT
                    streamed: field lines, 0
    CONTENT         known: n bytes; streamed: (n, n bytes)*, 0       TRAILERS
    TRAILERS        as HEADERS                                       PADDING
    PADDING         0*                                               PADDING

The message may end in PADDING, or before the first byte of HEADERS (of the final head), CONTENT or TRAILERS: what is
missing is empty then (§3.8). Nothing is kept but the section that is being read; content is passed on as it comes.
"""

from enum import Enum, auto
from typing import Final

from cloudtolocalllm.sealed import varint
from cloudtolocalllm.sealed.bhttp import (
    KNOWN_REQUEST,
    KNOWN_RESPONSE,
    STREAMED_REQUEST,
    STREAMED_RESPONSE,
    Content,
    End,
    Event,
    InformationalHead,
    Message,
    RequestHead,
    ResponseHead,
)
from cloudtolocalllm.sealed.errors import MalformedError, MisuseError, TruncatedError
from cloudtolocalllm.sealed.fields import Field, Fields, check_control, check_field, check_status
from cloudtolocalllm.sealed.limits import DEFAULT_LIMITS, MessageLimits


class Kind(Enum):
    """Which kind of message is expected."""

    REQUEST = auto()
    RESPONSE = auto()


class _State(Enum):
    INDICATOR = auto()
    CONTROL = auto()
    STATUS = auto()
    HEADERS = auto()
    CONTENT = auto()
    TRAILERS = auto()
    PADDING = auto()
    ENDED = auto()
    FAILED = auto()


_MAY_END: Final = frozenset((_State.HEADERS, _State.CONTENT, _State.TRAILERS, _State.PADDING))
_INDICATORS: Final = {
    Kind.REQUEST: (KNOWN_REQUEST, STREAMED_REQUEST),
    Kind.RESPONSE: (KNOWN_RESPONSE, STREAMED_RESPONSE),
}


class BinaryHttpDecoder:
    """One message. Call receive_data with its bytes, then end."""

    def __init__(self, kind: Kind, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        """Expect a message of this kind.

        Args:
            kind: A request or a response.
            limits: What may not be exceeded.
        """
        self._kind = kind
        self._limits = limits
        self._state = _State.INDICATOR
        self._buffer = bytearray()
        self._streamed = False
        self._control: list[bytes] = []
        self._status = 0
        self._informational = 0
        self._fields: list[Field] = []
        self._section_size = 0
        self._section_left: int | None = None
        """Bytes of a section of known length still to come; None before its length, and in a stream."""
        self._content_left = 0
        self._content_size = 0
        self._content_begun = False
        self._trailers: Fields = ()

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes, and return what they complete.

        Raises:
            MalformedError: They are not such a message, or exceed a limit; nothing more can be read.
            MisuseError: The message had ended, or failed before.
        """
        if self._state in (_State.ENDED, _State.FAILED):
            raise MisuseError("expected no more calls after the end or an error")
        self._buffer += data
        events: list[Event] = []
        try:
            while self._step(events):
                pass
        except MalformedError:
            self._fail()
            raise
        return events

    def end(self) -> list[Event]:
        """Take the end of the bytes, and return what is completed by it; the last event is End.

        Raises:
            TruncatedError: The message is not whole.
            MisuseError: The message had ended, or failed before.
        """
        if self._state in (_State.ENDED, _State.FAILED):
            raise MisuseError("expected no more calls after the end or an error")
        begun = bool(self._buffer or self._fields or self._section_left is not None)
        begun = begun or (self._state is _State.CONTENT and self._content_begun)
        if begun or self._state not in _MAY_END or (self._state is _State.HEADERS and self._is_informational):
            self._fail()
            raise TruncatedError("expected a whole message, got a part of one")
        events: list[Event] = []
        if self._state is _State.HEADERS:
            self._end_section(events)
        events.append(End(self._trailers))
        self._state = _State.ENDED
        return events

    @property
    def _is_informational(self) -> bool:
        return 100 <= self._status <= 199

    def _fail(self) -> None:
        self._state = _State.FAILED
        self._buffer.clear()
        self._fields.clear()

    def _step(self, events: list[Event]) -> bool:
        """Take one element; return whether there may be more to do."""
        state = self._state
        if state is _State.CONTENT:
            return self._step_content(events)
        if state is _State.HEADERS or state is _State.TRAILERS:
            return self._step_section(events)
        if state is _State.PADDING:
            if self._buffer.strip(b"\0"):
                raise MalformedError("expected nothing but zero bytes after the message")
            self._buffer.clear()
            return False
        if state is _State.CONTROL:
            return self._step_control()
        return self._step_number()

    def _step_number(self) -> bool:
        """Take the framing indicator or a status."""
        found = varint.decode(self._buffer, 0)
        if found is None:
            return False
        value, size = found
        del self._buffer[:size]
        if self._state is _State.INDICATOR:
            if value not in _INDICATORS[self._kind]:
                raise MalformedError(f"expected a framing indicator of {_INDICATORS[self._kind]}")
            self._streamed = value in (STREAMED_REQUEST, STREAMED_RESPONSE)
            self._state = _State.CONTROL if self._kind is Kind.REQUEST else _State.STATUS
            return True
        check_status(value, informational=value < 200)
        self._status = value
        if self._is_informational:
            self._informational += 1
            if self._informational > self._limits.informational:
                raise MalformedError(f"expected at most {self._limits.informational} informational heads")
        self._state = _State.HEADERS
        return True

    def _step_control(self) -> bool:
        """Take one part of a request's control data."""
        part = self._span(0, self._limits.control, "a part of the control data")
        if part is None:
            return False
        self._control.append(bytes(self._buffer[part[0] : part[1]]))
        del self._buffer[: part[1]]
        if len(self._control) == 4:
            check_control(*self._control)
            self._state = _State.HEADERS
        return True

    def _step_section(self, events: list[Event]) -> bool:
        """Take the length of a section, one field line, or a section's end."""
        if not self._streamed and self._section_left is None:
            found = varint.decode(self._buffer, 0)
            if found is None:
                return False
            left, size = found
            if left > self._limits.section:
                raise MalformedError(f"expected a field section of at most {self._limits.section} bytes")
            del self._buffer[:size]
            self._section_left = left
        if self._section_left == 0:
            self._end_section(events)
            return True
        found = varint.decode(self._buffer, 0)
        if found is not None and not found[0]:
            if not self._streamed:
                raise MalformedError("expected a field name of at least one byte")
            del self._buffer[: found[1]]
            self._end_section(events)
            return True
        return self._field_line()

    def _field_line(self) -> bool:
        room = self._limits.section - self._section_size if self._section_left is None else self._section_left
        name = self._span(0, room, "a field name")
        value = name and self._span(name[1], room, "a field value")
        if not name or not value:
            return False
        size = value[1]
        line = bytes(self._buffer[name[0] : name[1]]), bytes(self._buffer[value[0] : size])
        check_field(*line)
        del self._buffer[:size]
        self._section_size += size
        if self._section_left is not None:
            self._section_left -= size
        self._fields.append(line)
        if len(self._fields) > self._limits.fields:
            raise MalformedError(f"expected at most {self._limits.fields} fields")
        return True

    def _span(self, at: int, most: int, what: str) -> tuple[int, int] | None:
        """Return where bytes are that their length precedes, or None when they are not all there.

        Nothing is copied before all is there, so that bytes which come one by one cost no more than others.
        """
        found = varint.decode(self._buffer, at)
        if found is None:
            return None
        size, start = found
        if start + size > most:
            raise MalformedError(f"expected {what} within its limit")
        return (start, start + size) if start + size <= len(self._buffer) else None

    def _end_section(self, events: list[Event]) -> None:
        fields = tuple(self._fields)
        self._fields.clear()
        self._section_size = 0
        self._section_left = None
        if self._state is _State.TRAILERS:
            self._trailers = fields
            self._state = _State.PADDING
            return
        self._state = _State.CONTENT
        if self._kind is Kind.REQUEST:
            method, scheme, authority, path = self._control
            events.append(RequestHead(method, path, fields, scheme, authority))
        elif self._is_informational:
            events.append(InformationalHead(self._status, fields))
            self._state = _State.STATUS
        else:
            events.append(ResponseHead(self._status, fields))

    def _step_content(self, events: list[Event]) -> bool:
        """Take the length of the content or of a chunk, or some of its bytes."""
        if self._content_left:
            if not self._buffer:
                return False
            data = bytes(self._buffer[: self._content_left])
            del self._buffer[: len(data)]
            self._content_left -= len(data)
            events.append(Content(data))
            if not self._content_left and not self._streamed:
                self._state = _State.TRAILERS
            return True
        found = varint.decode(self._buffer, 0)
        if found is None:
            return False
        size, used = found
        if size > (self._limits.chunk if self._streamed else self._limits.content):
            raise MalformedError("expected a content chunk within its limit")
        self._content_size += size
        if self._content_size > self._limits.content:
            raise MalformedError(f"expected at most {self._limits.content} bytes of content")
        del self._buffer[:used]
        self._content_left = size
        self._content_begun = True
        if not size:
            self._state = _State.TRAILERS
        return True


def decode_message(data: bytes, kind: Kind, limits: MessageLimits = DEFAULT_LIMITS) -> Message:
    """Read a whole message.

    Args:
        data: All of its bytes.
        kind: A request or a response.
        limits: What may not be exceeded.

    Raises:
        MalformedError: It is not such a message, or exceeds a limit.
        TruncatedError: It is not whole.
    """
    decoder = BinaryHttpDecoder(kind, limits)
    events = decoder.receive_data(data) + decoder.end()
    heads = [event for event in events if isinstance(event, RequestHead | ResponseHead)]
    ends = [event for event in events if isinstance(event, End)]
    return Message(
        heads[0],
        b"".join(event.data for event in events if isinstance(event, Content)),
        ends[0].trailers,
        tuple(event for event in events if isinstance(event, InformationalHead)),
    )
