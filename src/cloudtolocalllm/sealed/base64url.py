"""Base64url without padding (RFC 4648 §5), in its one canonical spelling."""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cloudtolocalllm.sealed.errors import MalformedError

_TEXT = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def encode(data: bytes) -> str:
    """Return the text of bytes."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str, what: str, size: int | None = None) -> bytes:
    """Return the bytes of a text.

    Args:
        text: As received.
        what: Its name in the error.
        size: Bytes that it must have; None for any number.

    Raises:
        MalformedError: It is not base64url, not canonical, or of another size.
    """
    if not _TEXT.fullmatch(text):
        raise MalformedError(f"expected {what} in base64url")
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise MalformedError(f"expected {what} in base64url") from None
    if encode(data) != text:
        raise MalformedError(f"expected {what} in the canonical spelling of base64url")
    if size is not None and len(data) != size:
        raise MalformedError(f"expected {what} of {size} bytes, got {len(data)}")
    return data
