"""The page server's settings, read from variables C2L_WEB_*."""

from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import setting

PREFIX = "C2L_WEB_"


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What the server of the built page needs to know."""

    listen: Endpoint = setting('Where nginx reaches it: "unix:/path" or "host:port".', parse=Endpoint.parse)
    root: Path = setting("Folder of the built page.")
    drain_grace: float = setting("Seconds that answers under way are given at a stop.", default=5.0)
    leash_fd: int | None = setting("Descriptor whose end of file stops the service; none by default.", default=None)
