"""Parts are killed in the middle of an answer."""

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
from tests.support.engines import EngineProcess
from tests.support.fault_proxy import FaultProxy
from tests.support.long_answer import ask
from tests.support.second_bridge import second_bridge
from tests.support.stack import running_stack, wait_for

pytestmark = pytest.mark.timeout(150)


async def test_the_tunnel_is_cut_ten_times_in_one_answer(short_dir: Path, paced: EngineProcess) -> None:
    """The text is the engine's own and no gap is over 2 s."""
    expected = await ask(paced.url, {}, 400, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with FaultProxy("127.0.0.1", stack.port) as fault, second_bridge(stack, paced, fault):
            arrived: list[float] = []
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(ask(f"{stack.url}/ollama", stack.headers, 400, 50, arrived))
                cuts = 0
                for how in ("rst", "fin") * 5:
                    await asyncio.sleep(0.6)
                    cuts += fault.cut(how)
            text = answer.result()
    assert cuts >= 10
    assert text == expected
    assert max(after - before for before, after in itertools.pairwise(arrived)) < 2.0


async def test_a_killed_proxy_costs_its_user_only(short_dir: Path, paced: EngineProcess) -> None:
    with running_stack(short_dir, engines=[paced.url]) as stack:
        await ask(f"{stack.url}/ollama", stack.headers, 5, 0)
        stack.kill_proxy()
        began = time.monotonic()
        assert await ask(f"{stack.url}/ollama", stack.headers, 5, 0)
        assert time.monotonic() - began < 2.0


async def test_other_users_notice_nothing_of_a_killed_proxy(short_dir: Path, paced: EngineProcess) -> None:
    expected = await ask(paced.url, {}, 60, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        _, other = stack.new_user("other")
        async with second_bridge(stack, paced, api_key=other), asyncio.TaskGroup() as tasks:
            await ask(f"{stack.url}/ollama", stack.headers, 5, 0)
            arrived: list[float] = []
            answer = tasks.create_task(ask(f"{stack.url}/ollama", {"x-api-key": other}, 60, 30, arrived))
            await asyncio.sleep(0.7)
            stack.kill_proxy()
        assert answer.result() == expected
        assert max(after - before for before, after in itertools.pairwise(arrived)) < 1.0


def test_up_is_killed_and_started_again(short_dir: Path, paced: EngineProcess) -> None:
    """Keys and sessions still hold, and no process or socket of the first start is left."""
    with httpx.Client(timeout=20) as browser, running_stack(short_dir, engines=[paced.url]) as first:
        token = first.sign_in_url.partition("#token=")[2].partition("&")[0]
        ours = {"c2l-request": "1", "origin": first.url}
        assert browser.post(f"{first.url}/api/auth/sign-in", json={"token": token}, headers=ours).status_code == 204
        assert browser.get(f"{first.url}/v1/models", headers=first.headers).status_code == 200
        children = {p.pid: p.create_time() for p in first.processes().values()}
        assert len(children) >= 5
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait(10)
        with running_stack(short_dir, engines=[paced.url], port=first.port) as second:
            assert browser.get(f"{second.url}/v1/models", headers=first.headers).status_code == 200
            assert browser.get(f"{second.url}/api/auth/session").json()["signed_in"] is True
            current = {p.pid for p in second.processes().values()}
            assert [pid for pid, at in children.items() if lives(pid, at) and pid not in current] == []
            folders = {path.name for path in (short_dir / "run" / "proxies").glob("px-*")}
            assert folders == {instance["id"] for instance in second.instances()}


def lives(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_leaves_nothing_behind(short_dir: Path, number: signal.Signals) -> None:
    with running_stack(short_dir) as stack:
        assert httpx.get(f"{stack.url}/v1/models", headers=stack.headers, timeout=20).status_code == 200
        processes = list(stack.processes().values())
        everyone = {
            p.pid: p.create_time() for parent in processes for p in [parent, *parent.children(recursive=True)]
        }
        stack.process.send_signal(number)
        assert stack.process.wait(30) == 0
        assert [pid for pid, at in everyone.items() if lives(pid, at)] == []
        assert [str(path) for path in short_dir.rglob("*") if path.is_socket()] == []
        assert not (short_dir / "up.lock").exists()


def test_a_second_start_names_the_first(short_dir: Path) -> None:
    with (
        running_stack(short_dir) as stack,
        pytest.raises(RuntimeError, match=f"process {stack.pid} "),
        running_stack(short_dir),
    ):
        pass


def test_no_engine_and_no_demo(short_dir: Path) -> None:
    with pytest.raises(RuntimeError, match="ollama pull"), running_stack(short_dir, arguments=["--no-demo"]):
        pass


def test_a_part_that_dies_is_started_again(short_dir: Path) -> None:
    with running_stack(short_dir) as stack:
        for name in ("api", "bridge", "manager"):
            stack.processes()[name].kill()
            wait_for(
                lambda: httpx.get(f"{stack.url}/v1/models", headers=stack.headers, timeout=20).status_code == 200,
                within=20,
                what=f"an answer after {name} was killed",
            )
