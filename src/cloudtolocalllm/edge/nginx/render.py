"""Renders nginx's configuration: pure, from settings to the text of files."""

from dataclasses import dataclass

from cloudtolocalllm.edge import routes
from cloudtolocalllm.edge.nginx import script
from cloudtolocalllm.edge.nginx.fields import page_maps, security, security_maps
from cloudtolocalllm.edge.nginx.locations import Places, locations
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.text import Checks, block
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.http1.messages import DEFAULT_LIMITS

CERTIFICATE = "fullchain.pem"
PRIVATE_KEY = "privkey.pem"
CONFIGURATION = "nginx.conf"
TABLES = "limits"
"""Folder of the limits' counts in the state folder."""
_VARIABLES = (
    *("entered", "route", "slug", "detail", "code", "retry_after", "policy", "limit", "challenge", "nonce", "allow"),
    *("allow_origin", "allow_headers", "expose", "vary", "address", "scheme", "to_api", "to_proxy", "question"),
    *("whole", "path", "fresh", "broke"),
)
"""Those that the scripts and the configuration hand each other; empty at first."""
_CIPHERS = (
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    *("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
)
"""Mozilla's intermediate list for TLS 1.2 but for finite-field Diffie-Hellman, which nobody needs any more."""
_LOG = (
    *('{"time":"$time_iso8601"', '"service":"nginx"', '"message":"request"', '"method":"$request_method"'),
    *('"route":"$c2l_route"', '"status":"$status"', '"bytes":"$body_bytes_sent"', '"seconds":"$request_time"'),
    *('"upstream_status":"$upstream_status"', '"problem":"$c2l_slug"', '"request_id":"$c2l_request_id"}'),
)
"""No target, no query, no address: as the embedded edge's."""
_TYPES = {
    "text/html": "html",
    "text/css": "css",
    "text/javascript": "js mjs",
    "text/plain": "txt",
    "text/xml": "xml",
    "application/json": "json map",
    "application/manifest+json": "webmanifest",
    "application/wasm": "wasm",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpg jpeg",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/gif": "gif",
    "image/vnd.microsoft.icon": "ico",
    "font/woff2": "woff2",
    "font/woff": "woff",
    "video/mp4": "mp4",
    "application/pdf": "pdf",
}


@dataclass(frozen=True, slots=True)
class _Checked:
    """Everything that is written into the configuration, checked."""

    places: Places
    api: tuple[str, ...]
    web: str | None
    names: tuple[str, ...]
    """Host names that may be led from clear text to TLS."""
    host: str
    port: int
    tls_port: int
    public_tls_port: int
    certificates: str | None
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


def render(edge: EdgeSettings, nginx: NginxSettings, *, key: str = "") -> dict[str, str]:
    """Return nginx's configuration as texts by file name; the files belong into one folder.

    Args:
        edge: Who is let in and where requests go, as the embedded edge has it.
        nginx: How nginx is set up.
        key: A secret of this installation that keys the limits' tables, in letters and digits.

    Raises:
        RenderError: Some settings cannot be expressed; the text lists all.
    """
    it = _check(edge, nginx)
    site_host = edge.domain.lower() if edge.domain and nginx.site_root is not None else ""
    tables = f"{it.state}/{TABLES}"
    module = script.module(
        edge, tls=it.certificates is not None, front=it.front > 0, tables=tables, site_host=site_host, key=key
    )
    return {CONFIGURATION: _configuration(it), "settings.json": module, **script.scripts()}


def _check(edge: EdgeSettings, nginx: NginxSettings) -> _Checked:
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
    checked = _Checked(
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
        api=tuple(checks.endpoint("C2L_EDGE_API", endpoint) for endpoint in edge.api),
        web=None if nginx.web is None else checks.endpoint("C2L_NGINX_WEB", nginx.web),
        names=tuple(sorted(set(checks.hosts("C2L_EDGE_ALLOWED_HOSTS", hosts)))),
        host=checks.host("C2L_EDGE_LISTEN_HOST", edge.listen_host),
        port=checks.port("C2L_EDGE_LISTEN_PORT", edge.listen_port),
        tls_port=checks.port("C2L_NGINX_TLS_PORT", nginx.tls_port),
        public_tls_port=checks.port("C2L_NGINX_PUBLIC_TLS_PORT", nginx.public_tls_port),
        certificates=checks.path("C2L_NGINX_CERTIFICATE_DIR", nginx.certificate_dir) if tls else None,
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
    if not checked.api:
        checks.fault("C2L_EDGE_API", "at least one endpoint")
    checks.finish()
    return checked


def _configuration(it: _Checked) -> str:
    modules = ["ngx_http_js_module", *(["ngx_http_brotli_static_module"] if it.places.brotli else [])]
    if it.front:
        modules += ["ngx_stream_module", "ngx_stream_js_module"]
    parts = [
        "# Written by `cloudtolocalllm nginx render`; changes here are lost.",
        *(f"load_module {it.modules}/{name}.so;" for name in modules),
        f"pid {it.state}/nginx.pid;",
        *([f"user {it.user};"] if it.user else []),
        f"worker_processes {it.workers or 'auto'};",
        "error_log stderr notice;",
        # A bridge holds a connection all day: without an end each reload would leave a worker for ever.
        f"worker_shutdown_timeout {it.places.stream_timeout}s;",
        "pcre_jit on;",
        block("events", [f"worker_connections {it.connections};"]),
        block("http", _http(it)),
        *([block("stream", _front(it))] if it.front else []),
    ]
    return "\n".join(parts) + "\n"


# --- connections are counted before anything is read of them ---


def _front(it: _Checked) -> list[str]:
    """Return what stands in front: `limit_conn` of http would count requests, not connections that only wait."""
    lines = [
        "js_preload_object settings from settings.json;",
        "js_import clients from clients.js;",
        "js_set $c2l_network clients.counted;",
        block("geo $c2l_uncounted", ["default 0;", *(f"{network} 1;" for network in it.uncounted)]),
        # A script's memory lasts as long as its connection, so it is asked about IPv6 only, for networks of 64 bits.
        block(
            "map $c2l_uncounted$remote_addr $c2l_counted",
            ["volatile;", '"~^1" "";', '"~:" $c2l_network;', "default $remote_addr;"],
        ),
        "limit_conn_zone $c2l_counted zone=clients:4m;",
        "limit_conn_dry_run on;",  # the refusal is an answer that says why
        f"limit_conn clients {it.front};",
        f"error_log stderr {it.log_level};",
        "proxy_protocol on;",
        "proxy_connect_timeout 3s;",
        f"proxy_timeout {it.places.stream_timeout + 60}s;",  # whoever is behind it decides first
        "proxy_socket_keepalive on;",
        "tcp_nodelay on;",
    ]
    for name, port in _listeners(it):
        here = f"unix:{it.state}/{name}.sock"
        there = f"unix:{it.state}/full-{name}.sock"
        choice = ["volatile;", f"REJECTED_DRY_RUN {there};", f"default {here};"]
        lines.append(block(f"map $limit_conn_status $c2l_{name}", choice))
        lines.append(block("server", [f"listen {it.host}:{port};", f"proxy_pass $c2l_{name};"]))
    return lines


def _listeners(it: _Checked) -> list[tuple[str, int]]:
    plain = ("plain", it.port)
    return [plain] if it.certificates is None else [plain, ("tls", it.tls_port)]


def _listen(it: _Checked, name: str, port: int, *, full: bool = False) -> str:
    speaks = " ssl http2" if name == "tls" else ""
    if it.front:
        return f"listen unix:{it.state}/{'full-' if full else ''}{name}.sock default_server{speaks} proxy_protocol;"
    return f"listen {it.host}:{port} default_server{speaks};"


# --- http ---


def _http(it: _Checked) -> list[str]:
    name, port = _listeners(it)[-1]
    servers = [block("server", _server(it, _listen(it, name, port)))]
    if it.certificates is not None:
        servers += _redirects(it)
    if it.front:
        servers += [
            block("server", _full(it, _listen(it, each, number, full=True))) for each, number in _listeners(it)
        ]
    return [
        *_general(it),
        *_scripts(),
        *page_maps(),
        *security_maps(tls=it.places.tls),
        *_upstreams(it),
        *_tls(it),
        *servers,
    ]


def _general(it: _Checked) -> list[str]:
    limits = DEFAULT_LIMITS
    return [
        f"log_format c2l escape=json '{','.join(_LOG)}';",
        f"access_log {it.access_log} c2l;",
        f"error_log stderr {it.log_level};",
        *(
            f"{kind}_temp_path {it.state}/{kind}_temp;"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
        block("types", [f"{type_} {endings};" for type_, endings in _TYPES.items()]),
        "default_type application/octet-stream;",
        "charset utf-8;",
        "charset_types text/css text/javascript text/plain text/xml;",
        "server_tokens off;",
        "sendfile on;",
        "tcp_nopush on;",
        "tcp_nodelay on;",
        "gzip_vary on;",
        "gzip_proxied any;",
        "underscores_in_headers on;",
        "port_in_redirect off;",
        "recursive_error_pages on;",
        "reset_timedout_connection on;",
        f"client_header_timeout {limits.head_timeout:.0f}s;",
        f"client_body_timeout {limits.body_timeout:.0f}s;",
        f"keepalive_timeout {limits.idle_timeout:.0f}s;",
        f"send_timeout {limits.write_timeout:.0f}s;",
        "lingering_timeout 5s;",
        "lingering_time 10s;",
        "client_header_buffer_size 2k;",
        # A line may be as long as a whole head; gate.js counts the whole.
        f"large_client_header_buffers 4 {limits.max_head // 1024}k;",
        "client_body_buffer_size 64k;",
        "client_max_body_size 64k;",
        "proxy_http_version 1.1;",
        "proxy_redirect off;",
        "proxy_buffer_size 32k;",
        "proxy_buffers 4 32k;",
        "proxy_busy_buffers_size 64k;",
        "variables_hash_max_size 2048;",
        *([f"resolver {it.resolver} valid=1s;", "resolver_timeout 2s;"] if it.resolver else []),
    ]


def _scripts() -> list[str]:
    endpoint = '"~^unix:/[A-Za-z0-9_./+-]+\\z" "$c2l_v_endpoint:"'
    address = '"~^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}\\z" $c2l_v_endpoint'
    return [
        "js_preload_object settings from settings.json;",  # one for all requests
        "js_import gate from gate.js;",
        *(f'js_var $c2l_{name} "";' for name in _VARIABLES),
        "js_set $c2l_gate gate.gate;",
        "js_set $c2l_document gate.problem;",
        "js_set $c2l_verdict gate.verdict;",
        "js_set $c2l_broken gate.broken;",
        "js_set $c2l_unreached gate.unreached;",
        block(
            "map $http_x_request_id $c2l_request_id",
            ['"~^[A-Za-z0-9_.-]{1,64}\\z" $http_x_request_id;', "default $request_id;"],
        ),
        # Nothing is sent to what is no endpoint: an empty one is an error of ours.
        block("map $c2l_v_endpoint $c2l_upstream", ["volatile;", f"{endpoint};", f"{address};", 'default "";']),
    ]


def _upstreams(it: _Checked) -> list[str]:
    api = [
        "zone c2l_api 128k;",
        "least_conn;",
        *(f"server {endpoint} max_fails=1 fail_timeout=2s;" for endpoint in it.api),
        "keepalive 32;",
    ]
    upstreams = [block("upstream c2l_api", api)]
    if it.web is not None:
        upstreams.append(block("upstream c2l_web", [f"server {it.web} max_fails=0;", "keepalive 8;"]))
    return upstreams


def _tls(it: _Checked) -> list[str]:
    if it.certificates is None:
        return []
    return [
        f"ssl_certificate {it.certificates}/{CERTIFICATE};",
        f"ssl_certificate_key {it.certificates}/{PRIVATE_KEY};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"ssl_ciphers {':'.join(_CIPHERS)};",
        "ssl_prefer_server_ciphers off;",
        "ssl_ecdh_curve X25519:prime256v1:secp384r1;",
        "ssl_session_cache shared:c2l_tls:4m;",
        "ssl_session_timeout 1d;",
        "ssl_session_tickets off;",
        "http2_max_concurrent_streams 128;",
    ]


def _errors() -> list[str]:
    """Return the answers to what cannot be read as a request at all."""
    pairs = ((405, 405), (408, 408), (413, 413), (414, 414), (494, 431), (500, 500), (505, 505))
    plain = [f"error_page {status} = /_c2l/refuse/{answer};" for status, answer in pairs]
    return [*plain, "error_page 400 497 501 = /_c2l/cut/400;"]


def _server(it: _Checked, listen: str) -> list[str]:
    return [
        listen,
        "server_name _;",
        *security(tls=it.places.tls, upgraded=False),
        *_errors(),
        # Once a request; error pages and subrequests pass here again. `set` first: while a rewrite is worked out the
        # request counts as an internal one already.
        block(
            'if ($c2l_entered = "")',
            ["set $c2l_entered 1;", "set $c2l_to $c2l_gate;", "rewrite ^ /_c2l/$c2l_to last;"],
        ),
        *locations(it.places),
    ]


def _full(it: _Checked, listen: str) -> list[str]:
    detail = f"Expected at most {it.front} connections from one address; close some."
    return [
        listen,
        "client_header_timeout 1s;",
        "keepalive_timeout 0;",
        "set $c2l_code 429;",
        "set $c2l_slug rate-limited;",
        f'set $c2l_detail "{detail}";',
        "default_type application/problem+json;",
        *security(tls=it.places.tls, upgraded=False),
        "add_header Cache-Control no-store always;",
        "add_header Retry-After 10 always;",
        block("location /", ["return 429 $c2l_document;"]),
    ]


def _redirects(it: _Checked) -> list[str]:
    """Return the servers in clear text: the challenges of ACME, and the way to TLS."""
    port = "" if it.public_tls_port == 443 else f":{it.public_tls_port}"
    listen = _listen(it, "plain", it.port)
    challenge = block(
        "location ^~ /.well-known/acme-challenge/",
        [f"root {it.acme};", "default_type text/plain;", "try_files $uri =404;", "disable_symlinks on;"],
    )
    common = [*security(tls=False, upgraded=False), "client_max_body_size 64k;"]
    misdirected = block(
        "location /",
        [
            "default_type application/problem+json;",
            "set $c2l_code 421;",
            "set $c2l_slug not-found;",
            'set $c2l_detail "This server does not answer to that host name; its owner can allow more of them.";',
            "return 421 $c2l_document;",
        ],
    )
    led = block("location /", [f"return 308 https://$host{port}$request_uri;"])
    names = " ".join(it.names)
    return [
        block("server", [listen, "server_name _;", *common, challenge, misdirected]),
        block("server", [listen.replace(" default_server", ""), f"server_name {names};", *common, challenge, led]),
    ]
