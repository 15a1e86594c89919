"""One local request on its way to a home, and the answer's way back, whatever breaks in between."""

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import replace
from typing import Final

from cloudtolocalllm.connect import fields
from cloudtolocalllm.connect.again import Again, Repeats
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.home_client import MAX_SMALL, InnerRequest, SealedAnswer
from cloudtolocalllm.connect.household import HomeState, Household
from cloudtolocalllm.connect.local_answer import LocalAnswer, LocalRequest, refuse
from cloudtolocalllm.connect.paths import changes_nothing
from cloudtolocalllm.connect.recovery import Next, Recovery
from cloudtolocalllm.connect.refusals import MAX_PROBLEM, is_problem, read_problem
from cloudtolocalllm.connect.repeatable import may_be_repeated
from cloudtolocalllm.connect.retelling import DivergedError
from cloudtolocalllm.connect.routing import NOTHING_ASKED, read_request
from cloudtolocalllm.connect.stops import Stops
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.sealed.bhttp import Content, End, Event, InformationalHead, ResponseHead
from cloudtolocalllm.sealed.errors import MalformedError
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.resume import EXCHANGE_BYTES, Resume, read_offset

log = logging.getLogger(__name__)

QUIET_BEFORE: Final = 300.0
"""Seconds without a word before an answer's head after which it is attached to anew: a model may be loading."""
QUIET: Final = 120.0
"""The same afterwards."""
QUIET_SMALL: Final = 20.0
"""Seconds that a small answer may take, which may be asked for anywhere else."""
LOOK_FIRST: Final = 1.0
"""Seconds without a word after which it is asked whether the home is still the same; then twice as many, up to"""
LOOK_LAST: Final = 30.0
THREAD_ABOVE: Final = 1024 * 1024
"""Bytes of JSON above which it is read in a thread, so that other answers do not wait for it."""
EXCHANGE_UNKNOWN: Final = Problem.EXCHANGE_UNKNOWN.value.slug
CONNECTION_LOST: Final = Problem.CONNECTION_LOST.value.slug
_NOTHING_RAN: Final = frozenset(
    {"engine-unreachable", "overloaded", "model-not-found", "route-refused", "device-unknown", "key-scope"}
)
"""Refusals of a home before its engine did anything: another home may be asked."""
_PASSING: Final = frozenset({"overloaded", "bridge-offline", "timed-out", "rate-limited", "internal"})
"""Refusals of a home that may be gone at the next attempt to attach."""
_NOT_YET: Final = frozenset({"engine-unreachable", "model-not-found"})
"""The same of one that was started anew: an engine may come later than the bridge."""


class _QuietError(Exception):
    """Nothing came for long; it is attached to anew, to be sure that somebody still speaks."""


class _UnknownError(Exception):
    """The home does not know the answer any more, and it may be asked anew."""

    def __init__(self, again: Again) -> None:
        super().__init__()
        self.again = again


class Journey:
    """Takes one request to its end. Cancel it when the local client goes away: the home is told to stop."""

    def __init__(
        self, request: LocalRequest, answer: LocalAnswer, household: Household, stops: Stops, recovery: Recovery,
        repeats: Repeats, clock: Clock,
    ) -> None:  # fmt: skip
        """Prepare; `run` does it.

        Args:
            request: What is asked.
            answer: Where the answer goes.
            household: Knows the homes.
            stops: Tells homes to stop.
            recovery: Decides after failures.
            repeats: Finds out whether it may be asked anew.
            clock: For it.
        """
        self._request = request
        self._out = answer
        self._household = household
        self._stops = stops
        self._recovery = recovery
        self._repeats = repeats
        self._clock = clock
        self._small = request.method in ("GET", "HEAD")
        """Whether asking twice does no harm; the answer is then passed on only when it is whole."""
        recovery.repeatable = self._small
        recovery.changes_nothing = changes_nothing(request.method, request.target)
        self._asked = NOTHING_ASKED
        self._queue: deque[HomeState] = deque()
        self._exchange = b""
        self._begun = False
        """Whether the home is known to know the exchange."""
        self._again: Again | None = None
        self._status = 0
        """Of the head that the client got; 0 before."""
        self._offset = 0
        """Bytes of the exchange's content that came."""
        self._kept = bytearray()
        """Content that is passed on whole: a small answer, or a problem document."""
        self._head: ResponseHead | None = None
        """The head of what is kept."""
        self._taken_up = 0

    async def run(self) -> None:
        """Bring the request to its end: an answer, a refusal, or a connection that is broken off."""
        try:
            await self._run()
        except HomeError as error:
            if self._status:
                log.warning("an answer could not be taken up again", extra={"cause": error.problem.value.slug})
                self._out.abort()
            else:
                refuse(self._out, error)
        finally:
            if self._again is not None:
                self._again.forget()

    async def _run(self) -> None:
        order = await self._order()
        if not order:
            raise HomeError(
                Fault.REFUSED, Problem.NO_BRIDGE_PAIRED,
                "This computer is paired with no home; make a link there and run `cloudtolocalllm connect add`.",
            )  # fmt: skip
        self._queue.extend(order)
        errors: list[HomeError] = []
        fresh = False
        state = self._next_home()
        while True:
            try:
                await self._attempt(state, fresh=fresh)
            except _QuietError:
                self._recovery.waited(self._clock.monotonic())
                fresh = True
                continue
            except _UnknownError as unknown:
                if await self._asked_anew(state, unknown.again):
                    fresh = True
                    continue
                return
            except HomeError as error:
                if self._head is None:  # else it was the home that said so
                    state.failed(error)
                errors.append(error)
                step = self._recovery.failed(self._worth(errors), self._clock.monotonic(), others=bool(self._queue))
            else:
                return
            fresh = True
            match step.next:
                case Next.ELSEWHERE:
                    self._stop(state)  # if it works for that at all
                    self._recovery.moved(self._clock.monotonic())
                    state = self._next_home()
                case Next.REFRESH:
                    errors.pop()
                case Next.GIVE_UP:
                    self._stop(state)
                    raise self._worth(errors)
                case Next.AGAIN:
                    await self._pause(step.pause, state)
                    if not self._recovery.taken:
                        self._queue.extend(order)
                        state = self._next_home()
                    errors.clear()

    async def _order(self) -> list[HomeState]:
        several = len(self._household.states()) > 1
        if len(self._request.content) > THREAD_ABOVE:
            await asyncio.to_thread(self._study, several=several)
        else:
            self._study(several=several)
        return await self._household.order(self._asked)

    def _study(self, *, several: bool) -> None:
        request = self._request
        if several and request.content:
            self._asked = read_request(request.content)
        if may_be_repeated(request.method, request.target):
            self._again, content = self._repeats.find(request.target, request.content)
            self._request = replace(request, content=content)

    def _next_home(self) -> HomeState:
        self._new_exchange()
        return self._queue.popleft()

    def _new_exchange(self) -> None:
        self._exchange = secrets.token_bytes(EXCHANGE_BYTES)
        self._begun = False
        self._offset = 0

    async def _asked_anew(self, state: HomeState, again: Again) -> bool:
        """Prepare to ask once more for an answer that is lost at home; False when the client has all of it.

        Raises:
            HomeError: What the client has cannot be followed.
        """
        self._stop(state)  # it may run on: what is too large for the journal is not known either
        said = await asyncio.to_thread(again.said) if again.size > THREAD_ABOVE else again.said()
        if said is None:
            raise _gone("The home has lost the answer, and it cannot be gone on with.")
        if said.complete:
            await self._write(said.tail)
            self._out.end(())
            return False
        self._new_exchange()
        again.anew(said)
        log.warning(
            "an answer was lost at home; it is asked for anew", extra={"home": state.home.id, "times": again.times}
        )
        return True

    def _worth(self, errors: list[HomeError]) -> HomeError:
        """Return the error that decides, and that the client is told: the best home's that may still be mended."""
        if self._recovery.taken or self._queue:
            return errors[-1]
        return next((error for error in errors if error.fault is not Fault.REFUSED), errors[0])

    async def _pause(self, seconds: float, state: HomeState) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._stop(state)
            raise

    def _stop(self, state: HomeState) -> None:
        if self._recovery.taken and not self._small:
            self._stops.stop(state, self._exchange, begun=self._begun)

    # --- one attempt ---

    async def _attempt(self, state: HomeState, *, fresh: bool) -> None:
        self._kept.clear()
        self._head = None
        if self._status:
            self._taken_up += 1
        answer: SealedAnswer | None = None
        state.running += 1
        try:
            answer = await state.client.send(self._inner(), self._resume(), fresh=fresh)
            while not await self._read(answer, state):
                pass
            state.answered()
        except asyncio.CancelledError:
            if not self._small:
                self._stops.stop(state, self._exchange, begun=self._begun)
            raise
        finally:
            state.running -= 1
            if answer is not None:
                answer.close()

    def _inner(self) -> InnerRequest:
        request = self._request
        content = b"" if self._offset else request.content  # a home that knows the exchange needs none
        try:
            return InnerRequest(
                request.method, request.target, fields.to_home(request.headers, len(content)), content
            )
        except fields.FieldsRefusedError as error:
            raise HomeError(Fault.REFUSED, Problem.BAD_REQUEST, str(error)) from None

    def _resume(self) -> Resume | None:
        return None if self._small else Resume(self._exchange, self._offset)

    async def _read(self, answer: SealedAnswer, state: HomeState) -> bool:
        """Pass on what came next; return whether that was all."""
        for event in await self._patiently(answer, state):
            if await self._take(event, state):
                return True
        return False

    async def _patiently(self, answer: SealedAnswer, state: HomeState) -> list[Event]:
        """Return what came next; while nothing does, look from time to time whether the home is still the same.

        Raises:
            HomeError: The answer broke off, or the home was started anew.
            _QuietError: Nothing came for too long.
        """
        quiet, look = 0.0, LOOK_FIRST
        limit = QUIET_SMALL if self._small else QUIET if self._status else QUIET_BEFORE
        while quiet < limit:
            try:
                async with asyncio.timeout(look):
                    return await answer.read()
            except TimeoutError:
                quiet += look
                look = min(2 * look, LOOK_LAST)
            self._household.look(state, answer)
        if self._small:
            raise HomeError(Fault.LOST, Problem.TIMED_OUT, "The home gave no answer in time.")
        raise _QuietError

    async def _take(self, event: Event, state: HomeState) -> bool:
        if isinstance(event, InformationalHead):
            if not self._status:
                self._out.inform(event.status, fields.from_home(event.fields))
        elif isinstance(event, ResponseHead):
            self._headed(event)
        elif isinstance(event, Content):
            await self._content(event.data)
        elif isinstance(event, End):
            if self._head is not None:
                self._whole(self._head)
            else:
                await self._write(self._rest())
                self._out.end(fields.from_home(event.trailers))
            self._household.stickiness.note(self._asked.conversation, state.home.id, self._clock.monotonic())
            if self._taken_up:
                log.info("an answer was taken up again", extra={"times": self._taken_up, "home": state.home.id})
            return True
        return False

    def _headed(self, head: ResponseHead) -> None:
        if self._small or (head.status >= 400 and is_problem(head.fields)):
            self._head = head
            return
        again, now = self._again, self._clock.monotonic()
        self._begun = True
        if not self._status:
            self._recovery.progressed(now)
            self._status = head.status
            if again is not None:
                again.headed(head.status, head.fields, now)
            self._out.start(head.status, fields.from_home(head.fields))
        elif head.status != self._status or _offset(head.fields) != self._offset:
            raise _gone("The home did not go on with the answer where it broke off.")
        elif again is not None and again.times and not again.fits(head.status, head.fields):
            raise _gone("The home gave another answer than before.")

    async def _content(self, data: bytes) -> None:
        if self._head is not None:
            self._kept += data
            if len(self._kept) > (MAX_SMALL if self._small else MAX_PROBLEM):
                raise HomeError(Fault.REFUSED, Problem.ENGINE_ERROR, "The home's answer is longer than expected.")
            return
        self._recovery.progressed(self._clock.monotonic())
        self._offset += len(data)
        if self._again is not None:
            try:
                data = self._again.take(data)
            except DivergedError:
                raise _gone("The home gave another answer than before.") from None
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        if data:
            await self._out.write(data)

    def _rest(self) -> bytes:
        try:
            return b"" if self._again is None else self._again.end()
        except DivergedError:
            raise _gone("The home gave another answer than before.") from None

    def _whole(self, head: ResponseHead) -> None:
        """Pass on what was kept, or see what a refusal means."""
        content = bytes(self._kept)
        if head.status >= 400 and is_problem(head.fields):
            said = read_problem(content)
            detail = said.detail or "The home refuses."
            if said.slug == CONNECTION_LOST:  # the request was repeated on the way; this is for the repetition
                raise HomeError(Fault.LOST, Problem.CONNECTION_LOST, detail)
            if self._status:
                raise self._refused_later(said.slug, detail)
            if self._queue and not self._recovery.taken and said.slug in _NOTHING_RAN:
                raise HomeError(Fault.NOT_TAKEN, Problem.ENGINE_UNREACHABLE, detail)
        self._out.whole(head.status, fields.from_home(head.fields), content)

    def _refused_later(self, slug: str, detail: str) -> Exception:
        """Return what a refusal means whose answer had begun."""
        again = self._again
        if slug == EXCHANGE_UNKNOWN and again is not None and again.possible(self._clock.monotonic()):
            return _UnknownError(again)
        if again is not None and again.times and not self._offset and slug in _NOT_YET:
            self._new_exchange()  # this one's answer is that refusal
        elif slug not in _PASSING:
            return _gone(detail)
        return HomeError(Fault.LOST, Problem.ENGINE_ERROR, detail)


def _gone(detail: str) -> HomeError:
    return HomeError(Fault.REFUSED, Problem.ENGINE_ERROR, detail)


def _offset(found: Fields) -> int:
    try:
        return read_offset(found) or 0
    except MalformedError:
        return -1
