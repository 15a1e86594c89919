"""What nginx needs to know beyond the edge's own settings, read from variables C2L_NGINX_*."""

from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import setting

PREFIX = "C2L_NGINX_"


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """How one nginx is set up; who is let in and where requests go stands in EdgeSettings."""

    certificate_dir: Path | None = setting(
        "Folder with fullchain.pem and privkey.pem, only read: nginx has a copy in C2L_NGINX_STATE_DIR, and until "
        "they are there a self-signed pair. With it TLS is spoken on C2L_NGINX_TLS_PORT, and C2L_EDGE_LISTEN_PORT "
        "only leads there. Empty for no TLS.",
        default=None,
    )
    tls_port: int = setting("TCP port to listen on for TLS.", default=443)
    public_tls_port: int = setting("The port that people use for TLS, where it is mapped to another.", default=443)
    acme_root: Path = setting(
        "Folder whose .well-known/acme-challenge/ is served in clear, for HTTP-01.", default=Path("/var/www/acme")
    )
    site_root: Path | None = setting(
        "Folder of the marketing pages, for the bare domain; without it the page is served there too.", default=None
    )
    web: Endpoint | None = setting(
        'Where the page is served, "unix:/path" or "host:port"; empty for the folder C2L_EDGE_WEB_ROOT.',
        default=None,
        parse=Endpoint.parse,
    )
    state_dir: Path = setting(
        "Folder, best in memory, for sockets, the counts of the limits, the certificate in use and bodies that are "
        "buffered; made its owner's alone.",
        default=Path("/run/c2l/nginx"),
    )
    modules_dir: Path = setting("Folder of nginx's modules.", default=Path("/usr/lib/nginx/modules"))
    brotli: bool = setting("Whether the module brotli_static is there, for precompressed files.", default=True)
    user: str = setting(
        "User of the workers, who gets C2L_NGINX_STATE_DIR; needed when nginx is started by root, else empty.",
        default="",
    )
    workers: int = setting("Worker processes; 0 for one a processor.", default=1)
    connections: int = setting(
        "Connections of a worker at most, those to upstreams among them: each client takes two to four.",
        default=16384,
    )
    ports: Path | None = setting(
        "Unix socket of the service `ports`, which holds C2L_EDGE_LISTEN_PORT and C2L_NGINX_TLS_PORT, so that one "
        "nginx can follow another without a connection refused. Empty to listen here.",
        default=None,
    )
    resolver: str = setting(
        "Addresses of DNS servers, separated by spaces, where proxies are reached by name (Docker: 127.0.0.11).",
        default="",
    )
    stream_timeout: int = setting(
        "Seconds that an answer or a tunnel may be silent: a model may load for minutes.", default=3600
    )
    error_log_level: str = setting(
        "Level of nginx's own log of requests that failed. Below alert it has targets and addresses of clients.",
        default="alert",
    )
    access_log: Path = setting(
        "File of the access log, one JSON object a request. Where standard output is no pipe of nginx's own user, as "
        "under systemd, name a file.",
        default=Path("/dev/stdout"),
    )
    watch_interval: float = setting(
        "Seconds between two looks at the certificate and at the addresses of the API and the page, for a reload.",
        default=1.0,
    )
