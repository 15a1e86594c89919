"""What an adapter refuses before it asks its store: the same texts and limits for all of them."""

import math
import re

MAX_NAME = 200
"""Characters of a key, a group or a member."""
MAX_VALUE = 64 * 1024
"""Bytes of a value."""
MAX_TTL = 400 * 86_400.0
"""Seconds: longer than the longest life of anything that the cloud signs (366 days), so that a mistake shows."""
MAX_LIMIT = 1_000_000_000
"""Of a rate counter; a double counts that far to a millionth."""

_NAME = re.compile(r"[!-~]{1,200}")


def check_names(*names: str) -> None:
    """Refuse keys, groups and members that are no printable ASCII without spaces.

    Raises:
        ValueError: One is not; the text does not repeat it.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"expected 1 to {MAX_NAME} printable ASCII characters without spaces, got {len(name)} characters"
                + ("" if name.isascii() else ", some not ASCII")
            )


def check_value(value: bytes) -> None:
    """Refuse a value that is too large.

    Raises:
        ValueError: It is larger than MAX_VALUE.
    """
    if len(value) > MAX_VALUE:
        raise ValueError(f"expected a value of at most {MAX_VALUE} bytes, got {len(value)}")


def check_ttl(ttl: float) -> None:
    """Refuse a time to live that is none.

    Raises:
        ValueError: It is not above 0 and at most MAX_TTL. What has expired already must not be kept, and saying that
            it was would let it be used twice.
    """
    if not (math.isfinite(ttl) and 0 < ttl <= MAX_TTL):
        raise ValueError(f"expected a time to live above 0 and at most {MAX_TTL:.0f} seconds, got {ttl}")


def check_members_limit(limit: int | None) -> None:
    """Refuse a negative number of members.

    Raises:
        ValueError: It is negative.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"expected a limit of 0 or more members, got {limit}")


def check_rate(limit: int, window: float, cost: int) -> None:
    """Refuse what is no rate.

    Raises:
        ValueError: The limit is not 1 to MAX_LIMIT, the window no time to live, or the cost negative.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"expected a limit of 1 to {MAX_LIMIT}, got {limit}")
    if not (math.isfinite(window) and 0 < window <= MAX_TTL):
        raise ValueError(f"expected a window above 0 and at most {MAX_TTL:.0f} seconds, got {window}")
    if cost < 0:
        raise ValueError(f"expected a cost of 0 or more, got {cost}")
