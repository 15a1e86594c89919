"""Which provider, and what we are there."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

CALLBACK_TARGET = "/api/auth/oidc/callback"
SIGNED_OUT_TARGET = "/sign-in"
"""Where the provider sends a browser whose session it has ended."""
ID = "oidc"
"""The provider's id in the API; there is one."""
OFFLINE = "offline_access"


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """A client's registration at a provider."""

    issuer: str
    """Exactly as its tokens have it: Auth0's ends with a slash, Keycloak's does not."""
    client_id: str
    client_secret: str | None
    """None for a public client, which PKCE alone protects."""
    scopes: tuple[str, ...]
    name: str
    """What the button on the page says."""
    public_url: str
    """Ours, without a path."""

    def __repr__(self) -> str:
        return f"OidcConfig(issuer={self.issuer!r}, client_id={self.client_id!r})"

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends a browser back to; registered there."""
        return self.public_url + CALLBACK_TARGET

    @property
    def post_logout_redirect_uri(self) -> str:
        """Where the provider sends a browser that signed out; registered there."""
        return self.public_url + SIGNED_OUT_TARGET

    @property
    def plain(self) -> bool:
        """Whether the provider is reached without TLS: on loopback, for trials and tests."""
        return self.issuer.startswith("http://")


def parse_issuer(text: str) -> str:
    """Return an issuer as it was written; empty for none.

    Raises:
        ValueError: It is none that may be used.
    """
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("expected a URL such as https://example.eu.auth0.com/") from None
    if parts.query or parts.fragment or "@" in parts.netloc or not is_reachable(parts, plain=True):
        raise ValueError("expected https://HOST with or without a path (http:// on a loopback address only)")
    return text


def is_endpoint(url: object, *, plain: bool) -> bool:
    """Tell whether a URL from a provider's document may be used.

    Args:
        url: As given.
        plain: Whether http on loopback will do.
    """
    if not isinstance(url, str) or len(url) > 2000 or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return not parts.fragment and "@" not in parts.netloc and is_reachable(parts, plain=plain)
    except ValueError:
        return False


def is_reachable(parts: SplitResult, *, plain: bool) -> bool:
    """Tell whether a URL is https, or http on loopback where `plain` allows it."""
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (plain and parts.scheme == "http" and _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
