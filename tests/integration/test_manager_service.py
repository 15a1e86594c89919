"""The manager as its callers meet it: over its socket, with real proxies."""

import collections
import json
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_clock import FakeClock
from tests.support.manager_service import manager
from tests.support.short_folder import short_folder

from cloudtolocalllm.audit.verify import records, verify
from cloudtolocalllm.auth.services import GRACE, ServiceKeys, ServiceTokens
from cloudtolocalllm.contracts.instances import Instance, InstanceState
from cloudtolocalllm.runtime import processes
from cloudtolocalllm.runtime.clock import SystemClock


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


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


async def test_nobody_comes_in_without_the_apis_token(run_dir: Path) -> None:
    async with manager(run_dir, warm=0, audit_dir=run_dir / "audit") as m:
        edge = ServiceTokens(ServiceKeys(run_dir / "keys", "edge", m.clock), m.clock)
        late = FakeClock(now=time.time() - 66)
        wrong = (
            None,
            "",
            "t" * 39,
            m.tokens.mint("proxy"),
            edge.mint("manager"),
            ServiceTokens(m.keys, late).mint("manager"),
            ServiceTokens(ServiceKeys(run_dir / "other", "api", m.clock), m.clock).mint("manager"),
        )
        assert stat.S_IMODE((run_dir / "manager.sock").stat().st_mode) == 0o600
        routes = [
            ("PUT", "/v1/instances/u"),
            ("GET", "/v1/instances/u"),
            ("GET", "/v1/instances"),
            ("DELETE", "/v1/instances/u"),
            ("GET", "/v1/stats"),
        ]
        for method, target in routes:
            for token in wrong:
                response = await m.ask(method, target, token)
                assert response.status == 401, (method, target)
                assert response.field(b"content-type") == b"application/problem+json"
        assert (await m.ask("GET", "/healthz", None)).status == 200
        assert (await m.json("GET", "/v1/stats"))["starts"] == 0
    reasons = collections.Counter(r["status_code"] for r in recorded(run_dir) if code(r) == "service-token-refused")
    assert reasons == {"no-credential": 10, "malformed": 5, "wrong-audience": 5, "unknown-key": 10, "expired": 5}


async def test_a_rotation_in_mid_run_refuses_no_call(run_dir: Path) -> None:
    async with manager(run_dir, warm=0) as m:
        assert m.tokens is not None
        before = m.keys.ring().kids
        operator = ServiceKeys(run_dir / "keys", "api", m.clock)
        new = operator.rotate()
        ahead = FakeClock(now=time.time() + GRACE - 1)
        for _ in range(3):  # before, at and after the moment from which the new key signs
            caller = ServiceTokens(ServiceKeys(run_dir / "keys", "api", ahead), SystemClock())
            response = await m.ask("GET", "/v1/stats", caller.mint("manager"))
            assert response.status == 200
            ahead.advance(1)
        assert ServiceKeys(run_dir / "keys", "api", ahead).ring().kids == (new,) != before


async def test_the_audit_log_tells_a_proxys_life(run_dir: Path) -> None:
    async with manager(run_dir, warm=1, audit_dir=run_dir / "audit") as m:
        a = Instance.from_json(await m.json("PUT", "/v1/instances/a"))
        b = Instance.from_json(await m.json("PUT", "/v1/instances/b"))
        os.kill(pid_of(a), signal.SIGKILL)
        await m.json("PUT", "/v1/instances/a?check=true")
        assert (await m.ask("DELETE", "/v1/instances/b")).status == 204
    assert verify(run_dir / "audit").faults == []
    life = [(code(r), r.get("status_code"), r["entity"]["uid"]) for r in recorded(run_dir) if "entity" in r]
    for one in (a, b):
        assert ("proxy-made", None, one.id) in life
    killed = {reason for event, reason, id_ in life if event == "proxy-killed" and id_ == a.id}
    assert killed <= {"died", "unresponsive"}
    assert killed
    assert ("proxy-removed", "by-user", b.id) in life
    assert {r["actor"]["user"]["uid"] for r in recorded(run_dir) if "actor" in r} == {"a", "b"}
    assert code(recorded(run_dir)[0]) == "service-started"
    assert code(recorded(run_dir)[-1]) == "service-stopped"


def recorded(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in records(run_dir / "audit")]


def code(record: dict[str, Any]) -> str:
    return str(record["metadata"]["event_code"])


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
    assert left_in(run_dir) == {"proxies", "keys"}
    assert left_in(run_dir / "proxies") == {".lock"}


async def test_proxies_that_stay_are_adopted_by_the_next_manager(run_dir: Path) -> None:
    async with manager(run_dir, stop_proxies_on_exit=False) as m:
        before = Instance.from_json(await m.json("PUT", "/v1/instances/u"))
    assert processes.start_time(pid_of(before)) is not None
    async with manager(run_dir) as m:
        assert Instance.from_json(await m.json("GET", "/v1/instances/u")) == before
        assert (await m.json("GET", "/v1/stats"))["adopted"] >= 1
    assert before.id not in left_in(run_dir / "proxies")
