"""The homes of this computer at run time: how each is reached, how it is, and which models it has."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cloudtolocalllm.connect import fields, lists
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.home_client import HomeClient, InnerRequest, SealedAnswer, whole
from cloudtolocalllm.connect.homes import Home
from cloudtolocalllm.connect.paths import LISTS, inner_target
from cloudtolocalllm.connect.refusals import is_problem, read_problem
from cloudtolocalllm.connect.routing import Asked, HomeView, Stickiness, canonical, choose
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

LIST_WAIT: Final = 2.0
"""Seconds that a list waits for a home of which an earlier one is known."""
FIRST_WAIT: Final = 10.0
"""Seconds that it waits while it would be empty otherwise; also the time for one question to a home."""
FRESH: Final = 30.0
"""Seconds for which a list tells where a model is without being asked for anew."""
KEPT: Final = 86_400.0
"""Seconds for which the models of a home that is away are still listed."""
_MODELS: Final = ("/api/tags", "/v1/models")
_LOADED: Final = "/api/ps"
_NOT_OF_THE_HOME: Final = frozenset({Problem.BAD_REQUEST, Problem.ENGINE_ERROR})
"""Failures of one request, which say nothing of the home."""
_TROUBLES: Final = {
    Problem.ENGINE_UNREACHABLE.value.slug: Fault.NOT_TAKEN,
    Problem.TIMED_OUT.value.slug: Fault.NOT_TAKEN,
    Problem.OVERLOADED.value.slug: Fault.NOT_TAKEN,
    Problem.CONNECTION_LOST.value.slug: Fault.LOST,
    Problem.INTERNAL.value.slug: Fault.NOT_TAKEN,
    Problem.DEVICE_UNKNOWN.value.slug: Fault.REFUSED,
    Problem.UNAUTHENTICATED.value.slug: Fault.REFUSED,
}
"""What a home's own refusals of a list say of the home. Others concern that list: no engine there has such a one."""
_LOOK: Final = "look"
LOOK_AGAIN: Final = 1.0
"""Seconds at most between two looks at a home that is away, while answers of it are silent, so that it is noticed at
once when it is back; after"""
LOOK_EAGER: Final = 60.0
"""seconds there are"""
LOOK_CALM: Final = 5.0
"""more between them."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list as a home gave it."""

    status: int
    headers: Headers
    content: bytes
    at: float
    """When, in seconds that never go back."""


@dataclass(eq=False)
class HomeState:
    """One home."""

    home: Home
    client: HomeClient
    trouble: HomeError | None = None
    """Why the last question to it was not answered; None when it was."""
    running: int = 0
    """Requests under way there."""
    listings: dict[str, Listing] = field(default_factory=dict)
    """The last good ones, by local path."""
    pending: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    silent: dict[SealedAnswer, float] = field(default_factory=dict)
    """Answers that wait for a look at the home, and when they were heard last."""

    @property
    def up(self) -> bool:
        """Whether the last question to it was answered."""
        return self.trouble is None

    @property
    def why(self) -> str:
        """Why it is down, for people; "" while it is not."""
        return "" if self.trouble is None else self.trouble.detail

    def answered(self) -> None:
        """Note that it answers."""
        if not self.up:
            log.info("a home answers again", extra={"home": self.home.id})
        self.trouble = None

    def failed(self, error: HomeError) -> None:
        """Note that it does not."""
        if error.fault is Fault.STALE_KEY or error.problem in _NOT_OF_THE_HOME:
            return
        if self.up:
            log.warning("a home does not answer", extra={"home": self.home.id, "cause": error.problem.value.slug})
        self.trouble = error

    def kept(self, path: str, oldest: float) -> "Listing | None":
        """Return its list for everybody's: one that it refuses is not kept, one that it cannot give now is."""
        found = self.listings.get(path)
        refused = self.trouble is not None and self.trouble.fault is Fault.REFUSED
        return None if found is None or refused or found.at < oldest else found

    def models(self) -> frozenset[str] | None:
        """Return its models' canonical names; None while they are not known."""
        known = [self.listings[path] for path in _MODELS if path in self.listings]
        if not known:
            return None
        return frozenset[str]().union(*(lists.names(entries) for entries in self._entries(_MODELS)))

    def loaded(self) -> frozenset[str]:
        """Return the canonical names of the models in its engine's memory, as far as known."""
        return frozenset[str]().union(*(lists.names(entries) for entries in self._entries((_LOADED,))))

    def _entries(self, paths: Iterable[str]) -> list[list[dict[str, Any]]]:
        found = (
            lists.entries(self.listings[path].content, LISTS[path])
            for path in paths
            if path in self.listings and self.listings[path].status == 200
        )
        return [entries for entries in found if entries is not None]


class Household:
    """All homes."""

    def __init__(self, states: Callable[[], Sequence[HomeState]], tasks: TaskSet, clock: Clock) -> None:
        """Look after homes.

        Args:
            states: Returns the homes of this moment, by priority.
            tasks: Runs questions to homes.
            clock: For the age of lists.
        """
        self._states = states
        self._tasks = tasks
        self._clock = clock
        self.stickiness = Stickiness()

    def states(self) -> Sequence[HomeState]:
        """Return the homes, by priority."""
        return self._states()

    # --- where a request goes ---

    async def order(self, asked: Asked) -> list[HomeState]:
        """Return the homes for a request, the best first."""
        states = self._states()
        if len(states) > 1 and asked.model is not None:
            await self._know(states, canonical(asked.model))
        sticky = self.stickiness.home(asked.conversation, self._clock.monotonic())
        by_id = {state.home.id: state for state in states}
        views = [
            HomeView(s.home.id, s.home.priority, s.up, s.models(), s.loaded(), s.running) for s in by_id.values()
        ]
        return [by_id[each] for each in choose(views, asked.model, sticky)]

    async def _know(self, states: Sequence[HomeState], model: str) -> None:
        """Have lists that are fresh enough to tell where a model is."""
        now = self._clock.monotonic()
        stale = [
            (state, path)
            for state in states
            for path in (*_MODELS, _LOADED)
            if path not in state.listings or now - state.listings[path].at > FRESH
        ]
        tasks = {self._refresh(state, path): state for state, path in stale}
        found = any(model in (state.models() or ()) for state in states if state.up)
        wanted = [task for task, state in tasks.items() if state.up and (not found or state.models() is None)]
        if wanted:
            await asyncio.wait(wanted, timeout=LIST_WAIT)

    def look(self, state: HomeState, answer: SealedAnswer) -> None:
        """Ask whether a home still is what it was, while one of its answers is silent; if not, that is broken off."""
        state.silent[answer] = answer.heard
        task = state.pending.get(_LOOK)
        if task is None or task.done():
            state.pending[_LOOK] = self._tasks.start(self._look(state), "look at a home")

    async def _look(self, state: HomeState) -> None:
        pauses, until = Backoff(first=0.2, maximum=LOOK_AGAIN), self._clock.monotonic() + LOOK_EAGER
        while any(_is_silent(answer, heard) for answer, heard in state.silent.items()):
            try:
                key = await state.client.key_now()
            except HomeError:  # the way is disturbed; that alone does not say that the answer is lost
                pause = pauses.next()
                await asyncio.sleep(pause if self._clock.monotonic() < until else pause + LOOK_CALM)
                continue
            for answer, heard in state.silent.items():
                if answer.key != key and _is_silent(answer, heard):
                    answer.break_off("the home was started anew")
            break
        state.silent.clear()

    # --- lists ---

    async def listing(self, path: str) -> Listing:
        """Return a list over all homes. What a home that is away had stands marked at its end; nobody waits for it.

        Args:
            path: One of LISTS.

        Raises:
            HomeError: No home gave one.
        """
        asked = self._clock.monotonic()
        states = self._states()
        tasks = {self._refresh(state, path): state for state in states}
        awaited = [task for task, state in tasks.items() if state.up] or list(tasks)
        known = any(path in state.listings for state in states)
        if awaited:
            await asyncio.wait(awaited, timeout=LIST_WAIT if known else FIRST_WAIT)
        oldest = asked if path == _LOADED else asked - KEPT
        found = [(state, each) for state in states if (each := state.kept(path, oldest)) is not None]
        if len(states) == 1 and found and states[0].up:
            return found[0][1]
        content = _joined(found, LISTS[path])
        if content is not None or any(state.up for state, _ in found):
            content = content or lists.joined((), LISTS[path])
            return Listing(200, ((b"content-type", b"application/json"),), content, asked)
        trouble = next((state.trouble for state in states if state.trouble is not None), None)
        if trouble is None:
            raise HomeError(Fault.NOT_TAKEN, Problem.BRIDGE_OFFLINE, "No home answers in time.")
        raise HomeError(trouble.fault, trouble.problem, trouble.detail)

    def _refresh(self, state: HomeState, path: str) -> "asyncio.Task[None]":
        task = state.pending.get(path)
        if task is None or task.done():
            task = state.pending[path] = self._tasks.start(self._fetch(state, path), "list of a home")
        return task

    async def _fetch(self, state: HomeState, path: str) -> None:
        try:
            async with asyncio.timeout(FIRST_WAIT):
                found = await self._ask(state, path)
        except HomeError as error:
            state.failed(error)
        except TimeoutError:
            state.failed(HomeError(Fault.LOST, Problem.TIMED_OUT, "The home gave no answer in time."))
        else:
            trouble = _trouble(found)
            if trouble is not None:
                state.failed(trouble)
                return
            state.answered()
            if found.status < 500 or path not in state.listings:
                state.listings[path] = found

    async def _ask(self, state: HomeState, path: str) -> Listing:
        request = InnerRequest("GET", inner_target(path) or path)
        for last in (False, True):
            try:
                answer = await state.client.ask(request, fresh=not state.up)
                break
            except HomeError as error:
                if error.fault is not Fault.STALE_KEY or last:
                    raise
        try:
            head, content = await whole(answer)
        finally:
            answer.close()
        return Listing(head.status, fields.from_home(head.fields), content, self._clock.monotonic())


def _joined(found: Iterable[tuple[HomeState, Listing]], member: str) -> bytes | None:
    """Return lists as one: what can be had now, then what cannot; None when there is none."""
    here: list[list[dict[str, Any]]] = []
    away: list[list[dict[str, Any]]] = []
    for state, each in found:
        entries = lists.entries(each.content, member) if each.status == 200 else None
        if entries is not None:
            (here if state.up else away).append(entries)
    return lists.joined(here, member, away) if here or away else None


def _trouble(found: Listing) -> HomeError | None:
    """Return what a home's own refusal says of the home; None for an answer."""
    said = read_problem(found.content) if found.status >= 400 and is_problem(found.headers) else None
    fault = None if said is None else _TROUBLES.get(said.slug)
    if said is None or fault is None:
        return None
    return HomeError(fault, said.problem(Problem.ENGINE_UNREACHABLE), said.detail or "The home refuses.")


def _is_silent(answer: SealedAnswer, heard: float) -> bool:
    return not answer.closed and answer.heard == heard
