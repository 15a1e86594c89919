"""The fork server and the process driver with real forks."""

import ast
import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import signal
import stat
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.link_parts import until
from tests.support.short_folder import short_folder

from cloudtolocalllm.manager.drivers.base import DriverError, InstanceSpec
from cloudtolocalllm.manager.drivers.process import ProcessDriver
from cloudtolocalllm.manager.drivers.process_spec import ProcessConfig
from cloudtolocalllm.manager.probe import HttpProbe
from cloudtolocalllm.runtime import processes
from cloudtolocalllm.runtime.forkserver import ChildLimits
from cloudtolocalllm.runtime.http1 import Pool, fetch

REAL = (sys.executable, "-m", "cloudtolocalllm.cli.forkserver")
TRIVIAL = (sys.executable, str(Path(__file__).parents[1] / "support" / "forkserver_trivial.py"))


def spec(user: str | None = None) -> InstanceSpec:
    return InstanceSpec("px-" + secrets.token_hex(8), user, secrets.token_hex(32), time.time())


def pss(pid: int) -> int:
    """Proportional set size in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def links(pid: int | None) -> dict[str, str]:
    """What a process's descriptors are, by number."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = str(path.readlink())
    return found


class Host:
    """A run folder, and managers that come and go on it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.gone: list[str] = []
        self.drivers: list[ProcessDriver] = []

    def driver(self, command: tuple[str, ...] = TRIVIAL, **limits: int) -> ProcessDriver:
        made = ProcessDriver(ProcessConfig(self.run_dir, command, ChildLimits(**limits)), HttpProbe())  # type: ignore[arg-type] # no bool is passed
        self.drivers.append(made)
        return made

    async def opened(self, command: tuple[str, ...] = TRIVIAL, **limits: int) -> ProcessDriver:
        made = self.driver(command, **limits)
        assert await made.open(self.gone.append) == []
        return made

    def folders(self) -> set[str]:
        return {path.name for path in (self.run_dir / "proxies").iterdir() if path.is_dir()}


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    with short_folder() as folder:
        made = Host(folder)
        yield made
        for driver in made.drivers:
            for instance in await driver.list():
                with contextlib.suppress(DriverError):
                    await driver.stop(instance, 0)
            await driver.close()


@pytest.fixture
def quiet_children(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Keep the expected complaints of failing children out of the test's own output."""
    yield
    capfd.readouterr()


async def ask(endpoint: object, target: str) -> bytes:
    pool = Pool(str(endpoint), max_idle=0)
    try:
        return (await fetch(pool, "GET", target, timeout=5)).body
    finally:
        await pool.close()


async def test_a_child_is_confined(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-children")
    monkeypatch.setenv("TZ", "UTC")
    driver = await host.opened(open_files=512, address_space=700 * 2**20)
    one = spec("u")
    endpoint = await driver.start(one)
    pid = driver.process_id(one.id)
    assert pid is not None
    proc = Path(f"/proc/{pid}")

    limits = {line[:26].strip(): line[26:].split()[:2] for line in (proc / "limits").read_text().splitlines()[1:]}
    assert limits["Max address space"] == [str(700 * 2**20)] * 2
    assert limits["Max open files"] == ["512"] * 2
    assert limits["Max processes"] == ["0"] * 2
    assert limits["Max core file size"] == ["0"] * 2
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    assert status["Umask"] == "0077"
    assert status["NoNewPrivs"] == "1"
    assert status["Threads"] == "1"
    assert (proc / "comm").read_text() == "c2l-trivial\n"
    assert os.getpgid(pid) == os.getsid(pid) == pid

    environ = ast.literal_eval((await ask(endpoint, "/env")).decode())
    assert environ == {key: os.environ[key] for key in ("LANG", "LC_ALL", "TZ") if key in os.environ}
    assert b"not-for-children" not in (proc / "environ").read_bytes()
    inherited = set(links(pid).values()) & set(links(driver.forkserver_pid).values())
    assert links(pid)["0"] == "/dev/null"
    standard = {links(pid)[name] for name in ("0", "1", "2")}
    assert inherited <= standard | {"anon_inode:[eventpoll]"}

    folder = host.run_dir / "proxies" / one.id
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "instance.json").stat().st_mode) == 0o600
    record = json.loads((folder / "instance.json").read_text())
    assert record == {**dataclasses.asdict(one), "pid": pid, "started": processes.start_time(pid)}


async def test_limits_hold(host: Host) -> None:
    """The limit is felt, not only shown in /proc."""
    driver = await host.opened(address_space=700 * 2**20)
    assert await ask(await driver.start(spec()), "/allocate") == b"refused"
    await driver.close()
    host.drivers.remove(driver)
    roomy = host.driver(address_space=4 * 2**30)
    await roomy.open(host.gone.append)
    assert await ask(await roomy.start(spec()), "/allocate") == b"got 1073741824"


async def test_a_killed_child_is_noticed_at_once_and_removed(host: Host) -> None:
    driver = await host.opened()
    one, other = spec("u"), spec("v")
    await asyncio.gather(driver.start(one), driver.start(other))
    pid = driver.process_id(one.id)
    assert pid is not None
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: host.gone == [one.id])
    print(f"\nSIGKILL noticed after {(time.monotonic() - began) * 1000:.1f} ms")
    await driver.stop(one.id, 1)
    assert host.folders() == {other.id}
    assert driver.process_id(other.id) is not None
    await driver.stop(one.id, 1)  # idempotent


@pytest.mark.usefixtures("quiet_children")
async def test_a_child_that_ends_or_never_listens_is_an_error_and_leaves_nothing(host: Host) -> None:
    driver = await host.opened((*TRIVIAL, "brittle"))
    one = spec()
    with pytest.raises(DriverError, match="expected the proxy"):
        await driver.start(one)
    await driver.stop(one.id, 0)
    await driver.close()

    deaf = await host.opened((*TRIVIAL, "deaf"))
    two = spec()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await deaf.start(two)
    await deaf.stop(two.id, 0)
    assert host.folders() == set()


async def test_a_deaf_child_is_ended_by_force_after_its_grace(host: Host) -> None:
    driver = await host.opened()
    one = spec()
    await driver.start(one)
    pid = driver.process_id(one.id)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it cannot even take SIGTERM
    await driver.stop(one.id, 0.1)
    assert processes.start_time(pid) is None
    assert host.folders() == set()


async def test_children_outlive_the_fork_server_which_is_started_again(host: Host) -> None:
    driver = await host.opened()
    one, two = spec("u"), spec("v")
    await driver.start(one)
    first = driver.forkserver_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: driver.forkserver_pid != first)
    await driver.start(two)
    assert driver.forkserver_pid not in (None, first)
    # Nobody's child any more, and still heard of when it ends.
    pid = driver.process_id(one.id)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: host.gone == [one.id])


async def test_what_a_crashed_manager_left_is_adopted_or_reaped(host: Host) -> None:
    crashed = await host.opened()
    alive, rebound, dead, deaf = spec("alive"), spec(), spec("dead"), spec("deaf")
    await asyncio.gather(*(crashed.start(one) for one in (alive, rebound, dead, deaf)))
    await crashed.assign(rebound.id, "late")
    pids = {one.id: crashed.process_id(one.id) or 0 for one in (alive, rebound, dead, deaf)}
    proxies = host.run_dir / "proxies"
    # A folder without a record, one with nonsense, and one whose process id now belongs to somebody else (us).
    (proxies / "px-none").mkdir()
    (proxies / "px-nonsense").mkdir()
    (proxies / "px-nonsense" / "instance.json").write_text("{")
    (proxies / "px-reused").mkdir()
    stranger = {**dataclasses.asdict(spec("x")), "id": "px-reused", "pid": os.getpid(), "started": 1}
    (proxies / "px-reused" / "instance.json").write_text(json.dumps(stranger))
    # What a crash leaves: the fork server sees its connection end; nothing else is told.
    await crashed.close()
    os.kill(pids[dead.id], signal.SIGKILL)
    os.kill(pids[deaf.id], signal.SIGSTOP)

    successor = host.driver()
    found = {one.spec.id: one for one in await successor.open(host.gone.append)}
    assert {instance: one.spec.user for instance, one in found.items()} == {alive.id: "alive", rebound.id: "late"}
    assert found[alive.id].spec == alive
    assert host.folders() == {alive.id, rebound.id}
    assert processes.start_time(pids[deaf.id]) is None
    assert processes.start_time(os.getpid()) is not None
    assert b"in_flight" in await ask(found[alive.id].endpoint, "/stats")
    host.gone.clear()
    os.kill(pids[rebound.id], signal.SIGKILL)
    await until(lambda: host.gone == [rebound.id])
    await successor.stop(alive.id, 1)
    assert processes.start_time(pids[alive.id]) is None


async def test_a_second_manager_is_refused_the_folder(host: Host) -> None:
    await host.opened()
    with pytest.raises(DriverError, match="expected to be the only manager"):
        await host.driver().open(host.gone.append)


async def test_two_hundred_at_once(host: Host) -> None:
    driver = await host.opened(REAL)
    many = [spec(f"u{n}") for n in range(200)]
    began = time.monotonic()
    endpoints = await asyncio.gather(*(driver.start(one) for one in many))
    took = time.monotonic() - began
    assert len(set(endpoints)) == 200
    assert await driver.list() == {one.id for one in many}
    sizes = [pss(driver.process_id(one.id) or 0) for one in many[::10]]
    print(f"\n200 proxies in {took:.2f} s; PSS p50 {statistics.median(sizes) / 1024:.2f} MiB")
    await asyncio.gather(*(driver.stop(one.id, 5) for one in many))
    assert host.folders() == set()


async def test_the_real_proxy_starts_and_says_how_it_is(host: Host) -> None:
    driver = await host.opened(REAL)
    seconds = []
    for n in range(5):
        one = spec(f"u{n}")
        began = time.monotonic()
        endpoint = await driver.start(one)
        seconds.append(time.monotonic() - began)
    stats = await HttpProbe().stats(endpoint, one.key, timeout=2)
    assert (stats.in_flight, stats.bridges, stats.streams_total) == (0, 0, 0)
    assert abs(stats.last_activity - time.time()) < 60
    assert not await HttpProbe().healthy(endpoint, "00" * 32, timeout=2)  # another proxy's key
    print(
        f"\ncold start p50 {statistics.median(seconds) * 1000:.1f} ms, PSS {pss(driver.process_id(one.id) or 0)} KiB"
    )
