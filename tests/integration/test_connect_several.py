"""Several homes behind one endpoint: one list, and each request where it belongs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.connect_homes import CHAT, get, having, post
from tests.support.connect_parts import at_home, connected, pair_with
from tests.support.eventually import eventually
from tests.support.small_home import Run, small_home

from cloudtolocalllm.connect import household
from cloudtolocalllm.connect.homes import Homes
from cloudtolocalllm.connect.service import Connect, homes_folder
from cloudtolocalllm.contracts.problems import Problem, problem_content
from cloudtolocalllm.sealed.bhttp import RequestHead


async def test_one_list_over_all_homes_and_each_request_where_its_model_is(tmp_path: Path) -> None:
    async with (
        small_home(having("tiny", "both", name="one"), "one") as one,
        small_home(having("large", "both", name="two"), "two") as two,
    ):
        await pair_with(tmp_path, one.invite(), priority=1)
        await pair_with(tmp_path, two.invite(), priority=0)
        async with connected(tmp_path) as connect:
            tags = (await get(connect, "/api/tags")).json()["models"]
            assert sorted(model["name"] for model in tags) == ["both", "large", "tiny"]
            data = (await get(connect, "/v1/models")).json()
            assert data["object"] == "list"
            assert sorted(model["id"] for model in data["data"]) == ["both", "large", "tiny"]
            for model, home in {"tiny": "one", "large": "two", "both": "two"}.items():
                assert (await post(connect, {**CHAT, "model": model})).json() == {"home": home}
            assert (await post(connect, {**CHAT, "model": "nobody"})).status_code == 404


async def test_another_home_answers_before_the_first_byte(tmp_path: Path) -> None:
    async with (
        small_home(having("tiny", name="one"), "one") as one,
        small_home(having("tiny", name="two"), "two") as two,
    ):
        await pair_with(tmp_path, one.invite(), priority=0)
        await pair_with(tmp_path, two.invite(), priority=1)
        async with connected(tmp_path) as connect:
            assert (await post(connect)).json() == {"home": "one"}
            one.offline = True
            assert (await post(connect)).json() == {"home": "two"}
            assert (await post(connect)).json() == {"home": "two"}
            one.offline = False
            fresh = {**CHAT, "messages": [{"role": "user", "content": "another conversation"}]}

            async def whose() -> str:
                await get(connect, "/api/tags")
                return str((await post(connect, fresh)).json()["home"])

            # Where it is now it stays, for what the engine has cached; a new conversation prefers the first again.
            assert (await post(connect)).json() == {"home": "two"}
            assert await eventually(whose, lambda home: home in ("one", "two"))


async def test_a_home_that_goes_before_the_first_byte_leaves_the_answer_to_another(tmp_path: Path) -> None:
    """Its machine fell asleep while the model was loading; what it began is stopped as soon as it is back."""

    async def loading(head: RequestHead, content: bytes, run: Run) -> None:
        if head.method == b"GET":
            await having("tiny")(head, content, run)
        else:
            await asyncio.sleep(60)

    async with small_home(loading, "one") as one, small_home(having("tiny", name="two"), "two") as two:
        await pair_with(tmp_path, one.invite(), priority=0)
        await pair_with(tmp_path, two.invite(), priority=1)
        async with connected(tmp_path) as connect:
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(post(connect))
                await eventually(lambda: asyncio.sleep(0, one.started), lambda found: "/ollama/api/chat" in found)
                one.offline = True
                one.break_all()
            assert answer.result().json() == {"home": "two"}
            assert one.stopped == []
            one.offline = False
            await eventually(lambda: asyncio.sleep(0, one.stopped), len)


async def test_an_engine_that_is_down_sends_a_request_elsewhere(tmp_path: Path) -> None:
    async def down(head: RequestHead, content: bytes, run: Run) -> None:
        if head.method == b"GET":
            await having("tiny")(head, content, run)
            return
        run.fields = ((b"content-type", b"application/problem+json"),)
        run.status = 502
        run.data += b'{"type":"urn:c2l:problem:engine-unreachable","detail":"It is off."}'

    async with small_home(down, "one") as one, small_home(having("tiny", name="two"), "two") as two:
        await pair_with(tmp_path, one.invite())
        async with connected(tmp_path) as connect:
            alone = await post(connect)
            assert alone.status_code == 502
            assert alone.json()["detail"] == "It is off."
        await pair_with(tmp_path, two.invite(), priority=1)
        async with connected(tmp_path) as connect:
            assert (await post(connect)).json() == {"home": "two"}


async def test_a_machine_that_is_away_does_not_slow_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(household, "LIST_WAIT", 0.5)
    monkeypatch.setattr(household, "FIRST_WAIT", 5.0)
    async with small_home(having("tiny"), "one") as one, small_home(having("large"), "two") as two:
        await pair_with(tmp_path, one.invite())
        await pair_with(tmp_path, two.invite())
        async with connected(tmp_path) as connect:
            await get(connect, "/api/tags")
            two.stall = True  # it takes requests, and says nothing
            await get(connect, "/api/tags")
            await eventually(_state(connect, "two"), lambda up: not up)
            listed = (await get(connect, "/api/tags")).json()["models"]
            (away,) = [state for state in connect.household.states() if state.home.bridge_id == "two"]
            assert not away.pending["/api/tags"].done()  # it is asked, and nobody waits for it
            assert [(model["name"], "c2l_away" in model) for model in listed] == [("tiny", False), ("large", True)]
            loaded = (await get(connect, "/api/ps")).json()["models"]
            assert [model["name"] for model in loaded] == ["tiny"]
            status = (await get(connect, "/c2l/status")).json()
            assert {home["bridge"]: home["up"] for home in status["homes"]} == {"one": True, "two": False}


async def test_the_list_of_an_only_home_that_is_away_is_marked(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home, at_home(tmp_path, home) as connect:
        assert "c2l_away" not in (await get(connect, "/v1/models")).text
        home.offline = True
        (model,) = (await get(connect, "/v1/models")).json()["data"]
        assert model == {"id": "tiny", "c2l_away": True}
        answer = await get(connect, "/api/ps")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:c2l:problem:bridge-offline"


async def test_the_list_of_a_home_whose_engine_is_off_is_marked(tmp_path: Path) -> None:
    async def off(head: RequestHead, content: bytes, run: Run) -> None:
        run.fields, run.status = ((b"content-type", b"application/problem+json"),), 502
        run.data += problem_content(Problem.ENGINE_UNREACHABLE, "It is off.")

    async with small_home(having("tiny")) as home, at_home(tmp_path, home) as connect:
        await get(connect, "/api/tags")
        home.engine = off
        (model,) = (await get(connect, "/api/tags")).json()["models"]
        assert model["c2l_away"] is True
        assert connect.status()["homes"][0]["why"] == "It is off."
        answer = await get(connect, "/api/ps")
        assert (answer.status_code, answer.json()["detail"]) == (502, "It is off.")


async def test_a_list_of_before_does_not_hide_that_the_home_refuses(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home, at_home(tmp_path, home) as connect:
        assert (await get(connect, "/api/tags")).status_code == 200
        home.devices.clear()
        answer = await get(connect, "/api/tags")
        assert answer.status_code == 401
        assert answer.json()["type"] == "urn:c2l:problem:device-unknown"
        assert not connect.status()["homes"][0]["up"]


async def test_homes_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    async with (
        small_home(having("tiny", name="one"), "one") as one,
        small_home(having("large", name="two"), "two") as two,
    ):
        await pair_with(tmp_path, one.invite())
        async with connected(tmp_path) as connect:
            stop = asyncio.Event()
            running = asyncio.create_task(connect.run(stop))
            added = await pair_with(tmp_path, two.invite())

            async def names() -> list[str]:
                return sorted(model["name"] for model in (await get(connect, "/api/tags")).json()["models"])

            await eventually(names, lambda found: found == ["large", "tiny"])
            Homes(homes_folder(tmp_path)).remove(added)
            await eventually(names, lambda found: found == ["tiny"])
            stop.set()
            await running


def _state(connect: Connect, bridge: str) -> Any:
    async def look() -> bool:
        (found,) = [home for home in connect.status()["homes"] if home["bridge"] == bridge]
        return bool(found["up"])

    return look
