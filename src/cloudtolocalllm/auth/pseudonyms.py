"""Pseudonyms: how the cloud names people without knowing them.

A user's id is an HMAC of who the provider says it is, under a key that this installation made and that is in no
backup of the state: whoever reads the state or a log learns no name and cannot test a guess.
"""

import base64
import hashlib
import hmac
import re
import secrets

KEY_BYTES = 32

_LENGTH = 20
"""Characters of base32: 100 bits, so that two of a billion users share one with a chance of 4 in 10^13."""
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


def new_key() -> str:
    """Return the text of a fresh key: 32 bytes in hex."""
    return secrets.token_hex(KEY_BYTES)


def parse_key(text: str) -> bytes:
    """Return the key in a file's text.

    Raises:
        ValueError: It is none.
    """
    if not _KEY.fullmatch(text.strip()):
        raise ValueError("expected 64 hexadecimal digits")
    return bytes.fromhex(text.strip())


def user_of(key: bytes, issuer: str, subject: str) -> str:
    """Return the id of the person whom an issuer calls `subject`.

    Args:
        key: This installation's.
        issuer: The provider's issuer, exactly as its tokens have it.
        subject: The claim `sub`.
    """
    return "u_" + _digest(key, issuer, subject)[:_LENGTH]


def owner_of(key: bytes) -> str:
    """Return the id of the one owner of an installation without a provider; no issuer is called "local"."""
    return user_of(key, "local", "owner")


def hidden(key: bytes, kind: str, text: str) -> str:
    """Return what stands for a text that the state may not hold, such as an address or the provider's session.

    Args:
        key: This installation's.
        kind: What it is; the same text of another kind has another result.
        text: What is hidden.
    """
    return _digest(key, "hidden " + kind, text)


def _digest(key: bytes, kind: str, text: str) -> str:
    content = kind.encode("utf-8", "surrogatepass") + b"\0" + text.encode("utf-8", "surrogatepass")
    return base64.b32encode(hmac.new(key, content, hashlib.sha256).digest()).decode().rstrip("=").lower()
