"""Fields of what serves pages to browsers: those of every answer, and those that are never passed on."""

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

ON_THE_ORIGIN = frozenset(
    {b"set-cookie", b"clear-site-data", b"strict-transport-security", b"service-worker-allowed", b"alt-svc"}
    | {b"refresh", b"nel", b"report-to", b"reporting-endpoints", b"content-security-policy-report-only"}
    | {b"x-accel-buffering"}
)
"""Not passed on from home: a browser applies them to the page's whole origin, or a further proxy to itself."""


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
