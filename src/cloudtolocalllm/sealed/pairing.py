"""How a device and a bridge come to know each other's keys without believing the cloud.

The bridge shows a link, also as a QR code. What matters is in its fragment, which a browser never sends:

    #c2l1.<bridge id>.<fingerprint of the bridge's identity>.<one-time secret>     both in base64url, 32 bytes each

The device pins the fingerprint, verifies the bridge's key statement by it, makes a key pair, and sends its public key
in a request that is sealed like any other, but in HPKE's PSK mode with the secret (`ohttp.PAIRING`): only who saw the
link can have made it. The request has the fields of a device proof, so the device has the private key.

    POST /c2l/devices      {"key": "<the public point, base64url>", "name": "<what the user calls it>"}
"""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.device import POINT_BYTES, device_id
from cloudtolocalllm.sealed.errors import BusyError, MalformedError, MisuseError
from cloudtolocalllm.sealed.fingerprint import FINGERPRINT_BYTES
from cloudtolocalllm.sealed.ohttp import PAIRING_ID_BYTES, SharedSecret

VERSION: Final = "c2l1"
PATH: Final = b"/c2l/devices"
REQUEST_TYPE: Final = "application/c2l-pairing-req"
RESPONSE_TYPE: Final = "application/c2l-pairing-res"
SECRET_BYTES: Final = 32
OFFER_LIFE: Final = 600
"""Seconds that a link is good for."""
MAX_OFFERS: Final = 16
"""Links that are good at once."""
MAX_NAME: Final = 64
"""Characters of a device's name."""
MAX_INTRODUCTION: Final = 1024
"""Bytes."""

_BRIDGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_ID_LABEL: Final = b"c2l pairing id v1\0"


@dataclass(frozen=True, slots=True)
class PairingLink:
    """What a link's fragment says."""

    bridge_id: str
    fingerprint: bytes
    secret: bytes

    def __post_init__(self) -> None:
        """Refuse what is no link.

        Raises:
            MisuseError: A part is out of its range.
        """
        sizes = (len(self.fingerprint), len(self.secret))
        if not _BRIDGE_ID.fullmatch(self.bridge_id) or sizes != (FINGERPRINT_BYTES, SECRET_BYTES):
            raise MisuseError("expected a bridge id, a fingerprint and a secret")

    def __repr__(self) -> str:
        return f"PairingLink({self.bridge_id})"

    @property
    def fragment(self) -> str:
        """What follows the # in the link."""
        return ".".join((VERSION, self.bridge_id, base64url.encode(self.fingerprint), base64url.encode(self.secret)))

    @property
    def shared(self) -> SharedSecret:
        """What the device's request is sealed with."""
        return shared_secret(self.secret)


def read_link(fragment: str) -> PairingLink:
    """Read a link's fragment, with or without its #.

    Raises:
        MalformedError: It is none.
    """
    parts = fragment.removeprefix("#").split(".")
    if len(parts) != 4 or parts[0] != VERSION or not _BRIDGE_ID.fullmatch(parts[1]):
        raise MalformedError("expected a whole pairing link; copy it again")
    fingerprint = base64url.decode(parts[2], "a fingerprint", FINGERPRINT_BYTES)
    return PairingLink(parts[1], fingerprint, base64url.decode(parts[3], "a secret", SECRET_BYTES))


def shared_secret(secret: bytes) -> SharedSecret:
    """Return a link's secret with the name by which the bridge finds it; the name does not tell the secret."""
    return SharedSecret(sha256(_ID_LABEL + secret).digest()[:PAIRING_ID_BYTES], secret)


class PairingOffers:
    """The links of a bridge that are good now. Each pairs one device."""

    def __init__(self) -> None:
        """Offer nothing yet."""
        self._offers: dict[bytes, tuple[float, bytes]] = {}

    @property
    def size(self) -> int:
        """Links that were good at the last call."""
        return len(self._offers)

    def add(self, secret: bytes, now: float) -> SharedSecret:
        """Offer a pairing.

        Args:
            secret: SECRET_BYTES random bytes.
            now: Seconds on a clock that never goes back.

        Raises:
            MisuseError: The secret is of a wrong size.
            BusyError: There are too many offers.
        """
        if len(secret) != SECRET_BYTES:
            raise MisuseError(f"expected a secret of {SECRET_BYTES} bytes, got {len(secret)}")
        self._forget(now)
        if len(self._offers) >= MAX_OFFERS:
            raise BusyError(f"expected at most {MAX_OFFERS} pairing links at once; wait or withdraw one")
        shared = shared_secret(secret)
        self._offers[shared.id] = (now + OFFER_LIFE, secret)
        return shared

    def secret(self, pairing_id: bytes, now: float) -> bytes | None:
        """Return an offer's secret while it is good."""
        self._forget(now)
        offer = self._offers.get(pairing_id)
        return None if offer is None else offer[1]

    def take(self, pairing_id: bytes, now: float) -> bool:
        """Use an offer up; call it when the whole request was opened and its proof held.

        Returns:
            Whether it was good: of two requests at once, one only may pair.
        """
        self._forget(now)
        return self._offers.pop(pairing_id, None) is not None

    def _forget(self, now: float) -> None:
        for pairing_id in [each for each, (until, _) in self._offers.items() if until <= now]:
            del self._offers[pairing_id]


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a device says of itself."""

    point: bytes
    """Its public key."""
    name: str

    @property
    def device_id(self) -> str:
        """The device's name in every request."""
        return device_id(self.point)

    def encode(self) -> bytes:
        """Return the request's content."""
        body = {"key": base64url.encode(self.point), "name": self.name}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def read_introduction(content: bytes) -> Introduction:
    """Read the content of a pairing request. Whether the key is one shows when the proof is verified.

    Raises:
        MalformedError: It is none.
    """
    if len(content) > MAX_INTRODUCTION:
        raise MalformedError(f"expected at most {MAX_INTRODUCTION} bytes of a device, got {len(content)}")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise MalformedError("expected a device in JSON") from None
    if not isinstance(body, dict) or set(body) != {"key", "name"}:
        raise MalformedError("expected a device's key and name")
    key, name = body["key"], body["name"]
    if not isinstance(key, str) or not isinstance(name, str):
        raise MalformedError("expected a device's key and name as texts")
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise MalformedError(f"expected a device's name of 1 to {MAX_NAME} printable characters")
    return Introduction(base64url.decode(key, "a public key", POINT_BYTES), name)
