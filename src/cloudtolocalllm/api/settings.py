"""The API's settings, read from variables C2L_API_*."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import setting


def _public_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("expected a URL such as https://app.example.org") from None
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or not port_is_valid:
        raise ValueError("expected http://HOST or https://HOST, with a port if needed and no path")
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What one API process needs to know."""

    listen: Endpoint = setting(
        'Where it listens, for the edge only: "unix:/path" (made with mode 0600) or "host:port".',
        parse=Endpoint.parse,
    )
    data_dir: Path = setting("Folder of the cloud's state: cloud.db and secrets/. Made with mode 0700.")
    manager: Endpoint = setting("Where the streaming proxy manager listens.", parse=Endpoint.parse)
    manager_token_file: Path = setting("File with the token that the manager asks for.")
    public_url: str = setting(
        "The address people use, without a path. With https, cookies are Secure and have the __Host- prefix.",
        default="http://127.0.0.1:8080",
        parse=_public_url,
    )
    manager_timeout: float = setting("Seconds to wait for the manager to have a proxy ready.", default=15.0)
    drain_grace: float = setting(
        "Seconds that requests under way may take once the service was told to stop.", default=5.0
    )
    leash_fd: int | None = setting(
        "Descriptor whose end of file stops the service; for a parent process that must leave no orphan.",
        default=None,
    )

    @property
    def secure(self) -> bool:
        """Whether browsers reach us by HTTPS."""
        return self.public_url.startswith("https://")

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.data_dir / "cloud.db"

    @property
    def secrets_dir(self) -> Path:
        """The folder of the keys that never leave this machine."""
        return self.data_dir / "secrets"
