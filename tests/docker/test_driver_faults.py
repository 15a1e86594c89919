"""The manager over containers when things break: the disk, the image, a proxy that never answers.

The engine's own end, while answers stream: test_daemon_faults.py.
"""

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.docker_engine import PROXY_IMAGE, docker, proxy_image
from tests.support.driver_hosts import docker_host, spec
from tests.support.eventually import eventually
from tests.support.link_parts import until
from tests.support.manager_service import Manager, manager
from tests.support.require import require
from tests.support.short_folder import short_folder

from cloudtolocalllm.contracts.instances import Instance
from cloudtolocalllm.manager.drivers.base import DriverError, DriverUnavailableError
from cloudtolocalllm.runtime.http1 import HttpError

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@contextlib.asynccontextmanager
async def containers(run_dir: Path, **changes: object) -> AsyncIterator[Manager]:
    async with manager(run_dir, **{"driver": "docker", "image": proxy_image(), "warm": 0, **changes}) as made:
        yield made


async def test_a_daemon_that_is_not_there_at_the_start_is_told(run_dir: Path) -> None:
    with pytest.raises(DriverUnavailableError, match="the container engine does not answer"):
        async with containers(run_dir, docker=f"unix://{run_dir}/none.sock"):
            pass


async def test_a_killed_proxy_is_replaced_at_the_next_request(run_dir: Path) -> None:
    async with containers(run_dir) as m:
        one = Instance.from_json(await m.json("PUT", "/v1/instances/a"))
        docker("kill", f"c2l-proxy-{one.id}")
        again = Instance.from_json(await m.json("PUT", "/v1/instances/a?check=true"))
        assert again.id != one.id
        assert again.key != one.key


async def test_a_full_disk_refuses_and_leaves_nothing(run_dir: Path) -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")
    records = run_dir / "instances"
    with tiny_disk(records):
        async with containers(run_dir) as m:
            filler = records / "filler"
            fill(filler)
            refused = await m.ask("PUT", "/v1/instances/a")
            assert refused.status == 503
            assert list((run_dir / "proxies").iterdir()) == []
            filler.unlink()
            await eventually(functools.partial(_status, m), lambda status: status == 200, within=30)


@contextlib.contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    """A file system of 64 KiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "c2l-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def _status(m: Manager) -> int:
    """The status of what the user is answered; 0 without an answer in time."""
    try:
        return (await m.ask("PUT", "/v1/instances/a")).status
    except HttpError:
        return 0


@pytest.fixture
def bad_images() -> Iterator[dict[str, str]]:
    """Images of proxies that end at once, and that never answer."""
    proxy_image()
    made = {}
    for name, program in {"brittle": "print('no use', flush=True)", "deaf": "import time; time.sleep(1e6)"}.items():
        made[name] = f"c2l-test-{name}:latest"
        text = f'FROM {PROXY_IMAGE}\nENTRYPOINT ["python3", "-S", "-c", "{program}"]\n'
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(text)
            docker("build", "-q", "-t", made[name], folder)
    yield made
    docker("rmi", "-f", *made.values())


async def test_a_container_that_never_gets_healthy_is_refused_and_removed(
    run_dir: Path, bad_images: dict[str, str]
) -> None:
    for name in ("brittle", "deaf"):
        folder = run_dir / name
        folder.mkdir(mode=0o755)
        async with containers(folder, image=bad_images[name], start_timeout=2.0) as m:
            refused = await m.ask("PUT", "/v1/instances/a")
            assert refused.status == 503
            assert json.loads(refused.body)["type"] == "urn:c2l:problem:overloaded"
            assert (await m.json("GET", "/v1/stats"))["start_failures"] >= 1

            await until(functools.partial(_is_empty, folder / "proxies"))


async def test_what_runs_another_image_than_the_name_means_by_now_is_outdated() -> None:
    image = "c2l-test-rolling:latest"
    docker("tag", proxy_image(), image)
    try:
        async with docker_host(image=image) as host:
            driver = await host.opened()
            spare = spec()
            await driver.start(spare)
            assert driver.outdated() == set()
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "Dockerfile").write_text(f"FROM {PROXY_IMAGE}\nLABEL newer=yes\n")
                await asyncio.to_thread(docker, "build", "-q", "-t", image, folder)
            await driver._look()
            assert driver.outdated() == {spare.id}
            newer = spec("u")
            await driver.start(newer)
            assert driver.outdated() == {spare.id}
    finally:
        docker("rmi", "-f", image)


async def test_an_image_that_is_not_there_is_never_pulled() -> None:
    async with docker_host(image="cloudtolocalllm/none:at-all") as host:
        driver = await host.opened()
        assert not driver.ready
        with pytest.raises(DriverError, match="lacks the proxies' image"):
            await driver.start(spec("u"))
