"""The list of API keys of an earlier version is taken over once, and nothing that was revoked comes back."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth.scopes import KeyScope
from cloudtolocalllm.bridge.keys import KeyList, KeyListError
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.old_keys import old_path

# As the release before wrote it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL,
    last_used REAL, revoked REAL, day INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0
)
"""
CREATED, EXPIRES = 1_700_000_000, 1_900_000_000
DAY = 19_000


def old_list(folder: Path, *rows: tuple[str, float | None]) -> Path:
    """Write a list of keys, each with when it was revoked."""
    path = old_path(home_path(folder / "credential.json"))
    assert path == folder / "credential.keys.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(SCHEMA)
        for id_, revoked in rows:
            db.execute(
                'INSERT INTO keys VALUES (?, ?, \'{"mdl": ["a*"]}\', ?, ?, 5.0, ?, ?, 70)',
                (id_, f"the key {id_}", CREATED, EXPIRES, revoked, DAY),
            )
    return path


def test_keys_and_revocations_are_taken_over_and_the_file_renamed(tmp_path: Path) -> None:
    path = old_list(tmp_path, ("good", None), ("bad", 7.0))
    store = home_path(tmp_path / "credential.json")
    for _ in range(2):
        keys = KeyList(store, FakeClock())
        good, bad = keys.find("good"), keys.find("bad")
        assert good is not None
        assert bad is not None
        assert (good.name, good.scope, good.created, good.expires) == (
            "the key good", KeyScope(models=("a*",)), CREATED, EXPIRES,
        )  # fmt: skip
        assert (good.last_used, good.revoked, good.day, good.tokens) == (5.0, None, DAY, 70)
        assert bad.revoked == 7.0
        keys.close()
    assert not path.exists()
    with closing(sqlite3.connect(tmp_path / "credential.keys.db.taken-over")) as db:
        assert db.execute("SELECT count(*) FROM keys").fetchone() == (2,)


def test_what_either_list_says_is_revoked_is(tmp_path: Path) -> None:
    store = home_path(tmp_path / "credential.json")
    keys = KeyList(store, FakeClock())
    for id_ in ("revoked then", "revoked since"):
        keys.add(id_, id_, KeyScope(), created=CREATED, expires=EXPIRES)
    keys.revoke("revoked since")
    keys.close()
    old_list(tmp_path, ("revoked then", 7.0), ("revoked since", None))
    keys = KeyList(store, FakeClock())
    assert all(key.revoked is not None for key in keys)
    assert len(keys) == 2
    keys.close()


def test_a_damaged_list_is_not_passed_over(tmp_path: Path) -> None:
    path = old_path(home_path(tmp_path / "credential.json"))
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(KeyListError, match=r"credential\.keys\.db"):
        KeyList(home_path(tmp_path / "credential.json"), FakeClock())
    assert path.exists()
