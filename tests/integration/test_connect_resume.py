"""Whatever breaks in the middle of an answer, the local client's own connection goes on, byte for byte."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.connect_parts import at_home, connected, pair_with, url_of
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.small_home import Engine, Run, SmallHome, scripted, small_home

from cloudtolocalllm.connect import journey
from cloudtolocalllm.connect.service import Connect
from cloudtolocalllm.contracts.problems import Problem, problem_content
from cloudtolocalllm.sealed.bhttp import RequestHead

PIECES = tuple(b'{"message":{"content":"word %d "}}\n' % number for number in range(120))
WHOLE = b"".join(PIECES)
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "a secret question"}], "stream": True}


async def ask(url: str, **fields: object) -> bytes:
    async with httpx.AsyncClient(timeout=30) as client:
        response = await client.post(f"{url}/api/chat", json={**BODY, **fields})
        assert response.status_code == 200, response.text
        return response.content


@asynccontextmanager
async def answering(connect: Connect) -> AsyncIterator[httpx.Response]:
    """Ask, and leave at the end of the block."""
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("POST", f"{url_of(connect)}/api/chat", json=BODY) as response,
    ):
        yield response


async def cut_short(connect: Connect, each: Callable[[bytes], None]) -> bytes:
    """Ask, and return what came before the connection broke; fail if it did not."""
    received = b""
    async with answering(connect) as response:
        try:
            async for data in response.aiter_raw():
                received += data
                each(received)
        except httpx.RemoteProtocolError:
            return received
    raise AssertionError("expected a broken connection, got a whole answer")


async def test_an_answer_comes_as_the_home_gave_it_and_nobody_else_could_read_it(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES)) as home, at_home(tmp_path, home) as connect:
        assert await ask(url_of(connect)) == WHOLE
        assert home.asked == [("POST", "/ollama/api/chat", 0)]
        assert b"secret question" not in home.seen
        assert b"tiny" not in home.seen
        assert home.passed > len(WHOLE)


@pytest.mark.parametrize("cuts", [[0], [16], [17], [600], [1700, 1700], [3000, 900, 16, 0, 1500]])
async def test_a_cut_anywhere_is_taken_up_where_it_was(cuts: list[int], tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.005)) as home, at_home(tmp_path, home) as connect:
        home.cut = list(cuts)
        assert await ask(url_of(connect)) == WHOLE
        assert home.cut == []
        assert len(home.started) == 1
        offsets = [offset for _, _, offset in home.asked]
        assert offsets == sorted(offsets)
        assert len(offsets) == len(cuts) + 1


async def test_a_changed_byte_is_never_passed_on(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.003)) as home, at_home(tmp_path, home) as connect:
        home.flip = [700, 20]
        assert await ask(url_of(connect)) == WHOLE
        assert len(home.started) == 1


async def test_who_changes_every_answer_is_told_of(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES)) as home, at_home(tmp_path, home) as connect:
        home.flip = [30] * 100
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(f"{url_of(connect)}/api/chat", json=BODY)
        assert response.status_code == 502
        assert "changed on the way" in response.json()["detail"]
        assert len(home.flip) > 90  # it does not go on for ever


async def test_every_connection_is_broken_again_and_again(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.025)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(ask(url_of(connect))) for _ in range(3)]
            broken = 0
            for _ in range(8):
                await asyncio.sleep(0.3)
                broken += home.break_all()
        assert [answer.result() for answer in answers] == [WHOLE] * 3
        assert broken >= 12
        assert len(home.started) == 3


async def test_the_machine_is_away_for_a_while(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await eventually(_started(home.started), len)
            await asyncio.sleep(0.4)
            home.offline = True
            home.break_all()
            await asyncio.sleep(1.5)
            home.offline = False
        assert answer.result() == WHOLE
        assert len(home.started) == 1


@pytest.mark.parametrize("status", [502, 503, 504, 200])
async def test_the_way_is_disturbed_for_a_while(status: int, tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await eventually(_started(home.started), len)
            await asyncio.sleep(0.3)
            home.status = status
            home.break_all()
            await asyncio.sleep(1.0)
            home.status = 0
        assert answer.result() == WHOLE
        assert len(home.started) == 1


async def test_the_network_goes_without_a_word_and_comes_back(tmp_path: Path) -> None:
    """No connection says that it is dead; that it is shows when the server is heard again."""
    async with small_home(scripted(pieces=PIECES, pace=0.1)) as home, FaultProxy("127.0.0.1", home.port) as network:
        invitation = home.invite().replace(str(home.port), str(network.port))
        await pair_with(tmp_path, invitation)
        async with connected(tmp_path) as connect:
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(ask(url_of(connect)))
                await eventually(_started(home.started), len)
                await asyncio.sleep(1.0)
                network.up.blackhole = network.down.blackhole = True
                await asyncio.sleep(9.0)  # the answer is complete at home long before
                network.up.blackhole = network.down.blackhole = False
                back = time.monotonic()
            assert answer.result() == WHOLE
            assert time.monotonic() - back < 5.0
            assert len(home.started) == 1


async def test_a_home_that_lost_the_answer_ends_it_visibly(tmp_path: Path) -> None:
    """The client must not take a part for the whole; by chance nobody asks twice, as it would be another answer."""
    async with (
        small_home(scripted(pieces=PIECES, pace=0.05)) as home,
        at_home(tmp_path, home, seed=False) as connect,
    ):

        def restart(received: bytes) -> None:
            if len(received) > 300 and home.runs:
                home.restart()

        received = await cut_short(connect, restart)
        assert received
        assert WHOLE.startswith(received)
        assert len(home.started) == 1


async def test_a_home_that_was_started_anew_behind_a_silent_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection breaks and nothing more comes: it is found out by asking the home for its key."""
    monkeypatch.setattr(journey, "LOOK_FIRST", 0.5)
    async with (
        small_home(scripted(pieces=PIECES, pace=0.02)) as home,
        at_home(tmp_path, home, seed=False) as connect,
    ):
        silent = False

        def go(received: bytes) -> None:
            nonlocal silent
            if len(received) > 300 and not silent:
                silent = home.mute() == 1
                home.restart()

        received = await cut_short(connect, go)
        assert silent
        assert WHOLE.startswith(received)


async def test_several_silent_answers_of_a_home_that_was_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks first must not take the others' chance to find it out."""
    monkeypatch.setattr(journey, "LOOK_FIRST", 0.5)
    async with small_home(scripted(pieces=PIECES, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        home.engine = scripted(pieces=(*PIECES, END), pace=0.02)
        async with asyncio.TaskGroup() as tasks:
            answers = []
            for _ in range(3):
                answers.append(tasks.create_task(ask(url_of(connect))))
                await asyncio.sleep(0.3)
            assert home.mute() == 3
            home.restart()
        assert [answer.result() for answer in answers] == [WHOLE + END] * 3
        assert len(home.started) == 6


# --- the home has lost the answer: it is asked for once more ---

END = b'{"message":{"content":""},"done":true,"done_reason":"stop"}\n'


def telling(*pieces: bytes, pace: float = 0.01) -> Engine:
    """Return an engine that says the same to each seed, and notes the seeds."""
    return scripted(pieces=pieces, pace=pace)


async def lose(home: SmallHome, times: int = 1, after: int = 20) -> None:
    """Have the home lose its answer, each time when so many pieces were told."""
    for _ in range(times):
        await eventually(_runs(home), lambda runs: any(run.data.count(b"\n") >= after for run in runs))
        home.restart()


def texts(answer: bytes) -> str:
    return "".join(json.loads(line)["message"]["content"] for line in answer.splitlines())


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_that_is_lost_at_home_is_asked_for_once_more(times: int, tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await lose(home, times)
        assert texts(answer.result()) == texts(WHOLE)
        assert answer.result().count(b'"done":true') == 1
        assert len(home.started) == 1 + times
        seeds = {json.loads(content)["options"]["seed"] for content in home.contents}
        assert len(seeds) == 1


async def test_a_home_that_dies_of_a_request_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END)) as home, at_home(tmp_path, home) as connect:

        def restart(received: bytes) -> None:
            """Nothing more is told than before."""

        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(cut_short(connect, restart))
            await lose(home, 4)
        assert WHOLE.startswith(received.result())
        assert len(home.started) == 4


async def test_another_answer_than_before_ends_it_visibly(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END)) as home, at_home(tmp_path, home) as connect:

        def go(received: bytes) -> None:
            """Read on."""

        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(cut_short(connect, go))
            await eventually(_runs(home), lambda runs: any(len(run.data) > 500 for run in runs))
            home.engine = telling(PIECES[0], *PIECES, END)
            home.restart()
        assert WHOLE.startswith(received.result())
        await eventually(_started(home.stopped), len)  # nobody wants the rest of the other one


async def test_a_break_while_it_is_asked_for_once_more(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await lose(home)
            await eventually(_started(home.started), lambda started: len(started) == 2)
            for _ in range(4):
                await asyncio.sleep(0.3)
                home.break_all()
        assert texts(answer.result()) == texts(WHOLE)
        assert len(home.started) == 2


async def test_an_answer_of_which_only_the_end_was_missing_is_not_asked_for(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END)) as home, at_home(tmp_path, home) as connect:

        async def endless(head: RequestHead, content: bytes, run: Run) -> None:
            await telling(*PIECES, END)(head, content, run)
            await asyncio.sleep(30)

        home.engine = endless
        async with asyncio.TaskGroup() as tasks:
            received = bytearray()
            answer = tasks.create_task(read_on(connect, received))
            await eventually(_length(received), lambda size: size == len(WHOLE + END))
            home.restart()
        assert answer.result() == WHOLE + END
        assert len(home.started) == 1


async def read_on(connect: Connect, received: bytearray) -> bytes:
    async with answering(connect) as response:
        async for data in response.aiter_raw():
            received += data
    return bytes(received)


async def test_an_engine_that_comes_later_than_its_bridge_is_waited_for(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END)) as home, at_home(tmp_path, home) as connect:
        refused = 0

        async def away(head: RequestHead, content: bytes, run: Run) -> None:
            nonlocal refused
            refused += 1
            run.fields, run.status = ((b"content-type", b"application/problem+json"),), 502
            run.data += problem_content(Problem.ENGINE_UNREACHABLE, "Not yet.")
            run.wake()
            if refused == 3:
                home.engine = telling(*PIECES, END)

        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await eventually(_runs(home), lambda runs: any(len(run.data) > 500 for run in runs))
            home.engine = away
            home.restart()
        assert texts(answer.result()) == texts(WHOLE)
        assert refused == 3


async def test_a_client_that_leaves_while_it_is_asked_for_once_more(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END, pace=0.05)) as home, at_home(tmp_path, home) as connect:
        async with answering(connect) as response:
            assert response.status_code == 200
            await lose(home, after=5)
            await eventually(_started(home.started), lambda started: len(started) == 2)
        await eventually(_started(home.stopped), len)
        assert all(run.task is None or run.task.done() for run in home.runs.values())


async def test_a_restarted_home_is_asked_with_its_new_key(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES)) as home, at_home(tmp_path, home) as connect:
        assert await ask(url_of(connect)) == WHOLE
        home.restart()
        assert await ask(url_of(connect)) == WHOLE
        assert len(home.started) == 2


async def test_an_answer_that_had_not_begun_is_not_asked_for_twice(tmp_path: Path) -> None:
    """Its first connection breaks while the model thinks: the same exchange is attached to."""
    async with small_home(scripted(pieces=(WHOLE,), pace=0.6)) as home, at_home(tmp_path, home) as connect:

        async def thinking(head: object, content: bytes, run: object) -> None:
            await asyncio.sleep(0.5)
            await scripted(pieces=(WHOLE,))(head, content, run)  # type: ignore[arg-type] # passed through

        home.engine = thinking
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await eventually(_started(home.started), len)
            home.break_all()
            await asyncio.sleep(0.1)
            home.break_all()
        assert answer.result() == WHOLE
        assert len(home.started) == 1
        assert len(home.asked) >= 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_client_that_leaves_stops_the_engine(when: str, tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.05)) as home, at_home(tmp_path, home) as connect:
        if when == "before":
            home.engine = scripted(pieces=PIECES, pace=30)
        async with answering(connect) as response:
            if when == "after":
                await anext(response.aiter_raw())
        await eventually(_started(home.stopped), len)
        assert home.started == ["/ollama/api/chat"]


async def test_a_stop_reaches_a_home_that_was_away(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.2)) as home, at_home(tmp_path, home) as connect:
        async with answering(connect) as response:
            await anext(response.aiter_raw())
            home.offline = True
            home.break_all()
        await asyncio.sleep(0.7)
        assert home.stopped == []
        home.offline = False
        await eventually(_started(home.stopped), len, within=8)


async def test_patience_ends(tmp_path: Path) -> None:
    async with small_home(scripted()) as home, at_home(tmp_path, home, patience=0.5) as connect:
        home.offline = True
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(f"{url_of(connect)}/api/chat", json=BODY)
        assert response.status_code == 503
        assert response.json()["type"] == "urn:c2l:problem:bridge-offline"
        assert home.started == []


async def test_the_deadline_ends_it_visibly(tmp_path: Path) -> None:
    async with (
        small_home(scripted(pieces=PIECES, pace=0.05)) as home,
        at_home(tmp_path, home, deadline=0.8) as connect,
    ):

        def go(received: bytes) -> None:
            home.offline = True
            home.break_all()

        assert await cut_short(connect, go)


def _length(received: bytearray) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return len(received)

    return look


def _runs(home: SmallHome) -> Callable[[], Awaitable[list[Run]]]:
    async def look() -> list[Run]:
        return list(home.runs.values())

    return look


def _started(what: list[str]) -> Callable[[], Awaitable[list[str]]]:
    async def look() -> list[str]:
        return what

    return look
