"""Header fields between the cloud and an engine: what is passed on, dropped and put in."""

import re

from cloudtolocalllm.runtime.http1 import Body, BodyKind, Headers
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY, end_to_end

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters (RFC 9110 §5.5): CR and LF would begin another field or request at the engine."""
MAX_FIELDS = 100
_WITH_CONTENT = frozenset({"POST", "DELETE"})
"""Methods whose routes take content; Ollama's DELETE names the model in it."""

_DROPPED_TO_ENGINE = frozenset(
    {
        b"host",
        b"origin",
        b"referer",
        b"cookie",
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"api-key",
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"accept-encoding",  # a compressed answer would sit in the engine's compressor instead of streaming
        b"content-length",  # written anew from the framing
        b"expect",  # content follows at once
    }
)
_DROPPED_PREFIXES = (b"c2l-", b"x-forwarded-", b"x-original-", b"sec-", b"access-control-")
_DROPPED_FROM_ENGINE = frozenset(
    {
        b"set-cookie",
        b"server",
        b"x-powered-by",
        b"www-authenticate",
        b"proxy-authenticate",
        b"location",
        b"alt-svc",
        b"clear-site-data",
        b"service-worker-allowed",
        b"strict-transport-security",
        b"refresh",
    }
)
_DROPPED_FROM_ENGINE_PREFIXES = (b"access-control-", b"c2l-")


class FieldsRefusedError(ValueError):
    """The request's fields could mean another request to the engine. The text quotes none of them."""


def to_engine(headers: Headers, authority: bytes, authorization: bytes | None) -> Headers:
    """Return the fields of a request to an engine.

    Args:
        headers: As they came out of the tunnel.
        authority: The engine's host and port.
        authorization: From local configuration only; None for an engine without a key.

    Raises:
        FieldsRefusedError: Too many fields, a name that is no token, or a control character in a value.
    """
    if len(headers) > MAX_FIELDS:
        raise FieldsRefusedError(f"Expected at most {MAX_FIELDS} header fields, got {len(headers)}.")
    kept: list[tuple[bytes, bytes]] = [(b"host", authority)]
    if authorization is not None:
        kept.append((b"authorization", authorization))
    for name, value in headers:
        if _TOKEN.fullmatch(name) is None:
            raise FieldsRefusedError("Expected header names to be lower-case tokens.")
        if _FORBIDDEN.search(value) is not None:
            raise FieldsRefusedError("Expected header values without control characters.")
    kept.extend(
        (name, value)
        for name, value in end_to_end(headers)
        if name not in _DROPPED_TO_ENGINE and not name.startswith(_DROPPED_PREFIXES)
    )
    return tuple(kept)


def from_engine(headers: Headers) -> Headers:
    """Return the fields of an engine's response that are passed on."""
    return tuple(
        (name, value)
        for name, value in end_to_end(headers)
        if name not in _DROPPED_FROM_ENGINE and not name.startswith(_DROPPED_FROM_ENGINE_PREFIXES)
    )


def framing(method: str, headers: Headers) -> Body:
    """Return how a request's content is delimited towards the engine.

    The tunnel frames content itself, so a request that declares no length is sent chunked.

    Raises:
        FieldsRefusedError: More than one length, or one that is no number.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    if not lengths:
        return CHUNKED if method in _WITH_CONTENT else NO_BODY
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise FieldsRefusedError("Expected one Content-Length that is a number.")
    length = int(lengths[0])
    return Body(BodyKind.LENGTH, length) if length or method == "POST" else NO_BODY


def is_encoded(headers: Headers) -> bool:
    """Whether the request's content is compressed, so that the model it names cannot be read."""
    return any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)
