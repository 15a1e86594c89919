"""The bridge's identity key (BIK), by which every device knows this home: made once, kept beside the credential.

It is a file of mode 0600, as the credential is. Clients pin its fingerprint, so a lost or replaced one means that
every device has to be paired anew. A lost one is therefore never replaced in silence.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloudtolocalllm.bridge.identity import PairingError
from cloudtolocalllm.bridge.store import database, preferences
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.runtime import files
from cloudtolocalllm.sealed.fingerprint import fingerprint

_ANEW = "make a new one (every device has to be paired anew then): cloudtolocalllm bridge new-identity"


class HomeIdentityError(PairingError):
    """The identity cannot be read or written; the text says how to mend it."""


def identity_path(credential_file: Path) -> Path:
    """Return where the identity of the bridge with this credential is."""
    return credential_file.with_suffix(".identity.pem")


def load_identity(credential_file: Path, *, place: str = "") -> Ed25519PrivateKey:
    """Return the identity of the bridge with this credential; made if there never was one.

    Args:
        credential_file: The credential.
        place: Where the key of an encrypted home store lies, if not where the note beside it says.

    Raises:
        HomeIdentityError: It cannot be read, is damaged, lost, or cannot be written.
        StoreError: The home store, which knows whether there was one, cannot be opened.
    """
    path = identity_path(credential_file)
    try:
        if not path.exists():
            if _has_signed(home_path(credential_file), place):
                raise HomeIdentityError(
                    f"expected this home's identity in {path}, got no file; put it back from a back-up, or {_ANEW}"
                )
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.create(path, _encoded(Ed25519PrivateKey.generate()))  # where another process is faster, its holds
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise HomeIdentityError(f"expected to read and write {path}, got {type(error).__name__}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise HomeIdentityError(
            f"expected this home's identity in {path}, got a damaged file; restore it from a back-up, or {_ANEW}"
        )
    return key


def _has_signed(store: Path, place: str) -> bool:
    """Tell whether a home with this store has signed a key statement, so that devices may know it."""
    if not store.exists():
        return False
    try:
        with closing(database.connect(store, place=place, check=False, aside=False)) as db:
            return preferences.statement_seq(Tx(db, 0.0)) > 0
    except sqlite3.Error as error:
        raise database.translated(error, store) from error


def replace_identity(path: Path) -> Ed25519PrivateKey:
    """Put a new identity in the place of the present one, which is gone for good.

    Raises:
        HomeIdentityError: It cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        files.replace(path, _encoded(key))
    except OSError as error:
        raise HomeIdentityError(f"expected to write {path}, got {type(error).__name__}") from None
    return key


def fingerprint_of(identity: Ed25519PrivateKey) -> bytes:
    """Return what devices pin."""
    return fingerprint(identity.public_key().public_bytes_raw())


def _encoded(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
