"""Pairing with homes, and what is kept of them; a server that is not to be believed."""

import asyncio
import base64
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.connect_homes import CHAT, having, post
from tests.support.connect_parts import at_home, connected, pair_with
from tests.support.eventually import eventually
from tests.support.small_home import Run, SmallHome, scripted, small_home

from cloudtolocalllm.connect.errors import HomeError
from cloudtolocalllm.connect.homes import Homes, key_name
from cloudtolocalllm.connect.service import Connect, NoHomeError, homes_folder, keys_folder
from cloudtolocalllm.connect.settings import ConnectSettings
from cloudtolocalllm.connect.vault import FileVault
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.sealed import statement
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.key_ring import GatewayKey, KeyRing


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


async def test_another_api_key_is_used_by_an_endpoint_that_runs(tmp_path: Path) -> None:
    async with small_home(having("tiny")) as home, at_home(tmp_path, home) as connect:
        stop = asyncio.Event()
        running = asyncio.create_task(connect.run(stop))
        home.api_key = "c2l_another"
        assert (await post(connect)).status_code == 401
        FileVault(keys_folder(tmp_path)).put(key_name(home.url), home.api_key)
        homes = Homes(homes_folder(tmp_path))
        homes.save(homes.load()[0])

        async def status() -> int:
            return (await post(connect)).status_code

        await eventually(status, lambda found: found == 200)
        stop.set()
        await running


async def test_a_number_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """Else an older key could be shown after the next start."""
    async with small_home(having("tiny")) as home, at_home(tmp_path, home) as connect:
        assert (await post(connect)).status_code == 200
        (kept,) = homes_folder(tmp_path).glob("*.seq")
        kept.unlink()
        kept.mkdir()
        home.restart()
        for _ in range(2):
            answer = await post(connect)
            assert answer.status_code == 500
            assert str(kept) in answer.json()["detail"]
        kept.rmdir()
        assert (await post(connect)).status_code == 200


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
