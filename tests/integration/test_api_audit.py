"""What the real API writes to its audit log, and what it never writes."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.api_parts import MARK, RunningApi, running_api
from tests.support.pairing_parts import Machine, decide

from cloudtolocalllm.audit.verify import records, verify
from cloudtolocalllm.auth.keys import KeyScope

ADDRESS = "198.51.100.77"
SEEN = {"x-forwarded-for": ADDRESS, "x-request-id": "request-1"}
NAME = "Ann-Kathrin's laptop"


def written(api: RunningApi) -> list[dict[str, Any]]:
    folder = api.settings.data_dir / "audit" / "api"
    assert verify(folder).faults == verify(folder).notes == []
    return [json.loads(line) for line in records(folder)]


def events(log: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(one["metadata"]["event_code"], one.get("status_code")) for one in log]


def of(log: list[dict[str, Any]], code: str) -> dict[str, Any]:
    (one,) = [record for record in log if record["metadata"]["event_code"] == code]
    return one


async def test_sign_in_keys_and_refusals_are_recorded(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        token = await api.sign_in_token(api.owner)
        async with api.client() as client:
            assert (await client.post("/api/auth/sign-in", json={"token": token})).status_code == 204
            assert (await client.post("/api/auth/sign-in", json={"token": token})).status_code == 401
            other_page = {"origin": "https://evil.example", **MARK}
            assert (await client.post("/api/auth/sign-out", headers=other_page)).status_code == 403
            made = (await client.post("/api/auth/keys", json={"name": NAME}, headers=MARK)).json()
            key = {"authorization": f"Bearer {made['key']}", **SEEN}
            for _ in range(3):
                await api.authorize("GET", "/v1/models", key)
            assert (await client.delete(f"/api/auth/keys/{made['id']}", headers=MARK)).status_code == 204
            assert (await api.authorize("GET", "/v1/models", key)).status_code == 401
            forged = {"x-api-key": made["key"][:-8] + "AAAAAAAA"}
            assert (await api.authorize("GET", "/v1/models", forged)).status_code == 401
            assert (await client.post("/api/auth/sign-out", headers=MARK)).status_code == 200
            secrets = [token, made["key"], client.cookies.get("c2l_session") or "none"]
        narrow = api.person(KeyScope(routes=("/ollama/",)))
        assert (await api.authorize("GET", "/v1/models", narrow.headers)).status_code == 403
        late = api.key_of(api.owner, lifetime=1)
        await asyncio.sleep(1.1)
        assert (await api.authorize("GET", "/v1/models", late.headers)).status_code == 401
        owner, stranger = api.owner, narrow.id
    log = written(api)
    assert events(log) == [
        ("service-started", None),
        ("link-sign-in", None),
        ("sign-in-refused", "link-used"),
        ("forbidden", "cross-site"),
        ("key-made", None),
        ("key-first-used", None),
        ("key-revoked", "by-user"),
        ("credential-refused", "revoked"),
        ("credential-refused", "forged"),
        ("sign-out", "by-user"),
        ("key-first-used", None),
        ("forbidden", "key-scope"),
        ("credential-refused", "expired"),
        ("service-stopped", None),
    ]
    assert of(log, "link-sign-in")["user"]["uid"] == owner
    assert of(log, "key-made")["entity"]["uid"] == made["id"] == of(log, "key-revoked")["entity"]["uid"]
    assert log[5]["metadata"]["correlation_uid"] == "request-1"
    assert log[11]["actor"]["user"]["uid"] == stranger
    text = json.dumps(log)
    for secret in (*secrets, NAME, "Kathrin", ADDRESS, "evil.example"):
        assert secret not in text


async def test_pairing_and_the_life_of_a_bridge_are_recorded(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        machine = Machine(api, address=ADDRESS)
        async with await api.sign_in(api.owner) as ann:
            asked = await machine.device(name=NAME)
            assert (await decide(ann, "XXXX-XXXX", "approve")).status_code == 404
            assert (await decide(ann, asked["user_code"], "approve")).status_code == 200
            paired = (await machine.poll(asked["device_code"])).json()
            bridge = paired["bridge_id"]
            assert (await ann.patch(f"/api/bridge/{bridge}", json={"name": NAME}, headers=MARK)).status_code == 200
            async with await api.sign_in(api.person().id) as bob:
                assert (await bob.delete(f"/api/bridge/{bridge}", headers=MARK)).status_code == 404
            assert (await ann.delete(f"/api/bridge/{bridge}", headers=MARK)).status_code == 204
    log = [one for one in written(api) if one["metadata"]["event_code"] != "link-sign-in"]
    assert events(log) == [
        ("service-started", None),
        ("pairing-requested", None),
        ("pairing-refused", "wrong-code"),
        ("pairing-approved", None),
        ("pairing-completed", None),
        ("bridge-renamed", None),
        ("forbidden", "not-owner"),
        ("bridge-revoked", "by-user"),
        ("service-stopped", None),
    ]
    assert of(log, "bridge-revoked")["entity"] == {"type_id": 99, "type": "bridge", "uid": bridge}
    assert of(log, "pairing-requested")["src_endpoint"]["uid"].startswith("ip-")
    text = json.dumps(log)
    for secret in (asked["user_code"], asked["device_code"], paired["credential"], NAME, "Kathrin", ADDRESS):
        assert secret not in text


async def test_an_administrator_sees_the_events_and_nobody_else(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        async with await api.sign_in(api.owner) as admin:
            victim = api.person().id
            assert (await admin.post(f"/api/admin/users/{victim}/block", headers=MARK)).status_code == 204
            found: list[dict[str, Any]] = []
            deadline = time.monotonic() + 10
            while not any(one["event"] == "user-disabled" for one in found):
                assert time.monotonic() < deadline
                found = (await admin.get("/api/admin/audit?limit=50")).json()["events"]
            assert found[-1]["event"] == "service-started"
            (blocked,) = [one for one in found if one["event"] == "user-disabled"]
            assert (blocked["outcome"], blocked["user"], blocked["reason"]) == ("success", victim, "by-operator")
        async with await api.sign_in(api.person().id) as bob:
            assert (await bob.get("/api/admin/audit")).status_code == 403
        owner = api.owner
    log = written(api)
    assert of(log, "user-disabled")["user"]["uid"] == victim
    assert of(log, "user-disabled")["actor"]["user"]["uid"] == owner
    assert of(log, "admin-action")["entity"]["uid"] == "admin-block"
    assert of(log, "admin-action")["actor"]["user"]["uid"] == owner
    assert ("forbidden", "not-admin") in events(log)


async def test_a_manager_that_does_not_know_the_apis_key_serves_it_nothing(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api, api.client() as client:
        assert (await client.get("/readyz")).status_code == 200
        (api.settings.service_keys_dir / "public" / "api.json").write_text('{"keys": []}')
        verifier = api.manager.verifier
        assert verifier is not None
        verifier._read_at = float("-inf")
        assert (await client.get("/readyz")).status_code == 503
        assert api.manager.refused_tokens >= 1


@pytest.mark.parametrize("replica", ["", "eu-1"])
async def test_a_replica_has_a_log_of_its_own(tmp_path: Path, replica: str) -> None:
    async with running_api(tmp_path) as api:
        config = replace(api.settings, replica=replica).audit
        assert config.folder == api.settings.data_dir / "audit" / (f"api-{replica}" if replica else "api")
        assert config.origin == (f"127.0.0.1/api-{replica}" if replica else "127.0.0.1/api")
