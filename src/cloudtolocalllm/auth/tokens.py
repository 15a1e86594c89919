"""Random ids, and secrets of 256 random bits that a person or a program carries.

Of a secret only the SHA-256 is kept. A plain hash is enough because the secret is random, not chosen: there is no
dictionary to try (NIST SP 800-63B §5.1.1.2 asks for slow hashes of memorised secrets only).
"""

import base64
import hashlib
import secrets

ID_LENGTH = 12
"""Characters of a public id: base32 in lower case, 60 bits."""


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
