"""The owner's commands use the home store while a bridge runs: neither takes the other's log away."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from cloudtolocalllm.bridge.store import database

COMMAND = """
import sqlite3, sys
from contextlib import closing
with closing(sqlite3.connect(sys.argv[1], timeout=5)) as db, db:
    db.execute("INSERT INTO pairing_offers (secret, made) VALUES (?, 1)", (sys.argv[2].encode(),))
    print([row[0].decode() for row in db.execute("SELECT secret FROM pairing_offers ORDER BY secret")])
"""


def command(path: Path, secret: str) -> str:
    """Do what a command does, in a process of its own; return what it saw."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(path), secret], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


def test_a_command_that_ends_leaves_the_log_of_a_bridge_that_runs(tmp_path: Path) -> None:
    """The key list has the store open when the store's own thread opens it too, as in a bridge that starts."""
    path = tmp_path / "credential.home.db"
    database.inspect(path)
    # As the key list and the store's thread do, one after the other.
    with closing(database.connect(path, check=False)) as keys:
        keys.execute("SELECT count(*) FROM keys").fetchone()
        with closing(database.connect(path)) as store:
            assert command(path, "a") == "['a']"
            assert path.with_name(path.name + "-wal").exists()
            store.execute("INSERT INTO pairing_offers (secret, made) VALUES (?, 1)", (b"b",))
            assert command(path, "c") == "['a', 'b', 'c']"
            assert len(store.execute("SELECT * FROM pairing_offers").fetchall()) == 3
    assert command(path, "d") == "['a', 'b', 'c', 'd']"


def test_what_is_no_database_is_told_without_opening_its_log(tmp_path: Path) -> None:
    path, log = tmp_path / "credential.home.db", tmp_path / "credential.home.db-wal"
    for content in (b"", b"SQLite", b"x" * 100, b"x" * 8192):
        path.write_bytes(content)
        log.write_bytes(b"log")
        assert not database.has_head(path)
        assert log.read_bytes() == b"log"
    path.unlink()
    log.unlink()
    database.connect(path).close()
    assert database.has_head(path)
