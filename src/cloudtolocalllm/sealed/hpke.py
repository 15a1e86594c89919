"""HPKE (RFC 9180) with the one suite in use: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.

The arithmetic is pyhpke's and cryptography's. One suite and no choice means that no peer can talk us down to another.
"""

from struct import Struct
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyhpke import AEADId, CipherSuite, ContextInterface, KDFId, KEMId, KEMKey, KEMKeyPair

from cloudtolocalllm.sealed.errors import MalformedError, MisuseError

KEM_ID: Final = 0x0020
KDF_ID: Final = 0x0001
AEAD_ID: Final = 0x0001
KEY_BYTES: Final = 32
"""Of a private key, a public key, and an encapsulated secret."""
AEAD_KEY_BYTES: Final = 16
NONCE_BYTES: Final = 12
MIN_PSK: Final = 32
"""Bytes; RFC 9180 §9.5 asks for a pre-shared key of at least that entropy."""

SUITE_IDS: Final = Struct(">HHH")

_SUITE: Final = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES128_GCM)

Context = ContextInterface


def public_key(private: bytes) -> bytes:
    """Return the public key of a private key, both of KEY_BYTES.

    Raises:
        MisuseError: The private key is not of KEY_BYTES.
    """
    return _pair(private).public_key.to_public_bytes()


def sender(
    public: bytes, info: bytes, ephemeral: bytes, *, psk: bytes = b"", psk_id: bytes = b""
) -> tuple[bytes, Context]:
    """Set up a context to seal to a public key.

    Args:
        public: The recipient's key.
        info: What both sides know of the purpose.
        ephemeral: KEY_BYTES random bytes that are used for nothing else, ever.
        psk: A secret that both have, for PSK mode; b"" for base mode.
        psk_id: Its name; with `psk` only.

    Returns:
        The encapsulated secret and the context.

    Raises:
        MalformedError: The public key is not one.
        MisuseError: The ephemeral key or the secret is of a wrong size.
    """
    _check_psk(psk, psk_id)
    pair = _pair(ephemeral)
    try:
        recipient = _SUITE.kem.deserialize_public_key(public)
        return _SUITE.create_sender_context(recipient, info, psk=psk, psk_id=psk_id, eks=pair)
    except ValueError:  # a wrong length, or a point of low order
        raise MalformedError("expected a public key of X25519") from None


def recipient(enc: bytes, private: bytes, info: bytes, *, psk: bytes = b"", psk_id: bytes = b"") -> Context:
    """Set up the context with which a sender's chunks are opened.

    Args:
        enc: The encapsulated secret.
        private: Our key.
        info: As the sender's.
        psk: As the sender's.
        psk_id: As the sender's.

    Raises:
        MalformedError: The encapsulated secret is none.
        MisuseError: The private key or the secret is of a wrong size.
    """
    _check_psk(psk, psk_id)
    key = _pair(private).private_key
    try:
        return _SUITE.create_recipient_context(enc, key, info, psk=psk, psk_id=psk_id)
    except ValueError:
        raise MalformedError("expected an encapsulated secret of X25519") from None


def extract(salt: bytes, secret: bytes) -> bytes:
    """Return HKDF-Extract of SHA-256 (RFC 5869 §2.2)."""
    return _SUITE.kdf.extract(salt, secret)


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """Return HKDF-Expand of SHA-256 (RFC 5869 §2.3)."""
    return _SUITE.kdf.expand(key, info, size)


def _pair(private: bytes) -> KEMKeyPair:
    if len(private) != KEY_BYTES:
        raise MisuseError(f"expected a private key of {KEY_BYTES} bytes, got {len(private)}")
    key = X25519PrivateKey.from_private_bytes(private)
    return KEMKeyPair(KEMKey.from_pyca_cryptography_key(key), KEMKey.from_pyca_cryptography_key(key.public_key()))


def _check_psk(psk: bytes, psk_id: bytes) -> None:
    if bool(psk) != bool(psk_id) or (psk and len(psk) < MIN_PSK):
        raise MisuseError(f"expected no shared secret, or one of at least {MIN_PSK} bytes with a name")
