"""Two managers of one run folder: one leads, the other stands by and takes over."""

import asyncio
import contextlib
import functools
import json
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from tests.support.eventually import eventually
from tests.support.manager_service import FORKSERVER, Manager, manager
from tests.support.ports import free_port
from tests.support.short_folder import short_folder

from cloudtolocalllm.audit.verify import records, verify
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import Instance
from cloudtolocalllm.manager.drivers.docker.spec import Isolation
from cloudtolocalllm.manager.settings import ManagerSettings
from cloudtolocalllm.runtime.http1 import ConnectError, HttpError, Pool, fetch


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def standby(run_dir: Path, listen: Endpoint, **changes: Any) -> Manager:
    """A manager that may have to wait, as the second container of a name."""
    values: dict[str, Any] = {"warm": 0, "forkserver": FORKSERVER, "stop_grace": 2.0, "standby": True, **changes}
    return Manager(
        ManagerSettings(service_keys=run_dir / "keys" / "public", run_dir=run_dir, listen=listen, **values)
    )


async def answers(port: int) -> bytes:
    """What a health check gets; nothing where nobody listens."""
    pool = Pool(f"127.0.0.1:{port}", max_idle=0)
    try:
        return (await fetch(pool, "GET", "/readyz", timeout=2)).body
    except HttpError:
        return b""
    finally:
        await pool.close()


async def test_the_second_stands_by_and_takes_over_with_what_the_first_had(run_dir: Path) -> None:
    port = free_port()
    changes = {"standby": True, "stop_proxies_on_exit": False, "warm": 0, "audit_dir": run_dir / "audit"}
    async with manager(run_dir, **changes) as first:
        before = Instance.from_json(await first.json("PUT", "/v1/instances/u"))
        second = standby(run_dir, Endpoint(host="127.0.0.1", port=port), audit_dir=run_dir / "audit")
        try:
            waits = await eventually(functools.partial(answers, port), bool, within=5)
            assert waits == b"standing by\n"
            refused = await second.ask("PUT", "/v1/instances/u")
            assert refused.body == b"standing by\n"  # whatever is asked: nothing is decided here
            assert Instance.from_json(await first.json("GET", "/v1/instances/u")) == before
            await first.end()
            assert await eventually(functools.partial(answers, port), lambda body: body == b"ready\n", within=10)
            assert Instance.from_json(await second.json("PUT", "/v1/instances/u?check=true")) == before
            assert (await second.json("GET", "/v1/stats"))["adopted"] == 1
        finally:
            await second.end()
    # They wrote one log, one after the other.
    assert verify(run_dir / "audit").faults == []
    codes = [json.loads(line)["metadata"]["event_code"] for line in records(run_dir / "audit")]
    assert codes.count("service-started") == 2


async def test_one_that_stands_by_can_be_told_to_end(run_dir: Path) -> None:
    async with manager(run_dir, standby=True, warm=0):
        second = standby(run_dir, Endpoint(host="127.0.0.1", port=free_port()))
        await asyncio.sleep(0)
        await second.end()
        assert second.task.exception() is None


async def test_a_standby_at_a_socket_does_not_take_it_from_the_leader(run_dir: Path) -> None:
    async with manager(run_dir, standby=True, warm=0) as first:
        second = standby(run_dir, first.settings.listen)
        await asyncio.sleep(0.3)
        assert (await first.ask("GET", "/v1/stats")).status == 200
        await second.end()
        assert (await first.ask("GET", "/v1/stats")).status == 200


async def test_nobody_is_heard_before_what_is_there_was_adopted(run_dir: Path) -> None:
    """A call that comes too early would find an empty table: a revoked bridge would not be cut."""
    async with manager(run_dir, stop_proxies_on_exit=False) as first:
        one = Instance.from_json(await first.json("PUT", "/v1/instances/u"))
    second = standby(run_dir, first.settings.listen)
    try:
        while True:
            try:
                found = await second.ask("GET", "/v1/instances/u")
                break
            except ConnectError:
                await asyncio.sleep(0.001)
        assert Instance.from_json(json.loads(found.body)) == one
    finally:
        await second.end()


async def test_one_that_leaves_sends_its_callers_to_the_next(run_dir: Path) -> None:
    async with manager(run_dir, warm=0) as m:
        await m.json("GET", "/v1/stats")  # a connection that is there when no new one is accepted
        m.stop.set()
        await asyncio.sleep(0)
        response = await m.ask("PUT", "/v1/instances/u")
        assert (response.status, response.field(b"retry-after")) == (503, b"0")
        assert response.field(b"connection") == b"close"


async def test_in_the_proxies_own_networks_the_manager_hears_nobody(run_dir: Path) -> None:
    port = free_port()
    networks = {"isolation": Isolation.NETWORK, "subnets": IPv4Network("127.77.0.0/16")}
    made = standby(run_dir, Endpoint(host="0.0.0.0", port=port), **networks)
    try:
        assert await eventually(functools.partial(answers, port), bool, within=10) == b"ready\n"
        reader, writer = await asyncio.open_connection("127.77.0.2", port)
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        assert await answers(port) == b"ready\n"
    finally:
        await made.end()
