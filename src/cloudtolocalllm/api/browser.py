"""What a request says of where in a browser it comes from. Pure.

A session cookie is sent by the browser itself, so a request that carries one is believed only if it shows that our
own page made it (Fetch Metadata, W3C; RFC 6454 Origin).
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from cloudtolocalllm.contracts.authorize import CSRF_FIELD

Fields = dict[bytes, bytes]

_SINGLE = frozenset({
    b"authorization", b"dpop", b"x-api-key", b"origin", b"sec-fetch-site", b"host",
    b"x-original-method", b"x-original-uri", b"x-original-host", b"c2l-fresh",
})  # fmt: skip
"""Fields of which a second one would leave it open which of the two another hop believed."""
_DEFAULT_PORT = {"http": 80, "https": 443}


class AmbiguousError(ValueError):
    """A field or cookie came twice; the text names it and quotes no value."""


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return fields by lower-case name: the last of each, cookies joined.

    Raises:
        AmbiguousError: One that decides who may come in came twice.
    """
    fields: Fields = {}
    for name, value in headers:
        if name in fields:
            if name in _SINGLE:
                raise AmbiguousError(f"expected one field {name.decode('latin-1')}")
            if name == b"cookie":
                value = fields[name] + b"; " + value
        fields[name] = value
    return fields


def cookie_of(fields: Fields, name: str) -> str | None:
    """Return a cookie's value; None when it was not sent.

    Raises:
        AmbiguousError: It was sent twice: a page of a sibling domain may have set the second (cookie tossing).
    """
    line = fields.get(b"cookie")
    if line is None:
        return None
    found = None
    for pair in line.decode("latin-1").split(";"):
        key, equals, value = pair.partition("=")
        if equals and key.strip() == name:
            if found is not None:
                raise AmbiguousError("expected one session cookie")
            found = value.strip()
    return found


def cross_site_fault(fields: Fields, *, host: bytes, scheme: str) -> str | None:
    """Return why a request seems to come from a page that is not ours; None when nothing says so.

    Args:
        fields: The request's.
        host: The Host that the browser sent.
        scheme: "http" or "https", as the browser sees us.
    """
    site = fields.get(b"sec-fetch-site")
    if site is not None and site not in (b"same-origin", b"none"):
        return "The browser says that another site's page made this request."
    origin = fields.get(b"origin")
    if origin is not None and not _same(origin, host, scheme):
        return "The request comes from a page of another origin."
    return None


def session_fault(fields: Fields, *, host: bytes, scheme: str) -> str | None:
    """Return why a request with a session cookie is not believed; None when it is.

    As `cross_site_fault`, and it must carry the field that no plain form or image can send.
    """
    if CSRF_FIELD not in fields:
        return f"A request with the session cookie needs the field {CSRF_FIELD.decode()} with any value."
    return cross_site_fault(fields, host=host, scheme=scheme)


def _same(origin: bytes, host: bytes, scheme: str) -> bool:
    text = origin.decode("latin-1")
    ours = _authority(f"{scheme}://{host.decode('latin-1')}", scheme)
    return ours is not None and text.startswith(f"{scheme}://") and _authority(text, scheme) == ours


def _authority(url: str, scheme: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            return None
        return parts.hostname, parts.port or _DEFAULT_PORT[scheme]
    except ValueError:
        return None
