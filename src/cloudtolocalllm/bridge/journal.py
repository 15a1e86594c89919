"""Answers kept in memory, so that a client that lost its connection can read on from any byte.

A Record is one answer, written once by whoever asks the engine, and read by its followers: the stream of the request
itself and those that attach later. The Journal bounds what all records hold together.

- A record that runs is never forgotten, for it must be possible to stop it; when memory runs short after every
  finished one has gone, the largest running one is shed: it keeps only what its followers have not read. Nobody can
  attach to it any more, so without followers its work is called off.
- Time is an argument; nothing here does I/O.
"""

from collections.abc import Callable
from typing import Protocol

from cloudtolocalllm.runtime.http1 import Headers

MAX_AGE = 600.0
"""Seconds for which a finished answer is kept."""
RECORD_COST = 2048
"""Bytes charged for a record besides its content, so that many small ones are bounded as well."""
MAX_BACKLOG = 1024 * 1024
"""Bytes that a follower of a shed record may be behind before it is cut off."""


class ExchangeRunsError(Exception):
    """An exchange with this id is still running."""


class Follower(Protocol):
    """A reader of a record. Methods must not raise and must not block."""

    offset: int
    """Bytes of content it has taken."""

    def informed(self, status: int, headers: Headers) -> None:
        """An informational response came."""

    def headed(self) -> None:
        """The record has its head."""

    def grew(self, data: bytes, at: int) -> bool:
        """Content was added at this offset; return whether all content is taken now."""
        ...

    def ended(self) -> None:
        """The record is complete or cut short."""

    def dropped(self) -> None:
        """It fell too far behind and is called no more."""


class Record:
    """One answer: head, content, trailers, and those who read it."""

    __slots__ = (
        "_base",
        "_data",
        "_followers",
        "_home",
        "_journal",
        "arriving",
        "cancel",
        "cut",
        "device",
        "ended",
        "finished_at",
        "headers",
        "id",
        "on_drained",
        "owner",
        "request",
        "size",
        "status",
        "stopped",
        "trailers",
    )

    def __init__(self, exchange_id: str, journal: "Journal | None" = None, owner: str = "", device: str = "") -> None:
        """Make an empty record.

        Args:
            exchange_id: Its name.
            journal: The one that keeps its content; None to keep only what the followers have not taken yet.
            owner: Id of the API key with which it was asked for; "" for none.
            device: Id of the device that asked for it sealed; "" for one that came in the clear.
        """
        self.id = exchange_id
        self.owner = owner
        self.device = device
        self.request = ""
        """What was asked for: method and target; "" where it does not matter."""
        self.arriving = False
        """Whether some of the request is still to come."""
        self.stopped = False
        """Whether somebody asked for its end."""
        self.status = 0
        """0 until the head is known."""
        self.headers: Headers = ()
        self.trailers: Headers = ()
        self.size = 0
        """Bytes of content so far."""
        self.ended = False
        self.cut = ""
        """Why the answer broke off; "" for one that is complete."""
        self.finished_at = 0.0
        self.on_drained: Callable[[], None] | None = None
        """Called when content can be taken again after `write` returned False."""
        self.cancel: Callable[[], None] | None = None
        """Stops the work behind a record that runs."""
        self._home = journal
        self._journal = journal
        """None once it is shed."""
        self._data = bytearray()
        self._base = 0
        self._followers: list[Follower] = []

    @property
    def kept(self) -> bool:
        """Whether all content is there, from its first byte on."""
        return self._journal is not None

    @property
    def held(self) -> int:
        """Bytes of content in memory."""
        return len(self._data)

    @property
    def key(self) -> tuple[str, str]:
        """Under what it stands in the journal: a name is good among one device's exchanges only."""
        return self.device, self.id

    @property
    def readers(self) -> int:
        """How many follow it now."""
        return len(self._followers)

    # --- writing ------------------------------------------------------------------------------------------------

    def inform(self, status: int, headers: Headers) -> None:
        """Pass an informational response to the present followers; it is not kept."""
        for follower in self._followers:
            follower.informed(status, headers)

    def start(self, status: int, headers: Headers) -> None:
        """Set the head."""
        self.status = status
        self.headers = headers
        for follower in tuple(self._followers):
            follower.headed()

    def write(self, data: bytes) -> bool:
        """Add content; return whether more should come now (see `on_drained`)."""
        at = self.size
        self.size = at + len(data)
        self._data += data
        journal = self._journal
        if journal is not None:
            journal.held += len(data)
            if journal.held > journal.limit:
                journal.make_room()
        followers = self._followers
        if len(followers) == 1:
            taken = followers[0].grew(data, at)
            if self._journal is None:
                self._trim()
            return taken
        for follower in followers:
            follower.grew(data, at)
        self._trim()
        return not self.stalled()

    def finish(self, trailers: Headers, now: float) -> None:
        """Complete the record."""
        self.trailers = trailers
        self._end(now)

    def break_off(self, why: str, now: float) -> None:
        """End the record before its answer is complete; no effect on one that has ended."""
        if not self.ended:
            self.cut = why
            self._end(now)

    def _end(self, now: float) -> None:
        self.ended = True
        self.finished_at = now
        self.on_drained = self.cancel = None
        for follower in tuple(self._followers):
            follower.ended()
        if self._home is not None:
            self._home.finished(self, now)

    def stop(self, now: float) -> None:
        """End it because somebody asked for that; no effect on one that has ended."""
        if not self.ended:
            self.stopped = True
            self.call_off("cancelled", now)

    def call_off(self, why: str, now: float) -> None:
        """Break it off, and the work behind it; no effect on one that has ended."""
        if not self.ended:
            if self.cancel is not None:
                self.cancel()
            self.break_off(why, now)

    # --- reading ------------------------------------------------------------------------------------------------

    def follow(self, follower: Follower) -> None:
        """Add a reader; it is told what comes from now on and reads what was before with `read`."""
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Remove a reader; without any, a kept record goes on growing."""
        if follower in self._followers:
            self._followers.remove(follower)
            self.drained()
            self._call_off_if_abandoned()

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of content from `offset`, which no earlier than the first byte held."""
        start = offset - self._base
        with memoryview(self._data) as view:
            return bytes(view[start : start + size])

    def drained(self) -> None:
        """Tell that a follower took content, or left."""
        self._trim()
        if self.on_drained is not None and not self.stalled():
            self.on_drained()

    def stalled(self) -> bool:
        """Whether the writer should wait: for the fastest reader of a kept record, for every one of another.

        A kept record's slow readers catch up from memory that is there anyway.
        """
        if not self._followers:
            return False
        behind = [follower.offset < self.size for follower in self._followers]
        return all(behind) if self._journal is not None else any(behind)

    # --- memory -------------------------------------------------------------------------------------------------

    def shed(self) -> None:
        """Stop keeping content: nobody can attach any more, and those who read on may not fall far behind."""
        self._journal = None
        for follower in tuple(self._followers):
            if self.size - follower.offset > MAX_BACKLOG:
                self._followers.remove(follower)
                follower.dropped()
        self._trim()
        self._call_off_if_abandoned()

    def _call_off_if_abandoned(self) -> None:
        """Stop work whose answer nobody reads, and nobody can read from its beginning again."""
        shed = self._home is not None and self._journal is None
        if shed and not self._followers and not self.ended and self.cancel is not None:
            self.cancel()

    def _trim(self) -> None:
        if self._journal is None and self._base < self.size:
            needed = min((follower.offset for follower in self._followers), default=self.size)
            if needed > self._base:
                del self._data[: needed - self._base]
                self._base = needed


class Journal:
    """The records of this bridge, by device and exchange id."""

    def __init__(self, limit: int, *, max_age: float = MAX_AGE) -> None:
        """Make an empty journal.

        Args:
            limit: Bytes held at most by all records together.
            max_age: Seconds for which a finished record is kept.
        """
        self.limit = limit
        self.held = 0
        """Bytes held now. Records add to it as they grow, so that a chunk costs no call."""
        self._max_age = max_age
        self._running: dict[tuple[str, str], Record] = {}
        self._finished: dict[tuple[str, str], Record] = {}
        """In the order in which they finished, the oldest first."""

    def __len__(self) -> int:
        return len(self._running) + len(self._finished)

    def open(self, exchange_id: str, now: float, owner: str = "", device: str = "") -> Record:
        """Begin a record; a finished one of the same id is forgotten.

        Args:
            exchange_id: Its name.
            now: Seconds that never go back.
            owner: Id of the API key with which it was asked for; "" for none.
            device: Id of the device that asks sealed; "" for a request in the clear.

        Raises:
            ExchangeRunsError: One of the same id runs.
        """
        self.expire(now)
        record = Record(exchange_id, self, owner, device)
        if record.key in self._running:
            raise ExchangeRunsError("expected an exchange id that is not in use")
        self._forget(record.key)
        self._running[record.key] = record
        self.held += RECORD_COST
        if self.held > self.limit:
            self.make_room()
        return record

    def find(self, exchange_id: str, now: float, device: str = "") -> Record | None:
        """Return a record, running or finished; None when it is unknown, too old or was dropped for room.

        Args:
            exchange_id: Its name.
            now: Seconds that never go back.
            device: Whose; "" for those of requests in the clear.
        """
        self.expire(now)
        key = (device, exchange_id)
        return self._running.get(key) or self._finished.get(key)

    def running(self) -> list[Record]:
        """Return the records that have not ended."""
        return list(self._running.values())

    def finished(self, record: Record, now: float) -> None:
        """Take note that a record ended."""
        if self._running.pop(record.key, None) is not None:
            if record.kept:
                self._finished[record.key] = record
            else:
                self.held -= RECORD_COST
        self.expire(now)

    def expire(self, now: float) -> None:
        """Forget finished records that are too old."""
        old = []
        for key, record in self._finished.items():
            if now - record.finished_at < self._max_age:
                break
            old.append(key)
        for key in old:
            self._forget(key)

    def make_room(self) -> None:
        """Come back under the limit: the oldest finished records go first, then the largest running ones are shed."""
        while self.held > self.limit and self._finished:
            self._forget(next(iter(self._finished)))
        while self.held > self.limit:
            largest = max((r for r in self._running.values() if r.kept), key=lambda r: r.held, default=None)
            if largest is None or not largest.held:
                return
            self.held -= largest.held
            largest.shed()

    def _forget(self, key: tuple[str, str]) -> None:
        record = self._finished.pop(key, None)
        if record is not None:
            self.held -= record.held + RECORD_COST
            record.shed()
