"""`cloudtolocalllm bridge` as a person runs it, against the real API."""

import asyncio
import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.api_parts import MARK, RunningApi, running_api
from tests.support.pairing_parts import decide
from tests.support.ports import free_port

from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.contracts.endpoint import Endpoint

DEADLINE = 20.0
PLAIN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


class Command:
    """One run of the command line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def says(self, pattern: str) -> re.Match[str]:
        """Read on until the output has this."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            while (found := re.search(pattern, self.output)) is None:
                data = await self.process.stdout.read(4096)
                assert data, f"expected {pattern!r} in: {self.output}"
                self.output += data.decode()
        return found

    async def ends(self) -> int:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@contextlib.asynccontextmanager
async def command(
    *arguments: str, text: str | None = None, environ: Mapping[str, str] | None = None
) -> AsyncGenerator[Command]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloudtolocalllm", "bridge", *arguments,
        stdin=asyncio.subprocess.DEVNULL if text is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**PLAIN, **(environ or {})},
    )  # fmt: skip
    if text is not None:
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), DEADLINE)


class Cloud:
    def __init__(self, api: RunningApi, url: str, person: httpx.AsyncClient, home: Path) -> None:
        self.api = api
        self.url = url
        self.person = person
        self.home = home
        self.file = home / f"127.0.0.1-{urlsplit(url).port}.json"
        self.key = api.key_of(api.owner).key

    @property
    def options(self) -> list[str]:
        return ["--server", self.url, "--data-dir", str(self.home)]

    async def bridges(self) -> list[tuple[str, str]]:
        return [(bridge["id"], bridge["name"]) for bridge in (await self.person.get("/api/bridge")).json()]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncGenerator[Cloud]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    listen = Endpoint(host="127.0.0.1", port=port)
    async with (
        running_api(tmp_path, public_url=url, listen=listen) as api,
        httpx.AsyncClient(base_url=url, timeout=10) as person,
    ):
        await person.post("/api/auth/sign-in", json={"token": await api.sign_in_token(api.owner)})
        yield Cloud(api, url, person, tmp_path / "home")


async def test_login_shows_a_code_and_a_qr_code_and_logout_ends_the_pairing(cloud: Cloud) -> None:
    async with command("login", *cloud.options, "--name", "den", "--no-browser") as login:
        code = (await login.says(r"enter the code  ([B-Z]{4}-[B-Z]{4})\n"))[1]
        await login.says("Confirm it only if you started")
        assert f"{cloud.url}/pair" in login.output
        blocks = [line for line in login.output.splitlines() if line and set(line) <= set(" ▀▄█\x1b[0123456789;m")]
        assert len(blocks) > 10, "expected a QR code of blocks"
        assert (await decide(cloud.person, code)).status_code == 200
        assert await login.ends() == 0
        assert "is paired" in login.output
    first = BridgeIdentity.load(cloud.file)
    assert stat.S_IMODE(cloud.file.stat().st_mode) == 0o600
    assert await cloud.bridges() == [(first.bridge_id, "den")]
    assert first.credential not in login.output

    async with command("login", *cloud.options, "--name", "again", "--no-browser") as again:
        code = (await again.says(r"enter the code  ([B-Z]{4}-[B-Z]{4})\n"))[1]
        assert (await decide(cloud.person, code)).status_code == 200
        assert await again.ends() == 0
    second = BridgeIdentity.load(cloud.file)
    assert second.key != first.key
    assert await cloud.bridges() == [(second.bridge_id, "again")], "expected this machine to be listed once"

    async with command("logout", "--data-dir", str(cloud.home)) as logout:
        assert await logout.ends() == 0
    assert not cloud.file.exists()
    assert await cloud.bridges() == []
    async with command("logout", "--data-dir", str(cloud.home)) as logout:
        assert await logout.ends() == 1
        assert "paired with none" in logout.output


async def test_a_denied_login_leaves_nothing(cloud: Cloud) -> None:
    async with command("login", *cloud.options, "--no-browser") as login:
        code = (await login.says(r"enter the code  ([B-Z]{4}-[B-Z]{4})\n"))[1]
        await decide(cloud.person, code, "deny")
        assert await login.ends() == 1
        assert "denied" in login.output
    assert not cloud.file.exists()


async def test_run_without_a_pairing_says_what_to_do(cloud: Cloud) -> None:
    async with command("run", *cloud.options) as run:
        assert await run.ends() == 2
        assert f"cloudtolocalllm bridge login --server {cloud.url}" in run.output


async def running(cloud: Cloud) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            if any(bridge["connected"] for bridge in (await cloud.person.get("/api/bridge")).json()):
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["stdin", "option", "environment"])
async def test_a_key_pairs_at_the_first_start_and_is_not_kept(cloud: Cloud, way: str) -> None:
    arguments = {"stdin": ["--key", "-"], "option": ["--key", cloud.key], "environment": []}[way]
    environ = {"C2L_BRIDGE_PAIRING_KEY": cloud.key} if way == "environment" else {}
    text = cloud.key + "\n" if way == "stdin" else None
    engine = ["--engine", "http://127.0.0.1:9"]
    async with command(*cloud.options, *arguments, *engine, text=text, environ=environ) as first:
        await running(cloud)
        assert cloud.key not in cloud.file.read_text()
    assert cloud.key not in first.output
    [(bridge, _)] = await cloud.bridges()
    async with command("run", "--data-dir", str(cloud.home), *engine):
        await running(cloud)
    assert [id_ for id_, _ in await cloud.bridges()] == [bridge]


async def test_a_revoked_bridge_ends_with_a_status_of_its_own(cloud: Cloud) -> None:
    engine = ["--engine", "http://127.0.0.1:9"]
    async with command(*cloud.options, "--key", cloud.key, *engine) as run:
        await running(cloud)
        [(bridge, _)] = await cloud.bridges()
        assert (await cloud.person.delete(f"/api/bridge/{bridge}", headers=MARK)).status_code == 204
        assert await run.ends() == 3
        assert "bridge login" in run.output
    assert json.loads(cloud.file.read_text())["revoked"] is True
    async with command("run", *cloud.options, *engine) as run:
        assert await run.ends() == 2
