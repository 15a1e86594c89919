"""The manager as its callers meet it: over its socket, with real proxies."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import Instance, InstanceState
from cloudtolocalllm.manager import service
from cloudtolocalllm.manager.settings import ManagerSettings
from cloudtolocalllm.runtime import processes
from cloudtolocalllm.runtime.http1 import HttpError, Pool, Response, fetch

TOKEN = "t" * 40
FORKSERVER = (sys.executable, "-m", "cloudtolocalllm.cli.forkserver")


class Manager:
    """A manager in this process, and its caller."""

    def __init__(self, settings: ManagerSettings) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(service.serve(settings, self.stop))
        self.pool = Pool(str(settings.listen))

    async def ask(self, method: str, target: str, token: str | None = TOKEN) -> Response:
        headers = () if token is None else ((b"authorization", b"Bearer " + token.encode()),)
        return await fetch(self.pool, method, target, headers, timeout=10)

    async def json(self, method: str, target: str) -> Any:
        response = await self.ask(method, target)
        assert response.status == 200, response
        return json.loads(response.body)

    async def ready(self) -> None:
        async with asyncio.timeout(10):
            while not self.task.done():
                with contextlib.suppress(HttpError):
                    if (await self.ask("GET", "/readyz", None)).status == 200:
                        return
                await asyncio.sleep(0.01)
        self.task.result()

    async def end(self) -> None:
        self.stop.set()
        await self.pool.close()
        await asyncio.wait_for(self.task, 20)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="c2l-"))
    (folder / "token").write_text(TOKEN + "\n")
    yield folder
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def manager(run_dir: Path, **changes: Any) -> AsyncIterator[Manager]:
    values: dict[str, Any] = {"warm": 1, "forkserver": FORKSERVER, "stop_grace": 2.0, **changes}
    settings = ManagerSettings(
        token_file=run_dir / "token", run_dir=run_dir, listen=Endpoint(path=str(run_dir / "manager.sock")), **values
    )
    made = Manager(settings)
    try:
        await made.ready()
        yield made
    finally:
        await made.end()


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def pid_of(instance: Instance) -> int:
    return int(json.loads(Path(str(instance.endpoint.path)).with_name("instance.json").read_text())["pid"])


async def test_a_user_gets_a_proxy_that_answers_and_keeps_it(run_dir: Path) -> None:
    async with manager(run_dir) as m:
        instance = Instance.from_json(await m.json("PUT", "/v1/instances/alice"))
        assert instance.user == "alice"
        assert instance.state is InstanceState.READY
        assert Instance.from_json(await m.json("PUT", "/v1/instances/alice")) == instance
        assert Instance.from_json(await m.json("PUT", "/v1/instances/alice?check=true")) == instance
        assert Instance.from_json(await m.json("GET", "/v1/instances/alice")) == instance
        assert (await m.ask("GET", "/v1/instances/bob")).status == 404

        listed = await m.json("GET", "/v1/instances")
        assert instance.id in {one["id"] for one in listed["instances"]}
        assert instance.key not in json.dumps(listed)
        stats = await m.json("GET", "/v1/stats")
        assert stats["claimed"] + stats["starts"] >= 1
        assert stats["start_failures"] == 0
        assert stats["start_seconds"]["p50"] < 5

        assert (await m.ask("DELETE", "/v1/instances/alice")).status == 204
        assert (await m.ask("DELETE", "/v1/instances/alice")).status == 204
        assert (await m.ask("GET", "/v1/instances/alice")).status == 404
        assert not Path(str(instance.endpoint.path)).parent.exists()


async def test_nobody_comes_in_without_the_token(run_dir: Path) -> None:
    async with manager(run_dir, warm=0) as m:
        assert stat.S_IMODE((run_dir / "manager.sock").stat().st_mode) == 0o600
        routes = [
            ("PUT", "/v1/instances/u"),
            ("GET", "/v1/instances/u"),
            ("GET", "/v1/instances"),
            ("DELETE", "/v1/instances/u"),
            ("GET", "/v1/stats"),
        ]
        for method, target in routes:
            for token in (None, "", "t" * 39, "T" * 40):
                response = await m.ask(method, target, token)
                assert response.status == 401, (method, target)
                assert response.field(b"content-type") == b"application/problem+json"
        assert (await m.ask("GET", "/healthz", None)).status == 200
        assert (await m.json("GET", "/v1/stats"))["starts"] == 0


@pytest.mark.parametrize("user", ["a%20b", "x" * 65, "a.b", "%C3%A4"])
async def test_names_that_are_none_are_refused(run_dir: Path, user: str) -> None:
    async with manager(run_dir, warm=0) as m:
        response = await m.ask("PUT", f"/v1/instances/{user}")
        assert response.status == 400
        assert json.loads(response.body)["type"] == "urn:c2l:problem:bad-request"


async def test_no_place_is_503_with_retry_after(run_dir: Path) -> None:
    async with manager(run_dir, warm=0, max_instances=1) as m:
        await m.json("PUT", "/v1/instances/a")
        response = await m.ask("PUT", "/v1/instances/b")
        assert response.status == 503
        assert int(response.field(b"retry-after") or b"0") >= 1
        assert json.loads(response.body)["type"] == "urn:c2l:problem:overloaded"


async def test_a_killed_proxy_is_replaced_and_the_others_notice_nothing(run_dir: Path) -> None:
    async with manager(run_dir) as m:
        a = Instance.from_json(await m.json("PUT", "/v1/instances/a"))
        b = Instance.from_json(await m.json("PUT", "/v1/instances/b"))
        os.kill(pid_of(a), signal.SIGKILL)
        again = Instance.from_json(await m.json("PUT", "/v1/instances/a?check=true"))
        assert again.id != a.id
        assert again.key != a.key
        assert Instance.from_json(await m.json("PUT", "/v1/instances/b?check=true")) == b


async def test_the_end_leaves_no_process_socket_or_folder(run_dir: Path) -> None:
    async with manager(run_dir) as m:
        users = [Instance.from_json(await m.json("PUT", f"/v1/instances/u{n}")) for n in range(5)]
        pids = [pid_of(one) for one in users]
    assert [pid for pid in pids if processes.start_time(pid) is not None] == []
    assert left_in(run_dir) == {"proxies", "token"}
    assert left_in(run_dir / "proxies") == {".lock"}


async def test_proxies_that_stay_are_adopted_by_the_next_manager(run_dir: Path) -> None:
    async with manager(run_dir, stop_proxies_on_exit=False) as m:
        before = Instance.from_json(await m.json("PUT", "/v1/instances/u"))
    assert processes.start_time(pid_of(before)) is not None
    async with manager(run_dir) as m:
        assert Instance.from_json(await m.json("GET", "/v1/instances/u")) == before
        assert (await m.json("GET", "/v1/stats"))["adopted"] >= 1
    assert before.id not in left_in(run_dir / "proxies")


async def test_a_short_token_is_refused_at_the_start(run_dir: Path) -> None:
    (run_dir / "token").write_text("short")
    with pytest.raises(ValueError, match="expected a token of at least 32 characters in the token file, got 5"):
        async with manager(run_dir):
            pass
