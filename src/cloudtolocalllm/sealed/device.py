"""Which device made a request: the proof by its key (CDK), and what the bridge checks before it answers.

The cloud knows the bridge's public key and could seal requests to it. So each request carries

    Date           within 120 s of the bridge's clock
    C2L-Device     the device: base64url of the SHA-256 of its public key (uncompressed point of P-256)
    C2L-Proof      base64url of an ECDSA signature (r, s: 64 bytes, SHA-256) over LABEL and HPKE.Export(EXPORT, 32)

all of it sealed. What is signed follows from this request's ephemeral key and can be computed by its two ends only:
a proof is good for one request to one bridge, and the request's content is bound to it by the chunks' keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudtolocalllm.sealed import base64url, dates
from cloudtolocalllm.sealed.errors import MalformedError, ProofError, SkewError, UnknownDeviceError
from cloudtolocalllm.sealed.fields import Fields, single
from cloudtolocalllm.sealed.fingerprint import fingerprint
from cloudtolocalllm.sealed.limits import MAX_SKEW
from cloudtolocalllm.sealed.ohttp import RequestOpener, RequestSealer
from cloudtolocalllm.sealed.replay import ReplayGuard

DEVICE_FIELD: Final = b"c2l-device"
PROOF_FIELD: Final = b"c2l-proof"
DATE_FIELD: Final = b"date"

LABEL: Final = b"c2l device proof v1\0"
EXPORT: Final = b"c2l device proof"
EXPORT_BYTES: Final = 32
POINT_BYTES: Final = 65
SIGNATURE_BYTES: Final = 64

_DETERMINISTIC: Final = ec.ECDSA(SHA256(), deterministic_signing=True)
"""RFC 6979: no randomness that could be bad, and vectors that can be made again."""
_ECDSA: Final = ec.ECDSA(SHA256())


def public_point(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> bytes:
    """Return a device's public key as an uncompressed point."""
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def device_id(point: bytes) -> str:
    """Return the name of the device with this public key."""
    return base64url.encode(fingerprint(point))


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Return a signature in 64 bytes, as WebCrypto makes it."""
    r, s = decode_dss_signature(key.sign(message, _DETERMINISTIC))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify(point: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature holds.

    Raises:
        MalformedError: The public key is none.
    """
    if len(point) != POINT_BYTES:
        raise MalformedError(f"expected a public key of {POINT_BYTES} bytes, got {len(point)}")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise MalformedError("expected a public key on P-256") from None
    if len(signature) != SIGNATURE_BYTES:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, _ECDSA)
    except InvalidSignature:
        return False
    return True


def proof_message(request: RequestSealer | RequestOpener) -> bytes:
    """Return what a device signs for a request."""
    return LABEL + request.export(EXPORT, EXPORT_BYTES)


def proof_fields(request: RequestSealer, key: ec.EllipticCurvePrivateKey, now: float) -> Fields:
    """Return the fields that a device puts into a request.

    Args:
        request: The request that they are for, and no other.
        key: The device's.
        now: Seconds since the epoch.
    """
    return (
        (DATE_FIELD, dates.encode(now)),
        (DEVICE_FIELD, device_id(public_point(key)).encode()),
        (PROOF_FIELD, base64url.encode(sign(key, proof_message(request))).encode()),
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request's fields say of its device; nothing of it is checked yet."""

    device: str
    proof: bytes
    date: int
    """Seconds since the epoch."""


def read_claim(fields: Fields) -> Claim:
    """Read the fields of a request.

    Raises:
        MalformedError: One stands twice or is not of its form.
        SkewError: There is no date.
        UnknownDeviceError: There is no device.
        ProofError: There is no proof.
    """
    date, device, proof = (single(fields, name) for name in (DATE_FIELD, DEVICE_FIELD, PROOF_FIELD))
    if date is None:
        raise SkewError("expected a date in the request")
    if device is None:
        raise UnknownDeviceError("expected a device in the request")
    if proof is None:
        raise ProofError("expected a proof in the request")
    name = device.decode("latin-1")
    base64url.decode(name, "a device", 32)
    signature = base64url.decode(proof.decode("latin-1"), "a proof", SIGNATURE_BYTES)
    return Claim(name, signature, dates.decode(date))


def authenticate(
    request: RequestOpener,
    fields: Fields,
    point_of: Callable[[str], bytes | None],
    replays: ReplayGuard,
    now: float,
) -> str:
    """Return the device that made a request. Nothing may be done for the request before.

    Args:
        request: Of which the head was opened.
        fields: Of that head.
        point_of: Returns the public key of a paired device by its id, or None.
        replays: The memory of requests seen.
        now: Seconds since the epoch.

    Raises:
        MalformedError: A field is not of its form.
        UnknownDeviceError: The device is not paired.
        ProofError: The device did not make this request.
        SkewError: It was made too long ago, or in the future, or the clock was set back.
        ReplayedError: It was received before.
        BusyError: It cannot be told from a replay for now.
    """
    claim = read_claim(fields)
    point = point_of(claim.device)
    if point is None or device_id(point) != claim.device:
        raise UnknownDeviceError("expected a paired device")
    if not verify(point, claim.proof, proof_message(request)):
        raise ProofError("expected a proof by this device for this request")
    if abs(now - claim.date) > MAX_SKEW:
        raise SkewError(f"expected a request of the last {MAX_SKEW} s; see that the clocks are right")
    replays.accept(request.enc, claim.date, now)
    return claim.device
