"""Fields that the edge adds, keeps and drops."""

import re
import secrets

from cloudtolocalllm.contracts import authorize
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.http1.messages import end_to_end
from cloudtolocalllm.runtime.page_fields import CONTENT_SECURITY_POLICY as CONTENT_SECURITY_POLICY
from cloudtolocalllm.runtime.page_fields import ON_THE_ORIGIN as ON_THE_ORIGIN
from cloudtolocalllm.runtime.page_fields import SECURITY as SECURITY
from cloudtolocalllm.runtime.page_fields import to_client as to_client

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


def to_upgraded(headers: Headers) -> Headers:
    """Return what of an upstream's 101 the client gets: the handshake, and the nonce for a bridge's next proof."""
    return tuple(
        (name, value)
        for name, value in end_to_end(headers)
        if name.startswith(b"sec-websocket-") or name == DPOP_NONCE
    )
