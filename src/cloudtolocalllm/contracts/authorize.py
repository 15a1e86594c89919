"""The question an edge asks about each request on the data path, and its answer.

Shaped for nginx's auth_request: a subrequest with the original request's fields, answered by 200, 401 or 403 and
header fields. The edge passes `C2L-Assertion` on to the endpoint and removes any that a client sent.
"""

AUTHORIZE_TARGET = "/internal/authorize"
"""On the API's own listener; an edge never forwards /internal/ from outside."""

ORIGINAL_METHOD = b"x-original-method"
ORIGINAL_URI = b"x-original-uri"
ORIGINAL_HOST = b"x-original-host"
FRESH = b"c2l-fresh"
"""Sent with value "1" when the endpoint of an earlier answer did not accept a connection: look again."""

ENDPOINT = b"c2l-endpoint"
ASSERTION = b"c2l-assertion"
STATUS = b"c2l-status"
"""With 401 and 403: the status to answer with, since auth_request knows only those two."""
PROBLEM = b"c2l-problem"
"""With 401 and 403: the slug of the problem type."""
DETAIL = b"c2l-detail"
"""With 401 and 403: the sentence for people, ASCII."""
RETRY_AFTER = b"c2l-retry-after"
DPOP_NONCE = b"c2l-dpop-nonce"
"""With 401 to a bridge: the nonce for its next proof (RFC 9449 §8), which the edge passes on as DPoP-Nonce."""
CHALLENGE = b"www-authenticate"
"""With 401 to a bridge: what was wrong with its proof; under its own name since auth_request passes that one on."""

FORWARDED_FIELDS = frozenset(
    {b"authorization", b"dpop", b"x-api-key", b"cookie", b"origin", b"sec-fetch-site"}
    | {b"c2l-request", b"x-request-id"}
)
"""Fields of the original request that the question carries."""

CSRF_FIELD = b"c2l-request"
"""Required, with any value, on state-changing and data requests that a session cookie authenticates."""

SEALED_PREFIX = "/e2e/"
"""Followed by a bridge's id: requests that only this bridge can read."""
DATA_PREFIXES = ("/v1/", "/ollama/", "/anthropic/", "/c2l/", SEALED_PREFIX)
TUNNEL_TARGET = "/ws/tunnel"
"""Where bridges dial; authorised like a data request, by the bridge's credential."""
