"""The edge's settings, read from variables C2L_EDGE_*."""

from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import setting

PREFIX = "C2L_EDGE_"


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What one edge process needs to know."""

    api: Endpoint = setting("Where the API listens.", parse=Endpoint.parse)
    listen_host: str = setting("Address to listen on.", default="127.0.0.1")
    listen_port: int = setting("TCP port to listen on; 0 for any free one.", default=8080)
    web_root: Path | None = setting("Folder of the built page; without it there is none.", default=None)
    domain: str = setting(
        "Domain people use: it and app.DOMAIN are served, every other Host is refused. Empty for this machine only.",
        default="",
    )
    allowed_hosts: tuple[str, ...] = setting(
        "Further host names that requests may name, separated by commas.", default=()
    )
    data_body_limit: int = setting("Bytes of a request to a model at most.", default=64 * 1024 * 1024)
    api_body_limit: int = setting("Bytes of a request to the API at most.", default=1024 * 1024)
    authorize_timeout: float = setting("Seconds to wait for the API's decision.", default=20.0)
    drain_grace: float = setting("Seconds that answers under way are given at a stop.", default=10.0)
    leash_fd: int | None = setting("Descriptor whose end of file stops the service; none by default.", default=None)
