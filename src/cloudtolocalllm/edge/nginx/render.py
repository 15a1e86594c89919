"""Renders nginx's configuration: pure, from settings to the text of files."""

from cloudtolocalllm.edge.nginx import script
from cloudtolocalllm.edge.nginx.checked import Checked, Found, check
from cloudtolocalllm.edge.nginx.fields import page_maps, security, security_maps
from cloudtolocalllm.edge.nginx.locations import locations
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.text import block
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.http1.messages import DEFAULT_LIMITS

CERTIFICATE = "fullchain.pem"
PRIVATE_KEY = "privkey.pem"
IN_USE = "certificate"
"""Folder in the state folder with the pair that nginx has: the last that was deployed and could be used, and a
self-signed one before the first."""
CONFIGURATION = "nginx.conf"
CLOSING = "closing"
"""File in the state folder; while it is there connections are closed after the answer under way."""
HEALTH = "health.sock"
"""Socket in the state folder that answers as long as a worker does."""
STANDING = Found()
TABLES = "limits"
"""Folder of the limits' counts in the state folder."""
_VARIABLES = (
    *("entered", "route", "slug", "detail", "code", "retry_after", "policy", "limit", "challenge", "nonce", "allow"),
    *("allow_origin", "allow_headers", "expose", "vary", "address", "scheme", "to_api", "to_proxy", "question"),
    *("whole", "path", "fresh", "broke", "closing"),
)
"""Those that the scripts and the configuration hand each other; empty at first."""
_CIPHERS = (
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    *("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
)
"""Mozilla's intermediate list for TLS 1.2 but for finite-field Diffie-Hellman, which nobody needs any more."""
_CIPHERSUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Mozilla's list for TLS 1.3, in its order; OpenSSL's own begins with 256 bits."""
_SENT = "128k"
"""Bytes in the kernel that a client has not taken. By itself it keeps up to 4 MB for each (net.ipv4.tcp_wmem), so 300
that read next to nothing would hold 1.1 GB. Enough for a megabyte a second around the world."""
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


def render(edge: EdgeSettings, nginx: NginxSettings, *, key: str = "", found: Found = STANDING) -> dict[str, str]:
    """Return nginx's configuration as texts by file name; the files belong into one folder.

    Args:
        edge: Who is let in and where requests go, as the embedded edge has it.
        nginx: How nginx is set up.
        key: A secret of this installation that keys the limits' tables, in letters and digits.
        found: What is known only when it runs.

    Raises:
        RenderError: Some settings cannot be expressed; the text lists all.
    """
    it = check(edge, nginx, found)
    site_host = edge.domain.lower() if edge.domain and nginx.site_root is not None else ""
    tables = f"{it.state}/{TABLES}"
    module = script.module(edge, tls=it.places.tls, front=it.front > 0, tables=tables, site_host=site_host, key=key)
    return {CONFIGURATION: _configuration(it), "settings.json": module, **script.scripts()}


def _configuration(it: Checked) -> str:
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


def _front(it: Checked) -> list[str]:
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
    for name, addresses in it.listeners.items():
        if not addresses:
            continue
        here = f"unix:{it.state}/{name}.sock"
        there = f"unix:{it.state}/full-{name}.sock"
        choice = ["volatile;", f"REJECTED_DRY_RUN {there};", f"default {here};"]
        lines.append(block(f"map $limit_conn_status $c2l_{name}", choice))
        listen = [f"listen {address} sndbuf={_SENT};" for address in addresses]
        lines.append(block("server", [*listen, f"proxy_pass $c2l_{name};"]))
    return lines


def _listen(it: Checked, name: str, *, full: bool = False, default: bool = True) -> list[str]:
    speaks = (" default_server" if default else "") + (" ssl http2" if name == "tls" else "")
    if it.front:
        return [f"listen unix:{it.state}/{'full-' if full else ''}{name}.sock{speaks} proxy_protocol;"]
    sent = f" sndbuf={_SENT}" if default else ""  # an option of the socket, which may be said once
    # nginx would make up an address for a server that has none
    places = it.listeners[name] or (f"unix:{it.state}/{name}.sock",)
    return [f"listen {place}{speaks}{sent};" for place in places]


# --- http ---


def _http(it: Checked) -> list[str]:
    served = _listen(it, "tls" if it.places.tls else "plain")
    servers = [block("server", _health(it)), block("server", _server(it, served))]
    if it.places.tls:
        servers += _redirects(it)
    if it.front:
        servers += [block("server", _full(it, _listen(it, name, full=True))) for name in it.listeners]
    return [
        *_general(it),
        *_scripts(it),
        *page_maps(),
        *security_maps(tls=it.places.tls),
        *_upstreams(it),
        *_tls(it),
        *servers,
    ]


def _general(it: Checked) -> list[str]:
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


def _scripts(it: Checked) -> list[str]:
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
        # The group of servers, or a name that is looked up.
        block("map $c2l_fresh $c2l_api", [f"default {it.api_by_name or 'c2l_api'};"]),
        # Nothing is sent to what is no endpoint: an empty one is an error of ours.
        block("map $c2l_v_endpoint $c2l_upstream", ["volatile;", f"{endpoint};", f"{address};", 'default "";']),
    ]


def _upstreams(it: Checked) -> list[str]:
    api = [
        "zone c2l_api 128k;",
        "least_conn;",
        # Not longer: when all were away for a moment, nobody is asked before it is over.
        *(f"server {endpoint} max_fails=1 fail_timeout=4s;" for endpoint in it.api),
        "keepalive 32;",
        "keepalive_timeout 4s;",  # less than a replica that ends keeps them (C2L_API_DRAIN_IDLE)
    ]
    web = [*(f"server {endpoint} max_fails=0;" for endpoint in it.web), "keepalive 8;"]
    return [block("upstream c2l_api", api), block("upstream c2l_web", web)]


def _tls(it: Checked) -> list[str]:
    if not it.places.tls:
        return []
    return [
        f"ssl_certificate {it.state}/{IN_USE}/{CERTIFICATE};",
        f"ssl_certificate_key {it.state}/{IN_USE}/{PRIVATE_KEY};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"ssl_ciphers {':'.join(_CIPHERS)};",
        f"ssl_conf_command Ciphersuites {':'.join(_CIPHERSUITES)};",
        # All are equally strong, so Mozilla leaves the choice to the client; scanners want an order all the same. A
        # phone that puts ChaCha first, for it has no AES in hardware, still gets that.
        "ssl_prefer_server_ciphers on;",
        "ssl_conf_command Options PrioritizeChaCha;",
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


def _health(it: Checked) -> list[str]:
    """Return the server that tells a container's health check that a worker answers."""
    answer = ["default_type text/plain;", 'return 200 "ok\\n";']
    listen = f"listen unix:{it.state}/{HEALTH};"
    return [listen, "server_name _;", "access_log off;", "keepalive_timeout 0;", block("location /", answer)]


def _server(it: Checked, listen: list[str]) -> list[str]:
    return [
        *listen,
        "server_name _;",
        *security(tls=it.places.tls, upgraded=False),
        *_errors(),
        # nginx closes idle connections the moment that it quits, which a request may be on its way on; so for a while
        # before, each answer says that its connection closes.
        block(f"if (-f {it.state}/{CLOSING})", ["set $c2l_closing close/;"]),
        # Once a request; error pages and subrequests pass here again. `set` first: while a rewrite is worked out the
        # request counts as an internal one already.
        block(
            'if ($c2l_entered = "")',
            ["set $c2l_entered 1;", "set $c2l_to $c2l_gate;", "rewrite ^ /_c2l/$c2l_closing$c2l_to last;"],
        ),
        *locations(it.places),
    ]


def _full(it: Checked, listen: list[str]) -> list[str]:
    detail = f"Expected at most {it.front} connections from one address; close some."
    return [
        *listen,
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


def _redirects(it: Checked) -> list[str]:
    """Return the servers in clear text: the challenges of ACME, and the way to TLS."""
    port = "" if it.public_tls_port == 443 else f":{it.public_tls_port}"
    first, further = _listen(it, "plain"), _listen(it, "plain", default=False)
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
        block("server", [*first, "server_name _;", *common, challenge, misdirected]),
        block("server", [*further, f"server_name {names};", *common, challenge, led]),
    ]
