"""Padding: what the relay sees of sizes and times.

A stream of tokens that is sealed token by token shows the length of each, and topics can be told from lengths (Weiss
et al. 2024, McDonald and Bar Or 2025). So deltas are joined for 100 ms, and a chunk is padded to a size class:

- in a stream of events 4096 bytes, whatever the tokens' lengths and the API; only where more comes within 100 ms
  8192 or 16384;
- elsewhere a multiple of 128 bytes, at least 1024, and not less than any chunk before it in the same response, up to
  4096 bytes; when it must grow, it grows by a quarter more than needed, so that it grows seldom.

The padding is a content coding, c2l-pad, so that the messages are Binary HTTP and chunked OHTTP as others know them:

    { data length (2)  padding length (2)  data  zero bytes }

A request is padded as a whole, by the zero bytes that Binary HTTP allows at its end, to 1 KiB or, beyond, to a size
of Padmé (Nikitin et al. 2019): at most 12 % more, and few sizes.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from cloudtolocalllm.sealed.errors import MalformedError, MisuseError, TruncatedError
from cloudtolocalllm.sealed.limits import MAX_CHUNK

CODING: Final = b"c2l-pad"
STREAM_TYPES: Final = frozenset({b"text/event-stream", b"application/x-ndjson"})
"""Media types of streams of events, in which a token's length could show."""
RECORD: Final = Struct(">HH")


@dataclass(frozen=True, slots=True)
class PaddingPolicy:
    """How much is hidden, and what that may cost."""

    interval: float = 0.1
    """Seconds for which deltas are joined; 0 sends each at once."""
    multiple: int = 128
    """Bytes of which a chunk's plaintext is a multiple; a divisor of 16384."""
    floor: int = 1024
    """Bytes that a chunk has at least: enough for every refusal, so that one looks like any small answer."""
    ceiling: int = 4096
    """Bytes up to which a chunk is not smaller than those before it."""
    headroom: float = 1.25
    """By how much more than needed the size grows."""
    request_floor: int = 1024
    """Bytes that a request has at least."""
    stream_size: int = 4096
    """Bytes of a chunk in a stream of events, where that is more than the floor; doubled for what needs more."""

    def __post_init__(self) -> None:
        """Refuse a policy that cannot be kept.

        Raises:
            MisuseError: A value is out of its range.
        """
        if self.multiple < 1 or MAX_CHUNK % self.multiple:
            raise MisuseError(f"expected a divisor of {MAX_CHUNK} as the multiple, got {self.multiple}")
        if not all(0 <= size <= MAX_CHUNK for size in (self.floor, self.ceiling, self.stream_size)):
            raise MisuseError(f"expected a floor, a ceiling and a stream's size of 0 to {MAX_CHUNK} bytes")
        if self.ceiling % self.multiple:
            raise MisuseError(f"expected a ceiling that is a multiple of {self.multiple}, got {self.ceiling}")
        if self.interval < 0 or self.headroom < 1 or self.request_floor < 0:
            raise MisuseError("expected an interval and a request floor of at least 0, and a headroom of at least 1")


DEFAULT_POLICY: Final = PaddingPolicy()
NO_PADDING: Final = PaddingPolicy(0.0, 1, 0, 0, 1.0, 0, 0)
"""For comparison and tests: shows the length and time of every delta."""


class SizeClass:
    """The sizes of one response's chunks."""

    def __init__(self, policy: PaddingPolicy) -> None:
        """Start at the policy's floor."""
        self._policy = policy
        self._size = self._rounded(policy.floor)
        self._is_stream = False

    def is_stream(self) -> None:
        """From now on it is a stream of events: one size, which grows only where its double is needed."""
        if self._policy.stream_size:
            self._is_stream = True
            self._size = max(self._size, self._rounded(self._policy.stream_size))

    def size(self, needed: int) -> int:
        """Return the size for a chunk that needs so many bytes, at most MAX_CHUNK of them."""
        if self._is_stream:
            return self._doubled(needed)
        ceiling = self._policy.ceiling
        if needed > max(self._size, ceiling):
            return self._rounded(needed)
        if needed > self._size:
            self._size = max(self._rounded(needed), min(self._rounded(int(needed * self._policy.headroom)), ceiling))
        return self._size

    def _doubled(self, needed: int) -> int:
        size = self._size
        while size < needed:
            size *= 2
        return min(size, MAX_CHUNK)

    def _rounded(self, size: int) -> int:
        multiple = self._policy.multiple
        return -(-size // multiple) * multiple


def padme(size: int) -> int:
    """Return the smallest size of Padmé's that is not below one: its mantissa is not longer than its exponent."""
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def request_size(size: int, policy: PaddingPolicy = DEFAULT_POLICY) -> int:
    """Return the bytes to which a request of so many bytes is padded."""
    if policy == NO_PADDING:
        return size
    padded = padme(max(size, policy.request_floor))
    return -(-padded // policy.multiple) * policy.multiple


def record(data: bytes, padding: int) -> bytes:
    """Return data in the coding, with so many bytes of padding."""
    return RECORD.pack(len(data), padding) + data + bytes(padding)


class PaddingRemover:
    """Reads the coding from any pieces of its bytes."""

    def __init__(self) -> None:
        """Start before the first record."""
        self._buffer = bytearray()
        self._data = 0
        self._padding = 0

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes, and return the data in them.

        Raises:
            MalformedError: A byte of padding is not zero.
        """
        self._buffer += data
        out: list[bytes] = []
        at = 0
        while at < len(self._buffer):
            if self._data:
                piece = bytes(self._buffer[at : at + self._data])
                out.append(piece)
                self._data -= len(piece)
                at += len(piece)
            elif self._padding:
                piece = bytes(self._buffer[at : at + self._padding])
                if piece.strip(b"\0"):
                    raise MalformedError("expected zero bytes as padding")
                self._padding -= len(piece)
                at += len(piece)
            elif len(self._buffer) - at < RECORD.size:
                break
            else:
                self._data, self._padding = RECORD.unpack_from(self._buffer, at)
                at += RECORD.size
        del self._buffer[:at]
        return b"".join(out)

    def end(self) -> None:
        """Take the end of the bytes.

        Raises:
            TruncatedError: A record is not whole.
        """
        if self._buffer or self._data or self._padding:
            raise TruncatedError("expected whole records of padded content")
