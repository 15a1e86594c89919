"""The running log: takes lines at any moment, writes them in a thread of its own, signs them soon."""

import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from cloudtolocalllm.audit.folder import checkpoint_line
from cloudtolocalllm.audit.sinks import SinkRunner
from cloudtolocalllm.audit.writer import Writer
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

QUEUE = 10_000
"""Lines that may wait for the disk, some 6 MB; beyond it `append` says no."""
BATCH = 256
"""Lines written at once."""


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """When a checkpoint is due."""

    records: int = 256
    """After so many records."""
    seconds: float = 5.0
    """Or so long after the first that none covers: what the loss of power can cost."""


class AuditLog:
    """Writes to a log and its sinks until it is closed. Its methods may be called from any thread."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        *,
        sinks: Sequence[SinkRunner] = (),
        policy: CheckpointPolicy | None = None,
    ) -> None:
        """Start writing.

        Args:
            writer: The open log; it is closed with this.
            clock: For checkpoints.
            sinks: Where every record and checkpoint goes besides; they are closed with this.
            policy: When checkpoints are made.
        """
        self._writer = writer
        self._clock = clock
        self._sinks = tuple(sinks)
        self._policy = policy or CheckpointPolicy()
        self._queue: queue.Queue[bytes | threading.Event] = queue.Queue(QUEUE)
        self._closing = threading.Event()
        self._since: float | None = None  # monotonic time of the first record that no checkpoint covers
        self.failures = 0
        """Times that the disk refused."""
        self._thread = threading.Thread(target=self._run, name="audit log", daemon=True)
        self._thread.start()

    def append(self, line: bytes) -> bool:
        """Take a record, without a newline; False when there are too many already, or the log is closed."""
        if self._closing.is_set():
            return False
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            return False
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what was appended is on disk and signed; False when it was not within `timeout` seconds."""
        done = threading.Event()
        try:
            self._queue.put(done, timeout=timeout)
        except queue.Full:
            return False
        return done.wait(timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what was appended, sign it, give the sinks a short time, and end. Blocks for `timeout` s at most."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then it does not sleep
            self._queue.put_nowait(threading.Event())
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error("the audit log could not be closed in time", extra={"seconds": timeout})

    # --- the thread

    def _run(self) -> None:
        try:
            while not (self._closing.is_set() and self._queue.empty()):
                try:
                    self._turn()
                except OSError:
                    # The records wait in _turn; this one is where it gave up, at the end.
                    log.exception("audit records are lost")
            note = self._writer.close(self._clock.wall())
            if note is not None:
                self._tell_sinks([checkpoint_line(note, self._clock.wall())])
        except Exception:
            log.exception("the audit log ended")
        finally:
            self._closing.set()  # however it came here: nobody may believe that something is written
            self._writer.abandon()
            for sink in self._sinks:
                sink.close()

    def _turn(self) -> None:
        lines, flushed = self._taken()
        if lines:
            self._persist(lines)
            self._tell_sinks(lines)
            if self._since is None:
                self._since = self._clock.monotonic()
        if self._due() or (flushed and self._writer.uncovered):
            self._checkpoint()
        for waiting in flushed:
            waiting.set()

    def _taken(self) -> tuple[list[bytes], list[threading.Event]]:
        """Return what waits, at most BATCH; when there is nothing, wait for it or until a checkpoint is due."""
        lines: list[bytes] = []
        flushed: list[threading.Event] = []
        try:
            item: bytes | threading.Event = self._queue.get(timeout=self._patience())
            while True:
                if isinstance(item, bytes):
                    lines.append(item)
                else:
                    flushed.append(item)
                if len(lines) >= BATCH:
                    break
                item = self._queue.get_nowait()
        except queue.Empty:
            pass
        return lines, flushed

    def _patience(self) -> float | None:
        """Return the seconds until a checkpoint is due; None when all is covered, so that idling costs nothing."""
        if self._since is None:
            return None
        return max(0.01, self._since + self._policy.seconds - self._clock.monotonic())

    def _due(self) -> bool:
        if self._since is None or not self._writer.uncovered:
            return False
        return (
            self._writer.uncovered >= self._policy.records
            or self._clock.monotonic() - self._since >= self._policy.seconds
        )

    def _persist(self, lines: list[bytes]) -> None:
        """Write lines, again and again while the disk refuses; meanwhile the queue fills and `append` says no."""
        backoff = Backoff(first=0.1, maximum=5.0)
        while True:
            try:
                self._writer.append(lines)
            except OSError as error:
                self.failures += 1
                if self._closing.is_set():
                    raise
                log.error("audit records cannot be written", extra={"fault": type(error).__name__})  # noqa: TRY400 - repeated; its kind is what matters
                self._closing.wait(backoff.next())
            else:
                return

    def _checkpoint(self) -> None:
        try:
            note = self._writer.checkpoint(self._clock.wall())
        except OSError as error:
            self.failures += 1
            self._since = self._clock.monotonic()
            log.error("an audit checkpoint cannot be written", extra={"fault": type(error).__name__})  # noqa: TRY400 - as above
            return
        self._since = None
        self._tell_sinks([checkpoint_line(note, self._clock.wall())])

    def _tell_sinks(self, lines: Sequence[bytes]) -> None:
        for sink in self._sinks:
            sink.offer(lines)
