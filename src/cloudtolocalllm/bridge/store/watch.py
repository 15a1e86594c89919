"""Notices what other connections wrote, at the price of a look: some microseconds on the loop's thread."""

import sqlite3


class RevisionWatch:
    """Watches one of the numbers in the table `store` that rise with each change of something."""

    def __init__(self, db: sqlite3.Connection, column: str) -> None:
        """Watch from now on; the first look finds a change.

        Args:
            db: A connection on which nothing else begins a transaction meanwhile.
            column: Of the table `store`.
        """
        self._db = db
        self._statement = f"SELECT {column} FROM store"  # noqa: S608 - a constant of ours
        self._version = self._revision = -1

    def look(self) -> bool:
        """Tell whether something changed since the last look.

        Raises:
            sqlite3.Error: It cannot be read.
        """
        # Changes when another connection has written, whatever it was.
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        (revision,) = self._db.execute(self._statement).fetchone()
        changed = revision != self._revision
        self._version, self._revision = version, revision
        return bool(changed)
