"""Where an engine is and with which key it is asked; from local configuration only."""

import base64
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cloudtolocalllm.runtime.loopback import is_loopback


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """An engine's base URL, taken apart."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    """Path before the engine's own paths; "" for most."""
    authorization: bytes | None = None
    """Value of the Authorization field; None for an engine without a key. Never logged."""

    @classmethod
    def parse(cls, url: str, keys: tuple[str, ...] = ()) -> "EngineAddress":
        """Read a URL.

        Args:
            url: http:// or https://, with user information when the engine wants it.
            keys: "HOST:PORT=KEY" of engines; one for this engine is used when the URL has none.

        Raises:
            ValueError: It is no such URL. The text does not quote it, as it may hold a key.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an engine's URL such as http://127.0.0.1:11434")
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        authorization = _authorization(parts.username, parts.password)
        bare = cls(parts.hostname, port, tls, parts.path.rstrip("/"))
        if authorization is None:
            for entry in keys:
                where, _, key = entry.partition("=")
                if where == bare.authority and key:
                    authorization = b"Bearer " + key.encode()
        return cls(bare.host, port, tls, bare.prefix, authorization)

    @property
    def authority(self) -> str:
        """Host and port, as the Host field has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's loopback."""
        return is_loopback(self.host)


def _authorization(user: str | None, password: str | None) -> bytes | None:
    if user and password:
        text = f"{unquote(user)}:{unquote(password)}".encode()
        return b"Basic " + base64.b64encode(text)
    key = unquote(password or user or "")
    return b"Bearer " + key.encode() if key else None
