"""What the scripts inside nginx know: the constants of this package and the settings, as JSON."""

import json
from collections.abc import Iterable
from importlib import resources

from cloudtolocalllm.contracts import authorize
from cloudtolocalllm.contracts.problems import TYPE_PREFIX, Problem
from cloudtolocalllm.edge import headers, limits, origins, routes
from cloudtolocalllm.edge.answers import NOT_PASSED_ON
from cloudtolocalllm.edge.clients import Network, is_loopback
from cloudtolocalllm.edge.limits import Kind, Rate
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.http1.messages import DEFAULT_LIMITS, HOP_BY_HOP

SCRIPTS = ("gate.js", "clients.js", "limits.js")
GATHERED = 256 * 1024
"""Bytes of content up to which a request is read whole before its proxy is sought: then it can be sent to another. No
model begins before it has all of it anyway; more of it streams through."""
WAYS = 8
SETS = limits.MAX_CLIENTS // WAYS
TABLE_SIZE = SETS * (WAYS + 1) * 16
"""Bytes of the file of one kind."""
STATUSES = (
    *(400, 401, 402, 403, 404, 405, 408, 409, 410, 411, 413, 414, 415, 417, 421, 422, 429, 431, 451),
    *(500, 501, 502, 503, 504, 505, 507),
)
"""Those that an answer of the edge itself may have."""
METHODS = (
    *("DELETE", "GET", "HEAD", "POST", "PUT", "CONNECT", "OPTIONS", "TRACE", "COPY", "LOCK", "MKCOL", "MOVE"),
    *("PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND", "REBIND", "UNBIND", "ACL", "REPORT", "MKACTIVITY"),
    *("CHECKOUT", "MERGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PATCH", "PURGE", "MKCALENDAR"),
    *("LINK", "UNLINK", "SOURCE", "QUERY"),
)
"""As llhttp, which the embedded edge reads with."""
_SPARE = {"host", "content-length"}
"""Fields that nginx writes itself."""
_DETAILS = {
    "too-large": "The request is larger than this server takes.",
    "method-not-allowed": "This server has no such method.",
    "internal": NOT_PASSED_ON,
    "timed-out": "The request took too long.",
}


def kind_file(kind: Kind) -> str:
    """Return the name of the file with a kind's buckets."""
    return kind.value


def scripts() -> dict[str, str]:
    """Return the scripts by file name."""
    folder = resources.files("cloudtolocalllm.edge.nginx")
    return {name: folder.joinpath(name).read_text() for name in SCRIPTS}


def exempts_loopback(edge: EdgeSettings) -> bool:
    """Tell whether clients on this machine are not limited (as the embedded edge decides)."""
    return is_loopback(edge.listen_host) and not edge.domain and not edge.limit_loopback


def module(edge: EdgeSettings, *, tls: bool, front: bool, tables: str, site_host: str, key: str) -> str:
    """Return the object `settings` of the scripts, as JSON.

    Args:
        edge: What was configured.
        tls: Whether TLS ends here.
        front: Whether connections come through the counting front.
        tables: Folder of the buckets.
        site_host: The host that has the marketing pages; empty for none.
        key: Keys the buckets' hash, against made collisions.
    """
    rates = {
        Kind.SIGN_IN: edge.limit_sign_in,
        Kind.API: edge.limit_api,
        Kind.DATA: edge.limit_data,
        Kind.STATIC: edge.limit_static,
    }
    values = {
        **_constants(),
        "hosts": _set(routes.hosts(edge.domain, edge.listen_host, edge.allowed_hosts)),
        "trusted": [_network(network) for network in edge.trusted_proxies],
        "corsOrigins": _set(edge.cors_origins),
        "shares": bool(edge.cors_origins),
        "rates": {kind.value: _rate(rate) for kind, rate in rates.items() if rate is not None},
        "exemptsLoopback": exempts_loopback(edge),
        "tls": tls,
        "front": front,
        "siteHost": site_host,
        "table": {"folder": tables, "sets": SETS, "ways": WAYS, "key": key},
    }
    return json.dumps(values, ensure_ascii=True, indent=1) + "\n"


def _constants() -> dict[str, object]:
    problems = [problem.value for problem in Problem]
    dropped = {name.decode() for name in headers.ASSERTED_BY_US} | _SPARE
    return {
        "gathered": GATHERED,
        "maxHead": DEFAULT_LIMITS.max_head,
        "maxFields": DEFAULT_LIMITS.max_fields,
        "maxTarget": DEFAULT_LIMITS.max_target,
        "methods": _set(METHODS),
        "dataPrefixes": authorize.DATA_PREFIXES,
        "tunnel": authorize.TUNNEL_TARGET,
        "signIn": limits.SIGN_IN_PREFIXES,
        "notSignIn": _set(limits.NOT_SIGN_IN),
        "kinds": {
            route.value: limits.kind_of(route, "/").value for route in routes.Route if route is not routes.Route.API
        }
        | {"api": Kind.API.value},
        "exposed": origins.EXPOSED.decode(),
        "hopByHop": _set(name.decode() for name in HOP_BY_HOP),
        "asked": _set(name.decode() for name in authorize.FORWARDED_FIELDS - {b"x-request-id"}),
        "droppedToApi": _set(dropped),
        "droppedToProxy": _set(dropped | {name.decode() for name in headers.CREDENTIALS}),
        "typePrefix": TYPE_PREFIX,
        "titles": {problem.slug: problem.title for problem in problems},
        "statusOf": {problem.slug: problem.status for problem in problems},
        "byStatus": {
            **{400: "bad-request", 404: "not-found", 405: "method-not-allowed", 408: "timed-out", 413: "too-large"},
            **{
                414: "too-large",
                431: "too-large",
                501: "method-not-allowed",
                504: "timed-out",
                503: "overloaded",
                505: "bad-request",
            },
        },
        "details": _DETAILS,
        "statuses": _set(str(status) for status in STATUSES),
    }


def _set(names: Iterable[str]) -> dict[str, bool]:
    """Return names as an object of JavaScript that is asked for each of them."""
    return dict.fromkeys(sorted(names), True)


def _network(network: Network) -> dict[str, object]:
    packed = network.network_address.packed
    words = [packed[at] * 256 + packed[at + 1] for at in range(0, len(packed), 2)]
    return {"words": words, "bits": network.prefixlen}


def _rate(rate: Rate) -> dict[str, object]:
    return {
        "count": rate.count,
        "window": rate.window,
        "burst": rate.burst,
        "interval": 1000 * rate.window / rate.count,
        "text": str(rate),
    }
