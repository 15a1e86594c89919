"""What an OpenID provider signs: ID tokens and logout tokens, verified strictly. Pure.

OpenID Connect Core 1.0 §3.1.3.7, Back-Channel Logout 1.0 §2.6 and the best current practice for JWTs (RFC 8725).
A token chooses nothing: the algorithm must be one that we take and the provider announced, the key one of the
provider's own, the kind the one that the caller asks for. joserfc does the cryptography, on bytes that were cut here.
"""

import base64
import hmac
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws

from cloudtolocalllm.auth.provider_keys import ProviderKeys

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
"""What we take. Asymmetric only; "EdDSA" means Ed25519 here, which RFC 9864 names by itself."""
MAX_LENGTH = 16 * 1024
"""Characters of a token that is looked at: a token that lists a person's groups has a few thousand."""
MAX_HEADER = 512
"""Characters of its first part."""
LEEWAY = 60.0
"""Seconds by which the provider's clock may differ."""
MAX_SUBJECT = 255
"""Characters of `sub` (Core §2)."""
MAX_LOGOUT_AGE = 600.0
"""Seconds since a logout token was issued: longer than any provider tries again."""
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

_ENCODED = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_MEANING = frozenset({"crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"})
"""Header members that would change what is signed, nest something, or bring a key along. Others mean nothing to us
and are ignored (RFC 7515 §4)."""
_ID_TYPES = frozenset({"jwt"})
_LOGOUT_TYPES = frozenset({"logout+jwt", "jwt"})
"""RFC 8725 §3.11 asks for the first; providers older than it send the second, and the claims tell them apart."""
_MODELS = {name: jws.JWSRegistry.algorithms["Ed25519" if name == "EdDSA" else name] for name in ALGORITHMS}
_LATEST = 2**53
"""No time is later than what JSON can say exactly (RFC 8259 §6)."""


class ProviderTokenError(Exception):
    """A token does not hold. The text gives the reason for the log and quotes nothing of it."""


class NonceMismatchError(ProviderTokenError):
    """An ID token is not of the sign-in that it was brought to."""


class UnknownKeyError(ProviderTokenError):
    """No key that we know can have signed it; the provider may have a new one."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Whose tokens are taken, and for whom they must be."""

    issuer: str
    client_id: str
    algorithms: tuple[str, ...]
    """What the provider announced and we take."""


@dataclass(frozen=True, slots=True)
class IdToken:
    """An ID token that holds."""

    subject: str
    session: str | None
    """The provider's `sid`."""
    claims: Mapping[str, Any]

    def __repr__(self) -> str:
        return "IdToken(…)"


@dataclass(frozen=True, slots=True)
class LogoutToken:
    """A logout token that holds. One of `subject` and `session` is there."""

    subject: str | None
    session: str | None
    issued: float
    """Seconds since the epoch."""

    def __repr__(self) -> str:
        return "LogoutToken(…)"


def common_algorithms(announced: object) -> tuple[str, ...]:
    """Return which algorithms to take from a provider that announces these.

    Args:
        announced: Its `id_token_signing_alg_values_supported`; None when it says nothing, which means RS256 (§15.1).
    """
    if announced is None:
        return ("RS256",)
    return tuple(name for name in ALGORITHMS if isinstance(announced, list) and name in announced)


def verify_id_token(text: str, keys: ProviderKeys, provider: Provider, *, nonce: str | None, now: float) -> IdToken:
    """Return what an ID token says.

    Args:
        text: As the provider's token endpoint gave it.
        keys: The provider's.
        provider: Who must have made it, and for whom.
        nonce: What was sent with the authorisation request; None for the ID token of a refresh, which may have none.
        now: Seconds since the epoch.

    Raises:
        UnknownKeyError: Its key is not among `keys`.
        NonceMismatchError: It is of another sign-in.
        ProviderTokenError: It does not hold.
    """
    claims = _verified(text, keys, provider, types=_ID_TYPES, now=now)
    if "events" in claims:
        raise ProviderTokenError("expected an ID token, got one about an event")
    said = claims.get("nonce")
    if nonce is not None and not (isinstance(said, str) and _equal(said, nonce)):
        raise NonceMismatchError("expected the nonce of this sign-in")
    subject = _text(claims, "sub", MAX_SUBJECT)
    if subject is None:
        raise ProviderTokenError("expected a sub")
    return IdToken(subject, _text(claims, "sid", MAX_SUBJECT), claims)


def verify_logout_token(text: str, keys: ProviderKeys, provider: Provider, *, now: float) -> LogoutToken:
    """Return what a logout token says (Back-Channel Logout §2.6).

    Args:
        text: As it was posted, by anybody.
        keys: The provider's.
        provider: Who must have made it, and for whom.
        now: Seconds since the epoch.

    Raises:
        UnknownKeyError: Its key is not among `keys`.
        ProviderTokenError: It does not hold.
    """
    claims = _verified(text, keys, provider, types=_LOGOUT_TYPES, now=now)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise ProviderTokenError("expected the event of a logout")
    if "nonce" in claims:
        raise ProviderTokenError("expected no nonce, which would make it an ID token")
    if _text(claims, "jti", MAX_SUBJECT) is None:
        raise ProviderTokenError("expected a jti")
    issued = float(claims["iat"])
    if now - issued > MAX_LOGOUT_AGE + LEEWAY:
        raise ProviderTokenError("issued too long ago")
    subject, session = _text(claims, "sub", MAX_SUBJECT), _text(claims, "sid", MAX_SUBJECT)
    if subject is None and session is None:
        raise ProviderTokenError("expected a sub or a sid")
    return LogoutToken(subject, session, issued)


def read_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object that can be read in one way only.

    Raises:
        ValueError: It is none, names a member twice, holds NaN or Infinity, or is nested too deep.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("expected less depth") from None
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    return value


def signed_payload(text: str, keys: ProviderKeys, algorithms: Collection[str], *, types: Collection[str]) -> bytes:
    """Return what a compact JWS (RFC 7515 §3.1) carries, if one of the keys signed it.

    Args:
        text: As received.
        keys: The provider's.
        algorithms: Those that may be used, of ALGORITHMS.
        types: What `typ` may be, in lower case and without "application/"; a token that says nothing is a "jwt".

    Raises:
        UnknownKeyError: Its key is not among `keys`.
        ProviderTokenError: It is malformed, of another kind, or not signed.
    """
    if len(text) > MAX_LENGTH:
        raise ProviderTokenError("too long")
    parts = text.split(".")
    if len(parts) != 3 or not all(_ENCODED.fullmatch(part) for part in parts) or len(parts[0]) > MAX_HEADER:
        raise ProviderTokenError("expected three parts of base64url")
    try:
        header = read_object(_decoded(parts[0]))
        payload, signature = _decoded(parts[1]), _decoded(parts[2])
    except (ValueError, TypeError):
        raise ProviderTokenError("malformed") from None
    algorithm = _algorithm(header, algorithms, types)
    signed = f"{parts[0]}.{parts[1]}".encode()
    candidates = keys.find(header.get("kid"), algorithm)
    if not candidates:
        raise UnknownKeyError("signed by an unknown key")
    # More than one only when the provider gave two keys the same kid, as RFC 7517 §4.5 lets it.
    if not any(_MODELS[algorithm].verify(signed, signature, key) for key in candidates):
        raise ProviderTokenError("the signature does not match")
    return payload


def _verified(
    text: str, keys: ProviderKeys, provider: Provider, *, types: Collection[str], now: float
) -> dict[str, Any]:
    try:
        claims = read_object(signed_payload(text, keys, provider.algorithms, types=types))
    except (ValueError, TypeError):
        raise ProviderTokenError("the claims are malformed") from None
    _check_claims(claims, provider, now)
    return claims


def _algorithm(header: Mapping[str, Any], allowed: Collection[str], types: Collection[str]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or algorithm not in allowed:
        raise ProviderTokenError(f"expected one of the algorithms {', '.join(allowed)}")
    if not _MEANING.isdisjoint(header):
        raise ProviderTokenError("expected no header member that changes its meaning")
    typ = header.get("typ", "JWT")
    # RFC 7515 §4.1.9: compared as media types, in any case, and "application/" may be left out
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in types:
        raise ProviderTokenError("another kind of token")
    return algorithm


def _check_claims(claims: Mapping[str, Any], provider: Provider, now: float) -> None:
    if claims.get("iss") != provider.issuer:
        raise ProviderTokenError("from another issuer")
    # A list is taken only if it names us alone: what others may be given too could be brought here by them.
    if claims.get("aud") not in (provider.client_id, [provider.client_id]):
        raise ProviderTokenError("for another audience")
    if claims.get("azp", provider.client_id) != provider.client_id:
        raise ProviderTokenError("issued to another party")
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    if expires <= now - LEEWAY:
        raise ProviderTokenError("expired")
    starts = _time(claims, "nbf") if "nbf" in claims else issued
    if max(issued, starts) > now + LEEWAY:
        raise ProviderTokenError("not yet valid")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value: Any = claims.get(name)
    # type() and not isinstance(): bool is an int in Python and is no time
    if type(value) not in (int, float) or not 0 <= value < _LATEST:
        raise ProviderTokenError(f"expected a time as {name}")
    return float(value)


def _text(claims: Mapping[str, Any], name: str, limit: int) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise ProviderTokenError(f"expected at most {limit} characters as {name}")
    return value


def _decoded(part: str) -> bytes:
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise ValueError("expected the canonical spelling")
    return data


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("expected each member once")
    return found


def _no_constant(_: str) -> Any:
    raise ValueError("expected no NaN and no Infinity")
