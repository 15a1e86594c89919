"""What the user sets for this home, and the store's own numbers."""

import json
from dataclasses import dataclass, fields

from cloudtolocalllm.bridge.store.errors import ConflictError
from cloudtolocalllm.bridge.store.tx import Tx

MAX_DEFAULT_MODEL = 256
"""Characters of a model's name."""
MAX_PROMPT = 32 * 1024
"""Characters of a system prompt."""
SMALLEST_QUOTA = 1024 * 1024
"""Bytes; the empty store has a tenth of it."""
LONGEST_RETENTION = 36_500


@dataclass(frozen=True, slots=True)
class Preferences:
    """Settings of this home, the same for all its devices."""

    quota_bytes: int = 0
    """Bytes that the store may take; beyond, those that changed longest ago are deleted. 0 for no limit."""
    retention_days: int = 0
    """Days without a change after which a conversation is deleted. 0 for never."""
    default_model: str = ""
    """The model of a new conversation; "" to choose each time."""
    system_prompt: str = ""
    """The system message of a new conversation."""

    def check(self) -> None:
        """Check the values.

        Raises:
            ConflictError: One is out of its range.
        """
        if self.quota_bytes and self.quota_bytes < SMALLEST_QUOTA:
            raise ConflictError(f"expected quota_bytes of 0 or at least {SMALLEST_QUOTA}, got {self.quota_bytes}")
        if not 0 <= self.retention_days <= LONGEST_RETENTION:
            raise ConflictError(f"expected retention_days of 0 to {LONGEST_RETENTION}, got {self.retention_days}")
        if len(self.default_model) > MAX_DEFAULT_MODEL or len(self.system_prompt) > MAX_PROMPT:
            raise ConflictError(f"expected a default_model of {MAX_DEFAULT_MODEL}, a system_prompt of {MAX_PROMPT} "
                                "characters at most")  # fmt: skip


def get(tx: Tx) -> Preferences:
    """Return the settings."""
    known = {field.name for field in fields(Preferences)}
    found = {name: json.loads(value) for name, value in tx.all("SELECT name, value FROM settings") if name in known}
    return Preferences(**found)


def put(tx: Tx, preferences: Preferences) -> Preferences:
    """Set all settings.

    Raises:
        ConflictError: One is out of its range.
    """
    preferences.check()
    for field in fields(preferences):
        tx.run(
            "INSERT INTO settings (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            field.name, json.dumps(getattr(preferences, field.name)),
        )  # fmt: skip
    tx.changed("setting", "home")
    return get(tx)


def statement_seq(tx: Tx) -> int:
    """Return the highest number of a key statement that was ever used; 0 for none."""
    return int(tx.one("SELECT statement_seq FROM store")[0])


def note_statement_seq(tx: Tx, seq: int) -> int:
    """Take note of the number of a key statement; it only rises. Return the highest."""
    tx.run("UPDATE store SET statement_seq = max(statement_seq, ?)", seq)
    return statement_seq(tx)
