"""Keys that the API makes at its first start and keeps in files of mode 0600."""

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path

from cloudtolocalllm.auth import pseudonyms
from cloudtolocalllm.auth.sessions import SealingKey, new_sealing_key
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.runtime import files

SESSION_KEYS = "session-keys.json"
SIGNING_KEYS = "signing-keys.json"
PSEUDONYM_KEY = "pseudonym.key"


class SecretsError(Exception):
    """A file of keys cannot be used; the text says how to mend it and shows nothing of it."""


def load_sealing_keys(folder: Path) -> tuple[SealingKey, ...]:
    """Return the keys that seal sessions, the current one first; made if there are none yet.

    The file is a JWK set (RFC 7517 §5). To rotate, put a new key first and drop the old one 30 days later.

    Raises:
        SecretsError: The file is malformed or readable by others.
    """
    return _parse(_made(folder, SESSION_KEYS, lambda: _jwk_set(new_sealing_key())))


def load_signing_ring(folder: Path) -> KeyRing:
    """Return the ring that signs API keys and bridge credentials; made if there is none yet.

    The file is a JWK set. To rotate, put a new key first and drop the old one when the last token that it signed has
    expired: 366 days later.

    Raises:
        SecretsError: The file is malformed or readable by others.
    """
    path = _made(folder, SIGNING_KEYS, lambda: json.dumps(KeyRing.generate().jwks(private=True), indent=1).encode())
    try:
        return KeyRing.from_jwks(json.loads(path.read_bytes()))
    except ValueError:
        raise SecretsError(
            f"expected a JWK set of Ed25519 keys in {path}; delete it to void all keys and pairings and start anew"
        ) from None


def load_pseudonym_key(folder: Path) -> bytes:
    """Return the key under which people get their pseudonyms; made if there is none yet.

    Whoever loses it loses who everybody was: people sign in as new users and pair their machines again.

    Raises:
        SecretsError: The file is malformed or readable by others.
    """
    path = _made(folder, PSEUDONYM_KEY, lambda: pseudonyms.new_key().encode())
    try:
        return pseudonyms.parse_key(path.read_text())
    except ValueError as error:
        raise SecretsError(f"{error} in {path}; restore it from a backup") from None


def _made(folder: Path, name: str, content: Callable[[], bytes]) -> Path:
    """Return the path of a private file, made first if there is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        files.create(path, content())
    if path.stat().st_mode & 0o077:
        raise SecretsError(f"{path} is readable by others: expected mode 0600; mend it with chmod 600")
    return path


def read_token(path: Path) -> str:
    """Return the text of a token file.

    Raises:
        SecretsError: It cannot be read, or is empty.
    """
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise SecretsError(f"expected a token in {path}: {error.strerror}") from None
    if not text or not text.isascii() or not text.isprintable():
        raise SecretsError(f"expected one line of printable ASCII in {path}")
    return text


def _jwk_set(key: SealingKey) -> bytes:
    k = base64.urlsafe_b64encode(key.secret).rstrip(b"=").decode()
    return json.dumps({"keys": [{"kty": "oct", "use": "enc", "kid": key.kid, "k": k}]}, indent=1).encode()


def _parse(path: Path) -> tuple[SealingKey, ...]:
    try:
        keys = tuple(
            SealingKey(str(item["kid"]), base64.urlsafe_b64decode(item["k"] + "=" * (-len(item["k"]) % 4)))
            for item in json.loads(path.read_bytes())["keys"]
        )
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise SecretsError(f"expected a JWK set in {path}; delete it to sign everybody out and start anew") from None
    if not keys or any(len(key.secret) != 32 for key in keys) or len({key.kid for key in keys}) != len(keys):
        raise SecretsError(f"expected keys of 32 bytes with different kid in {path}")
    return keys
