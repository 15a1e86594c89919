"""Where a server is; read from its URL or from a pairing link. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from cloudtolocalllm.runtime.loopback import is_loopback
from cloudtolocalllm.sealed.errors import SealedError
from cloudtolocalllm.sealed.pairing import PairingLink, read_link

_PAGE = "/pair"
"""Of the web app; what stands before it in a link is the server's URL."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's URL, taken apart."""

    host: str
    port: int
    tls: bool
    prefix: str = ""
    """Path before the server's own paths; "" for most."""

    @classmethod
    def parse(cls, url: str) -> "ServerAddress":
        """Read a URL.

        Raises:
            ValueError: It is none of a server. The text does not quote it.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected the server's URL, such as https://app.example.org")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("expected a port between 1 and 65535 in the server's URL") from None
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """Host and port, as the Host field has them; a port that the scheme implies is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Host and port, to connect to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The one spelling under which this server is remembered."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is not sealed, such as the API key."""
        return self.tls or is_loopback(self.host)


def read_invitation(text: str, server: str = "") -> tuple[ServerAddress, PairingLink]:
    """Read a pairing link, or its fragment alone.

    Args:
        text: As a person pasted it.
        server: The server's URL, for a fragment alone; counts before the link's own.

    Raises:
        ValueError: It is no link, or it does not say which server. The text quotes nothing of it.
    """
    page, mark, fragment = text.strip().partition("#")
    if not mark:
        page, fragment = "", page
    try:
        link = read_link(fragment)
    except SealedError as error:
        raise ValueError(str(error)) from None
    if server:
        return ServerAddress.parse(server), link
    if not page:
        raise ValueError("expected the whole link, or --server URL with the part behind its #")
    return ServerAddress.parse(page.partition("?")[0].rstrip("/").removesuffix(_PAGE)), link
