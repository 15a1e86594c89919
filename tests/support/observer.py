"""Somebody who sees only when chunks pass and how large they are, and would know from that what is spoken of.

Answers of two kinds are made with the same number of tokens at the same times; they differ in the tokens alone. The
observer learns from some answers whose kind it is told, and says of others which they are: by the nearest of those
it knows, in what can be computed from sizes and times. Everything follows from a seed.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pstdev

from tests.support.sealed_parts import opener, read, sealer, seeded

from cloudtolocalllm.sealed.bhttp import ResponseHead
from cloudtolocalllm.sealed.exchange import ResponseWriter
from cloudtolocalllm.sealed.ohttp import ResponseSealer
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY, PaddingPolicy

Trace = list[tuple[float, int]]
"""Seconds and bytes of each piece that passes."""
Tokens = list[str]
Draw = Callable[[random.Random], str]
NEIGHBOURS = 5
SHOWN = 24
"""Sizes and pauses at the beginning of an answer that are compared one by one."""
PERCENTS = (5, 25, 50, 75, 95)

# --- what is said ---

TALK = [
    "I",
    "you",
    "we",
    "he",
    "she",
    "it",
    "the",
    "a",
    "to",
    "of",
    "and",
    "in",
    "on",
    "at",
    "so",
    "but",
    "not",
    "no",
    "yes",
    "well",
    "oh",
    "good",
    "day",
    "how",
    "are",
    "do",
    "did",
    "was",
    "had",
    "my",
    "your",
    "his",
    "her",
    "our",
    "all",
    "one",
    "two",
    "who",
    "why",
    "go",
    "come",
    "see",
    "say",
    "said",
    "get",
    "let",
    "old",
    "new",
    "big",
    "man",
    "home",
]
MEDICINE = [
    "diagnosis",
    "hypertension",
    "chemotherapy",
    "metastasis",
    "oncologist",
    "symptoms",
    "treatment",
    "prescription",
    "antibiotic",
    "pathology",
    "inflammation",
    "cardiovascular",
    "ultrasound",
    "medication",
    "specialist",
    "radiology",
    "dosage",
    "syndrome",
    "chronic",
    "tumour",
    "biopsy",
    "the",
    "of",
    "a",
    "in",
    "and",
    "is",
    "with",
]


def _word(words: Sequence[str]) -> Draw:
    return lambda chance: " " + chance.choice(words)


def _long(mean: float) -> Draw:
    return lambda chance: "x" * max(1, min(24, round(chance.expovariate(1 / mean))))


PAIRS: dict[str, tuple[Draw, Draw]] = {
    "two topics": (_word(TALK), _word(MEDICINE)),
    "tokens of 3 and of 6 characters": (_long(3), _long(6)),
}
"""What is to be told apart."""


# --- how engines say it ---


def openai(token: str, at: int) -> bytes:
    """Return an event as llama.cpp sends it."""
    choice = {"finish_reason": None, "index": 0, "delta": {"content": token}}
    event = {
        "choices": [choice], "created": 1763900000, "id": "chatcmpl-8DqTz0yVfG4bEhPnxM1QmXa6yKq3Zc7R",
        "model": "qwen3:8b", "system_fingerprint": "b6912-2f68ce7cf", "object": "chat.completion.chunk",
    }  # fmt: skip
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def ollama(token: str, at: int) -> bytes:
    """Return a line as Ollama sends it."""
    message = {"role": "assistant", "content": token}
    line = {"model": "qwen3:8b", "created_at": "2026-11-23T19:18:00.123456Z", "message": message, "done": False}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def run_event(token: str, at: int) -> bytes:
    """Return a line as the home API sends it while a run goes on."""
    text = {"at": at, "end": at + len(token), "kind": "answer", "text": token}
    return json.dumps({"text": text, "run": None}, separators=(",", ":")).encode() + b"\n"


Shape = Callable[[str, int], bytes]
"""Puts a token into an event; given the bytes before it."""
SHAPES: dict[str, tuple[Shape, bytes]] = {
    "OpenAI": (openai, b"text/event-stream"),
    "Ollama": (ollama, b"application/x-ndjson"),
    "home API": (run_event, b"application/x-ndjson"),
}
"""With their media types."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: each event with the second in which the engine sends it."""

    media_type: bytes
    events: list[tuple[float, bytes]]

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(len(data) for _, data in self.events)


def said(family: str, times: Sequence[float], draw: Draw, chance: random.Random) -> Said:
    """Make an answer with a token at each of these times."""
    shape, media_type = SHAPES[family]
    events, at = [], 0
    for time in times:
        token = draw(chance)
        events.append((time, shape(token, at)))
        at += len(token)
    return Said(media_type, events)


def poisson(per_second: float, count: int, chance: random.Random) -> list[float]:
    """Return times of arrival, burstier than an engine's."""
    now, times = 0.0, []
    for _ in range(count):
        now += chance.expovariate(per_second)
        times.append(now)
    return times


# --- what passes ---


def plain(answer: Said) -> Trace:
    """Return what passes when nothing is sealed."""
    return [(time, len(data)) for time, data in answer.events]


def response_sealer() -> ResponseSealer:
    """Return what seals an answer to a request."""
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    return bridge.response(seeded("nonce", 16))


def sealed(answer: Said, policy: PaddingPolicy = DEFAULT_POLICY) -> Trace:
    """Return what passes when the answer is sealed: as the bridge writes it, its timer on time."""
    writer = ResponseWriter(response_sealer(), policy)
    trace = [(0.0, len(writer.start(ResponseHead(200, ((b"content-type", answer.media_type),)))))]
    end = answer.events[-1][0]
    for now, data in answer.events:
        _flush(writer, now, trace)
        if out := writer.write(data, now):
            trace.append((now, len(out)))
    trace.append((end, len(writer.finish())))
    return trace


def _flush(writer: ResponseWriter, now: float, trace: Trace) -> None:
    deadline = writer.deadline
    if deadline is not None and deadline <= now:
        trace.append((deadline, len(writer.poll(deadline))))


# --- what is seen in it ---


def seen(trace: Trace) -> list[float]:
    """Return what an observer computes of an answer."""
    sizes = [float(size) for _, size in trace]
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(trace)] or [0.0]
    found = [sum(sizes), float(len(sizes)), trace[-1][0] - trace[0][0], float(len(set(sizes)))]
    for values in (sizes, pauses):
        ordered = sorted(values)
        found += [fmean(values), pstdev(values), ordered[0], ordered[-1]]
        found += [ordered[(len(ordered) - 1) * percent // 100] for percent in PERCENTS]
        found += [*values[:SHOWN], *([0.0] * (SHOWN - len(values)))]
    return found


class Observer:
    """Knows some answers and their kinds."""

    def __init__(self, known: Sequence[tuple[Trace, int]]) -> None:
        """Learn.

        Args:
            known: Answers with the number of their kind, 0 or 1.
        """
        rows = [seen(trace) for trace, _ in known]
        columns = list(zip(*rows, strict=True))
        # What is the same in all that it knows says nothing; what varies counts alike.
        spread = [(index, fmean(column), pstdev(column)) for index, column in enumerate(columns)]
        self._used = [(index, mean, each) for index, mean, each in spread if each > 1e-9 * max(1.0, abs(mean))]
        kinds = [kind for _, kind in known]
        self._known = list(zip(map(self._scaled, rows), kinds, strict=True))
        self._bound = max((_bound(index, column, kinds) for index, column in enumerate(columns)), key=lambda b: b[0])

    def by_one_bound(self, trace: Trace) -> int:
        """Say of which kind an answer is by the one figure that tells best among those that it knows."""
        _, index, bound, above = self._bound
        return above if seen(trace)[index] > bound else 1 - above

    def by_neighbours(self, trace: Trace) -> int:
        """Say of which kind an answer is by the most like it, in all figures."""
        point = self._scaled(seen(trace))
        nearest = sorted((math.dist(point, other), kind) for other, kind in self._known)[:NEIGHBOURS]
        return int(sum(kind for _, kind in nearest) * 2 > NEIGHBOURS)

    def _scaled(self, row: Sequence[float]) -> list[float]:
        return [(row[index] - mean) / each for index, mean, each in self._used]


def _bound(index: int, column: Sequence[float], kinds: Sequence[int]) -> tuple[int, int, float, int]:
    """Return how many answers a bound of one figure tells rightly, the figure, the bound, and the kind above it."""
    ordered = sorted(zip(column, kinds, strict=True))
    ones, best = sum(kinds), (0, index, 0.0, 0)
    right = ones  # with all above, and those taken for kind 1
    for at, (value, kind) in enumerate(ordered):
        right += 1 if kind == 0 else -1
        if at + 1 == len(ordered) or ordered[at + 1][0] > value:
            best = max(best, (right, index, value, 1), (len(kinds) - right, index, value, 0))
    return best


@dataclass(frozen=True, slots=True)
class Guesses:
    """How an observer fared."""

    right: int
    of: int

    @property
    def share(self) -> float:
        """Of those that were right; a coin has 0.5."""
        return self.right / self.of

    @property
    def sigmas(self) -> float:
        """Standard deviations above what a coin does."""
        return (self.right - self.of / 2) / (math.sqrt(self.of) / 2)


def answers(
    family: str, pair: str, per_second: float, tokens: int, count: int, seed: str
) -> Iterator[tuple[Said, int]]:
    """Yield so many answers of each kind, each pair of them of the same number of tokens."""
    chance = random.Random(seed)
    for _ in range(count):
        long = chance.randint(tokens // 2, tokens)
        for kind, draw in enumerate(PAIRS[pair]):
            yield said(family, poisson(per_second, long, chance), draw, chance), kind


def observe(
    family: str, pair: str, per_second: float, passes: Callable[[Said], Trace], *, tokens: int = 200, count: int = 50
) -> dict[str, Guesses]:
    """Have an observer learn from `count` answers of each kind, and guess the kind of as many others in two ways."""
    seed = f"{family} {pair} {per_second}"
    known = [(passes(each), kind) for each, kind in answers(family, pair, per_second, tokens, count, seed + " known")]
    observer = Observer(known)
    asked = [(passes(each), kind) for each, kind in answers(family, pair, per_second, tokens, count, seed + " asked")]
    return {
        name: Guesses(sum(guess(trace) == kind for trace, kind in asked), len(asked))
        for name, guess in (("neighbours", observer.by_neighbours), ("one bound", observer.by_one_bound))
    }
