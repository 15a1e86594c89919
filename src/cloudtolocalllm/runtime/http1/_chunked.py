"""The chunked coding (RFC 9112 §7.1), decoded by llhttp and encoded by hand."""

import httptools

from cloudtolocalllm.runtime.http1.messages import Headers

MAX_OVERHEAD = 16 * 1024
"""Bytes of one body that may be neither content nor ordinary framing: chunk extensions and trailers. Node's bound
after CVE-2024-22019, where extensions without end cost a server its network."""
_PER_PIECE = 32
"""Bytes of framing that each piece of content may cost on top: a size of 16 digits and two line ends, rounded up."""

# llhttp needs a head before it reads chunks; this one is never anybody's.
_PRIMER = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
_UNWANTED_TRAILERS = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"connection", b"trailer", b"upgrade"}
)
"""Fields that must not be trailers (RFC 9110 §6.5.1); they are refused."""


class ChunkedError(ValueError):
    """Not the chunked coding, or more overhead than is allowed; the text says what was expected."""


class ChunkedDecoder:
    """Decodes one body: bytes in, content out, until `done`; then `rest` is what follows, `trailers` the trailers.

    llhttp does not say where a message ended. But a chunked body always ends with CRLF CRLF, so no more than up to
    such a place is fed at once, and the end of what was fed is the end of the message whenever it reports one.
    """

    __slots__ = ("_fields", "_max_fields", "_overhead", "_parser", "_pieces", "done", "on_body", "rest", "trailers")

    def __init__(self, max_fields: int) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._max_fields = max_fields
        self._overhead = 0
        self.done = False
        self.rest = b""
        self.trailers: Headers = ()
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_PRIMER)
        self._fields.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer from llhttp."""
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_message_complete(self) -> None:
        """Take the end from llhttp."""
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """Return the content in `data`; must not be called once `done`.

        Raises:
            ChunkedError: It is malformed; nothing more may be fed.
        """
        pieces = self._pieces
        try:
            if data[0] in b"\r\n" or b"\r\n\r\n" in data:
                end = self._feed_in_parts(data)
            else:
                self._parser.feed_data(data)
                end = len(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise ChunkedError("expected the chunked coding as RFC 9112 has it") from None
        if len(pieces) == 1:
            content = pieces[0]
            pieces.clear()
            self._overhead += end - len(content) - _PER_PIECE
        else:
            content = b"".join(pieces)
            self._overhead += end - len(content) - _PER_PIECE * len(pieces)
            pieces.clear()
        if self._overhead > MAX_OVERHEAD:
            raise ChunkedError(f"expected at most {MAX_OVERHEAD} bytes of chunk extensions and trailers")
        self._overhead = max(self._overhead, 0)
        if self.done:
            self._complete(data[end:])
        return content

    def _feed_in_parts(self, data: bytes) -> int:
        """Feed up to each place where the body may end; return how many bytes were fed."""
        feed = self._parser.feed_data
        at = 0
        # Of an end that straddles this call and the one before, at most four bytes are here, for what comes before
        # CRLF CRLF is never a line end itself: a size, an extension or a trailer stands there.
        while at < len(data) and at < 4 and data[at] in b"\r\n":
            feed(data[at : at + 1])
            at += 1
            if self.done:
                return at
        while at < len(data):
            found = data.find(b"\r\n\r\n", at)
            end = len(data) if found < 0 else found + 4
            feed(data[at:end])
            at = end
            if self.done:
                return at
        return at

    def _complete(self, rest: bytes) -> None:
        if len(self._fields) > self._max_fields:
            raise ChunkedError(f"expected at most {self._max_fields} trailers")
        if any(name in _UNWANTED_TRAILERS for name, _ in self._fields):
            raise ChunkedError("expected no framing or routing field among the trailers")
        self.trailers = tuple(self._fields)
        self.rest = rest


def chunk(data: bytes) -> bytes:
    """Return one chunk; `data` must not be empty, for an empty chunk is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Headers) -> bytes:
    """Return the last chunk and the trailer section; fields that must not be trailers are left out."""
    if not trailers:
        return b"0\r\n\r\n"
    lines = [b"%b: %b\r\n" % field for field in trailers if field[0] not in _UNWANTED_TRAILERS]
    return b"0\r\n" + b"".join(lines) + b"\r\n"
