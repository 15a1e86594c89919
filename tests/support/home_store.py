"""A home store without its thread: each piece of work in a transaction of its own, at a time that the test sets."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.support.fake_clock import FakeClock

from cloudtolocalllm.bridge.store import database, encryption
from cloudtolocalllm.bridge.store.tx import Tx

T = TypeVar("T")


KINDS = ("clear", "encrypted")


def store_path(path: Path, kind: str) -> Path:
    """Return where a store is to be made, which will be of one of KINDS; a key's file lies in the folder above."""
    if kind == "encrypted":
        encryption.encrypt(path, f"file:{path.parent.parent / 'store-key'}")
    return path


class DirectStore:
    """The store's functions, called directly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.db: sqlite3.Connection = database.connect(path)

    def do(self, work: Callable[[Tx], T]) -> T:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            result = work(Tx(self.db, self.clock.wall()))
            self.db.execute("COMMIT")
        finally:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        return result

    def __call__(self, work: Callable[..., T], *values: object, **named: object) -> T:
        return self.do(lambda tx: work(tx, *values, **named))

    def reopen(self) -> None:
        self.db.close()
        self.db = database.connect(self.path)

    def close(self) -> None:
        self.db.close()
