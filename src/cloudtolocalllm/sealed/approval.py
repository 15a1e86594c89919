"""Approvals: a paired device vouches for a further one, after its user compared the safety words.

A compact JWS (RFC 7515) by the approving device's key: `alg` ES256, `typ` c2l-approval+jwt. Claims: `iss` the device
that approves, `sub` the one that is approved, `aud` the fingerprint of the bridge's identity in base64url, `iat`, and
the new device's `name`. The bridge keeps it beside the device that it let in, so that the list can say by whom; what
is approved at home, at the bridge itself, has none.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.device import POINT_BYTES, device_id, public_point
from cloudtolocalllm.sealed.device import sign as device_sign
from cloudtolocalllm.sealed.errors import ExpiredError, MalformedError, UntrustedError
from cloudtolocalllm.sealed.fingerprint import FINGERPRINT_BYTES, same
from cloudtolocalllm.sealed.limits import MAX_SKEW
from cloudtolocalllm.sealed.pairing import MAX_NAME

TYPE: Final = "c2l-approval+jwt"
MAX_LENGTH: Final = 2048
"""Characters of an approval that is looked at."""

_ALGORITHM: Final = "ES256"
_REGISTRY: Final = jws.JWSRegistry(algorithms=[_ALGORITHM])
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]", re.ASCII)
_CLAIMS: Final = {"iss", "sub", "aud", "iat", "name"}


@dataclass(frozen=True, slots=True)
class Approval:
    """Who let which device in, where and when."""

    approver: str
    """Id of the device that approves."""
    device: str
    """Id of the device that is approved."""
    bridge: bytes
    """Fingerprint of the bridge's identity."""
    issued: int
    """Seconds since the epoch."""
    name: str


def sign(approval: Approval, key: ec.EllipticCurvePrivateKey) -> str:
    """Return an approval signed by the approving device.

    Raises:
        UntrustedError: The key is another device's.
    """
    if device_id(public_point(key)) != approval.approver:
        raise UntrustedError("expected the approving device's own key")
    claims = {
        "iss": approval.approver,
        "sub": approval.device,
        "aud": base64url.encode(approval.bridge),
        "iat": approval.issued,
        "name": approval.name,
    }
    parts = ({"alg": _ALGORITHM, "typ": TYPE}, claims)
    encoded = [json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode() for part in parts]
    signed = ".".join(base64url.encode(part) for part in encoded)
    # Not by the JWS library: it would sign with a random number, where `device.sign` needs none.
    return f"{signed}.{base64url.encode(device_sign(key, signed.encode()))}"


def verify(text: str, point: bytes, bridge: bytes, device: str, now: float) -> Approval:
    """Return an approval that holds, when it is made.

    Args:
        text: As received.
        point: Public key of the device that approves; it must be one that is paired.
        bridge: Fingerprint of this bridge's identity.
        device: Id of the device that asks to be let in.
        now: Seconds since the epoch.

    Raises:
        MalformedError: It is not an approval.
        UntrustedError: It is by or for another device, for another bridge, or its signature does not hold.
        ExpiredError: It was not made just now.
    """
    if len(text) > MAX_LENGTH or not _SHAPE.fullmatch(text):
        raise MalformedError("expected an approval")
    header = _json(text.split(".")[0])
    if header != {"alg": _ALGORITHM, "typ": TYPE}:
        raise MalformedError(f"expected a header of alg {_ALGORITHM} and typ {TYPE} in an approval")
    try:
        jws.deserialize_compact(text, _key(point), registry=_REGISTRY)
    except (JoseError, ValueError):
        raise UntrustedError("expected an approval whose signature holds") from None
    approval = _claims(_json(text.split(".")[1]))
    if approval.approver != device_id(point) or approval.device != device or not same(approval.bridge, bridge):
        raise UntrustedError("expected an approval of this device, by the one that signs, for this bridge")
    if abs(now - approval.issued) > MAX_SKEW:
        raise ExpiredError(f"expected an approval of the last {MAX_SKEW} s; see that the clocks are right")
    return approval


def _key(point: bytes) -> ECKey:
    if len(point) != POINT_BYTES:
        raise MalformedError(f"expected a public key of {POINT_BYTES} bytes, got {len(point)}")
    x, y = base64url.encode(point[1:33]), base64url.encode(point[33:])
    return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})


def _json(part: str) -> dict[str, Any]:
    try:
        value = json.loads(base64url.decode(part, "a part of an approval"))
    except (ValueError, RecursionError):
        raise MalformedError("expected JSON in an approval") from None
    if not isinstance(value, dict):
        raise MalformedError("expected a JSON object in an approval")
    return value


def _claims(claims: dict[str, Any]) -> Approval:
    texts = [claims.get(name) for name in ("iss", "sub", "aud", "name")]
    if set(claims) != _CLAIMS or not all(isinstance(text, str) for text in texts) or type(claims["iat"]) is not int:
        raise MalformedError("expected iss, sub, aud, iat and name in an approval")
    if not 0 < len(claims["name"]) <= MAX_NAME:
        raise MalformedError(f"expected a name of 1 to {MAX_NAME} characters in an approval")
    bridge = base64url.decode(claims["aud"], "a fingerprint", FINGERPRINT_BYTES)
    return Approval(claims["iss"], claims["sub"], bridge, claims["iat"], claims["name"])
