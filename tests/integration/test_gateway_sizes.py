"""What a relay sees of an answer's sizes and times: a real gateway at a real tunnel, with time held by the test.

Answers whose tokens have 1, 4, 12 and 24 characters, by either API of engines, look the same;
so do those of the home API.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.bridge_parts import Home
from tests.support.gateway_parts import CHAT, THREE, gateway_of, paired, stream_three
from tests.support.held_loop import HeldLoop, settled, turns
from tests.support.hostile_cloud import take_apart
from tests.support.observer import ollama, openai
from tests.support.scripted_engine import Asked, scripted_engine
from tests.support.sealed_client import OuterAnswer, SealedAnswer, SealedClient, TunnelOuter

from cloudtolocalllm.bridge.gateway.sealed_port import SealedPort
from cloudtolocalllm.sealed.limits import TAG
from cloudtolocalllm.sealed.ohttp import ResponseSealer
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY, NO_PADDING, PaddingPolicy

pytestmark = pytest.mark.timeout(120)

LETTER = "\x7e"
"""Of which tokens consist; nothing else does."""
LENGTHS = (1, 4, 12, 24)
FAMILIES = ("openai", "ollama", "home")
STEP = 0.01
STEADY = tuple(range(3, 60, 3))
"""Steps at which tokens come: 33 a second."""
BURSTS = (2, 2, 3, 9, 10, 11, 25, 26, 26, 26, 40, 41, 55)
"""Unevenly, also several at once."""
UNJOINED = PaddingPolicy(interval=0.0)
UNPADDED = PaddingPolicy(multiple=1, floor=0, ceiling=0, headroom=1.0, stream_size=0)

Seen = list[tuple[int, int]]
"""Of each chunk the milliseconds since the answer began, and the bytes of plaintext."""


@dataclass
class Relay:
    """Passes sealed messages on, and notes when what of an answer came by; satisfies `sealed_client.Outer`."""

    home: Home
    passed: list[tuple[float, bytes]] = field(default_factory=list)

    async def send(self, method: str, target: str, content_type: str, content: bytes) -> OuterAnswer:
        """Pass it on."""
        self.passed.clear()
        return Watched(self, await TunnelOuter(self.home).send(method, target, content_type, content))

    @property
    def size(self) -> int:
        """Bytes that came by."""
        return sum(len(data) for _, data in self.passed)

    def seen(self) -> Seen:
        """Return what came by, taken apart as its framing shows."""
        found: Seen = []
        before = bytearray()
        for time, data in self.passed:
            before += data
            pieces = take_apart(bytes(before))
            came = [*pieces.chunks, *([] if pieces.final is None else [pieces.final])][len(found) :]
            found += [(round((time - self.passed[0][0]) * 1000), len(chunk) - TAG) for chunk in came]
        return found


@dataclass
class Watched:
    """An answer that a relay watches."""

    relay: Relay
    answer: OuterAnswer

    @property
    def status(self) -> int:
        """Of the outer answer."""
        return self.answer.status

    @property
    def content_type(self) -> str:
        """Of the outer answer."""
        return self.answer.content_type

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Note each."""
        async for data in self.answer.pieces():
            self.relay.passed.append((asyncio.get_running_loop().time(), data))
            yield data

    async def leave(self) -> None:
        """Leave it."""
        await self.answer.leave()


class Script:
    """An engine that says what it is told to, when it is told."""

    def __init__(self) -> None:
        """Begin with nothing to say."""
        self.asked: Asked | None = None
        self.over = asyncio.Event()

    async def answer(self, asked: Asked) -> None:
        """Answer a request until it is over."""
        kind = "application/x-ndjson" if asked.target == "/api/chat" else "text/event-stream"
        asked.head(200, f"content-type: {kind}", chunked=True)
        self.over.clear()
        self.asked = asked
        await self.over.wait()

    def say(self, token: str) -> None:
        """Say a token, in the API's words."""
        assert self.asked is not None
        self.asked.chunk((ollama if self.asked.target == "/api/chat" else openai)(token, 0))

    def end(self) -> None:
        """Say no more."""
        assert self.asked is not None
        self.asked.last_chunk()
        self.asked = None
        self.over.set()


@dataclass
class Place:
    """A home, its engine, its client, and the relay between."""

    runner: asyncio.Runner
    loop: HeldLoop
    script: Script
    relay: Relay
    client: SealedClient
    given: list[bytes] = field(default_factory=list)
    """What was given to be sealed."""
    sealed: list[int] = field(default_factory=list)
    """Bytes that were sealed."""

    def seen(self, family: str, length: int, steps: Sequence[int]) -> Seen:
        """Have an answer with a token of this length at each of these steps; return what the relay saw of it."""
        return self.runner.run(self._seen(family, length, steps))

    async def _seen(self, family: str, length: int, steps: Sequence[int]) -> Seen:
        asking = await self._asked(family)
        self.given.clear()
        self.sealed.clear()
        self.loop.hold(DEFAULT_POLICY.interval)
        try:
            reading = asyncio.ensure_future((await asking).read())
            await settled(lambda: self.script.asked is not None and self._all_passed(), "the engine to be asked")
            expected = 0
            for step in range(max(steps) + 1):
                for _ in range(steps.count(step)):
                    expected += length
                    self.script.say(LETTER * length)
                    await settled(lambda: self._letters() == expected, "the token to be given to be sealed")  # noqa: B023 - awaited here
                await settled(self._all_passed, "what was sealed to pass")
                self.loop.advance(STEP)
            await settled(self._all_passed, "what was sealed to pass")
            seen = self.relay.seen()
            if family == "home":  # what a run ends with is written down first, which takes timers
                self.loop.release()
            self.script.end()
            content = await settled_task(reading) if family != "home" else await reading
        finally:
            self.loop.release()
        assert content.count(LETTER.encode()) == length * len(steps)
        return seen if family == "home" else self.relay.seen()

    async def _asked(self, family: str) -> "asyncio.Future[SealedAnswer]":
        path = {"openai": "/v1/chat/completions", "ollama": "/ollama/api/chat"}.get(family)
        if path is not None:
            return asyncio.ensure_future(self.client.open("POST", path, CHAT))
        talk = (await self.client.ask("POST", "/c2l/conversations", {"title": "t"}))["id"]
        said = {"role": "user", "content": "hello"}
        note = (await self.client.ask("POST", f"/c2l/conversations/{talk}/messages", said))["id"]
        begun: Any = {"model": "tiny", "parent": note}
        run = await self.client.ask("POST", f"/c2l/conversations/{talk}/runs", begun)
        return asyncio.ensure_future(self.client.open("GET", f"/c2l/runs/{run['id']}/events?offset=0"))

    def _letters(self) -> int:
        return sum(data.count(LETTER.encode()) for data in self.given)

    def _all_passed(self) -> bool:
        return sum(self.sealed) > 0 and self.relay.size == sum(self.sealed) + len(self.relay.passed[0][1][:16])


async def settled_task(task: "asyncio.Future[bytes]") -> bytes:
    """Wait for a task while time stands still."""
    await settled(task.done, "the answer to be whole")
    return task.result()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Run a home."""

    async def enter(stack: AsyncExitStack) -> Place:
        script = Script()
        engine = await stack.enter_async_context(
            scripted_engine(kind="ollama", loaded=["tiny"], answer=script.answer)
        )
        home, client = await stack.enter_async_context(paired(tmp_path_factory.mktemp("home"), engine))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HeldLoop)
        relay = Relay(home)
        client.outer = relay
        return Place(runner, loop, script, relay, client)

    with asyncio.Runner(loop_factory=HeldLoop) as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(enter(stack))
        finally:
            runner.run(stack.aclose())


@pytest.fixture
def place(running: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Take note of what is given to be sealed, and of how much was sealed; both go on as they were."""
    send, seal, seal_final = SealedPort.send_data, ResponseSealer.seal, ResponseSealer.seal_final

    def sending(port: SealedPort, data: bytes) -> None:
        running.given.append(data)
        send(port, data)

    def sealing(sealer: ResponseSealer, chunk: bytes) -> bytes:
        running.sealed.append(len(found := seal(sealer, chunk)))
        return found

    def sealing_final(sealer: ResponseSealer, chunk: bytes = b"") -> bytes:
        running.sealed.append(len(found := seal_final(sealer, chunk)))
        return found

    monkeypatch.setattr(SealedPort, "send_data", sending)
    monkeypatch.setattr(ResponseSealer, "seal", sealing)
    monkeypatch.setattr(ResponseSealer, "seal_final", sealing_final)
    return running


def use(place: Place, monkeypatch: pytest.MonkeyPatch, policy: PaddingPolicy) -> None:
    """Have the gateway pad in another way."""
    monkeypatch.setattr(gateway_of(place.relay.home), "padding", policy)


@pytest.mark.parametrize("steps", [STEADY, BURSTS], ids=["steady", "bursts"])
def test_answers_look_the_same_whatever_their_tokens_lengths(place: Place, steps: Sequence[int]) -> None:
    seen = {(family, n): place.seen(family, n, steps) for family, n in itertools.product(FAMILIES, LENGTHS)}
    assert {size for each in seen.values() for _, size in each} == {DEFAULT_POLICY.stream_size}
    for family in FAMILIES:
        [first, *others] = [seen[family, length] for length in LENGTHS]
        assert len(first) >= 5
        assert all(other == first for other in others), family
    # The home API's streams have something to say at once: their 100 ms count from there.
    assert seen["openai", 1] == seen["ollama", 1]


def test_a_fast_engine_and_a_slow_one_differ_in_the_number_of_chunks_only(place: Place) -> None:
    slow, fast = (place.seen("openai", 4, range(3, 100, every)) for every in (25, 1))
    assert {size for _, size in slow} == {size for _, size in fast} == {DEFAULT_POLICY.stream_size}
    assert len(fast) > 2 * len(slow)
    # Behind the head and the first content, and before the end, all are at whole intervals.
    grid = [time for time, _ in fast[2:-1]]
    assert [later - earlier for earlier, later in itertools.pairwise(grid)] == [100] * (len(grid) - 1)
    assert {time for time, _ in slow[2:-1]} <= set(grid)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_padding_every_length_shows(place: Place, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """So the tests above would fail without it."""
    use(place, monkeypatch, NO_PADDING)
    seen = [place.seen(family, length, STEADY) for length in LENGTHS]
    assert all(one != other for one, other in itertools.combinations(seen, 2))
    assert {len(each) for each in seen} <= {len(STEADY) + 2, len(STEADY) + 3}


def test_joining_alone_hides_no_lengths_and_padding_alone_no_times(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(place, monkeypatch, UNPADDED)
    assert place.seen("openai", 1, STEADY) != place.seen("openai", 12, STEADY)
    use(place, monkeypatch, UNJOINED)
    times = [time for time, _ in place.seen("openai", 1, BURSTS)]
    assert len(times) == len(BURSTS) + 2


def test_what_is_no_stream_has_small_chunks(place: Place) -> None:
    """Only streams pay for it."""

    async def ask() -> Seen:
        answer = await place.client.open("GET", "/ollama/api/version")
        assert await answer.read()
        await turns()
        return place.relay.seen()

    seen = place.runner.run(ask())
    assert {size for _, size in seen} == {DEFAULT_POLICY.floor}


async def test_how_much_is_hidden_is_the_owners_to_say(tmp_path: Path) -> None:
    settings = {"padding_interval": 0.0, "padding_stream_size": 8192}
    async with (
        scripted_engine(kind="ollama", loaded=["tiny"], answer=stream_three) as engine,
        paired(tmp_path, engine, **settings) as (home, client),
    ):
        client.outer = relay = Relay(home)
        assert await (await client.open("POST", "/v1/chat/completions", CHAT)).read() == THREE
        assert {size for _, size in relay.seen()} == {8192}
        assert gateway_of(home).padding == PaddingPolicy(interval=0.0, stream_size=8192)
