"""Secrets that a person or a program carries: a prefix, a public id, and 256 random bits.

Only the SHA-256 of the secret is kept. A plain hash is enough because the secret is random, not chosen: there is no
dictionary to try (NIST SP 800-63B §5.1.1.2 asks for slow hashes of memorised secrets only).
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

ID_LENGTH = 12
"""Characters of a public id: base32 in lower case, 60 bits."""
SECRET_LENGTH = 43
"""Characters of a secret: base64url of 32 bytes without padding."""

_ID = re.compile(r"[a-z2-7]{12}", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Minted:
    """A new secret. `text` is shown to its owner once and never kept or logged."""

    id: str
    text: str
    hash: bytes
    """SHA-256 of the secret; what the store keeps."""

    def __repr__(self) -> str:
        return f"Minted(id={self.id!r})"


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed token as somebody sent it; not yet checked against anything."""

    id: str
    hash: bytes
    """SHA-256 of the secret that was sent."""

    def matches(self, kept: bytes) -> bool:
        """Tell whether the secret is the one whose hash was kept, in constant time."""
        return hmac.compare_digest(self.hash, kept)


def mint(prefix: str) -> Minted:
    """Make a new token `PREFIX_ID_SECRET`."""
    id_ = random_id(ID_LENGTH)
    secret = new_secret()
    return Minted(id_, f"{prefix}_{id_}_{secret}", digest(secret))


def parse(prefix: str, text: str) -> Presented | None:
    """Read a token with this prefix; None when it is not one.

    The fields are cut at fixed places since a secret may itself contain underscores.
    """
    start = len(prefix) + 1
    if len(text) != start + ID_LENGTH + 1 + SECRET_LENGTH or not text.startswith(prefix + "_"):
        return None
    id_, separator, secret = text[start : start + ID_LENGTH], text[start + ID_LENGTH], text[-SECRET_LENGTH:]
    if separator != "_" or not _ID.fullmatch(id_) or not _SECRET.fullmatch(secret):
        return None
    return Presented(id_, digest(secret))


def random_id(length: int) -> str:
    """Return `length` random characters of lower-case base32 (5 bits each)."""
    data = secrets.token_bytes((length * 5 + 7) // 8)
    return base64.b32encode(data).decode("ascii").lower()[:length]


def new_secret() -> str:
    """Return 256 random bits as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """Return what is kept of a secret.

    The characters are hashed, not the bytes they stand for, so that another spelling of the same bytes
    (base64 leaves two bits unused in the last of 43 characters) is another secret.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
