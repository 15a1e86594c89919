"""Attachments: content-addressed, in the database, so that a back-up is one file and none is ever half there."""

import hashlib

from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.tx import Tx

MAX_SIZE = 16 * 1024 * 1024
"""Bytes of one attachment."""
UNUSED_KEPT = 86_400.0
"""Seconds that an attachment of no message is kept, so that it can be stored before its message."""


def put(tx: Tx, data: bytes) -> str:
    """Store an attachment and return its SHA-256 in hexadecimal; the same bytes are stored once.

    Raises:
        ConflictError: It is too large.
    """
    if len(data) > MAX_SIZE:
        raise ConflictError(f"expected an attachment of at most {MAX_SIZE} bytes, got {len(data)}")
    sha256 = hashlib.sha256(data).hexdigest()
    tx.run(
        "INSERT INTO attachments (sha256, size, added, data) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (sha256) DO UPDATE SET added = excluded.added",
        sha256, len(data), tx.now, data,
    )  # fmt: skip
    return sha256


def get(tx: Tx, sha256: str) -> bytes:
    """Return an attachment.

    Raises:
        NotHereError: There is none.
    """
    row = tx.one("SELECT data FROM attachments WHERE sha256 = ?", sha256)
    if row is None:
        raise NotHereError("expected the SHA-256 of an attachment that is stored")
    return bytes(row[0])


def sweep(tx: Tx) -> int:
    """Delete attachments that no message has any more; return how many."""
    return tx.run(
        "DELETE FROM attachments WHERE added < ? AND sha256 NOT IN (SELECT sha256 FROM message_attachments)",
        tx.now - UNUSED_KEPT,
    )
