"""The framing of sealed chunks (draft-ietf-ohai-chunked-ohttp-08 §4, §5).

{ length (varint, not 0)  sealed chunk }  0  sealed final chunk, up to the end of the bytes

The lengths are not authenticated; the chunks' number and order are.
"""

from typing import Final

from cloudtolocalllm.sealed import varint
from cloudtolocalllm.sealed.errors import MalformedError, TruncatedError
from cloudtolocalllm.sealed.limits import MAX_CHUNK, TAG

FINAL: Final = b"\0"
"""The length that announces the final chunk."""


class ChunkSplitter:
    """Splits bytes that come in any pieces into sealed chunks."""

    def __init__(self, max_chunk: int = MAX_CHUNK) -> None:
        """Start before the first length.

        Args:
            max_chunk: Bytes of plaintext that a chunk may have.
        """
        self._most = max_chunk + TAG
        self._buffer = bytearray()
        self._final = False

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take bytes, and return the chunks that they complete, all of them but the final one.

        Raises:
            MalformedError: A chunk's length is out of its range.
        """
        self._buffer += data
        found: list[bytes] = []
        at = 0
        while not self._final:
            length = varint.decode(self._buffer, at)
            if length is None:
                break
            size, start = length
            if not size:
                self._final = True
                at = start
                break
            if not TAG <= size <= self._most:
                raise MalformedError(f"expected a sealed chunk of {TAG} to {self._most} bytes, got {size}")
            if start + size > len(self._buffer):
                break
            at = start + size
            found.append(bytes(self._buffer[start:at]))
        del self._buffer[:at]
        if self._final and len(self._buffer) > self._most:
            raise MalformedError(f"expected a sealed final chunk of at most {self._most} bytes")
        return found

    def end(self) -> bytes:
        """Take the end of the bytes, and return the final chunk.

        Raises:
            TruncatedError: It is not there.
        """
        if not self._final or len(self._buffer) < TAG:
            raise TruncatedError("expected a final chunk, got the end")
        return bytes(self._buffer)
