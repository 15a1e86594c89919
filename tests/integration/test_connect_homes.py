"""Pairing with homes, and several of them behind one endpoint."""

import asyncio
import base64
import json
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.connect_parts import at_home, connected, pair_with, url_of
from tests.support.eventually import eventually
from tests.support.small_home import Run, SmallHome, scripted, small_home

from cloudtolocalllm.connect.errors import HomeError, StorageError
from cloudtolocalllm.connect.homes import Homes
from cloudtolocalllm.connect.service import Connect, NoHomeError, homes_folder, keys_folder
from cloudtolocalllm.connect.settings import ConnectSettings
from cloudtolocalllm.sealed import statement
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.key_ring import GatewayKey, KeyRing

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "go"}]}


def having(*models: str, name: str = "", answered: list[str] | None = None) -> Any:
    """Return an engine with models, which answers with its name."""

    async def engine(head: RequestHead, content: bytes, run: Run) -> None:
        run.fields = ((b"content-type", b"application/json"),)
        target = head.path.decode()
        if target.endswith("/api/tags") or target.endswith("/api/ps"):
            value: Any = {"models": [{"name": model, "model": model} for model in models]}
        elif target.endswith("/v1/models"):
            value = {"object": "list", "data": [{"id": model} for model in models]}
        else:
            asked = json.loads(content)["model"]
            if asked not in models:
                run.status = 404
                run.data += b'{"error":"model not found"}'
                return
            value = {"home": name}
            if answered is not None:
                answered.append(name)
        run.status = 200
        run.data += json.dumps(value).encode()

    return engine


async def post(connect: Connect, value: Any = CHAT) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{url_of(connect)}/api/chat", json=value)


async def get(connect: Connect, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(url_of(connect) + path)


def below(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


# --- pairing ---


async def test_a_link_pairs_this_computer(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        paired = await pair_with(tmp_path, home.invite())
        assert home.names == {paired.device_id: "test laptop"}
        assert paired.fingerprint == home.pinned
        assert b"test laptop" not in home.seen
        (known,) = Homes(homes_folder(tmp_path)).load()
        assert known == paired


async def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("modes are POSIX's")
    async with small_home(having("tiny")) as home, at_home(tmp_path, home):
        pass
    modes = {path: (path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in below(tmp_path)}
    assert len(modes) >= 6
    assert {mode for _, mode in modes.values()} == {0o600, 0o700}
    assert all(is_folder == (mode == 0o700) for is_folder, mode in modes.values()), modes


async def test_a_link_is_good_once(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        link = home.invite()
        await pair_with(tmp_path / "one", link)
        with pytest.raises(HomeError, match="used or has expired"):
            await pair_with(tmp_path / "two", link)
        assert Homes(homes_folder(tmp_path / "two")).load() == []
        assert len(home.devices) == 1


async def test_a_link_of_another_identity_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home, small_home(having("tiny")) as other:
        wrong = home.invite().replace(str(home.port), str(other.port))
        with pytest.raises(HomeError, match="another key than the one that was paired"):
            await pair_with(tmp_path, wrong)
        assert other.devices == {}


async def test_a_pairing_whose_answer_was_lost_is_kept_if_the_home_took_it(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        home.lose_pairing = True
        await pair_with(tmp_path, home.invite())
        async with connected(tmp_path) as connect:
            assert (await post(connect)).status_code == 200


async def test_a_new_pairing_replaces_the_old_key(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        first = await pair_with(tmp_path, home.invite())
        second = await pair_with(tmp_path, home.invite())
        assert first.device_id != second.device_id
        assert [one.device_id for one in Homes(homes_folder(tmp_path)).load()] == [second.device_id]
        assert len(list(keys_folder(tmp_path).iterdir())) == 2  # the device's, and the API's


async def test_without_homes_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(NoHomeError, match="connect add"):
        Connect(ConnectSettings(tmp_path, keyring=False))


async def test_a_lost_device_key_is_told(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        await pair_with(tmp_path, home.invite())
        for path in keys_folder(tmp_path).iterdir():
            path.unlink()
        with pytest.raises(StorageError, match="pair this home again"):
            async with connected(tmp_path, key="c2l_test-key"):
                pass


async def test_a_removed_device_is_told_so(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home, at_home(tmp_path, home) as connect:
        home.devices.clear()
        answer = await post(connect)
        assert answer.status_code == 401
        assert answer.json()["type"] == "urn:c2l:problem:device-unknown"


# --- a server that is not to be believed ---


def older(home: SmallHome) -> str:
    ring = KeyRing(GatewayKey(9, bytes(range(32)), int(time.time())), home.ring.seq - 1)
    return statement.sign(statement.state_keys(ring, home.bridge_id, time.time()), home.identity)


def somebody_elses(home: SmallHome) -> str:
    other = SmallHome(scripted())
    return statement.sign(statement.state_keys(other.ring, home.bridge_id, time.time()), other.identity)


def of_another_home(home: SmallHome) -> str:
    return statement.sign(statement.state_keys(home.ring, "other", time.time()), home.identity)


def expired(home: SmallHome) -> str:
    at = time.time() - 4 * 86_400
    ring = KeyRing(GatewayKey(9, bytes(range(32)), int(at)), home.ring.seq + 5)
    return statement.sign(statement.state_keys(ring, home.bridge_id, at), home.identity)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (older, "older key"),
        (somebody_elses, "another key"),
        (of_another_home, "another key"),
        (expired, "clock"),
    ],
)
async def test_a_statement_that_does_not_hold(made: Callable[[SmallHome], str], told: str, tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        await pair_with(tmp_path, home.invite())
        home.statement = made(home)
        async with connected(tmp_path) as connect:  # a new start: what was accepted before is known from the disk
            answer = await post(connect)
        assert answer.status_code == 502
        assert told in answer.json()["detail"]
        assert home.asked == []


async def test_an_api_key_that_is_refused_is_told(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home:
        await pair_with(tmp_path, home.invite())
        async with connected(tmp_path, key="c2l_wrong") as connect:
            answer = await post(connect)
    assert answer.status_code == 401
    assert "API key" in answer.json()["detail"]


# --- several homes ---


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
            began = time.monotonic()
            assert (await post(connect)).json() == {"home": "two"}
            assert (await post(connect)).json() == {"home": "two"}
            assert time.monotonic() - began < 2.0
            one.offline = False
            fresh = {**CHAT, "messages": [{"role": "user", "content": "another conversation"}]}

            async def whose() -> str:
                await get(connect, "/api/tags")
                return str((await post(connect, fresh)).json()["home"])

            # Where it is now it stays, for what the engine has cached; a new conversation prefers the first again.
            assert (await post(connect)).json() == {"home": "two"}
            assert await eventually(whose, lambda home: home in ("one", "two"))


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


async def test_a_machine_that_is_away_does_not_slow_the_list(tmp_path: Path) -> None:
    async with small_home(having("tiny"), "one") as one, small_home(having("large"), "two") as two:
        await pair_with(tmp_path, one.invite())
        await pair_with(tmp_path, two.invite())
        async with connected(tmp_path) as connect:
            await get(connect, "/api/tags")
            two.stall = True  # it takes requests, and says nothing
            await asyncio.wait_for(get(connect, "/api/tags"), 8)
            await eventually(_state(connect, "two"), lambda up: not up, within=15)
            began = time.monotonic()
            listed = (await get(connect, "/api/tags")).json()["models"]
            assert time.monotonic() - began < 1.0
            assert sorted(model["name"] for model in listed) == ["large", "tiny"]
            loaded = (await get(connect, "/api/ps")).json()["models"]
            assert [model["name"] for model in loaded] == ["tiny"]
            status = (await get(connect, "/c2l/status")).json()
            assert {home["bridge"]: home["up"] for home in status["homes"]} == {"one": True, "two": False}


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

            await eventually(names, lambda found: found == ["large", "tiny"], within=8)
            Homes(homes_folder(tmp_path)).remove(added)
            await eventually(names, lambda found: found == ["tiny"], within=8)
            stop.set()
            await running


async def test_a_large_request_passes(tmp_path: Path) -> None:
    """Sealed piece by piece; its size on the way is what was announced."""
    sizes: list[int] = []

    async def engine(head: RequestHead, content: bytes, run: Run) -> None:
        sizes.append(len(content))
        run.status = 200
        run.data += b"{}"

    picture = base64.b64encode(bytes(3_000_000)).decode()
    async with small_home(engine) as home, at_home(tmp_path, home) as connect:
        value = {**CHAT, "messages": [{"role": "user", "content": "look", "images": [picture]}]}
        assert (await post(connect, value)).status_code == 200
        assert sizes[0] > 4_000_000


def _state(connect: Connect, bridge: str) -> Any:
    async def look() -> bool:
        (found,) = [home for home in connect.status()["homes"] if home["bridge"] == bridge]
        return bool(found["up"])

    return look
