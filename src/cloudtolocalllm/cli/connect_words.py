"""The person at this terminal, who compares safety words for `cloudtolocalllm connect add --server URL`."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.homes import Homes
from cloudtolocalllm.connect.machines import Machine, machines_of
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.pairing import NewHome, clean_name
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.connect.words import Answer, Ending, Met, Moment, Question, Standing, meet, sentence
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.tasks import TaskSet

T = TypeVar("T")

NO_TERMINAL = (
    "expected a terminal, at which somebody compares words. Without one pair by a link, made at home by "
    "`cloudtolocalllm bridge pair-device`: cloudtolocalllm connect add LINK --key-file FILE, or - as LINK and the "
    "link on standard input"
)
_ASK = "Are all eight words the same there? Type yes or no: "
_TRIES = 5
"""Answers that are neither, after which it is given up."""
_OTHERWISE = (
    "Careful: this computer knows this home by another identity. Go on only if it was given a new one at home; else "
    "somebody stands between.\n"
)


class Terminal:
    """Shows words on standard error, and reads what is typed."""

    def __init__(self, machine: str, wait: float) -> None:
        """Ask nothing yet.

        Args:
            machine: The home's name, for people.
            wait: Seconds that it will be waited.
        """
        self._machine = machine
        self._wait = wait
        self.let_in = False
        """Whether the home has let this computer in, as far as the person was told."""
        self._told_trouble = ""
        self._line_begun = False

    def show(self, question: Question) -> None:
        """Show the words, and what to do with them."""
        half = len(question.words) // 2
        first, second = (" ".join(part) for part in (question.words[:half], question.words[half:]))
        _say(f"""
{_OTHERWISE if question.known_otherwise else ""}{self._machine} was asked to let this computer in,
as "{question.device_name}". Its words are

  {first}
  {second}

Before anybody lets it in: at home, on the machine with the models, run

  cloudtolocalllm bridge devices

or look under Settings, Devices at home, in a browser that is paired. Let it in there only if all eight words are the
same, in this order. If one differs, somebody is between. There are {_span(self._wait)} for it; Ctrl-C gives up.

""")  # fmt: skip

    async def compared(self) -> Answer:
        """Ask until an answer is one."""
        for _ in range(_TRIES):
            self._ask()
            typed = await _line()
            self._line_begun = not typed.endswith(b"\n")
            if not typed:
                return Answer.GIVEN_UP
            match typed.strip().lower():
                case b"yes":
                    return Answer.SAME
                case b"no":
                    return Answer.DIFFERENT
        return Answer.GIVEN_UP

    def waits(self, moment: Moment) -> None:
        """Show how it stands: what is new while something is typed, after that the time that is left."""
        let_in = moment.standing is Standing.LET_IN
        before, self.let_in = self.let_in, let_in
        if moment.answer is None:
            if let_in and not before:
                self._ask("It was let in at home. Say here whether the words were the same.")
            elif moment.trouble and moment.trouble != self._told_trouble:
                self._ask(f"{moment.trouble} It is asked again.")
            self._told_trouble = moment.trouble
        else:
            self._line_begun = True
            why = f" {moment.trouble}" if moment.trouble else ""
            _say(f"\r\033[KWaiting until this computer is let in at home; {_span(moment.left)} left.{why}")

    def end(self) -> None:
        """Begin a new line, if there is one already."""
        if self._line_begun:
            _say("\n")
        self._line_begun = False

    def _ask(self, news: str = "") -> None:
        if news:
            self.end()
            _say(f"{news}\n")
        _say(_ASK)
        self._line_begun = True


def by_words(server: ServerAddress, key: str, bridge_id: str, new: NewHome, homes: Homes, wait: float) -> Met:
    """Meet a home of an account, with the person at this terminal.

    Args:
        server: Whose account.
        key: Its API key.
        bridge_id: Which home; "" for the only one, or the one that the person chooses.
        new: How this computer and the home are to call each other.
        homes: Those that are known.
        wait: Seconds.

    Raises:
        HomeError: It came to nothing; the text says why.
        KeyboardInterrupt: The person gave up, and was told what that means.
        StorageError: What is known of the homes cannot be read.
    """
    machine = Machine(bridge_id, bridge_id, True) if bridge_id else _chosen(asyncio.run(_listed(server, key)))
    terminal = Terminal(machine.name, wait)

    async def run(link: ServerLink) -> Met:
        return await meet(link, machine.bridge_id, new, terminal, homes, SystemClock(), wait=wait)

    try:
        return asyncio.run(_with_link(server, key, run))
    except KeyboardInterrupt:
        terminal.end()
        _say(sentence(Ending.GIVEN_UP, let_in=terminal.let_in, name=clean_name(new.device_name)) + "\n")
        raise
    finally:
        terminal.end()


async def _listed(server: ServerAddress, key: str) -> tuple[Machine, ...]:
    return await _with_link(server, key, machines_of)


async def _with_link(server: ServerAddress, key: str, work: Callable[[ServerLink], Awaitable[T]]) -> T:
    tasks, clock = TaskSet(), SystemClock()
    link = ServerLink(server, key, Watch(tasks, clock), clock)
    try:
        return await work(link)
    finally:
        await link.close()
        await tasks.close()


def _chosen(machines: Sequence[Machine]) -> Machine:
    """Return the machine that is meant, which the person is asked for if there are several.

    Raises:
        HomeError: There is none, or the person named none.
    """
    if not machines:
        detail = "The account of this API key has no machine; pair one there: cloudtolocalllm bridge login."
        raise HomeError(Fault.REFUSED, Problem.NO_BRIDGE_PAIRED, detail)
    if len(machines) == 1:
        return machines[0]
    for number, machine in enumerate(machines, 1):
        _say(
            f"{number}  {machine.name}  bridge {machine.bridge_id}{'' if machine.connected else '  not connected'}\n"
        )
    for _ in range(_TRIES):
        _say("Which one? Its number: ")
        try:
            typed = input().strip()
        except EOFError:
            break
        if typed.isascii() and typed.isdigit() and 0 < int(typed) <= len(machines):
            return machines[int(typed) - 1]
    raise HomeError(Fault.REFUSED, Problem.BAD_REQUEST, "expected the number of a machine in the list")


async def _line() -> bytes:
    """Return a line that is typed, b"" at the end of input. The thread that reads it keeps no process alive."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        try:
            # Not sys.stdin: a thread that is left in it at the end would hold its lock.
            line = os.read(sys.stdin.fileno(), 4096)
        except (OSError, ValueError):
            line = b""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if typed.done() else typed.set_result(line))

    threading.Thread(target=read, name="terminal", daemon=True).start()
    return await typed


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02} minutes" if whole >= 60 else f"{whole} seconds"


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
