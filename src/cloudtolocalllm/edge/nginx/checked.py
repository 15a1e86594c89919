"""What nginx's configuration is made of: the settings, and what is known only when it runs; all of it checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge import routes
from cloudtolocalllm.edge.nginx import script
from cloudtolocalllm.edge.nginx.locations import Places
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.text import Checks
from cloudtolocalllm.edge.settings import EdgeSettings


@dataclass(frozen=True, slots=True)
class Found:
    """What is known only when nginx runs."""

    addresses: Mapping[str, tuple[str, ...]] | None = None
    """Addresses of upstreams by host name, none for one that is not known yet; None to have nginx look names up by
    itself, once, when it starts."""
    listening: tuple[Endpoint, ...] | None = None
    """Where sockets listen that nginx inherits; none to accept nothing (any more). None to listen by itself."""
    ask_each_time: bool = False
    """Whether the API's name is looked up at each request, in place of `addresses`."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Everything that is written into the configuration, checked."""

    places: Places
    api: tuple[str, ...]
    """Servers of the upstream."""
    api_by_name: str
    """The API's one name and port, to be resolved at each request in place of `api`; empty for none."""
    web: tuple[str, ...]
    names: tuple[str, ...]
    """Host names that may be led from clear text to TLS."""
    listeners: dict[str, tuple[str, ...]]
    """Addresses to listen at by what is spoken there: `plain`, and `tls` where there is a certificate."""
    public_tls_port: int
    acme: str
    state: str
    modules: str
    user: str
    workers: int
    connections: int
    resolver: str
    log_level: str
    access_log: str
    uncounted: tuple[str, ...]
    """Networks whose connections are not limited."""
    front: int
    """Connections of one client at most; 0 for no front that counts them."""


def check(edge: EdgeSettings, nginx: NginxSettings, found: Found) -> Checked:
    """Return everything that is written into the configuration, checked.

    Raises:
        RenderError: Some of it cannot be expressed.
    """
    checks = Checks()
    tls = nginx.certificate_dir is not None
    hosts = routes.hosts(edge.domain, edge.listen_host, edge.allowed_hosts)
    state = checks.path("C2L_NGINX_STATE_DIR", nginx.state_dir)
    if len(state) > 80:  # a Unix socket's path has at most 107 bytes
        checks.fault("C2L_NGINX_STATE_DIR", "a path of at most 80 bytes")
    if edge.domain and checks.host("C2L_EDGE_DOMAIN", edge.domain).startswith("["):
        checks.fault("C2L_EDGE_DOMAIN", "a domain")
    most = 2**40
    timeout = edge.authorize_timeout
    timeout_fits = 0 < timeout <= 3600
    if not timeout_fits:
        checks.fault("C2L_EDGE_AUTHORIZE_TIMEOUT", "seconds from 1 to 3600")
    checked = Checked(
        places=Places(
            data_body_limit=checks.number("C2L_EDGE_DATA_BODY_LIMIT", edge.data_body_limit, 1, most),
            api_body_limit=checks.number("C2L_EDGE_API_BODY_LIMIT", edge.api_body_limit, 1, most),
            authorize_timeout=max(1, round(timeout)) if timeout_fits else 1,
            stream_timeout=checks.number("C2L_NGINX_STREAM_TIMEOUT", nginx.stream_timeout, 1, 10**6),
            tls=tls,
            brotli=nginx.brotli,
            web_root=None if edge.web_root is None else checks.path("C2L_EDGE_WEB_ROOT", edge.web_root),
            site_root=None if nginx.site_root is None else checks.path("C2L_NGINX_SITE_ROOT", nginx.site_root),
            web=nginx.web is not None,
        ),
        api=_servers(checks, "C2L_EDGE_API", edge.api, found, state),
        api_by_name=checks.endpoint("C2L_EDGE_API", edge.api[0]) if found.ask_each_time and edge.api else "",
        web=_servers(checks, "C2L_NGINX_WEB", () if nginx.web is None else (nginx.web,), found, state),
        names=tuple(sorted(set(checks.hosts("C2L_EDGE_ALLOWED_HOSTS", hosts)))),
        listeners=_listeners(checks, edge, nginx, found),
        public_tls_port=checks.port("C2L_NGINX_PUBLIC_TLS_PORT", nginx.public_tls_port),
        acme=checks.path("C2L_NGINX_ACME_ROOT", nginx.acme_root),
        state=state,
        modules=checks.path("C2L_NGINX_MODULES_DIR", nginx.modules_dir),
        user=checks.user("C2L_NGINX_USER", nginx.user),
        workers=checks.number("C2L_NGINX_WORKERS", nginx.workers, 0, 512),
        connections=checks.number("C2L_NGINX_CONNECTIONS", nginx.connections, 64, 1_000_000),
        resolver=checks.resolver("C2L_NGINX_RESOLVER", nginx.resolver),
        log_level=checks.level("C2L_NGINX_ERROR_LOG_LEVEL", nginx.error_log_level),
        uncounted=tuple(str(network) for network in edge.trusted_proxies)
        + (("127.0.0.0/8", "::1/128") if script.exempts_loopback(edge) else ()),
        access_log=checks.path("C2L_NGINX_ACCESS_LOG", nginx.access_log),
        front=checks.number("C2L_EDGE_LIMIT_CONNECTIONS", edge.limit_connections, 0, 1_000_000),
    )
    if not edge.api:
        checks.fault("C2L_EDGE_API", "at least one endpoint")
    checks.finish()
    return checked


def _servers(checks: Checks, name: str, endpoints: tuple[Endpoint, ...], found: Found, state: str) -> tuple[str, ...]:
    """Return the servers of an upstream; nginx takes no empty one, so one that refuses where there are none."""
    servers = []
    for endpoint in endpoints:
        if endpoint.host is None or found.addresses is None:
            servers.append(checks.endpoint(name, endpoint))
            continue
        checks.host(name, endpoint.host)
        addresses = found.addresses.get(endpoint.host, ())
        servers += [checks.endpoint(name, Endpoint(host=address, port=endpoint.port)) for address in addresses]
    return tuple(dict.fromkeys(servers)) or (f"unix:{state}/nobody",)


def _listeners(checks: Checks, edge: EdgeSettings, nginx: NginxSettings, found: Found) -> dict[str, tuple[str, ...]]:
    host = checks.host("C2L_EDGE_LISTEN_HOST", edge.listen_host)
    ports = {"plain": checks.port("C2L_EDGE_LISTEN_PORT", edge.listen_port)}
    tls_port = checks.port("C2L_NGINX_TLS_PORT", nginx.tls_port)
    if nginx.certificate_dir is not None:
        ports["tls"] = tls_port
    if found.listening is None:
        return {name: (f"{host}:{port}",) for name, port in ports.items()}
    if not found.listening:
        return dict.fromkeys(ports, ())
    given = {name: tuple(str(one) for one in found.listening if one.port == port) for name, port in ports.items()}
    for name, addresses in given.items():
        if not addresses:
            checks.fault("C2L_NGINX_PORTS", f"a socket at port {ports[name]} among those handed over")
    return given
