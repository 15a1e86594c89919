"""Fields that the edge adds, keeps and drops."""

import re
import secrets

from cloudtolocalllm.contracts import authorize
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.http1.messages import end_to_end

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    b"connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
"""Strict: nothing from elsewhere, nothing inline, and no text becomes markup but through DOMPurify's own policy
(W3C Trusted Types), of which a page can make one."""
_PERMISSIONS = (
    b"accelerometer=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), "
    b"gyroscope=(), hid=(), microphone=(), midi=(), payment=(), serial=(), usb=()"
)
SECURITY: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", _PERMISSIONS),
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"server", b"cloudtolocalllm"),
)
"""On every answer, errors too; what an upstream says of these is dropped."""
_SECURITY_NAMES = frozenset(name for name, _ in SECURITY)

ASSERTED_BY_US = frozenset(
    {
        authorize.ASSERTION,
        authorize.ENDPOINT,
        authorize.DPOP_NONCE,
        authorize.STATUS,
        authorize.PROBLEM,
        authorize.DETAIL,
        authorize.FRESH,
    }
    | {authorize.RETRY_AFTER, authorize.ORIGINAL_METHOD, authorize.ORIGINAL_URI, authorize.ORIGINAL_HOST}
    | {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"forwarded"}
    | {b"x-request-id", b"expect"}
)
"""A client's own are dropped: the next hop believes them only because we set them."""
CREDENTIALS = frozenset({b"authorization", b"dpop", b"x-api-key", b"cookie"})
"""Not passed on to a proxy: the assertion stands for them."""

ON_THE_ORIGIN = frozenset(
    {b"set-cookie", b"clear-site-data", b"strict-transport-security", b"service-worker-allowed", b"alt-svc"}
    | {b"refresh", b"nel", b"report-to", b"reporting-endpoints", b"content-security-policy-report-only"}
    | {b"x-accel-buffering"}
)
"""Not passed on from home: a browser applies them to the page's whole origin, or a further proxy to itself."""

DPOP_NONCE = b"dpop-nonce"
"""RFC 9449 §8."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


def request_id(sent: bytes | None) -> bytes:
    """Return the client's request id if it is harmless, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return secrets.token_hex(8).encode()


def to_api(headers: Headers, id_: bytes, address: str, scheme: bytes = b"http") -> Headers:
    """Return the fields of a request that goes on to the API, with the client's address and what it speaks."""
    kept = [(name, value) for name, value in end_to_end(headers) if name not in ASSERTED_BY_US]
    return (*kept, (b"x-request-id", id_), (b"x-forwarded-for", address.encode()), (b"x-forwarded-proto", scheme))


def to_proxy(headers: Headers, id_: bytes, assertion: bytes) -> Headers:
    """Return the fields of a request that goes on to a user's proxy: no credential, no address of the client."""
    dropped = ASSERTED_BY_US | CREDENTIALS
    kept = [(name, value) for name, value in end_to_end(headers) if name not in dropped]
    return (*kept, (b"x-request-id", id_), (authorize.ASSERTION, assertion))


def to_client(headers: Headers, *, data: bool, extra: Headers = ()) -> Headers:
    """Return the fields of an upstream's answer as the client gets them, with further ones of ours."""
    kept = [
        (name, value)
        for name, value in end_to_end(headers)
        if name not in _SECURITY_NAMES and not name.startswith(b"access-control-")
    ]
    if data:
        kept = [(name, value) for name, value in kept if name not in ON_THE_ORIGIN]
        # For a further proxy in front of us that would gather the answer before it passes it on.
        kept.append((b"x-accel-buffering", b"no"))
    return (*kept, *SECURITY, *extra)


def to_upgraded(headers: Headers) -> Headers:
    """Return what of an upstream's 101 the client gets: the handshake, and the nonce for a bridge's next proof."""
    return tuple(
        (name, value)
        for name, value in end_to_end(headers)
        if name.startswith(b"sec-websocket-") or name == DPOP_NONCE
    )
