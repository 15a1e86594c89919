"""The limits of the envelope, with their units and reasons."""

from dataclasses import dataclass
from typing import Final

MAX_CHUNK: Final = 16384
"""Bytes of plaintext in a chunk. draft-ietf-ohai-chunked-ohttp-08 §3: receivers must take, and senders should not
exceed, 2^14."""
MAX_SEALED: Final = 1 << 30
"""Bytes of plaintext under one key. The draft's §7.3: with 2^20 keys attacked at once, an advantage of 2^-50."""
TAG: Final = 16
"""Bytes by which AES-128-GCM lengthens a chunk."""
MAX_SKEW: Final = 120
"""Seconds by which a request's date may differ from the bridge's clock, and a statement's from the client's."""


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Limits of one Binary HTTP message."""

    control: int = 16 * 1024
    """Bytes of method, scheme, authority or path; nginx takes request lines of up to 32 KiB, browsers send 8."""
    section: int = 64 * 1024
    """Bytes of one field section, as the tunnel's max_head."""
    fields: int = 128
    """Field lines in one section; Apache takes 100, nginx any number in 32 KiB."""
    informational: int = 16
    """Informational heads before the final one, as in the tunnel."""
    chunk: int = 1 << 24
    """Bytes that one content chunk may announce. It is not kept in memory whole, so this bounds nonsense only."""
    content: int = MAX_SEALED
    """Bytes of content in all."""


DEFAULT_LIMITS: Final = MessageLimits()
