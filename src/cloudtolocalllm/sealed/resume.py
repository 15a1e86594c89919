"""How a client takes up an answer where it broke off: the fields, and how they are written.

    C2L-Exchange   base64url of 16 random bytes that the client chose; the same in each request for one answer
    C2L-Offset     in a request: bytes of content, without padding, that the client has
                   in a response: where its content begins

What the bridge keeps, and for how long, is the journal's matter.
"""

import re
from dataclasses import dataclass
from typing import Final

from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.errors import MalformedError, MisuseError
from cloudtolocalllm.sealed.fields import Fields, single

EXCHANGE_FIELD: Final = b"c2l-exchange"
OFFSET_FIELD: Final = b"c2l-offset"
EXCHANGE_BYTES: Final = 16
MAX_OFFSET: Final = 2**53 - 1
"""What a number can be in JavaScript."""

_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Resume:
    """Which answer, and from where on."""

    exchange: bytes
    offset: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be written.

        Raises:
            MisuseError: A value is out of its range.
        """
        if len(self.exchange) != EXCHANGE_BYTES or not 0 <= self.offset <= MAX_OFFSET:
            raise MisuseError(f"expected {EXCHANGE_BYTES} bytes as the exchange, and an offset of 0 to 2^53 - 1")


def resume_fields(resume: Resume) -> Fields:
    """Return the fields of a request; an offset of 0 is left out."""
    exchange = (EXCHANGE_FIELD, base64url.encode(resume.exchange).encode())
    return (exchange, *offset_fields(resume.offset)) if resume.offset else (exchange,)


def offset_fields(offset: int) -> Fields:
    """Return the field of a response."""
    return ((OFFSET_FIELD, b"%d" % offset),)


def read_resume(fields: Fields) -> Resume | None:
    """Return what a request's fields ask for, or None when it names no exchange.

    Raises:
        MalformedError: A field stands twice or is not of its form.
    """
    exchange = single(fields, EXCHANGE_FIELD)
    offset = read_offset(fields)
    if exchange is None:
        if offset is not None:
            raise MalformedError("expected an exchange with an offset")
        return None
    name = base64url.decode(exchange.decode("latin-1"), "an exchange", EXCHANGE_BYTES)
    return Resume(name, offset or 0)


def read_offset(fields: Fields) -> int | None:
    """Return the offset in fields, or None when there is none.

    Raises:
        MalformedError: It stands twice or is not of its form.
    """
    offset = single(fields, OFFSET_FIELD)
    if offset is None:
        return None
    if not _NUMBER.fullmatch(offset) or int(offset) > MAX_OFFSET:
        raise MalformedError("expected an offset of 0 to 2^53 - 1")
    return int(offset)
