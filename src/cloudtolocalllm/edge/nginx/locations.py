"""The locations of the server that serves: one a route, and one a status for what is answered here.

The path of a request chooses none of them: the script `gate` does, and `rewrite` leads there, so that nginx's own
reading of a path (it decodes and joins) decides nothing.
"""

from dataclasses import dataclass

from cloudtolocalllm.contracts import authorize
from cloudtolocalllm.edge import headers
from cloudtolocalllm.edge.answers import NOT_PASSED_ON
from cloudtolocalllm.edge.nginx.fields import security, security_names
from cloudtolocalllm.edge.nginx.script import GATHERED, STATUSES
from cloudtolocalllm.edge.nginx.text import block

CUT_STATUSES = (400, 414, 417, 431, 501)
"""After these the connection is closed: nobody knows where the next request begins."""
_CORS = (
    *("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Headers"),
    *("Access-Control-Allow-Methods", "Access-Control-Allow-Private-Network", "Access-Control-Expose-Headers"),
    *("Access-Control-Max-Age", "Access-Control-Allow-Local-Network"),
)
"""Every field of an answer that CORS knows."""
_ACCEL = "X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset"
"""What nginx would obey if an upstream said it: from home this could name any location here."""
_VERDICT = (
    ("endpoint", "c2l_endpoint"),
    ("assertion", "c2l_assertion"),
    ("status", "c2l_status"),
    ("problem", "c2l_problem"),
    ("detail", "c2l_detail"),
    ("retry_after", "c2l_retry_after"),
    ("nonce", "c2l_dpop_nonce"),
    ("challenge", "www_authenticate"),
)
"""What is kept of the API's answer: our variable's ending, and nginx's name of the field."""


@dataclass(frozen=True, slots=True)
class Places:
    """What the locations need of the settings, checked."""

    data_body_limit: int
    api_body_limit: int
    authorize_timeout: int
    stream_timeout: int
    tls: bool
    brotli: bool
    web_root: str | None
    site_root: str | None
    web: bool


def locations(places: Places) -> list[str]:
    """Return the blocks."""
    return [
        *_api(places),
        *_data(places),
        *_pages(places),
        block(
            "location = /_c2l/health",
            ["internal;", *_small(), "default_type application/json;", 'return 200 \'{"status":"ok"}\';'],
        ),
        *_preflight(places),
        *(_refusal(places, "refuse", status) for status in STATUSES),
        *(_refusal(places, "cut", status) for status in CUT_STATUSES),
        *_detours(places),
        # A request's connection stays marked, wherever the request goes from here.
        block(
            "location ^~ /_c2l/close/",
            ["internal;", *_small(), "keepalive_timeout 0;", 'rewrite "^/_c2l/close/(.*)\\z" /_c2l/$1 last;'],
        ),
        # Where a script that failed leaves a request.
        block("location /", ["internal;", *_small(), "rewrite ^ /_c2l/refuse/500 last;"]),
    ]


def _small() -> list[str]:
    """Content of a request that nobody reads is thrown away by nginx; it need not be refused for its size."""
    return ["client_max_body_size 0;"]


def _hidden(names: tuple[str, ...]) -> list[str]:
    return [f"proxy_hide_header {name};" for name in dict.fromkeys(name.title() for name in names)]


# --- the API ---


def _to_api() -> list[str]:
    return [
        "proxy_pass http://$c2l_api$request_uri;",
        "proxy_pass_request_headers off;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Request-Id $c2l_to_api;",
        "proxy_set_header X-Forwarded-For $c2l_address;",
        "proxy_set_header X-Forwarded-Proto $c2l_scheme;",
        f"proxy_ignore_headers {_ACCEL};",
        *_hidden((*security_names(), *_CORS)),
    ]


def _api(places: Places) -> list[str]:
    errors = ["error_page 400 = @bad;", "error_page 413 = @too_large_api;", "error_page 500 = @internal;"]
    errors += ["error_page 502 = @broke;", "error_page 504 = @late;"]
    return [
        block(
            "location = /_c2l/api",
            [
                "internal;",
                *errors,
                f"client_max_body_size {places.api_body_limit};",
                "client_body_timeout 15s;",  # these contents are small; nobody pauses in one for a minute
                *_to_api(),
                *_hidden(("Upgrade",)),
                "proxy_pass_header X-Accel-Buffering;",  # for a further proxy in front of an event stream
                'proxy_set_header Connection "";',
                "proxy_buffering off;",
                # Another replica is asked when one cannot be reached or died over a request that may be repeated,
                # and not when one is merely slow: the time for that is over by then.
                "proxy_next_upstream error timeout;",
                "proxy_next_upstream_timeout 20s;",
                "proxy_next_upstream_tries 4;",
                "proxy_connect_timeout 1s;",
                "proxy_read_timeout 30s;",
                "proxy_send_timeout 30s;",
            ],
        ),
        block(
            "location = /_c2l/api-websocket",
            [
                "internal;",
                *errors,
                *security(tls=places.tls, upgraded=True),
                *_switching(),
                *_to_api(),
                "proxy_set_header Connection upgrade;",
                "proxy_set_header Upgrade websocket;",
                "proxy_next_upstream error timeout;",
                "proxy_next_upstream_timeout 20s;",
                "proxy_connect_timeout 1s;",
                f"proxy_read_timeout {places.stream_timeout}s;",
                f"proxy_send_timeout {places.stream_timeout}s;",
            ],
        ),
    ]


# --- the data path ---


def _ask() -> list[str]:
    kept = [f"auth_request_set $c2l_v_{ours} $upstream_http_{field};" for ours, field in _VERDICT]
    return ["auth_request /_c2l/authorize;", *kept, "auth_request_set $c2l_asked $upstream_status;"]


def _to_proxy(places: Places) -> list[str]:
    on_the_origin = tuple(name.decode() for name in sorted(headers.ON_THE_ORIGIN))
    return [
        "proxy_pass http://$c2l_upstream$request_uri;",
        "proxy_pass_request_headers off;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header X-Request-Id $c2l_to_proxy;",
        "proxy_set_header C2L-Assertion $c2l_v_assertion;",
        f"proxy_ignore_headers {_ACCEL} Expires Cache-Control Set-Cookie Vary;",
        *_hidden((*security_names(), *_CORS, *on_the_origin)),
        "proxy_buffering off;",
        "proxy_next_upstream off;",
        "proxy_connect_timeout 2s;",
        f"proxy_read_timeout {places.stream_timeout}s;",
        f"proxy_send_timeout {places.stream_timeout}s;",
    ]


def _data(places: Places) -> list[str]:
    limit = f"client_max_body_size {places.data_body_limit};"
    errors = ["error_page 400 = @bad;", "error_page 401 403 500 = @verdict;", "error_page 413 = @too_large_data;"]
    first = [*errors, "error_page 502 = @unreached;", "error_page 504 = @unreached_late;"]
    last = [*errors, "error_page 502 = @broke;", "error_page 504 = @late;"]
    fields = [
        *security(tls=places.tls, upgraded=False),
        *_cors_fields(),
        "add_header X-Accel-Buffering no always;",  # for a further proxy in front
    ]
    passed = ["js_header_filter gate.final;", *_to_proxy(places), *_hidden(("Upgrade",))]
    plain = [limit, *fields, *_ask(), *passed]
    return [
        block("location = /_c2l/data", ["internal;", *first, f"client_body_buffer_size {GATHERED};", *plain]),
        block("location = /_c2l/upload", ["internal;", *first, "proxy_request_buffering off;", *plain]),
        block("location = /_c2l/again", ["internal;", *last, "set $c2l_fresh 1;", *plain]),
        block(
            "location = /_c2l/tunnel",
            [
                *("internal;", *first, *_upgrade(places)),
            ],
        ),
        block("location = /_c2l/tunnel-again", ["internal;", *last, "set $c2l_fresh 1;", *_upgrade(places)]),
        block(
            "location = /_c2l/renew",
            ["internal;", *errors, limit, "set $c2l_fresh 1;", *_ask(), "try_files /_c2l/nothing @gone;"],
        ),
        block(
            "location = /_c2l/authorize",
            [
                "internal;",
                *_small(),  # the subrequest has the length of the request's content, though not the content
                "proxy_pass http://$c2l_api/internal/authorize;",
                "proxy_method GET;",
                "proxy_pass_request_headers off;",
                "proxy_pass_request_body off;",
                'proxy_set_header Content-Length "";',
                'proxy_set_header Transfer-Encoding "";',
                'proxy_set_header Connection "";',
                "proxy_set_header Host api;",
                "proxy_set_header X-Request-Id $c2l_question;",
                "proxy_set_header X-Original-Method $request_method;",
                "proxy_set_header X-Original-Uri $request_uri;",
                "proxy_set_header X-Original-Host $http_host;",
                "proxy_set_header C2L-Fresh $c2l_fresh;",
                f"proxy_ignore_headers {_ACCEL};",
                "proxy_next_upstream error timeout;",
                "proxy_next_upstream_tries 4;",
                f"proxy_next_upstream_timeout {places.authorize_timeout}s;",
                "proxy_connect_timeout 1s;",
                f"proxy_read_timeout {places.authorize_timeout}s;",
                "proxy_send_timeout 5s;",
            ],
        ),
    ]


def _switching() -> list[str]:
    # Only a Server field that came from an upstream can be taken out again; nginx's own it would write itself.
    return ["js_header_filter gate.switched;", "proxy_pass_header Server;"]


def _upgrade(places: Places) -> list[str]:
    return [
        *security(tls=places.tls, upgraded=True),
        *_switching(),
        *_ask(),
        *_to_proxy(places),
        "proxy_set_header Connection upgrade;",
        "proxy_set_header Upgrade websocket;",
    ]


def _cors_fields() -> list[str]:
    return [
        "add_header Access-Control-Allow-Origin $c2l_allow_origin always;",
        "add_header Access-Control-Expose-Headers $c2l_expose always;",
        "add_header Vary $c2l_vary always;",
    ]


def _preflight(places: Places) -> list[str]:
    lines = ["internal;", *_small(), *security(tls=places.tls, upgraded=False), *_cors_fields()]
    lines += [
        'add_header Access-Control-Allow-Methods "GET, HEAD, POST, DELETE" always;',
        "add_header Access-Control-Allow-Headers $c2l_allow_headers always;",
        "add_header Access-Control-Max-Age 600 always;",
        'add_header Vary "Access-Control-Request-Method, Access-Control-Request-Headers" always;',
        "return 204;",
    ]
    return [block("location = /_c2l/preflight", lines)]


# --- the page ---


def _pages(places: Places) -> list[str]:
    if places.web:
        credentials = sorted(name.decode() for name in headers.CREDENTIALS | {authorize.ASSERTION})
        body = [
            "proxy_pass http://c2l_web$request_uri;",
            "proxy_set_header Host $http_host;",
            'proxy_set_header Connection "";',
            "proxy_set_header X-Request-Id $c2l_request_id;",
            *(f'proxy_set_header {name} "";' for name in credentials),
            f"proxy_ignore_headers {_ACCEL};",
            *_hidden((*security_names(), *_CORS, "Set-Cookie")),
            "proxy_max_temp_file_size 0;",  # it would lie in the state folder, and so in memory
            "proxy_connect_timeout 1s;",
            "proxy_read_timeout 30s;",
            "error_page 502 = @broke;",
            "error_page 504 = @late;",
        ]
        static = block("location = /_c2l/static", ["internal;", *body])
    else:
        static = _files("static", places.web_root, places)
    return [static, *([_files("site", places.site_root, places)] if places.site_root else [])]


def _files(name: str, root: str | None, places: Places) -> str:
    if root is None:
        return block(
            f"location = /_c2l/{name}", ["internal;", *_small(), "return 404;", "error_page 404 = @no_page;"]
        )
    return block(
        f"location = /_c2l/{name}",
        [
            "internal;",
            *_small(),
            f"root {root};",
            "disable_symlinks on;",
            "try_files $c2l_path $c2l_page =404;",
            "gzip_static on;",
            *(["brotli_static on;"] if places.brotli else []),
            *security(tls=places.tls, upgraded=False),
            "add_header Cache-Control $c2l_cache;",
            "error_page 400 403 404 405 500 = @no_page;",
        ],
    )


# --- answered here ---


def _refusal(places: Places, name: str, status: int) -> str:
    return block(
        f"location = /_c2l/{name}/{status}",
        [
            "internal;",
            *_small(),
            *(["keepalive_timeout 0;"] if name == "cut" else []),
            "default_type application/problem+json;",
            *security(tls=places.tls, upgraded=False),
            *_cors_fields(),
            "add_header Cache-Control no-store always;",
            "add_header Retry-After $c2l_retry_after always;",
            "add_header RateLimit-Policy $c2l_policy always;",
            "add_header RateLimit $c2l_limit always;",
            "add_header WWW-Authenticate $c2l_challenge always;",
            "add_header DPoP-Nonce $c2l_nonce always;",
            "add_header Allow $c2l_allow always;",
            f"set $c2l_code {status};",
            f"return {status} $c2l_document;",
        ],
    )


def _detours(places: Places) -> list[str]:
    """Return the ways from nginx's own errors to an answer."""

    def stated(name: str, status: int, slug: str, detail: str) -> str:
        lines = [f"set $c2l_slug {slug};", f'set $c2l_detail "{detail}";', f"rewrite ^ /_c2l/refuse/{status} last;"]
        return block(f"location @{name}", lines)

    def asked(name: str, variable: str, broke: int) -> str:
        return block(f"location @{name}", [f"set $c2l_broke {broke};", f"rewrite ^ /_c2l/${variable} last;"])

    large = "Expected at most {} bytes of content."
    return [
        asked("verdict", "c2l_verdict", 500),
        asked("broke", "c2l_broken", 502),
        asked("late", "c2l_broken", 504),
        asked("unreached", "c2l_unreached", 502),
        asked("unreached_late", "c2l_unreached", 504),
        block(
            "location @gone",
            [
                "set $c2l_slug overloaded;",
                "set $c2l_retry_after 1;",
                'set $c2l_detail "The streaming proxy has just ended; try again.";',
                "rewrite ^ /_c2l/refuse/503 last;",
            ],
        ),
        block(
            "location @bad",
            [
                "set $c2l_slug bad-request;",
                'set $c2l_detail "The content could not be read.";',
                "rewrite ^ /_c2l/cut/400 last;",
            ],
        ),
        stated("internal", 500, "internal", NOT_PASSED_ON),
        stated("no_page", 404, "not-found", "This server has no such page."),
        stated("too_large_data", 413, "too-large", large.format(places.data_body_limit)),
        stated("too_large_api", 413, "too-large", large.format(places.api_body_limit)),
    ]
