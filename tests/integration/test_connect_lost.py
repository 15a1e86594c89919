"""The home lost an answer: it is asked for once more, and the client's own connection goes on with one answer."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.support.connect_answers import (
    END,
    PIECES,
    WHOLE,
    answering,
    ask,
    cut_short,
    length_of,
    looking_at,
    runs_of,
)
from tests.support.connect_parts import at_home, url_of
from tests.support.eventually import eventually
from tests.support.small_home import Engine, Run, SmallHome, scripted, small_home

from cloudtolocalllm.connect.service import Connect
from cloudtolocalllm.contracts.problems import Problem, problem_content
from cloudtolocalllm.sealed.bhttp import RequestHead


def telling(*pieces: bytes, pace: float = 0.01) -> Engine:
    """Return an engine that says the same to each seed, and notes the seeds."""
    return scripted(pieces=pieces, pace=pace)


async def lose(home: SmallHome, times: int = 1, after: int = 20) -> None:
    """Have the home lose its answer, each time when so many pieces were told."""
    for _ in range(times):
        await eventually(runs_of(home), lambda runs: any(run.data.count(b"\n") >= after for run in runs))
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
            await eventually(runs_of(home), lambda runs: any(len(run.data) > 500 for run in runs))
            home.engine = telling(PIECES[0], *PIECES, END)
            home.restart()
        assert WHOLE.startswith(received.result())
        await eventually(looking_at(home.stopped), len)  # nobody wants the rest of the other one


async def test_a_break_while_it_is_asked_for_once_more(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await lose(home)
            await eventually(looking_at(home.started), lambda started: len(started) == 2)
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
            await eventually(length_of(received), lambda size: size == len(WHOLE + END))
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
            await eventually(runs_of(home), lambda runs: any(len(run.data) > 500 for run in runs))
            home.engine = away
            home.restart()
        assert texts(answer.result()) == texts(WHOLE)
        assert refused == 3


async def test_a_client_that_leaves_while_it_is_asked_for_once_more(tmp_path: Path) -> None:
    async with small_home(telling(*PIECES, END, pace=0.05)) as home, at_home(tmp_path, home) as connect:
        async with answering(connect) as response:
            assert response.status_code == 200
            await lose(home, after=5)
            await eventually(looking_at(home.started), lambda started: len(started) == 2)
        await eventually(looking_at(home.stopped), len)
        await eventually(runs_of(home), lambda runs: all(run.task is None or run.task.done() for run in runs))
