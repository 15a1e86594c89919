"""Heads as they cross the proxy, both ways. Pure functions."""

import base64
import re
import secrets

from cloudtolocalllm.auth.assertion import KEY, Assertion
from cloudtolocalllm.contracts.home import KEY_ID, KEY_SCOPE, VIA
from cloudtolocalllm.proxy.problems import EXCHANGE_ID
from cloudtolocalllm.runtime.http1 import Body, BodyKind, Headers, Request
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY, end_to_end
from cloudtolocalllm.tunnel import RequestHead, ResponseHead

REQUEST_ID = b"c2l-request-id"
_EXCHANGE_ID = re.compile(rb"[A-Za-z0-9_-]{16,64}")
_LENGTH = re.compile(rb"[0-9]{1,15}")

_NOT_FOR_HOME = frozenset(
    {
        # The cloud's credentials: of no use at home, and a bridge's engine must never see them.
        b"authorization",
        b"cookie",
        b"x-api-key",
        # The bridge addresses its engine itself.
        b"host",
        # Where the client is, the home need not know.
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        # 100 (Continue) is given here, when a bridge has taken the request.
        b"expect",
    }
)
_OURS = b"c2l"
"""Begins the names of all fields that are ours to say, among them who asks and what they may do."""


class ResponseError(Exception):
    """An answer's head that cannot be passed on."""


def exchange_id(request: Request) -> bytes:
    """Return the client's name for the exchange if it gave one of the right form, else a new one."""
    given = request.field(EXCHANGE_ID)
    if given is not None and _EXCHANGE_ID.fullmatch(given):
        return given
    return secrets.token_urlsafe(16).encode()


def request_head(request: Request, claims: Assertion, exchange: bytes) -> RequestHead:
    """Return the head that goes to the bridge; Content-Length stays, since the bridge frames by it."""
    fields = [
        field
        for field in end_to_end(request.headers)
        if field[0] not in _NOT_FOR_HOME and not field[0].startswith(_OURS)
    ]
    fields.append((EXCHANGE_ID, exchange))
    if claims.via:
        fields.append((VIA, claims.via.encode("ascii", "replace")))
    if claims.via == KEY:
        fields.append((KEY_ID, claims.subject.encode("ascii", "replace")))
        fields.append((KEY_SCOPE, base64.urlsafe_b64encode(claims.scope.encode()).rstrip(b"=")))
    if claims.request_id:
        fields.append((REQUEST_ID, claims.request_id.encode("ascii", "replace")))
    return RequestHead(request.method, request.target, tuple(fields))


def response_fields(headers: Headers) -> Headers:
    """Return the fields that go to the client."""
    return tuple(field for field in end_to_end(headers) if field[0] != EXCHANGE_ID)


def response_body(method: str, head: ResponseHead) -> tuple[Body, int | None]:
    """Return how a response is delimited for the client, and how many bytes of content must come (None: any).

    Raises:
        ResponseError: Content-Length is malformed or given twice with different values (RFC 9112 §6.3).
    """
    lengths = {value for name, value in head.headers if name == b"content-length"}
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(value) for value in lengths):
        raise ResponseError("expected one Content-Length of decimal digits")
    if method == "HEAD" or head.status in (204, 304):
        return NO_BODY, 0
    if lengths:
        length = int(lengths.pop())
        return Body(BodyKind.LENGTH, length), length
    return CHUNKED, None
