"""One transaction of the store, as the functions that read and write see it."""

import re
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.bridge.store.errors import ConflictError

ID = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
"""Form of an id. Who makes a thing may choose it, so that asking twice makes it once."""
KEPT_CHANGES = 10_000
"""Changes that are remembered."""
_PRUNE_EVERY = 256


@dataclass(frozen=True, slots=True)
class Tx:
    """The database inside one transaction, and its time."""

    db: sqlite3.Connection
    now: float
    """Seconds since the epoch."""

    def all(self, statement: str, *values: Any) -> list[Any]:
        """Return every row."""
        return self.db.execute(statement, values).fetchall()

    def one(self, statement: str, *values: Any) -> Any:
        """Return the first row, or None."""
        return self.db.execute(statement, values).fetchone()

    def run(self, statement: str, *values: Any) -> int:
        """Change something; return how many rows."""
        return self.db.execute(statement, values).rowcount

    def insert(self, statement: str, *values: Any) -> int:
        """Add a row; return its number."""
        return int(self.db.execute(statement, values).lastrowid or 0)

    def changed(self, kind: str, id_: str, *, conversation: str = "", gone: bool = False) -> None:
        """Tell the other clients that something changed, as soon as this transaction holds.

        Args:
            kind: What: "conversation", "message", "run", "device", "key", "setting".
            id_: Which.
            conversation: In which conversation.
            gone: Whether it is not there any more.
        """
        n = self.insert(
            "INSERT INTO changes (at, kind, id, conversation, gone) VALUES (?, ?, ?, ?, ?)",
            self.now, kind, id_, conversation, int(gone),
        )  # fmt: skip
        if n % _PRUNE_EVERY == 0 and n > KEPT_CHANGES:
            self.run("DELETE FROM changes WHERE n <= ?", n - KEPT_CHANGES)
            self.run("UPDATE store SET floor = max(floor, ?)", n - KEPT_CHANGES)


def chosen_id(wanted: str | None) -> str:
    """Return an id: the one that was chosen, or a new one.

    Raises:
        ConflictError: It has another form.
    """
    if wanted is None:
        return secrets.token_urlsafe(16)
    if not ID.fullmatch(wanted):
        raise ConflictError("expected an id of 16 to 64 letters, digits, - and _")
    return wanted


def check_text(text: str, most: int, what: str) -> str:
    """Return a text that can be stored.

    Args:
        text: Any.
        most: Bytes of UTF-8 allowed.
        what: For the message.

    Raises:
        ConflictError: It is too long, or no valid Unicode.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConflictError(f"expected {what} in valid Unicode, got half of a surrogate pair") from None
    if size > most:
        raise ConflictError(f"expected {what} of at most {most} bytes, got {size}")
    return text
