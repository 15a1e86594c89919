"""Runs: started by a client, owned by the bridge, stored as they grow, watched by anybody at any offset."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from cloudtolocalllm.bridge.engines.catalog import rank
from cloudtolocalllm.bridge.exchange import Desk
from cloudtolocalllm.bridge.guard import ApiFamily
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.runs import stored
from cloudtolocalllm.bridge.runs.asking import ask, route_of
from cloudtolocalllm.bridge.runs.echo import Echo
from cloudtolocalllm.bridge.runs.live import LiveRun, Unstored
from cloudtolocalllm.bridge.runs.prompt import RunOptions
from cloudtolocalllm.bridge.runs.writer import STOPPED, RunWriter
from cloudtolocalllm.bridge.store import runs
from cloudtolocalllm.bridge.store.errors import ConflictError, StoreError, StoreFullError
from cloudtolocalllm.bridge.store.runs import End, LeftRun, NewRun, Piece, Run, RunState
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.bridge.store.tx import chosen_id
from cloudtolocalllm.contracts.control import EngineState
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds between two writes of new text: what a crash can cost at most, besides the write itself."""
MAX_LIVE = 32
"""Runs at once; engines queue them."""
MAX_WATCHERS = 64
"""Watchers of one run."""
TRIES = 10
"""Writes in a row that may fail before a run is given up."""
UNFINISHED_INTERVAL = 2.0
"""Seconds between two attempts to write down how runs ended that were given up."""
STOP_TIME = 5.0
"""Seconds that a stop waits until it is written down; the engine is stopped before."""
MAX_SEED = 2**31
"""Seeds are below; larger ones are not taken everywhere."""
QUIET = 15.0
"""Seconds without a change after which a watcher is told that the run goes on."""

ENGINE_TIME = 300.0
"""Seconds for which a run that is taken up again waits for an engine with its model: after a restart of the machine
an engine may come later than the bridge."""
LOOK_INTERVAL = 0.25
"""Seconds between two looks for it."""

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watcher gets: a state, a piece of text, or nothing but that all is well."""

    state: RunState
    piece: Piece | None = None
    ended: Run | None = None
    """The run, once it has ended; the last thing that a watcher gets."""


class RunDesk:
    """The runs of this bridge."""

    def __init__(self, store: HomeStore, desk: Desk, *, interval: float = FLUSH_INTERVAL) -> None:
        """Make a desk; `open` begins to store.

        Args:
            store: Where runs are kept.
            desk: The engines.
            interval: Seconds between two writes of new text.
        """
        self._store = store
        self._desk = desk
        self._interval = interval
        self._live: dict[str, LiveRun] = {}
        self._writers: dict[str, RunWriter] = {}
        self._unfinished: dict[str, End] = {}
        """Runs whose end could not be stored yet."""
        self._failures = 0
        self._storing = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._tasks = TaskSet(limit=2 * MAX_LIVE + 1)
        self._closing = False
        self._opened = False

    def open(self) -> None:
        """Begin to store what runs write. Those that went on when the bridge ended can be watched; see `take_up`."""
        self._opened = True
        for left in self._store.left:
            live = self._live[left.run.id] = LiveRun(left.run.id, left.run)
            self._writers[left.run.id] = RunWriter(live, self._mark)
        self._tasks.start(self._store_forever(), "storing runs")

    def take_up(self) -> None:
        """Have the runs go on that went on when the bridge ended; call it once, when engines are known."""
        left, self._store.left = self._store.left, []
        if left:
            log.warning("answers broke off with the bridge; they go on", extra={"runs": len(left)})
        for one in left:
            self._tasks.start(self._take_up(one), "taking up a run")

    # --- for clients ----------------------------------------------------------------------------------------------

    async def start(self, new: NewRun, options: RunOptions) -> Run:
        """Start a run; one that was started with the same id is returned as it is.

        It goes on when the caller is cancelled.

        Raises:
            RefusalError: There are too many.
            StoreError: The conversation or the message to answer is not there, or it does not fit.
        """
        options.check()
        if options.seed is None:  # so that the same can be asked for again
            options = replace(options, seed=secrets.randbelow(MAX_SEED))
        new = replace(new, id=chosen_id(new.id))
        if self._closing or not self._opened:
            raise RefusalError(Problem.OVERLOADED, "The bridge is being stopped; try again soon.")
        try:
            starting = self._tasks.start(self._start(new, options), "starting a run")
        except RuntimeError:
            raise _too_many() from None
        started = await asyncio.shield(starting)
        if not isinstance(started, Run):
            raise started
        return started

    async def get(self, id_: str) -> Run:
        """Return a run as it is now.

        Raises:
            NotHereError: There is none.
        """
        return self._now(await self._store.read(lambda tx: runs.get(tx, id_)))

    async def going_on(self) -> list[Run]:
        """Return the runs that go on."""
        return [self._now(run) for run in await self._store.read(runs.active)]

    async def watch(self, id_: str, offset: int) -> AsyncGenerator[Watched, None]:
        """Yield a run's text from an offset on, exactly once each byte, and its states, until it has ended.

        Args:
            id_: The run.
            offset: Bytes of text that the watcher has.

        Raises:
            NotHereError: There is no such run.
            ConflictError: The offset lies behind the text, or inside a character.
            RefusalError: Too many watch it.
        """
        run = await self.get(id_)
        # One that has ended and is asked for once more is among the live ones, too, until the store has said so.
        live = self._live.get(id_) if run.state.active else None
        if live is not None and live.watchers >= MAX_WATCHERS:
            raise RefusalError(Problem.OVERLOADED, f"At most {MAX_WATCHERS} may watch an answer at once.")
        if not 0 <= offset <= (run.size if live is None else live.size):
            raise ConflictError("expected an offset of at most the bytes of text there are")
        if live is not None:
            live.watchers += 1
            try:
                async for watched in self._watch_live(live, offset):
                    offset = watched.piece.end if watched.piece is not None else offset
                    yield watched
            finally:
                live.watchers -= 1
            if live.ended is not None and id_ in self._unfinished:
                yield Watched(live.ended.state, ended=await self.get(id_))
                return
        async for watched in self._watch_stored(id_, offset):
            yield watched

    async def stop(self, id_: str) -> Run:
        """Stop a run: the engine at once, and what was written so far is kept; no effect on one that has ended.

        Raises:
            NotHereError: There is none.
        """
        live, writer = self._live.get(id_), self._writers.get(id_)
        if writer is not None:
            writer.stop(STOPPED)
        elif live is not None:
            live.ending = live.ending or STOPPED
        if live is not None:
            try:
                async with asyncio.timeout(STOP_TIME):
                    while live.ended is None and id_ in self._live:
                        await live.wait()
            except TimeoutError:
                log.warning("a stopped run could not be written down in time")
        return await self.get(id_)

    async def close(self) -> None:
        """Break every run off, with all its text stored as far as the store takes it; the next start takes it up."""
        self._closing = True
        for writer in list(self._writers.values()):
            writer.leave()
        if self._opened:
            await self._store_once()
        await self._tasks.close()

    @property
    def active(self) -> int:
        """How many runs go on."""
        return len(self._live)

    # --- starting -------------------------------------------------------------------------------------------------

    async def _start(self, new: NewRun, options: RunOptions) -> Run | StoreError | RefusalError:
        """Return the run, or why there is none: as a task's result, which is no fault of the task."""
        try:
            return await self._begin(new, options)
        except (StoreError, RefusalError) as error:
            return error

    async def _begin(self, new: NewRun, options: RunOptions) -> Run:
        id_ = chosen_id(new.id)
        if id_ in self._live:
            return stored.same(await self.get(id_), new)
        if len(self._live) >= MAX_LIVE:
            raise _too_many()
        route = route_of("POST", CHAT, ())
        live = self._live[id_] = LiveRun(id_)  # before the store tells others of the run
        try:
            run, content = await self._store.add(lambda tx: stored.begin(tx, new, options))
        except BaseException:
            self._forget(live)
            raise
        if content is None or self._closing:
            self._forget(live)
            return run
        writer = self._writers[id_] = RunWriter(live, self._mark)
        if live.ending is not None:  # it was stopped before it began
            self._mark(True)
            return run
        writer.exchange = ask(self._desk, route, content, writer, on_loading=writer.loading)
        return run

    async def _take_up(self, left: LeftRun) -> None:
        """Ask an engine for a run's answer once more; what it says is the rest once it has said the stored part."""
        id_ = left.run.id
        live, writer = self._live.get(id_), self._writers.get(id_)
        if live is None or writer is None:  # it was stopped before
            return
        try:
            route = route_of("POST", CHAT, ())
            options = RunOptions.of(json.loads(left.options))
            new = NewRun(left.run.conversation, left.parent, left.run.model, id=id_)
            content, said = await self._store.read(
                lambda tx: (stored.request(tx, new, options), runs.all_text(tx, id_))
            )
        except Exception as error:
            writer.stop(End(RunState.INTERRUPTED, runs.INTERRUPTED, _why_not(error)))
            return
        await self._until_served(new.model, live)
        if live.ending is not None or self._closing:
            return
        writer.echo = Echo(said) if said else None
        writer.exchange = ask(self._desk, route, content, writer, on_loading=writer.loading)

    async def _until_served(self, model: str, live: LiveRun) -> None:
        """Wait until an engine has a run's model, or that takes too long: then asking it tells what is wrong."""
        give_up = self._desk.clock.monotonic() + ENGINE_TIME
        while live.ending is None and not self._closing and self._desk.clock.monotonic() < give_up:
            try:
                if rank(self._desk.catalog.serving(ApiFamily.OPENAI), model)[0].state is not EngineState.DOWN:
                    return
            except RefusalError:
                pass  # none yet
            await asyncio.sleep(LOOK_INTERVAL)

    def _now(self, run: Run) -> Run:
        """Return a run of the store with what is known better here."""
        if not run.state.active:
            return run
        if (end := self._unfinished.get(run.id)) is not None:
            return replace(run, state=end.state, reason=end.reason, detail=end.detail)
        live = self._live.get(run.id)
        if live is None:
            return run
        return replace(run, state=live.state, size=live.size)

    # --- watching -------------------------------------------------------------------------------------------------

    async def _watch_live(self, live: LiveRun, offset: int) -> AsyncGenerator[Watched, None]:
        told: RunState | None = None
        while True:
            if live.state is not told and live.ended is None:
                told = live.state
                yield Watched(told)
            pieces = live.since(offset)
            if pieces is None:
                wanted = offset
                pieces = await self._store.read(lambda tx: runs.read(tx, live.id, wanted))  # noqa: B023 - awaited here
            for piece in pieces:
                offset = piece.end
                yield Watched(live.state, piece)
            if pieces:
                continue
            if live.ended is not None:
                return
            # Nothing is awaited between the look above and this wait, so no change is missed.
            try:
                async with asyncio.timeout(QUIET):
                    await live.wait()
            except TimeoutError:
                yield Watched(live.state)

    async def _watch_stored(self, id_: str, offset: int) -> AsyncGenerator[Watched, None]:
        while True:
            wanted = offset
            pieces = await self._store.read(lambda tx: runs.read(tx, id_, wanted))  # noqa: B023 - awaited here
            run = await self.get(id_)
            for piece in pieces:
                offset = piece.end
                yield Watched(run.state, piece)
            if not pieces:
                yield Watched(run.state, ended=run)
                return

    # --- storing --------------------------------------------------------------------------------------------------

    def _mark(self, urgent: bool) -> None:
        self._dirty.set()
        if urgent:
            self._urgent.set()

    async def _store_forever(self) -> None:
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._interval):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            self._urgent.clear()
            await self._store_once()
            if self._failures or self._unfinished:
                self._dirty.set()
                await asyncio.sleep(self._interval if self._live else UNFINISHED_INTERVAL)

    async def _store_once(self) -> None:
        """Write down what every run has new, in one transaction."""
        async with self._storing:
            await self._store_all()

    async def _store_all(self) -> None:
        batch = [live.take() for live in self._live.values() if live.is_dirty and live.id in self._writers]
        unfinished = dict(self._unfinished)
        if not batch and not unfinished:
            return
        fault = await self._written(batch, unfinished)
        if fault is None:
            self._failures = 0
            return
        # One alone may be what does not fit; the others are not to suffer from it.
        failed = [what for what in batch if await self._written([what], {}) is not None]
        self._failed(failed, fault)

    async def _written(self, batch: list[Unstored], unfinished: dict[str, End]) -> StoreError | None:
        """Write down some runs' news; return why that was not possible, or None."""
        try:
            await self._store.write(lambda tx: stored.write(tx, batch, unfinished))
        except StoreError as error:
            return error
        except Exception:
            log.exception("runs could not be stored")
            return StoreError("the bridge has logged what it was")
        for id_ in unfinished:
            self._unfinished.pop(id_, None)
        for what in batch:
            self._stored(what)
        return None

    def _stored(self, what: Unstored) -> None:
        live = self._live[what.id]
        live.was_stored(what)
        if what.end is not None:
            self._forget(live)
        elif (writer := self._writers.get(what.id)) is not None:
            writer.stored()

    def _failed(self, batch: list[Unstored], error: StoreError) -> None:
        self._failures += 1
        log.error("runs could not be stored", extra={"fault": str(error), "in_a_row": self._failures})
        if self._failures < TRIES:
            return
        self._failures = 0
        for what in batch:
            live, writer = self._live[what.id], self._writers[what.id]
            problem = Problem.HOME_FULL if isinstance(error, StoreFullError) else Problem.INTERNAL
            end = End(RunState.FAILED, problem.value.slug, f"The answer could not be stored at home: {error}")
            writer.stop(end)
            self._unfinished[what.id] = end
            live.over(end)
            self._forget(live)

    def _forget(self, live: LiveRun) -> None:
        self._live.pop(live.id, None)
        self._writers.pop(live.id, None)
        live.ring()


def _too_many() -> RefusalError:
    return RefusalError(Problem.OVERLOADED, f"At most {MAX_LIVE} answers are written at once; try again soon.")


def _why_not(error: Exception) -> str:
    """Return why a run cannot be taken up, for people."""
    if isinstance(error, StoreError):  # the question was deleted meanwhile, for example
        why = str(error)
    elif isinstance(error, RefusalError):
        why = error.detail
    else:
        log.error("a run could not be taken up", exc_info=error)
        why = "the bridge has logged what it was."
    return f"The bridge ended while this answer was being written, and it cannot go on: {why}"
