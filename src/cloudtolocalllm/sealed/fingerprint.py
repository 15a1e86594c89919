"""Fingerprints: the SHA-256 of a public key, by which bridges are pinned and devices named."""

import hmac
from hashlib import sha256
from typing import Final

from cloudtolocalllm.sealed import base64url

FINGERPRINT_BYTES: Final = 32


def fingerprint(public: bytes) -> bytes:
    """Return the fingerprint of a public key.

    Args:
        public: 32 raw bytes of Ed25519, or the 65 of an uncompressed point of P-256.
    """
    return sha256(public).digest()


def same(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)


def decode(text: str) -> bytes:
    """Read a fingerprint in base64url.

    Raises:
        MalformedError: It is none.
    """
    return base64url.decode(text, "a fingerprint", FINGERPRINT_BYTES)
