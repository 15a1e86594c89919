"""Which method, path, field names and values are valid in a Binary HTTP message.

RFC 9292 §3.6 asks for the rules of HTTP/2 (RFC 9113 §8.2 and §8.3). We are stricter in two places: no pseudo-field is
valid, where the RFC leaves room for those of extensions, and a path, method or authority is visible ASCII.
"""

import re
from collections.abc import Sequence
from typing import Final

from cloudtolocalllm.sealed.errors import MalformedError

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]
"""Names and values, in order."""

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME: Final = re.compile(rb"[a-z][a-z0-9+.-]*")
_VISIBLE: Final = re.compile(rb"[!-~]*")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_OF_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te")
)
"""RFC 9113 §8.2.2. `te: trailers` would be valid; it says nothing that this format does not."""


def check_field(name: bytes, value: bytes) -> None:
    """Check a field line.

    Raises:
        MalformedError: It is not valid.
    """
    if not _NAME.fullmatch(name):
        raise MalformedError("expected a field name in lower case")
    if _BAD_VALUE.search(value):
        raise MalformedError("expected a field value without NUL, CR, LF and surrounding blanks")
    if name in _OF_CONNECTION:
        raise MalformedError("expected no field that belongs to a connection")


def check_fields(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Check all field lines of a section.

    Raises:
        MalformedError: One is not valid.
    """
    for name, value in fields:
        check_field(name, value)


def check_control(method: bytes, scheme: bytes, authority: bytes, path: bytes) -> None:
    """Check a request's control data.

    Raises:
        MalformedError: A part is not valid.
    """
    if not _TOKEN.fullmatch(method):
        raise MalformedError("expected a token as the method")
    if not _SCHEME.fullmatch(scheme):
        raise MalformedError("expected a scheme in lower case")
    if not _VISIBLE.fullmatch(authority):
        raise MalformedError("expected an authority of visible ASCII")
    if not _VISIBLE.fullmatch(path) or not (path.startswith(b"/") or (path == b"*" and method == b"OPTIONS")):
        raise MalformedError("expected a path of visible ASCII that begins with /")


def check_status(status: int, *, informational: bool) -> None:
    """Check a status code.

    Raises:
        MalformedError: It is not one, or 101, which this format cannot mean.
    """
    if informational:
        if not 100 <= status <= 199 or status == 101:
            raise MalformedError("expected an informational status of 100 to 199 but 101")
    elif not 200 <= status <= 599:
        raise MalformedError("expected a status of 200 to 599")


def single(fields: Fields, name: bytes) -> bytes | None:
    """Return the value of a field that may stand once.

    Raises:
        MalformedError: It stands more than once.
    """
    found = [value for candidate, value in fields if candidate == name]
    if len(found) > 1:
        raise MalformedError(f"expected {name.decode('ascii')} once, got {len(found)}")
    return found[0] if found else None
