"""The edge's settings, read from variables C2L_EDGE_*."""

from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.audit.config import HELP_FOLDER, HELP_ORIGIN, HELP_SINK, HELP_SINK_TOKEN, AuditConfig
from cloudtolocalllm.audit.sinks import check_sink
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.clients import Network, parse_networks
from cloudtolocalllm.edge.limits import Rate
from cloudtolocalllm.edge.origins import parse_origins
from cloudtolocalllm.edge.replicas import parse_endpoints
from cloudtolocalllm.runtime.settings import setting

PREFIX = "C2L_EDGE_"


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What one edge process needs to know."""

    api: tuple[Endpoint, ...] = setting(
        "Where the API listens; its replicas separated by commas: they take turns, and one that is down is left out.",
        parse=parse_endpoints,
    )
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
    trusted_proxies: tuple[Network, ...] = setting(
        "Address ranges of reverse proxies in front, separated by commas (10.0.0.0/8): only from these "
        "X-Forwarded-For and X-Forwarded-Proto count.",
        default=(),
        parse=parse_networks,
    )
    cors_origins: tuple[str, ...] = setting(
        "Origins, exact and separated by commas (https://chat.example), whose pages may use the data routes with an "
        "API key; any other page but our own is refused.",
        default=(),
        parse=parse_origins,
    )
    limit_sign_in: Rate | None = setting(
        "Requests of one client address to sign-in and pairing; off for no limit.",
        default=Rate(30, "min", 20),
        parse=Rate.parse,
    )
    limit_api: Rate | None = setting(
        "Requests of one client address to other routes of the API.",
        default=Rate(1200, "min", 300),
        parse=Rate.parse,
    )
    limit_data: Rate | None = setting(
        "Requests of one client address to models; each user's own limits come on top.",
        default=Rate(100, "s", 1000),
        parse=Rate.parse,
    )
    limit_static: Rate | None = setting(
        "Requests of one client address to the page's files.",
        default=Rate(100, "s", 1000),
        parse=Rate.parse,
    )
    limit_connections: int = setting(
        "Open connections of one client address, WebSockets among them; 0 for no limit.", default=256
    )
    limit_loopback: bool = setting(
        "Whether these limits hold for clients on this machine too. While it is off they are exempt from them if the "
        "edge listens on loopback and has no domain.",
        default=False,
    )
    data_body_limit: int = setting(
        "Bytes of a request to a machine at home at most. The default has room for 64 MiB, sealed and padded.",
        default=72 * 1024 * 1024,
    )
    api_body_limit: int = setting("Bytes of a request to the API at most.", default=1024 * 1024)
    authorize_timeout: float = setting(
        # The API's own waits: 6 for what passes by itself, 50 for a proxy, and 4 for questions to a slow state.
        "Seconds to wait for the API's decision, which waits for a proxy to start.",
        default=60.0,
    )
    drain_grace: float = setting("Seconds that answers under way are given at a stop.", default=10.0)
    audit_dir: Path | None = setting(HELP_FOLDER + " Without it there is none.", default=None)
    audit_origin: str = setting(HELP_ORIGIN.format("edge"), default="")
    audit_sink: str = setting(HELP_SINK, default="", parse=check_sink)
    audit_sink_token_file: Path | None = setting(HELP_SINK_TOKEN, default=None)
    leash_fd: int | None = setting("Descriptor whose end of file stops the service; none by default.", default=None)

    @property
    def audit(self) -> AuditConfig:
        """Where the audit log goes."""
        return AuditConfig(self.audit_dir, self.audit_origin, self.audit_sink, self.audit_sink_token_file)
