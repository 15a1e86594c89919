"""Three replicas of the API on one real Redis: what is done at one holds at the others."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import (
    MARK,
    ORIGIN,
    Paired,
    Person,
    RunningApi,
    engine,
    problem,
    received,
    serving,
)
from tests.support.eventually import eventually
from tests.support.pairing_parts import Machine, decide, look
from tests.support.redis_server import RedisServer, running_redis
from tests.support.scripted_manager import ScriptedManager, scripted_manager
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cloudtolocalllm.api import registry
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.state.redis import TIMEOUT
from cloudtolocalllm.auth.keys import KeyScope
from cloudtolocalllm.contracts.control import EngineState, Presence, Revoked, Wake, encode
from cloudtolocalllm.contracts.endpoint import Endpoint

HOLDS_WITHIN = 2.0
"""Seconds in which what one replica revokes is void at every other."""


@dataclass
class Cluster:
    """The replicas, in a loop of their own tasks; they share nothing but Redis, the manager and the files of keys."""

    all: list[RunningApi]
    manager: ScriptedManager
    redis: RedisServer

    @property
    def a(self) -> RunningApi:
        return self.all[0]

    @property
    def b(self) -> RunningApi:
        return self.all[1]

    @property
    def c(self) -> RunningApi:
        return self.all[2]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder) as server:
        yield server


@pytest.fixture
async def cluster(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Cluster]:
    async with contextlib.AsyncExitStack() as stack:
        keys = tmp_path / "cloud" / "secrets" / "services"
        manager = await stack.enter_async_context(scripted_manager(tmp_path, keys / "public"))
        replicas = []
        for name in "abc":
            settings = ApiSettings(
                listen=Endpoint(path=str(tmp_path / "run" / f"{name}.sock")),
                data_dir=tmp_path / "cloud",
                manager=Endpoint(path=str(tmp_path / "m.sock")),
                public_url=ORIGIN,
                state=redis.url,
                replica=name,
                drain_grace=2.0,
            )
            replicas.append(await stack.enter_async_context(serving(settings, manager)))
        yield Cluster(replicas, manager, redis)


def moved(client: httpx.AsyncClient, api: RunningApi) -> httpx.AsyncClient:
    """Return the same browser, whose next request another replica gets."""
    other = api.client()
    other.cookies.update(client.cookies)
    return other


async def bridges(api: RunningApi, person: Person) -> list[tuple[str, bool]]:
    """Return what a replica says of a person's bridges."""
    async with api.client(**person.headers) as client:
        response = await client.get("/api/bridge")
        if response.status_code != 200:
            return [(problem(response)[1], False)]
        return [(bridge["id"], bridge["connected"]) for bridge in response.json()]


async def sees(api: RunningApi, person: Person, bridge: Paired, *, connected: bool, within: float = 5.0) -> None:
    wanted = [(bridge.id, connected)]
    await eventually(lambda: bridges(api, person), lambda found: found == wanted, within=within)


async def woken(socket: ClientConnection) -> str:
    message = await received(socket)
    assert isinstance(message, Wake)
    return message.instance


async def cut(socket: ClientConnection, within: float) -> int | None:
    """Return the code by which a connection is closed."""
    async with asyncio.timeout(within):
        while True:
            try:
                await socket.recv()
            except ConnectionClosed as error:
                return error.rcvd.code if error.rcvd else None


async def admitted(api: RunningApi, bridge: Paired) -> int:
    """Return the status by which a replica answers a bridge's upgrade request."""
    try:
        async with api.dial(bridge):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def test_a_start_misses_nothing_of_the_bus(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Each replica begins to listen before Redis is connected, which is no fault and none is told."""
    async with cluster.c.client() as client:
        assert (await client.get("/readyz")).status_code == 200
    records = [record for when in ("setup", "call") for record in caplog.get_records(when)]
    assert not [record.getMessage() for record in records if record.levelname in ("ERROR", "WARNING")]


async def test_a_session_made_at_one_holds_at_all_and_ends_at_all(cluster: Cluster) -> None:
    user = cluster.a.owner
    async with await cluster.a.sign_in(user) as at_a, moved(at_a, cluster.b) as at_b, moved(at_a, cluster.c) as at_c:
        for client in (at_a, at_b, at_c):
            session = (await client.get("/api/auth/session")).json()
            assert (session["signed_in"], session["user"]) == (True, user)
        assert (await at_b.post("/api/auth/sign-out", headers=MARK)).status_code in (200, 204)
        began = time.monotonic()
        for client in (at_a, at_c):
            await eventually(
                partial(client.get, "/api/auth/session"),
                lambda response: response.json()["signed_in"] is False,
                within=HOLDS_WITHIN,
            )
        assert time.monotonic() - began < HOLDS_WITHIN


async def test_a_one_time_link_is_used_up_at_all(cluster: Cluster) -> None:
    token = await cluster.a.sign_in_token(cluster.a.owner)

    async def sign_in(api: RunningApi) -> int:
        async with api.client() as client:
            return (await client.post("/api/auth/sign-in", json={"token": token})).status_code

    statuses = await asyncio.gather(*(sign_in(api) for api in cluster.all for _ in range(3)))
    assert sorted(statuses) == [204] + [401] * 8


async def test_a_key_made_at_one_is_known_at_all_and_revoked_at_all(cluster: Cluster) -> None:
    async with await cluster.a.sign_in(cluster.a.owner) as at_a, moved(at_a, cluster.c) as at_c:
        made = (await at_a.post("/api/auth/keys", json={"name": "Laptop"}, headers=MARK)).json()
        person = Person(cluster.a.owner, made["id"], made["key"])
        for api in cluster.all:
            assert await bridges(api, person) == []
        assert (await at_c.delete(f"/api/auth/keys/{made['id']}", headers=MARK)).status_code == 204
    for api in cluster.all:
        await eventually(
            partial(bridges, api, person), lambda found: found == [("unauthenticated", False)],
            within=HOLDS_WITHIN,
        )  # fmt: skip


async def test_a_bridge_at_one_is_seen_by_all_and_woken_by_a_request_at_another(cluster: Cluster) -> None:
    person = cluster.a.person()
    bridge = await cluster.c.pair(person.id)
    async with cluster.a.bridge(bridge, engine(EngineState.DOWN)) as socket:
        for api in cluster.all:
            await sees(api, person, bridge, connected=True)
        response = await cluster.b.authorize("GET", "/v1/models", person.headers)
        assert response.status_code == 200, response.headers
        assert await woken(socket) == cluster.manager.instances[person.id]["id"]
        await socket.send(encode(Presence((engine(EngineState.UP),))))

        async def state() -> str:
            async with cluster.c.client(**person.headers) as client:
                return str((await client.get("/api/streaming/status")).json()["state"])

        await eventually(state, lambda found: found == "ready")
    for api in cluster.all:
        await sees(api, person, bridge, connected=False)


async def test_a_bridge_that_comes_while_a_request_waits_at_another_replica_is_woken(cluster: Cluster) -> None:
    person = cluster.a.person()
    first, second = await cluster.a.pair(person.id), await cluster.a.pair(person.id, "Laptop")
    async with cluster.b.bridge(first) as there:
        assert (await cluster.b.authorize("GET", "/v1/models", person.headers)).status_code == 200
        instance = await woken(there)
        async with cluster.a.bridge(second) as here:
            assert await woken(here) == instance


async def test_a_bridge_revoked_at_one_is_cut_where_it_is_and_stays_out_of_all(cluster: Cluster) -> None:
    person = cluster.a.person()
    bridge, other = await cluster.a.pair(person.id), await cluster.a.pair(cluster.a.person().id)
    async with cluster.a.bridge(bridge) as socket, cluster.a.bridge(other) as good:
        async with cluster.c.client(**person.headers) as client:
            assert (await client.delete(f"/api/bridge/{bridge.id}")).status_code == 204
        assert await received(socket, HOLDS_WITHIN) == Revoked()
        assert await cut(socket, HOLDS_WITHIN) == 1008
        await (await good.ping())
    for api in cluster.all:
        await eventually(partial(admitted, api, bridge), lambda status: status == 401, within=HOLDS_WITHIN)
        tunnel = bridge.headers("/ws/tunnel", api.nonce())
        assert (await api.authorize("GET", "/ws/tunnel", tunnel)).status_code == 401
        assert await bridges(api, person) == []


async def test_a_proof_is_taken_once_by_all_of_them_together(cluster: Cluster) -> None:
    bridge = await cluster.a.pair(cluster.a.owner)
    fields = bridge.headers("/ws/tunnel", cluster.a.nonce())
    answers = await asyncio.gather(*(api.authorize("GET", "/ws/tunnel", fields) for api in cluster.all for _ in "xx"))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5


async def test_a_pairing_begun_at_one_is_confirmed_at_another_and_fetched_at_the_third(cluster: Cluster) -> None:
    machine = Machine(cluster.a)
    begun = await machine.device()
    async with await cluster.b.sign_in(cluster.b.owner) as client:
        assert (await look(client, begun["user_code"])).status_code == 200
        assert (await decide(client, begun["user_code"])).status_code == 200
    machine.api = cluster.c
    answer = await machine.poll(begun["device_code"])
    assert answer.status_code == 200, answer.text
    found = answer.json()
    bridge = Paired(found["bridge_id"], cluster.a.owner, found["credential"], machine.key)
    async with cluster.a.bridge(bridge):
        person = cluster.a.key_of(cluster.a.owner)
        await sees(cluster.b, person, bridge, connected=True)


async def test_a_page_at_one_is_told_of_what_happens_at_another(cluster: Cluster) -> None:
    user = cluster.a.owner
    bridge = await cluster.a.pair(user)
    states: asyncio.Queue[str] = asyncio.Queue()

    async def follow(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/api/streaming/events") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    states.put_nowait(json.loads(line.removeprefix("data: "))["state"])
        states.put_nowait("ended")

    async def until(state: str) -> None:
        async with asyncio.timeout(5):
            while await states.get() != state:
                pass

    async with await cluster.b.sign_in(user) as at_b, moved(at_b, cluster.c) as at_c, asyncio.TaskGroup() as group:
        group.create_task(follow(at_b))
        await until("bridge-offline")
        async with cluster.a.bridge(bridge):
            await until("ready")
        await until("bridge-offline")
        assert (await at_c.post("/api/auth/sign-out", headers=MARK)).status_code in (200, 204)
        await until("ended")


async def test_a_replica_that_stops_takes_its_bridges_along_at_once(cluster: Cluster) -> None:
    person = cluster.a.person()
    bridge = await cluster.a.pair(person.id)
    async with cluster.a.bridge(bridge) as socket:
        await sees(cluster.b, person, bridge, connected=True)
        cluster.a.stop.set()
        assert await cut(socket, 5) == 1012
    await sees(cluster.b, person, bridge, connected=False, within=4)
    async with cluster.c.bridge(bridge):
        await sees(cluster.b, person, bridge, connected=True)


@pytest.fixture
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have replicas be missed soon, so that the test is short."""
    monkeypatch.setattr(registry, "HEARTBEAT", 0.3)
    monkeypatch.setattr(registry, "REPLICA_TTL", 1.5)


@contextlib.asynccontextmanager
async def another_process(
    cluster: Cluster, folder: Path
) -> AsyncIterator[tuple[RunningApi, asyncio.subprocess.Process]]:
    """Run a fourth replica that can be killed."""
    near = cluster.a.settings
    settings = replace(near, listen=Endpoint(path=str(folder / "run" / "d.sock")), replica="d")
    given = {
        "LISTEN": settings.listen, "DATA_DIR": settings.data_dir, "MANAGER": settings.manager,
        "PUBLIC_URL": settings.public_url, "REPLICA": settings.replica, "STATE": settings.state,
    }  # fmt: skip
    environment = {**os.environ, **{f"C2L_API_{name}": str(value) for name, value in given.items()}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloudtolocalllm", "api", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    api = RunningApi(settings, cluster.manager, cluster.a.state, asyncio.Event(), cluster.a.task)

    async def ready() -> bool:
        try:
            async with api.client() as client:
                return (await client.get("/healthz")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await eventually(ready, bool, within=20)
        yield api, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_killed_replicas_bridges_count_as_gone(cluster: Cluster, tmp_path: Path) -> None:
    person = cluster.a.person()
    bridge = await cluster.a.pair(person.id)
    async with another_process(cluster, tmp_path) as (api, process):
        async with api.bridge(bridge) as socket:
            await sees(cluster.b, person, bridge, connected=True)
            process.kill()
            began = time.monotonic()
            assert await cut(socket, 5) is None
        await sees(cluster.b, person, bridge, connected=False, within=registry.REPLICA_TTL + 1)
        assert time.monotonic() - began > 1, "else it was not the lack of its signs of life that told"
    response = await cluster.b.authorize("GET", "/v1/models", person.headers)
    assert response.headers["c2l-problem"] == "bridge-offline"
    async with cluster.b.bridge(bridge):
        await sees(cluster.c, person, bridge, connected=True)


@pytest.mark.usefixtures("short_lives")
async def test_after_redis_lost_everything_all_recovers(cluster: Cluster) -> None:
    person, dropped = cluster.a.person(), cluster.a.person()
    bridge = await cluster.a.pair(person.id)
    gone = await cluster.a.pair(person.id, "Sold")
    async with cluster.a.bridge(bridge) as socket, await cluster.b.sign_in(person.id) as browser:
        await eventually(lambda: bridges(cluster.b, person), lambda found: (bridge.id, True) in found)
        await cluster.a.revoke_key(dropped)
        async with cluster.b.client(**person.headers) as client:
            assert (await client.delete(f"/api/bridge/{gone.id}")).status_code == 204
        for api in cluster.all:
            await eventually(partial(admitted, api, gone), lambda status: status == 401)
            await eventually(partial(bridges, api, dropped), lambda f: f == [("unauthenticated", False)])
        cluster.redis.stop()
        down = await cluster.c.authorize("GET", "/v1/models", person.headers)
        assert (down.status_code, down.headers["c2l-problem"]) == (403, "overloaded")
        for api in cluster.all:
            assert await bridges(api, dropped) == [("unauthenticated", False)], "what is known goes on to hold"
        cluster.redis.start()
        for api in cluster.all:
            await sees(api, person, bridge, connected=True, within=15)
        for api in cluster.all:
            assert await bridges(api, dropped) == [("unauthenticated", False)]
            assert await admitted(api, gone) == 401
            async with moved(browser, api) as client:
                assert (await client.get("/api/auth/session")).json()["signed_in"] is True

        async def told() -> bool:
            fresh = {**person.headers, "c2l-fresh": "1"}
            if (await cluster.c.authorize("GET", "/v1/models", fresh)).status_code != 200:
                return False
            try:
                return isinstance(await received(socket, 0.3), Wake)
            except TimeoutError:
                return False

        await eventually(told, lambda found: found, within=10)
        await (await socket.ping())
        (living,) = await cluster.c.state.members("revoked")
        assert f"bridge:{gone.id}" in living
        assert f"key:{dropped.id}:{dropped.key_id}" in living, "a replica that starts now knows it too"


async def test_a_request_waits_out_a_redis_that_is_replaced(cluster: Cluster) -> None:
    person = cluster.a.person()
    bridge = await cluster.a.pair(person.id)
    async with cluster.a.bridge(bridge):
        await sees(cluster.b, person, bridge, connected=True)
        cluster.redis.freeze()
        asked = asyncio.get_running_loop().create_task(cluster.b.authorize("GET", "/v1/models", person.headers))
        await asyncio.sleep(TIMEOUT + 0.5)  # what it asked first has failed
        assert not asked.done()
        cluster.redis.thaw()
        assert (await asked).status_code == 200


async def test_what_one_user_may_is_nothing_to_another_at_any_replica(cluster: Cluster) -> None:
    alice, bob = cluster.a.person(), cluster.a.person(KeyScope())
    bridge = await cluster.a.pair(alice.id)
    async with cluster.a.bridge(bridge) as socket:
        await sees(cluster.b, alice, bridge, connected=True)
        for api in cluster.all:
            assert await bridges(api, bob) == []
            refused = await api.authorize("GET", "/v1/models", bob.headers)
            assert refused.headers["c2l-problem"] == "no-bridge-paired"
            async with api.client(**bob.headers) as client:
                assert (await client.delete(f"/api/bridge/{bridge.id}")).status_code == 404
        await (await socket.ping())
        await sees(cluster.c, alice, bridge, connected=True)


async def test_a_request_waits_for_a_machine_that_connects_anew(cluster: Cluster) -> None:
    person = cluster.a.person()
    bridge = await cluster.a.pair(person.id)
    async with cluster.a.bridge(bridge):
        await sees(cluster.b, person, bridge, connected=True)
    await sees(cluster.b, person, bridge, connected=False)
    asked = asyncio.get_running_loop().create_task(cluster.b.authorize("GET", "/v1/models", person.headers))
    await asyncio.sleep(0.3)
    assert not asked.done()
    async with cluster.c.bridge(bridge):
        assert (await asked).status_code == 200
