"""Whatever breaks in the middle of an answer, the local client's own connection goes on, byte for byte."""

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.support.connect_answers import (
    BODY,
    END,
    PIECES,
    WHOLE,
    answering,
    ask,
    cut_short,
    looking_at,
    runs_of,
    speaking,
)
from tests.support.connect_parts import at_home, connected, pair_with, url_of
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.small_home import scripted, small_home

from cloudtolocalllm.connect import journey, outer, watch
from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.tasks import TaskSet


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


async def test_a_request_that_arrives_twice_is_answered_all_the_same(tmp_path: Path) -> None:
    """The answer that reaches us is the second one's, which the home refuses as a replay: the first is taken up."""
    async with small_home(scripted(pieces=PIECES)) as home, at_home(tmp_path, home) as connect:
        home.repeat = True
        assert await ask(url_of(connect)) == WHOLE
        assert len(home.started) == 1


async def test_every_connection_is_broken_again_and_again(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.025)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(ask(url_of(connect))) for _ in range(3)]
            broken = 0
            while not all(answer.done() for answer in answers):
                await asyncio.sleep(0.3)
                broken += home.break_all()
        assert [answer.result() for answer in answers] == [WHOLE] * 3
        assert broken >= 6
        assert len(home.started) == 3


async def test_the_machine_is_away_for_a_while(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await eventually(runs_of(home), speaking(1))
            home.offline = True
            home.break_all()
            await asyncio.sleep(1.0)
            home.offline = False
        assert answer.result() == WHOLE
        assert len(home.started) == 1


@pytest.mark.parametrize("status", [502, 503, 504, 200])
async def test_the_way_is_disturbed_for_a_while(status: int, tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.02)) as home, at_home(tmp_path, home) as connect:
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url_of(connect)))
            await eventually(runs_of(home), speaking(1))
            home.status = status
            home.break_all()
            await asyncio.sleep(0.7)
            home.status = 0
        assert answer.result() == WHOLE
        assert len(home.started) == 1


async def test_the_network_goes_without_a_word_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection says that it is dead; that it is shows when the server is heard again."""
    for name, seconds in {"SILENT": 0.5, "EVERY": 0.5, "PATIENT": 1.0, "EAGER": 0.5}.items():
        monkeypatch.setattr(watch, name, seconds)
    async with small_home(scripted(pieces=PIECES, pace=0.02)) as home, FaultProxy("127.0.0.1", home.port) as network:
        invitation = home.invite().replace(str(home.port), str(network.port))
        await pair_with(tmp_path, invitation)
        async with connected(tmp_path) as connect:
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(ask(url_of(connect)))
                await eventually(runs_of(home), speaking(1))
                network.up.blackhole = network.down.blackhole = True
                await eventually(runs_of(home), lambda runs: all(run.done for run in runs))
                (link,) = connect._links.values()
                await eventually(lambda: asyncio.sleep(0, link._watch.down), bool)
                network.up.blackhole = network.down.blackhole = False
            assert answer.result() == WHOLE
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
            for number in range(3):
                answers.append(tasks.create_task(ask(url_of(connect))))
                await eventually(runs_of(home), speaking(number + 1))
            assert home.mute() == 3
            home.restart()
        assert [answer.result() for answer in answers] == [WHOLE + END] * 3
        assert len(home.started) == 6


@pytest.mark.parametrize("same_id", [False, True])
async def test_a_restarted_home_is_asked_with_its_new_key(same_id: bool, tmp_path: Path) -> None:
    """Also when the new key has the old one's id, as one of 256 has: the home takes the request for damaged then."""
    async with small_home(scripted(pieces=PIECES)) as home, at_home(tmp_path, home) as connect:
        assert await ask(url_of(connect)) == WHOLE
        home.restart(key_id=home.ring.current.key_id if same_id else None)
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
            await eventually(looking_at(home.started), len)
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
        await eventually(looking_at(home.stopped), len)
        assert home.started == ["/ollama/api/chat"]


async def test_a_stop_reaches_a_home_that_was_away(tmp_path: Path) -> None:
    async with small_home(scripted(pieces=PIECES, pace=0.2)) as home, at_home(tmp_path, home) as connect:
        async with answering(connect) as response:
            await anext(response.aiter_raw())
            home.offline = True
            home.break_all()
        await eventually(lambda: asyncio.sleep(0, len(connect._stopping)), bool)
        assert home.stopped == []
        home.offline, home.busy = False, 1  # the first that gets through is refused for now
        await eventually(looking_at(home.stopped), len)


async def test_a_server_that_takes_no_more_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer, "STUCK", 0.3)
    over = asyncio.Event()

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    tasks, clock = TaskSet(), SystemClock()
    async with await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1024) as server:
        port = server.sockets[0].getsockname()[1]
        link = ServerLink(ServerAddress.parse(f"http://127.0.0.1:{port}"), "key", Watch(tasks, clock), clock)
        with pytest.raises(HomeError, match="takes no more") as caught:
            await link.open("POST", "/", (), (bytes(1_000_000) for _ in range(64)), 64_000_000)
        assert caught.value.fault is Fault.LOST
        over.set()
        await link.close()
        await tasks.close()


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
