"""Whole exchanges: Binary HTTP in chunked OHTTP, with padding and the times at which chunks are sent.

Bytes and the time go in, bytes to send come out; who calls keeps the timer that `deadline` asks for.
"""

from typing import Final

from cloudtolocalllm.sealed import bhttp
from cloudtolocalllm.sealed.bhttp import Content, End, Event, InformationalHead, Message, ResponseHead
from cloudtolocalllm.sealed.bhttp_decoder import BinaryHttpDecoder, Kind
from cloudtolocalllm.sealed.errors import MisuseError
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.limits import DEFAULT_LIMITS, MAX_CHUNK, MessageLimits
from cloudtolocalllm.sealed.ohttp import RequestOpener, RequestSealer, ResponseOpener, ResponseSealer
from cloudtolocalllm.sealed.padding import (
    CODING,
    DEFAULT_POLICY,
    RECORD,
    STREAM_TYPES,
    PaddingPolicy,
    PaddingRemover,
    SizeClass,
    record,
    request_size,
)

_ENCODING: Final = b"content-encoding"
_OVERHEAD: Final = 2 + RECORD.size
"""Bytes around the data of a padded content chunk: its length, always in two bytes, and the record's header."""
_ROOM: Final = MAX_CHUNK - _OVERHEAD


def seal_request(sealer: RequestSealer, message: Message, policy: PaddingPolicy = DEFAULT_POLICY) -> bytes:
    """Return a whole request, padded."""
    plain = bhttp.encode_known(message)
    return sealer.seal_all(plain + bytes(request_size(len(plain), policy) - len(plain)))


class RequestReader:
    """Opens and reads a request from any pieces of its bytes."""

    def __init__(self, opener: RequestOpener, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        """Expect a request.

        Args:
            opener: Of this request.
            limits: What may not be exceeded.
        """
        self._opener = opener
        self._decoder = BinaryHttpDecoder(Kind.REQUEST, limits)

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes, and return what they complete.

        Raises:
            SealedError: As RequestOpener and BinaryHttpDecoder do.
        """
        return [event for chunk in self._opener.receive_data(data) for event in self._decoder.receive_data(chunk)]

    def end(self) -> list[Event]:
        """Take the end of the bytes, and return what is completed by it; the last event is End.

        Raises:
            SealedError: As RequestOpener and BinaryHttpDecoder do; TruncatedError when it is not whole.
        """
        return self._decoder.receive_data(self._opener.end()) + self._decoder.end()


class ResponseWriter:
    """Writes, pads and seals a response, and says when to send.

    The head is sent at once, and so is the first content. From then on content is sent at whole intervals of the
    clock only, whenever it came, or when a chunk is full; the end is sent at once. All answers that one clock times
    are sent on at the same moments: who sends them wakes once for all of them.
    """

    def __init__(self, sealer: ResponseSealer, policy: PaddingPolicy = DEFAULT_POLICY) -> None:
        """Begin a response.

        Args:
            sealer: Of this response.
            policy: How to pad.
        """
        self._sealer = sealer
        self._policy = policy
        self._class = SizeClass(policy)
        self._lead = bhttp.response_start()
        """What goes before the content: heads that were not sent yet."""
        self._out = sealer.header
        self._pending = bytearray()
        self._begun = False
        """Whether the first content was sent."""
        self._deadline: float | None = None
        self._headed = False
        self._ended = False

    @property
    def deadline(self) -> float | None:
        """When to call `poll`, in the time of the calls; None while nothing waits."""
        return self._deadline

    def inform(self, head: InformationalHead) -> bytes:
        """Send an informational head.

        Raises:
            MisuseError: The final head was sent.
        """
        if self._headed:
            raise MisuseError("expected informational heads before the final one")
        self._lead += bhttp.status_and_fields(head)
        return self._send_lead()

    def start(self, head: ResponseHead) -> bytes:
        """Send the final head. Its content-length is left out: the final chunk tells better that all came.

        Raises:
            MisuseError: It was sent.
        """
        if self._headed:
            raise MisuseError("expected one final head")
        self._headed = True
        if _is_stream(head.fields):
            self._class.is_stream()
        self._lead += bhttp.status_and_fields(ResponseHead(head.status, _coded(head.fields)))
        return self._send_lead()

    def write(self, data: bytes, now: float) -> bytes:
        """Take content, and return what is to be sent now.

        Args:
            data: Any number of bytes.
            now: Seconds on a clock that never goes back.

        Raises:
            MisuseError: There was no final head, or the response has ended.
        """
        if not self._headed or self._ended:
            raise MisuseError("expected content after the head and before the end")
        self._pending += data
        while len(self._pending) >= _ROOM:
            self._send(_ROOM)
        if not self._pending:
            self._deadline = None
        elif not self._begun:
            self._begun = True
            self._send(len(self._pending))
        elif self._deadline is None:
            self._deadline = self._next(now)
        return self.poll(now)

    def poll(self, now: float) -> bytes:
        """Return what is to be sent now."""
        if self._pending and self._deadline is not None and now >= self._deadline:
            self._send(len(self._pending))
        if not self._pending:
            self._deadline = None
        return self._taken()

    def finish(self, trailers: Fields = ()) -> bytes:
        """Return the rest; the response is whole then.

        Raises:
            MisuseError: There was no final head, or the response has ended.
            MalformedError: A trailer is not valid.
        """
        if not self._headed or self._ended:
            raise MisuseError("expected the end once, after the head")
        end = bhttp.stream_end(trailers)
        if _OVERHEAD + len(self._pending) + len(end) > MAX_CHUNK:
            self._send(len(self._pending))
        while len(end) > MAX_CHUNK:  # trailers of several chunks
            self._out += self._sealer.seal(end[:MAX_CHUNK])
            end = end[MAX_CHUNK:]
        content = self._content(len(self._pending), 0) if self._pending else b""
        plain = content + end
        self._out += self._sealer.seal_final(plain + bytes(self._class.size(len(plain)) - len(plain)))
        self._ended = True
        self._deadline = None
        return self._taken()

    def _next(self, now: float) -> float:
        """Return the next whole interval."""
        interval = self._policy.interval
        return (int(now / interval) + 1) * interval if interval else now

    def _send_lead(self) -> bytes:
        """Send the heads, in padded chunks of no content."""
        while len(self._lead) > _ROOM:
            self._out += self._sealer.seal(self._lead[:_ROOM])
            self._lead = self._lead[_ROOM:]
        if self._headed and self._policy.multiple > 1:
            self._send(0)
        else:  # content cannot begin before the final head, so nothing can pad an informational one
            self._out += self._sealer.seal(self._lead)
            self._lead = b""
        return self._taken()

    def _send(self, size: int) -> None:
        """Seal so many bytes of content, behind the heads that wait."""
        lead, self._lead = self._lead, b""
        needed = len(lead) + _OVERHEAD + size
        self._out += self._sealer.seal(lead + self._content(size, self._class.size(needed) - needed))

    def _content(self, size: int, padding: int) -> bytes:
        data = bytes(self._pending[:size])
        del self._pending[:size]
        return (0x4000 | (RECORD.size + size + padding)).to_bytes(2, "big") + record(data, padding)

    def _taken(self) -> bytes:
        out, self._out = self._out, b""
        return out


class ResponseReader:
    """Opens and reads a response from any pieces of its bytes."""

    def __init__(self, opener: ResponseOpener, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        """Expect a response.

        Args:
            opener: Of this response.
            limits: What may not be exceeded.
        """
        self._opener = opener
        self._decoder = BinaryHttpDecoder(Kind.RESPONSE, limits)
        self._padding: PaddingRemover | None = None

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes, and return what they complete, without the padding.

        Raises:
            SealedError: As ResponseOpener and BinaryHttpDecoder do.
        """
        return [
            event
            for chunk in self._opener.receive_data(data)
            for event in self._plain(self._decoder.receive_data(chunk))
        ]

    def end(self) -> list[Event]:
        """Take the end of the bytes, and return what is completed by it; the last event is End.

        Raises:
            SealedError: As ResponseOpener and BinaryHttpDecoder do; TruncatedError when it is not whole.
        """
        events = self._plain(self._decoder.receive_data(self._opener.end())) + self._plain(self._decoder.end())
        if self._padding is not None:
            self._padding.end()
        return events

    def _plain(self, events: list[Event]) -> list[Event]:
        return [plain for event in events if (plain := self._without_padding(event)) is not None]

    def _without_padding(self, event: Event) -> Event | None:
        if isinstance(event, ResponseHead):
            fields = _uncoded(event.fields)
            if fields is None:
                return event
            self._padding = PaddingRemover()
            return ResponseHead(event.status, fields)
        if isinstance(event, Content) and self._padding is not None:
            data = self._padding.receive_data(event.data)
            return Content(data) if data else None
        return event


def read_all(reader: RequestReader | ResponseReader, data: bytes) -> Message:
    """Read a whole message.

    Raises:
        SealedError: As the reader does.
    """
    events = reader.receive_data(data) + reader.end()
    heads = [event for event in events if not isinstance(event, Content | End | InformationalHead)]
    ends = [event for event in events if isinstance(event, End)]
    content = b"".join(event.data for event in events if isinstance(event, Content))
    informational = tuple(event for event in events if isinstance(event, InformationalHead))
    return Message(heads[0], content, ends[0].trailers, informational)


def _coded(fields: Fields) -> Fields:
    """Return the fields of a head whose content is put into the coding."""
    before = [value for name, value in fields if name == _ENCODING]
    rest = tuple(field for field in fields if field[0] not in (_ENCODING, b"content-length"))
    return (*rest, (_ENCODING, b", ".join((*before, CODING))))


def _is_stream(fields: Fields) -> bool:
    types = (value.partition(b";")[0].strip().lower() for name, value in fields if name == b"content-type")
    return any(each in STREAM_TYPES for each in types)


def _uncoded(fields: Fields) -> Fields | None:
    """Return the fields of a head whose content is taken out of the coding; None if it is not in it."""
    codings = b",".join(value for name, value in fields if name == _ENCODING).split(b",")
    names = [coding.strip() for coding in codings]
    if names[-1] != CODING:
        return None
    rest = tuple(field for field in fields if field[0] != _ENCODING)
    return (*rest, (_ENCODING, b", ".join(names[:-1]))) if names[:-1] else rest
