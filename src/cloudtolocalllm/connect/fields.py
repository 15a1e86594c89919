"""Header fields between a local client and a home: pure. Both see what they would see of each other directly."""

import re
from typing import Final

from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.http1.messages import end_to_end
from cloudtolocalllm.sealed.fields import Fields

_NOT_SENT: Final = frozenset(
    {
        b"host",
        b"origin",
        b"referer",
        b"cookie",
        b"authorization",  # official clients send a made-up one to a local engine
        b"proxy-authorization",
        b"x-api-key",
        b"api-key",
        b"date",  # that of the proof stands in its place
        b"content-length",  # written anew
        b"expect",  # the content is here already
        b"accept-encoding",  # a compressed answer would not stream
    }
)
_NOT_SENT_PREFIXES: Final = (b"c2l-", b"sec-", b"access-control-", b"x-forwarded-")
_NOT_TOLD: Final = frozenset({b"content-length", b"set-cookie", b"alt-svc", b"strict-transport-security"})
_NOT_TOLD_PREFIXES: Final = (b"c2l-", b"access-control-")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
MAX_FIELDS: Final = 96
"""Lines, so that with those of the envelope they are within its limit."""


class FieldsRefusedError(ValueError):
    """The request's fields cannot be sent on. The text quotes none of them."""


def to_home(headers: Headers, size: int) -> Fields:
    """Return a local request's fields for the envelope.

    Args:
        headers: As received.
        size: Bytes of its content.

    Raises:
        FieldsRefusedError: There are too many.
    """
    kept = [
        (name, value)
        for name, value in end_to_end(headers)
        if name not in _NOT_SENT and not name.startswith(_NOT_SENT_PREFIXES) and _CONTROL.search(value) is None
    ]
    if len(kept) > MAX_FIELDS:
        raise FieldsRefusedError(f"Expected at most {MAX_FIELDS} header fields, got {len(kept)}.")
    return (*kept, (b"content-length", b"%d" % size)) if size else tuple(kept)


def from_home(fields: Fields) -> Headers:
    """Return a home's fields, or its trailers, for the local client."""
    return tuple(
        (name, value)
        for name, value in end_to_end(fields)
        if name not in _NOT_TOLD and not name.startswith(_NOT_TOLD_PREFIXES)
    )
