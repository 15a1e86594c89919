"""Streamed answers through a platform, many at once, each compared byte for byte with the engine's own."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import httpx
from tests.support.engines import EngineProcess
from tests.support.long_answer import question

RETRY = 0.2
"""Seconds until a client that was refused asks again."""
SILENCE = 30.0
"""Seconds without a token after which a client gives up."""


class Person(Protocol):
    """Somebody with an engine at home, who asks by way of a platform."""

    @property
    def engine(self) -> EngineProcess:
        """A scripted one, which says the same to the same question."""
        ...

    def client(self) -> httpx.Client:
        """Return a client that knows the platform's address and has an API key."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    prompt: str
    began: float
    ended: float
    text: str
    fault: str = ""
    """Empty when it came whole and unaltered; else "refused …" before its head, "cut …" or "altered" after it."""
    longest_gap: float = 0.0
    """Seconds between two tokens."""


@dataclass
class Answers:
    """What became of all requests so far."""

    done: list[Answer] = field(default_factory=list)
    streaming: int = 0
    """Answers under way whose first token came."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def faults(self, *kinds: str, since: float = 0.0) -> list[str]:
        """Return the faults of some kinds, of requests that ended after a time of the monotonic clock."""
        with self.lock:
            return [one.fault for one in self.done if one.fault.startswith(kinds) and one.ended >= since]

    def whole(self, since: float = 0.0) -> int:
        """Return how many came whole and unaltered, of requests that ended after a time."""
        with self.lock:
            return sum(1 for one in self.done if not one.fault and one.ended >= since)

    def count(self, change: int) -> None:
        """Note that an answer begins or ends."""
        with self.lock:
            self.streaming += change

    def line(self, since: float = 0.0) -> str:
        """Return a summary to print."""
        gap = max((one.longest_gap for one in self.done if one.ended >= since), default=0.0)
        kinds = {kind: len(self.faults(kind, since=since)) for kind in ("refused", "cut", "altered")}
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return f"{self.whole(since)} whole, {told}; longest gap {gap:.2f} s"


def own_text(home: Person, prompt: str, tokens: int) -> str:
    """Return what the engine itself answers, as fast as it can."""
    body = question(tokens, 0, prompt=prompt)
    with httpx.stream("POST", f"{home.engine.url}/api/chat", json=body, timeout=60) as response:
        return "".join(json.loads(line)["message"]["content"] for line in response.iter_lines())


def ask(home: Person, client: httpx.Client, prompt: str, tokens: int, pace: float, answers: Answers) -> Answer:
    """Ask once and note what came of it.

    Args:
        home: Whose engine is asked; a scripted one.
        client: One of `home.client()`.
        prompt: Makes the answer unlike the others.
        tokens: The answer's length.
        pace: Tokens a second.
        answers: Where it is noted.
    """
    began = last = time.monotonic()
    parts: list[str] = []
    gap, fault = 0.0, ""
    try:
        body = question(tokens, pace, prompt=prompt)
        with client.stream("POST", "/ollama/api/chat", json=body, timeout=SILENCE) as response:
            if response.status_code != 200:
                fault = f"refused {response.status_code}: {response.read()[:300]!r}"
            else:
                for line in response.iter_lines():
                    now = time.monotonic()
                    if parts:
                        gap = max(gap, now - last)
                    else:
                        answers.count(1)
                    last = now
                    parts.append(json.loads(line)["message"]["content"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        fault = f"{'cut' if parts else 'refused'} {type(error).__name__} after {len(parts)} tokens: {error}"
    if parts:
        answers.count(-1)
    text = "".join(parts)
    if not fault and text != own_text(home, prompt, tokens):
        fault = "altered" if len(parts) >= tokens else f"cut after {len(parts)} tokens, without a sign"
    answer = Answer(prompt, began, time.monotonic(), text, fault, gap)
    with answers.lock:
        answers.done.append(answer)
    return answer


def ask_at_once(home: Person, count: int, *, tokens: int = 100, pace: float = 20.0) -> Answers:
    """Ask for a number of answers at the same time and wait for all."""
    answers = Answers()

    def one(number: int) -> None:
        with home.client() as client:
            ask(home, client, f"question {number}", tokens, pace, answers)

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(one, number) for number in range(count)]:
            future.result()
    return answers


@contextlib.contextmanager
def answering(home: Person, count: int, *, tokens: int = 200, pace: float = 20.0) -> Iterator[Answers]:
    """Keep a number of answers streaming until the block ends: who has one whole asks for the next.

    Their ends are spread evenly, so that at any moment most are in the middle. The block begins when all stream;
    after it, the last ones are read to their end.

    Args:
        home: Whose engine is asked; a scripted one.
        count: Answers at a time.
        tokens: The length of each.
        pace: Tokens a second.
    """
    answers, stop = Answers(), threading.Event()

    def keep_asking(number: int) -> None:
        first = tokens - number * tokens // (2 * count)
        turn = 0
        while not stop.is_set():
            length = first if turn == 0 else tokens
            # Over a new connection: a server that ends may close a kept one when the answer on it ends, whose head
            # was sent too early to say so; who has a request on the way then must send it again (RFC 9112 §9.3.1).
            with home.client() as client:
                answer = ask(home, client, f"question {number}.{turn}", length, pace, answers)
            turn += 1
            if answer.fault:
                stop.wait(RETRY)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(keep_asking, number) for number in range(count)]
        try:
            deadline = time.monotonic() + SILENCE
            while answers.streaming < count:
                assert time.monotonic() < deadline, f"expected {count} answers to stream; {answers.line()}"
                time.sleep(0.05)
            yield answers
        finally:
            stop.set()
            for future in futures:
                future.result()
