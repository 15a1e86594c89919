"""The Date field's one valid form, IMF-fixdate (RFC 9110 §5.6.7), from and to seconds since the epoch."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cloudtolocalllm.sealed.errors import MalformedError

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final = re.compile(rb"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT")


def encode(seconds: float) -> bytes:
    """Return a date."""
    at = _EPOCH + timedelta(seconds=int(seconds))  # fromtimestamp takes none before 1970 on Windows
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day:02} {month} {at.year:04} {at.hour:02}:{at.minute:02}:{at.second:02} GMT".encode()


def decode(text: bytes) -> int:
    """Read a date.

    Raises:
        MalformedError: It is not one in this form, or its day of the week is another.
    """
    found = _FORM.fullmatch(text)
    try:
        if found is None:
            raise ValueError("not of the form")  # noqa: TRY301 - one error for all that is wrong
        day, month, year, hour, minute, second = (part.decode() for part in found.groups())
        at = datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        seconds = int(at.timestamp())
    except ValueError:
        raise MalformedError("expected a date like Sun, 06 Nov 1994 08:49:37 GMT") from None
    if encode(seconds) != text:
        raise MalformedError("expected a date with its own day of the week")
    return seconds
