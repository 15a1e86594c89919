"""Which host is this computer's loopback, and what a server on it reads of a request before it serves it: pure.

A browser sends Host as the page's address has it, so that a name which was made to point here shows (DNS rebinding);
it sends Origin with what a page could do harm with, and Sec-Fetch-Site with everything. Another user's program on the
same computer can send what it likes.
"""

import ipaddress
import re
from typing import Final

from cloudtolocalllm.runtime.http1 import Headers

NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What the loopback is called in a Host field."""
OWN_SITES: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site for a page of this very server, and for what a person typed or opened."""

_PORT: Final = re.compile(r":[0-9]{1,5}\Z")


def is_loopback(host: str) -> bool:
    """Tell whether a URL's host is this computer; a name that only looks like it, 127.0.0.1.example, is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return a Host field's name, in lower case, without the port."""
    return _PORT.sub("", host).lower()


def field(headers: Headers, name: bytes) -> str | None:
    """Return the first value of a field, None without it."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)
