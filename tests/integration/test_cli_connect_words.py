"""`connect add --server URL`, as a person at a terminal runs it, and a home that is the real gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.connect_process import connect, run
from tests.support.gateway_front import GatewayFront, gateway_front
from tests.support.scripted_engine import scripted_engine
from tests.support.terminal import CTRL_C, CTRL_D, Terminal, at_terminal

KEY = "c2l_test-key"
PROMPT = "Type yes or no: "


def machine(id_: str, name: str, *, connected: bool = True) -> dict[str, Any]:
    return {"id": id_, "name": name, "connected": connected}


@asynccontextmanager
async def home_of(folder: Path) -> AsyncIterator[GatewayFront]:
    async with scripted_engine() as engine, gateway_front(folder, engine.url) as front:
        front.machines = [machine("br-test", "Desktop")]
        yield front


@asynccontextmanager
async def adding(front: GatewayFront, folder: Path, *more: str) -> AsyncIterator[Terminal]:
    key = folder.with_name("laptop.api-key")
    key.write_text(KEY)
    url = f"http://127.0.0.1:{front.port}"
    async with at_terminal(
        "connect", "add", "--server", url, "--key-file", str(key), "--name", "laptop", *more,
        "--data-dir", str(folder), "--no-keyring",
    ) as terminal:  # fmt: skip
        yield terminal


async def home_side(folder: Path, *arguments: str) -> str:
    done = await run(["bridge", "devices", *arguments, "--data-dir", str(folder)])
    assert done.status == 0, done.err
    return done.out


def one_who_waits(listed: str) -> tuple[str, list[str]]:
    """Return the id and the words that the home shows."""
    (line,) = [each for each in listed.splitlines() if "WAITS" in each]
    return line.split()[0], listed.partition("these words: ")[2].partition("\n")[0].split()


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_the_same_words_and_let_in(tmp_path: Path) -> None:
    at, folder = tmp_path, tmp_path / "laptop"
    async with home_of(at) as front:
        async with adding(front, folder) as terminal:
            await terminal.until(PROMPT)
            id_, words = one_who_waits(await home_side(at))
            assert len(words) == 8
            assert " ".join(words) in " ".join(terminal.shown.split())
            assert "Desktop was asked to let this computer in" in terminal.shown
            assert kept(folder) == []
            terminal.type("perhaps\n")
            terminal.type("yes\n")
            await terminal.until("Waiting until this computer is let in at home; 9:")
            assert kept(folder) == []
            await home_side(at, "--approve", id_)
            await terminal.until("paired with br-test")
            assert await terminal.ended() == 0
        listed = await connect(folder, "list")
        assert f"device {id_}" in listed.out
        checked = await connect(folder, "--check")
        assert "answers, sealed" in checked.out, checked.err


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        ("no\n", 1, "The words differ"),
        (CTRL_D, 1, "Given up. Nothing is kept here"),
        (CTRL_C, 130, "Given up. Nothing is kept here. Do not let it in"),
        (f"yes\n{CTRL_C}", 130, "Given up. Nothing is kept here. Do not let it in"),
    ],
)
async def test_nothing_is_kept_of_what_came_to_nothing(tmp_path: Path, typed: str, status: int, said: str) -> None:
    at, folder = tmp_path, tmp_path / "laptop"
    async with home_of(at) as front, adding(front, folder) as terminal:
        await terminal.until(PROMPT)
        for part in typed.splitlines(keepends=True):
            terminal.type(part)
            if part == "yes\n":
                await terminal.until("Waiting until")
        assert await terminal.ended() == status, terminal.shown
        assert said in " ".join(terminal.shown.split())
        assert "Traceback" not in terminal.shown
        assert kept(folder) == []


async def test_ctrl_c_after_it_was_let_in_says_so(tmp_path: Path) -> None:
    at, folder = tmp_path, tmp_path / "laptop"
    async with home_of(at) as front, adding(front, folder) as terminal:
        await terminal.until(PROMPT)
        id_, _ = one_who_waits(await home_side(at))
        await home_side(at, "--approve", id_)
        await terminal.until("It was let in at home. Say here")
        terminal.type(CTRL_C)
        assert await terminal.ended() == 130
        assert 'It was let in at home: put "laptop" out there' in terminal.shown
        assert kept(folder) == []


async def test_refused_and_late(tmp_path: Path) -> None:
    at, folder = tmp_path, tmp_path / "laptop"
    async with home_of(at) as front:
        async with adding(front, folder) as terminal:
            await terminal.until(PROMPT)
            id_, _ = one_who_waits(await home_side(at))
            await home_side(at, "--remove", id_)
            await terminal.until("The home refused")
            assert await terminal.ended() == 1
        async with adding(front, folder, "--wait", "0.03") as terminal:
            await terminal.until("not let in at home in time. Nothing is kept here")
            assert await terminal.ended() == 1
            assert "There are 2 seconds for it" in terminal.shown
        assert kept(folder) == []


async def test_of_several_machines_one_is_chosen(tmp_path: Path) -> None:
    at, folder = tmp_path, tmp_path / "laptop"
    async with home_of(at) as front:
        front.machines = [machine("br-away", "Attic\x1b[2J", connected=False), machine("br-test", "Desktop")]
        async with adding(front, folder) as terminal:
            await terminal.until("1  Attic.2J  bridge br-away  not connected\r\n2  Desktop  bridge br-test\r\n")
            assert "\x1b" not in terminal.shown
            terminal.type("3\n2\n")
            await terminal.until(PROMPT)
            assert one_who_waits(await home_side(at))
        front.machines = []
        async with adding(front, folder) as terminal:
            assert await terminal.ended() == 1
            assert "has no machine" in terminal.shown
        async with adding(front, folder, "--bridge", "br-test") as terminal:  # it is not looked for in any list
            await terminal.until(PROMPT)


async def test_without_a_terminal_the_way_by_a_link_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "laptop"
    for arguments in (["--server", "http://127.0.0.1:9"], ["--server", "http://127.0.0.1:9", "--bridge", "br-test"]):
        done = await connect(folder, "add", *arguments, typed="yes\n", C2L_CONNECT_KEY=KEY)
        assert done.status == 2
        assert "bridge pair-device" in done.err
        assert "connect add LINK" in done.err
    for arguments, said in (
        (["--bridge", "br-test"], "--server URL"),
        (["--server", "http://127.0.0.1:9", "--bridge", "a/b"], "bridge's id"),
        (["--server", "http://127.0.0.1:9", "--wait", "61"], "60 minutes"),
        (["c2l1.x", "--bridge", "br-test"], "without a link"),
    ):
        done = await connect(folder, "add", *arguments, C2L_CONNECT_KEY=KEY)
        assert (done.status, said in done.err) == (1, True), done.err
    assert kept(folder) == []
