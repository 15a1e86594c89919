"""The load generator: `python -m bench.load FILE` in a process of its own; a job on stdin, its outcome in FILE."""

import asyncio
import base64
import hashlib
import json
import re
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.http import Client, Target

STAMP = re.compile(rb'"content":"(\d{9,}) "')
"""A token that is the time at which it was sent."""
TEXT = re.compile(rb'"content":("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class Job:
    """What to do."""

    mode: Literal["streams", "sequential", "closed"]
    """streams: many at once; sequential: one after the other, targets in turn; closed: as many as possible."""
    targets: tuple[Target, ...]
    count: int = 1
    """Streams or connections at once; sequential: requests to each target."""
    seconds: float = 0.0
    """After which open streams are closed; 0 to let them end."""
    warmup: float = 0.0
    """Seconds at the beginning whose tokens are not counted."""
    ramp: float = 0.0
    """Seconds over which the streams are opened."""
    stall: bool = False
    """Read nothing after the first piece."""
    texts: bool = False
    """Keep what was said."""


@dataclass(slots=True)
class Outcome:
    """What was measured, all targets together except where said."""

    latencies: "array[float]" = field(default_factory=lambda: array("f"))
    """Milliseconds from the engine's sending of a token to its arrival."""
    first: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds from the request to the first token, by target."""
    tokens: int = 0
    requests: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    longest_gap: float = 0.0
    """Milliseconds between two pieces of one stream."""
    texts: list[str] = field(default_factory=list)
    """SHA-256 of each stream's text."""

    def merged(self, other: "Outcome") -> "Outcome":
        """Return both together."""
        first = {
            name: [*self.first.get(name, ()), *other.first.get(name, ())] for name in {*self.first, *other.first}
        }
        return Outcome(
            latencies=self.latencies + other.latencies,
            first=first,
            tokens=self.tokens + other.tokens,
            requests=self.requests + other.requests,
            seconds=max(self.seconds, other.seconds),
            errors=self.errors + other.errors,
            longest_gap=max(self.longest_gap, other.longest_gap),
            texts=self.texts + other.texts,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        packed = base64.b64encode(self.latencies.tobytes()).decode()
        names = ("first", "tokens", "requests", "seconds", "errors", "longest_gap", "texts")
        return {name: getattr(self, name) for name in names} | {"latencies": packed}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Outcome":
        """Read what `to_json` wrote."""
        latencies = array("f")
        latencies.frombytes(base64.b64decode(value.pop("latencies")))
        return cls(latencies=latencies, **value)


class _Stream:
    """Measures one streamed response."""

    def __init__(self, outcome: Outcome, target: Target, job: Job, count_from: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.client: Client | None = None
        self._outcome = outcome
        self._target = target
        self._job = job
        self._count_from = count_from
        self._sent = 0
        self._last = 0
        self._tail = b""
        self._text = hashlib.sha256()
        self._over = False

    def send(self, client: Client) -> None:
        self.client = client
        self._sent = time.monotonic_ns()
        client.send(self._target.message, self._data, self._done)

    def _data(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._last:
            self._begin(now)
        elif now - self._last > self._outcome.longest_gap * 1e6:
            self._outcome.longest_gap = (now - self._last) / 1e6
        self._last = now
        if self._tail:
            data = self._tail + data
        end = data.rfind(b"\n") + 1
        self._tail = data[end:]
        whole = data[:end] if self._tail else data
        if self._job.texts:
            for text in TEXT.findall(whole):
                self._outcome.tokens += 1
                self._text.update(json.loads(text).encode())
            return
        stamps = STAMP.findall(whole)
        self._outcome.tokens += len(stamps)
        if now >= self._count_from:
            for stamp in stamps:
                self._outcome.latencies.append((now - int(stamp)) / 1e6)

    def _begin(self, now: int) -> None:
        self._outcome.first.setdefault(self._target.name, []).append((now - self._sent) / 1e6)
        if self._job.stall and self.client is not None:
            self.client.transport.pause_reading()

    def _done(self, error: Exception | None) -> None:
        status = self.client.status if self.client else 0
        if error is not None or status != 200:
            detail = f"status {status}" if error is None else f"{type(error).__name__}: {error}"
            self._outcome.errors.append(f"{self._target.name}: {detail} {self._tail[:200].decode('latin-1')}")
        if self._job.texts:
            self._outcome.texts.append(self._text.hexdigest())
        if not self.done.done():
            self.done.set_result(None)


async def _streams(job: Job) -> Outcome:
    outcome = Outcome()
    began = time.monotonic_ns()
    count_from = began + int((job.warmup + job.ramp) * 1e9)
    open_streams: list[_Stream] = []

    async def one(index: int) -> None:
        target = job.targets[index % len(job.targets)]
        await asyncio.sleep(job.ramp * index / job.count)
        stream = _Stream(outcome, target, job, count_from)
        try:
            client = await Client.connect(target)
        except OSError as error:
            outcome.errors.append(f"{target.name}: {type(error).__name__}: {error}")
            return
        open_streams.append(stream)
        stream.send(client)
        await stream.done
        client.close()

    tasks = [asyncio.ensure_future(one(index)) for index in range(job.count)]
    await asyncio.wait(tasks, timeout=(job.seconds + job.ramp) or None)
    for stream in open_streams:
        if stream.client is not None and not stream.done.done():
            stream.client.close()
            stream.done.set_result(None)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    outcome.requests = job.count
    outcome.seconds = (time.monotonic_ns() - began) / 1e9
    return outcome


async def _sequential(job: Job) -> Outcome:
    """Requests one after the other on one kept-alive connection to each target, the targets in turn."""
    outcome = Outcome()
    clients = [await Client.connect(target) for target in job.targets]
    began = time.monotonic_ns()
    for _ in range(job.count):
        for i, target in enumerate(job.targets):
            if clients[i].transport.is_closing():
                clients[i] = await Client.connect(target)
            stream = _Stream(outcome, target, job, 0)
            stream.send(clients[i])
            await asyncio.wait_for(stream.done, 30)
            outcome.requests += 1
    outcome.seconds = (time.monotonic_ns() - began) / 1e9
    for client in clients:
        client.close()
    return outcome


async def _closed(job: Job) -> Outcome:
    """Each connection sends its next request when the answer to the last one is complete."""
    outcome = Outcome()
    targets = [job.targets[index % len(job.targets)] for index in range(job.count)]
    clients = [(await Client.connect(target), target.message) for target in targets]
    stop = asyncio.Event()
    counting = False

    def begin(client: Client, message: bytes) -> None:
        sent = time.monotonic_ns()

        def done(error: Exception | None) -> None:
            nonlocal counting
            if error is not None or client.status != 200:
                outcome.errors.append(f"status {client.status}: {error}")
                return
            if counting:
                outcome.requests += 1
                outcome.latencies.append((time.monotonic_ns() - sent) / 1e6)
            if not stop.is_set():
                loop.call_soon(begin, client, message)

        client.send(message, _nothing, done)

    loop = asyncio.get_running_loop()
    for client, message in clients:
        begin(client, message)
    await asyncio.sleep(job.warmup)
    counting = True
    began = time.monotonic_ns()
    await asyncio.sleep(job.seconds)
    counting = False
    outcome.seconds = (time.monotonic_ns() - began) / 1e9
    stop.set()
    for client, _ in clients:
        client.close()
    return outcome


def _nothing(_data: bytes) -> None:
    pass


async def run(job: Job) -> Outcome:
    """Do a job in this process."""
    return await {"streams": _streams, "sequential": _sequential, "closed": _closed}[job.mode](job)


async def in_process(job: Job, *, core: int | None = None) -> Outcome:
    """Do a job in a process of its own.

    Args:
        job: It.
        core: The processor core to which the process is bound; None for any.
    """
    with tempfile.NamedTemporaryFile(prefix="c2l-load-") as answer:
        command = [sys.executable, "-m", "bench.load", answer.name]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        try:
            await process.communicate(json.dumps(asdict(job)).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RuntimeError(f"expected the load generator to end well, got status {process.returncode}")
        # By a file: of megabytes through a pipe, only a part arrived when the generator ended at once.
        return Outcome.from_json(json.load(answer))


async def in_processes(jobs: Sequence[Job]) -> Outcome:
    """Do several jobs at once, each in a process, and return all together."""
    total = Outcome()
    for outcome in await asyncio.gather(*(in_process(job) for job in jobs)):
        total = total.merged(outcome)
    return total


def main() -> None:
    import uvloop

    value = json.load(sys.stdin)
    targets = tuple(Target(**target) for target in value.pop("targets"))
    outcome = uvloop.run(run(Job(targets=targets, **value)))
    Path(sys.argv[1]).write_text(json.dumps(outcome.to_json()))


if __name__ == "__main__":
    main()
