"""Variable-length integers of RFC 9000 §16: the two top bits of the first byte tell the length."""

from cloudtolocalllm.sealed.errors import MisuseError

MAX = (1 << 62) - 1


def encode(value: int) -> bytes:
    """Return the shortest encoding.

    Raises:
        MisuseError: The value is not of 0 to 2^62 - 1.
    """
    if 0 <= value < 1 << 6:
        return value.to_bytes(1, "big")
    if 0 <= value < 1 << 14:
        return (value | 0x4000).to_bytes(2, "big")
    if 0 <= value < 1 << 30:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if 0 <= value <= MAX:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise MisuseError(f"expected a length of 0 to 2^62 - 1, got {value}")


def decode(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Read an integer; the longer encodings of a small value are valid, as the RFC has it.

    Args:
        data: Where it is.
        at: Its offset.

    Returns:
        The value and the offset after it, or None when it is not all there.
    """
    if at >= len(data):
        return None
    first = data[at]
    if first < 0x40:  # most lengths are short
        return first, at + 1
    end = at + (1 << (first >> 6))
    if end > len(data):
        return None
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * (end - at) - 2)) - 1), end
