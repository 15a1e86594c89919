"""`cloudtolocalllm connect`, as a person runs it."""

import asyncio
import json
from pathlib import Path

import httpx
from tests.support.connect_process import connect, connect_running
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.small_home import API_KEY, SmallHome, scripted, small_home

LIST = scripted(pieces=(b'{"object":"list","data":[{"id":"tiny"}]}',))


async def paired(folder: Path, home: SmallHome) -> None:
    key = folder.with_name(f"{folder.name}.key")
    key.write_text(API_KEY + "\n")
    done = await connect(folder, "add", "--key-file", str(key), "--name", "cli test", typed=home.invite() + "\n")
    assert done.status == 0, done.err
    assert "paired with home" in done.err


async def test_from_a_link_to_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with small_home(LIST) as home:
        await paired(folder, home)
        assert list(home.names.values()) == ["cli test"]
        listed = await connect(folder, "list")
        assert listed.status == 0
        assert home.url in listed.out
        port = free_port()
        async with connect_running(folder, "--port", str(port)) as url, httpx.AsyncClient(timeout=20) as client:
            assert url == f"http://127.0.0.1:{port}"
            assert (await client.get(f"{url}/v1/models")).json()["data"] == [{"id": "tiny"}]
            status = await connect(folder, "status", "--port", str(port))
            assert status.status == 0
            assert "home" in status.out
            document = json.loads((await connect(folder, "status", "--port", str(port), "--json")).out)
            assert document["homes"][0]["up"] is True
        assert (await connect(folder, "status", "--port", str(port))).status == 3


async def test_a_check_tells_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with small_home(LIST) as home:
        await paired(folder, home)
        good = await connect(folder, "--check")
        assert good.status == 0
        assert "1 model" in good.out
        home.devices.clear()
        bad = await connect(folder, "--check")
        assert bad.status == 1
        assert "pair it again" in bad.out
        wrong = await connect(folder, "--check", C2L_CONNECT_KEY="c2l_wrong")
        assert wrong.status == 1
        assert "API key" in wrong.out


async def test_another_api_key_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with small_home(LIST) as home:
        await paired(folder, home)
        home.api_key = "c2l_another"
        refused = await connect(folder, "--check")
        assert refused.status == 1
        assert "connect set HOME --key-file" in refused.out
        done = await connect(folder, "set", "home", "--key-file", "-", typed=home.api_key)
        assert done.status == 0, done.err
        assert (await connect(folder, "--check")).status == 0


async def test_homes_are_renamed_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with small_home(LIST) as home:
        await paired(folder, home)
        assert (await connect(folder, "set", "1", "--name", "Desktop", "--priority", "3")).status == 0
        assert "Desktop" in (await connect(folder, "list")).out
        assert (await connect(folder, "remove", "nobody")).status == 1
        assert (await connect(folder, "remove", "Desktop")).status == 0
        assert (await connect(folder, "list")).out == ""
        assert list((folder / "keys").iterdir()) == []


async def test_pairing_and_running_in_one_command(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with small_home(LIST) as home:
        async with (
            connect_running(folder, "--pair", home.invite(), "--port", "0", C2L_CONNECT_KEY=API_KEY) as url,
            httpx.AsyncClient(timeout=20) as client,
        ):
            assert (await client.get(f"{url}/v1/models")).status_code == 200
        assert not [path for path in (folder / "keys").iterdir() if path.read_text() == API_KEY]  # it was only lent


async def test_a_stop_of_the_endpoint_stops_what_it_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with small_home(scripted(pieces=(b"{}\n",) * 100, pace=0.1)) as home:
        await paired(folder, home)
        async with httpx.AsyncClient(timeout=20) as client:
            async with connect_running(folder, "--port", "0") as url:
                asking = asyncio.create_task(client.post(f"{url}/api/chat", json={"model": "tiny"}))
                await eventually(lambda: asyncio.sleep(0, home.started), len)
                await asyncio.sleep(0.3)
            assert isinstance(await asyncio.gather(asking, return_exceptions=True), list)
        await eventually(lambda: asyncio.sleep(0, home.stopped), len)


async def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    nothing = await connect(folder)
    assert nothing.status == 2
    assert "connect add" in nothing.err
    assert (await connect(folder, "add", typed="nonsense")).status == 1
    async with small_home(LIST) as home:
        keyless = await connect(folder, "add", typed=home.invite())
        assert keyless.status == 2
        assert "--key-file" in keyless.err
        fragment = home.invite().partition("#")[2]
        assert "--server" in (await connect(folder, "add", fragment, C2L_CONNECT_KEY=API_KEY)).err
        done = await connect(folder, "add", fragment, "--server", home.url, C2L_CONNECT_KEY=API_KEY)
        assert done.status == 0, done.err
        other = tmp_path / "other"
        used = await connect(other, "add", fragment, "--server", home.url, "--key-file", "-", typed=API_KEY)
        assert used.status == 1
        assert list((other / "keys").iterdir()) == []
        taken = await connect(folder, "--port", str(home.port), C2L_CONNECT_KEY=API_KEY)
        assert taken.status == 1
        assert "--port" in taken.err
        assert (await connect(folder, C2L_CONNECT_NONSENSE="1")).status == 2
