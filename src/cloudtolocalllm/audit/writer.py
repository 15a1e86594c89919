"""Writes a log's files. One writer a log; what it does, it does in the caller's thread.

A checkpoint is signed only after every record that it covers is on disk, and a segment begins only after a checkpoint
of all before it: so after a crash there are at least as many whole records as the newest checkpoint says, and if
there are not, somebody removed them.
"""

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from cloudtolocalllm.audit import folder as log_files
from cloudtolocalllm.audit.checkpoint import CheckpointError, Signer
from cloudtolocalllm.audit.folder import DamagedError, Segment
from cloudtolocalllm.audit.tree import Edge, leaf_hash
from cloudtolocalllm.runtime import files, locks

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
"""Bytes of records after which a new segment begins: some 25,000 events, read within a second at a start."""


class LogBusyError(Exception):
    """Another process writes this log."""


class Writer:
    """The open log."""

    def __init__(self, folder: Path, origin: str, *, now: float, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open a log; made if there is none. One that does not fit its checkpoints is set aside and begun anew.

        Args:
            folder: Its files; made with mode 0700.
            origin: Who it is of, such as "example.org/api"; counts when it is made.
            now: Seconds since the epoch.
            segment_bytes: Bytes of records after which a new segment begins.

        Raises:
            LogBusyError: Another process writes it.
            OSError: The folder cannot be used.
            ValueError: The origin cannot stand in a checkpoint.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        for one in (folder.parent, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(folder / log_files.LOCK)
        self._file = -1
        self._edge = Edge()
        self._covered = 0
        self._bytes = 0
        self.recovered = False
        """Whether the last writer had been killed: records after the last checkpoint, or a torn one."""
        self.damaged = ""
        """The folder into which a damaged log was set aside; empty when there was none."""
        try:
            try:
                self._open(origin, now)
            except DamagedError as error:
                self.damaged = log_files.set_aside(folder)
                log.critical("the audit log is damaged; a new one is begun",
                             extra={"fault": str(error), "set_aside": self.damaged})  # fmt: skip
                # Another name, since a log must never sign two histories
                self._open(f"{origin}/{self.damaged.removeprefix(log_files.DAMAGED)}", now)
        except BaseException:
            self.abandon()
            raise

    @property
    def size(self) -> int:
        """Records in the log."""
        return self._edge.size

    @property
    def uncovered(self) -> int:
        """Records after the newest checkpoint."""
        return self._edge.size - self._covered

    @property
    def verifier_key(self) -> str:
        """The public key, as `audit verify --key` takes it."""
        return str(self._signer.verifier)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write records. They survive the process's end at once, the machine's at the next checkpoint.

        Args:
            lines: Without newlines.

        Raises:
            OSError: They could not be written; then none of them is.
        """
        if not lines:
            return
        content = b"".join(line + b"\n" for line in lines)
        try:
            _write_all(self._file, content)
        except OSError:
            os.ftruncate(self._file, self._bytes)  # no half line before the next attempt's
            raise
        self._bytes += len(content)
        for line in lines:
            self._edge = self._edge.appended(leaf_hash(line))

    def checkpoint(self, now: float) -> str:
        """Have everything on disk, sign it, and begin a new segment when this one is full; return the note.

        Args:
            now: Seconds since the epoch.

        Raises:
            OSError: The disk does not do.
        """
        os.fsync(self._file)
        note = self._signer.sign(self._edge.size, self._edge.root())
        self._note(note, now)
        files.replace(self._folder / log_files.CHECKPOINT, note.encode())
        self._covered = self._edge.size
        if self._bytes >= self._segment_bytes:
            self._begin_segment()
        return note

    def same_configuration(self, values: Sequence[str]) -> tuple[str, bool]:
        """Return a keyed hash of settings, and whether it is the last start's. It tells nothing without the key."""
        mac = hmac.new(self._secret, b"configuration\0" + json.dumps(list(values)).encode(), hashlib.sha256)
        digest = mac.hexdigest()[:32]
        path = self._folder / "configuration"
        same = not path.exists() or path.read_text() == digest
        files.replace(path, digest.encode())
        return digest, same

    def close(self, now: float) -> str | None:
        """Sign what is not covered yet, and give the log back; return the last note, if one was needed."""
        try:
            return self.checkpoint(now) if self.uncovered else None
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give the log back as it is."""
        for fd in (self._file, self._lock):
            if fd >= 0:
                os.close(fd)
        self._file = self._lock = -1

    # --- opening

    def _open(self, origin: str, now: float) -> None:
        self._signer: Signer = log_files.load_signer(self._folder, origin)
        self._secret = hashlib.sha256((self._folder / log_files.KEY).read_bytes()).digest()
        there = log_files.segments(self._folder)
        if not there and not (self._folder / log_files.CHECKPOINT).exists():
            self._begin_segment()
            self.checkpoint(now)
            return
        if not there:
            raise DamagedError("the records are gone")
        self._resume(there[-1])

    def _resume(self, segment: Segment) -> None:
        covered, root = self._newest()
        edge = segment.edge()
        length = torn = 0
        held = edge.root() if edge.size == covered else None
        for line in segment.lines():
            if not line.endswith(b"\n"):
                torn = len(line)
                break
            length += len(line)
            edge = edge.appended(leaf_hash(line[:-1]))
            if edge.size == covered:
                held = edge.root()
        if held is None:
            raise DamagedError(f"the newest checkpoint is of {covered} records, the log has {edge.size}")
        if held != root:
            raise DamagedError(f"the first {covered} records are not those of the newest checkpoint")
        self._edge, self._covered = edge, covered
        self.recovered = bool(torn) or edge.size > covered
        self._take(segment)
        os.ftruncate(self._file, length)
        self._bytes = length

    def _newest(self) -> tuple[int, bytes]:
        try:
            note = (self._folder / log_files.CHECKPOINT).read_text(encoding="utf-8")
            newest = self._signer.verifier.open(note)
        except (OSError, UnicodeDecodeError, CheckpointError) as error:
            raise DamagedError(f"the newest checkpoint cannot be used: {error}") from None
        return newest.size, newest.root

    # --- segments

    def _begin_segment(self) -> None:
        segment = Segment(self._folder, self._edge.size)
        segment.write_edge(self._edge)
        before = self._file
        self._take(segment)
        self._bytes = 0
        if before >= 0:
            os.close(before)
        files.sync_folder(self._folder)

    def _take(self, segment: Segment) -> None:
        self._segment = segment
        self._file = os.open(segment.records, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _note(self, note: str, now: float) -> None:
        fd = os.open(self._segment.checkpoints, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, log_files.checkpoint_line(note, now) + b"\n")
        finally:
            os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _locked(path: Path) -> int:
    try:
        return locks.take(path)
    except locks.HeldError:
        raise LogBusyError(f"another process writes the log in {path.parent}") from None
