"""Pairing this computer with a home without a link: by safety words that a person compares (sealed format §8).

Whoever answers as the home says who it is, and is not believed. It is pinned when two things have come together: a
person at this computer found its words equal to those that the home shows, and somebody at home let this computer in.
Until then nothing is kept.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.home_client import STATEMENT_TYPE, HomeClient, InnerRequest, whole
from cloudtolocalllm.connect.homes import Home, Homes
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.pairing import NewHome, clean_name, export_key
from cloudtolocalllm.connect.refusals import read_problem, refused_in_the_clear
from cloudtolocalllm.connect.vault import Vault
from cloudtolocalllm.contracts.authorize import SEALED_PREFIX
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed.device import public_point
from cloudtolocalllm.sealed.errors import SealedError
from cloudtolocalllm.sealed.fingerprint import fingerprint
from cloudtolocalllm.sealed.pairing import PATH, Introduction
from cloudtolocalllm.sealed.safety_words import safety_words
from cloudtolocalllm.sealed.statement import claimed_fingerprint

WAIT: Final = 600.0
"""Seconds for the person here and the one at home."""
LONGEST_WAIT: Final = 3_600.0
"""The home forgets who waits for longer."""
LOOK: Final = 3.0
"""Seconds between two questions how it stands; longer, up to LOOK_MOST, while they are not answered."""
LOOK_MOST: Final = 15.0
ASK_TIMEOUT: Final = 20.0
"""Seconds for the home's answer to one."""
_TICK: Final = 1.0
"""Seconds between two moments at which the person is shown that it waits."""
_PASSING: Final = frozenset({Fault.NOT_SENT, Fault.NOT_TAKEN, Fault.AWAY, Fault.LOST, Fault.STALE_KEY})
"""Faults that may be over when it is asked again."""


class Answer(Enum):
    """What the person here says of the words."""

    SAME = "same"
    DIFFERENT = "different"
    GIVEN_UP = "given-up"


class Standing(Enum):
    """What the home says of this computer."""

    WAITS = "waits"
    LET_IN = "let-in"
    REFUSED = "refused"


class Ending(Enum):
    """How it ended."""

    PAIRED = "paired"
    DIFFERENT = "different"
    REFUSED = "refused"
    GIVEN_UP = "given-up"
    LATE = "late"


def decide(answer: Answer | None, standing: Standing, *, late: bool) -> Ending | None:
    """Return how it ends; None while both sides are waited for.

    Args:
        answer: What the person said; None while nothing.
        standing: What the home said last.
        late: Whether the time is over.
    """
    if answer is Answer.DIFFERENT:
        return Ending.DIFFERENT
    if answer is Answer.GIVEN_UP:
        return Ending.GIVEN_UP
    if standing is Standing.REFUSED:
        return Ending.REFUSED
    if answer is Answer.SAME and standing is Standing.LET_IN:
        return Ending.PAIRED
    return Ending.LATE if late else None


@dataclass(frozen=True, slots=True)
class Question:
    """What the person is asked."""

    words: tuple[str, ...]
    device_name: str
    """As the home's list shows this computer."""
    known_otherwise: bool
    """Whether this computer has pinned another identity for the same home."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How it stands."""

    answer: Answer | None
    standing: Standing
    left: float
    """Seconds."""
    trouble: str
    """Why the home could not be asked just now; "" when it could."""


class Person(Protocol):
    """Who compares the words."""

    def show(self, question: Question) -> None:
        """Show the words, and what to do with them."""

    async def compared(self) -> Answer:
        """Return what the person says. May be cancelled."""
        ...

    def waits(self, moment: Moment) -> None:
        """Show that it is waited; called about once a second."""


@dataclass(frozen=True, slots=True)
class Met:
    """A home that let this computer in, and whose words were the same. Nothing of it is kept yet."""

    home: Home
    key: ec.EllipticCurvePrivateKey
    seq: int
    """Of its key statement."""


async def claimed_identity(link: ServerLink, bridge_id: str) -> bytes:
    """Return the fingerprint of whoever answers as a bridge; good for nothing before words made of it were compared.

    Raises:
        HomeError: Nobody answers so.
    """
    accept = ((b"accept", STATEMENT_TYPE.encode()),)
    response = await link.fetch("GET", SEALED_PREFIX + bridge_id, accept)
    if response.status != 200:
        raise refused_in_the_clear(response.status, response.headers, response.body)
    try:
        return claimed_fingerprint(response.body.decode("latin-1").strip())
    except SealedError:
        detail = "The server showed something else than the home's key."
        raise HomeError(Fault.DAMAGED, Problem.ENGINE_UNREACHABLE, detail) from None


async def meet(
    link: ServerLink, bridge_id: str, new: NewHome, person: Person, homes: Homes, clock: Clock, *, wait: float = WAIT
) -> Met:
    """Ask a home to let this computer in, and wait until it did and a person has found the words equal.

    Args:
        link: To the server.
        bridge_id: The home's.
        new: How the two are to call each other.
        person: Compares the words.
        homes: Those that are known; nothing is written there.
        clock: The time.
        wait: Seconds for both.

    Raises:
        HomeError: It came to nothing; the text says why, and what to do.
        StorageError: What is known of the homes cannot be read.
    """
    claimed = await claimed_identity(link, bridge_id)
    key = ec.generate_private_key(ec.SECP256R1())
    introduction = Introduction(public_point(key), clean_name(new.device_name))
    home = Home(
        server=link.address.url,
        bridge_id=bridge_id,
        fingerprint=claimed,
        device_id=introduction.device_id,
        name=clean_name(new.name or bridge_id),
        priority=new.priority,
        added=clock.wall(),
    )
    seen = homes.seen(home)
    seqs = [seen]

    async def note(seq: int) -> None:
        seqs.append(seq)

    client = HomeClient(link, bridge_id, claimed, key, clock, seen=seen, note_seq=note)
    asking = _Asking(client, introduction)
    await asking.begin()
    known = next((one for one in homes.load() if one.id == home.id), None)
    words = safety_words(claimed, fingerprint(introduction.point))
    person.show(Question(words, introduction.name, known is not None and known.fingerprint != claimed))
    ending = await _both(asking, person, clock, wait)
    if ending is not Ending.PAIRED:
        let_in = asking.standing is Standing.LET_IN
        raise HomeError(Fault.REFUSED, Problem.FORBIDDEN, sentence(ending, let_in=let_in, name=introduction.name))
    return Met(home, key, max(seqs))


def pin(met: Met, homes: Homes, vault: Vault) -> None:
    """Keep a home, and the key for it, in place of what was known of the home before.

    Raises:
        StorageError: It cannot be kept.
    """
    before = next((known for known in homes.load() if known.id == met.home.id), None)
    vault.put(met.home.secret_name, export_key(met.key))
    try:
        homes.note_seq(met.home, met.seq)
        homes.save(met.home)
    except BaseException:
        vault.remove(met.home.secret_name)
        raise
    if before is not None:
        vault.remove(before.secret_name)


def sentence(ending: Ending, *, let_in: bool, name: str) -> str:
    """Return what to tell the person when nothing came of it.

    Args:
        ending: How it ended.
        let_in: Whether the home had let this computer in.
        name: This computer's, as the home's list shows it.
    """
    put_out = f'put "{name}" out there: cloudtolocalllm bridge devices --remove ID.'
    after = f"It was let in at home: {put_out}" if let_in else "Do not let it in at home any more."
    match ending:
        case Ending.DIFFERENT:
            return (
                "The words differ, so somebody may stand between this computer and the home. Nothing is kept here. "
                f"Do not let it in at home; if somebody did, {put_out}"
            )  # fmt: skip
        case Ending.REFUSED:
            return "The home refused: this computer was taken off the list there. Nothing is kept here."
        case Ending.GIVEN_UP:
            return f"Given up. Nothing is kept here. {after}"
        case _:
            late = "Nobody said here in time that the words are the same." if let_in else (
                "This computer was not let in at home in time."
            )  # fmt: skip
            return f"{late} Nothing is kept here. {after}"


async def _both(asking: "_Asking", person: Person, clock: Clock, wait: float) -> Ending:
    """Wait for the person here and for the home."""
    tasks = TaskSet()
    until = clock.monotonic() + wait
    try:
        comparing = tasks.start(person.compared(), "compare words")
        looking = tasks.start(asking.go_on(), "look")
        while True:
            if asking.error is not None:
                raise asking.error
            answer = comparing.result() if comparing.done() else None
            left = until - clock.monotonic()
            ending = decide(answer, asking.standing, late=left <= 0)
            if ending is not None:
                return ending
            person.waits(Moment(answer, asking.standing, left, asking.trouble))
            if answer is None:
                await asyncio.wait({comparing, looking}, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
            else:
                asking.hurry()
                await asyncio.wait({looking}, timeout=_TICK)
    finally:
        await tasks.close()


class _Asking:
    """Asks a home to let this computer in, and how it stands."""

    def __init__(self, client: HomeClient, introduction: Introduction) -> None:
        """Ask nothing yet."""
        self._client = client
        fields = ((b"content-type", b"application/json"),)
        self._request = InnerRequest("POST", PATH.decode(), fields, introduction.encode())
        self._hurried = False
        self._at_once = asyncio.Event()
        self.standing = Standing.WAITS
        self.trouble = ""
        self.error: HomeError | None = None
        """Why asking again makes no sense."""

    async def begin(self) -> None:
        """Ask for the first time.

        Raises:
            HomeError: The home was not reached, or does not take it.
        """
        try:
            self.standing = await self._ask()
        except HomeError as error:
            if error.fault is not Fault.STALE_KEY:
                raise
            self.standing = await self._ask()  # it may have been restarted since its statement was made

    def hurry(self) -> None:
        """Ask at once, the first time that this is called."""
        if not self._hurried:
            self._hurried = True
            self._at_once.set()

    async def go_on(self) -> None:
        """Ask again and again, until the home refuses or an error says that it makes no sense."""
        failures = 0
        while self.standing is not Standing.REFUSED:
            await self._pause(min(LOOK * 2**failures, LOOK_MOST))
            try:
                self.standing = await self._ask()
            except HomeError as error:
                if error.fault not in _PASSING:
                    self.error = error
                    return
                failures = min(failures + 1, 8)
                self.trouble = error.detail
            else:
                failures, self.trouble = 0, ""

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._at_once.wait()
        self._at_once.clear()

    async def _ask(self) -> Standing:
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                answer = await self._client.ask(self._request)
                try:
                    head, content = await whole(answer)
                finally:
                    answer.close()
        except TimeoutError:
            raise HomeError(Fault.LOST, Problem.TIMED_OUT, "The home gave no answer in time.") from None
        if 200 <= head.status < 300:
            return Standing.WAITS if head.status == 202 or _is_waiting(content) else Standing.LET_IN
        if head.status == Problem.CONFLICT.value.status:
            return Standing.REFUSED
        detail = read_problem(content).detail or f"The home refuses (status {head.status})."
        passing = head.status in (429, 500, 502, 503)
        raise HomeError(Fault.NOT_TAKEN if passing else Fault.REFUSED, Problem.FORBIDDEN, detail)


def _is_waiting(content: bytes) -> bool:
    """Tell whether a home does not say that this computer is let in."""
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return True
    return not isinstance(value, dict) or value.get("paired") is not True
