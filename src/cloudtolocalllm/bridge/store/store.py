"""The home store as the bridge uses it."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cloudtolocalllm.bridge.store import changes, database, devices, retention, runs
from cloudtolocalllm.bridge.store.changes import ChangeBell
from cloudtolocalllm.bridge.store.errors import StoreError, StoreFullError
from cloudtolocalllm.bridge.store.runs import LeftRun
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.bridge.store.watch import RevisionWatch
from cloudtolocalllm.bridge.store.worker import WORK_TIME, Worker
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")


class HomeStore:
    """The store. `open`, then `read` and `write` pieces of work, then `close`."""

    def __init__(self, path: Path, worker: Worker, bell: ChangeBell, notice: str, looks: sqlite3.Connection) -> None:
        """Use `open`."""
        self.path = path
        self.bell = bell
        self.notice = notice
        """What people are to be told: a damaged store was set aside; "" for nothing."""
        self._worker = worker
        self._looks = looks
        """A connection of the loop's thread, to notice at once what the owner's commands write."""
        self._watch = RevisionWatch(looks, "devices_revision")
        self._points: dict[str, bytes] = {}
        self._removed: set[str] = set()
        """Devices removed by this process, which no list that was read before lets in again."""
        self.left: list[LeftRun] = []
        """Runs that went on when the bridge ended, to be taken up again."""
        self.on_device_removed: Callable[[str], None] = lambda device: None
        """Called with the id of a device that may do nothing any more; what it does now is to be broken off."""

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, place: str = "") -> "HomeStore":
        """Open the store; made if there is none yet.

        Args:
            path: Its file; see `database.inspect`.
            clock: The time.
            place: Where its key lies, if not where the note says.

        Raises:
            StoreError: It cannot be opened.
        """
        bell = ChangeBell()
        worker = Worker(lambda: database.connect(path, place=place, check=False, aside=False), clock.wall)
        worker.on_changed = bell.ring_from_thread
        await worker.start()
        looks: sqlite3.Connection | None = None
        try:
            looks = database.connect(path, place=place, check=False, aside=False)
            store = cls(path, worker, bell, database.notice(path), looks)
            store.refresh_devices()
            store.left = await store.write(runs.left_over)
            bell.ring(await store.read(changes.newest))
        except BaseException:
            await worker.close()
            if looks is not None:
                looks.close()
            raise
        return store

    async def read(self, work: Callable[[Tx], T], *, seconds: float = WORK_TIME) -> T:
        """Return what a piece of work reads, all of it as at one moment.

        Raises:
            StoreError: What the work raised, or the database does not answer.
        """
        return await self._worker.submit(work, write=False, seconds=seconds)

    async def write(self, work: Callable[[Tx], T], *, seconds: float = WORK_TIME) -> T:
        """Have something changed, whole or not at all; it is on disk when the call returns.

        Raises:
            StoreError: What the work raised, or the database does not answer.
        """
        return await self._worker.submit(work, write=True, seconds=seconds)

    def post(self, work: Callable[[Tx], T], done: Callable[[bool], None]) -> None:
        """Have something changed without waiting for it.

        Args:
            work: The change.
            done: Called on the loop's thread when it is on disk (True) or could not be made (False, which is logged).
        """

        def settled(future: "asyncio.Future[T]") -> None:
            fault = None if future.cancelled() else future.exception()
            if fault is not None:
                log.error("the home store cannot be written", extra={"fault": str(fault)})
            done(fault is None)

        try:
            self._worker.submit(work, write=True).add_done_callback(settled)
        except StoreError as error:
            log.error("the home store takes no change", extra={"fault": str(error)})  # noqa: TRY400 - it tells all
            done(False)

    async def add(self, work: Callable[[Tx], T], *, seconds: float = WORK_TIME) -> T:
        """Have something added, if the quota has room for it.

        Raises:
            StoreFullError: It has none.
            StoreError: As for `write`.
        """

        def checked(tx: Tx) -> T:
            retention.check_room(tx)
            return work(tx)

        try:
            return await self.write(checked, seconds=seconds)
        except StoreFullError:
            await self.tidy()  # in transactions of its own: what is refused takes back all that was done in its own
            return await self.write(checked, seconds=seconds)

    def point_of(self, device: str) -> bytes | None:
        """Return the public key of a paired device, or None; for `sealed.device.authenticate`."""
        return self._points.get(device)

    def refresh_devices(self) -> None:
        """Take over what another process wrote of the devices; what it removed does nothing from here on."""
        try:
            if not self._watch.look():
                return
            tx = Tx(self._looks, 0.0)  # neither asks for the time
            self._let_in(devices.points(tx))
            self.bell.ring(changes.newest(tx))
        except sqlite3.Error:
            log.exception("the list of devices cannot be read; what is known of it holds")

    async def pair(self, point: bytes, name: str, *, approved_by: str) -> devices.Device:
        """Let a device in.

        Raises:
            StoreError: It cannot be let in.
        """
        device = await self.write(lambda tx: devices.pair(tx, point, name, approved_by=approved_by))
        self.refresh_devices()
        return device

    async def approve(self, id_: str, *, approved_by: str) -> devices.Device:
        """Let a device in that waits.

        Raises:
            StoreError: It cannot be let in.
        """
        device = await self.write(lambda tx: devices.approve(tx, id_, approved_by=approved_by))
        self.refresh_devices()
        return device

    async def remove_device(self, id_: str) -> None:
        """Remove a device: it is refused from this call on, before it is written down.

        Raises:
            StoreError: It could not be written down; it is refused until the bridge ends.
        """
        self._removed.add(id_)
        if self._points.pop(id_, None) is not None:
            self.on_device_removed(id_)
        await self.write(lambda tx: devices.remove(tx, id_))

    async def tidy(self) -> None:
        """Bring the store within its quota and time, a little at a time; for a task that does it again and again."""
        try:
            while await self.write(retention.enforce):
                pass
        except Exception:
            log.exception("the home store could not be tidied; trying again later")

    async def close(self) -> None:
        """Finish what waits and close the file."""
        await self._worker.close()
        self._looks.close()

    def _let_in(self, points: dict[str, bytes]) -> None:
        before = self._points
        self._points = {id_: point for id_, point in points.items() if id_ not in self._removed}
        for id_ in before.keys() - self._points.keys():
            self.on_device_removed(id_)
