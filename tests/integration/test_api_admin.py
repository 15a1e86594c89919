"""What administrators see and do."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import MARK, RunningApi, problem, received, running_api
from websockets.exceptions import ConnectionClosed

from cloudtolocalllm.api.secrets import load_sealing_keys
from cloudtolocalllm.auth.sessions import COOKIE, Sealer, Session


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


@pytest.fixture
async def admin(api: RunningApi) -> AsyncIterator[httpx.AsyncClient]:
    now = int(time.time())
    cookie = Sealer(load_sealing_keys(api.settings.secrets_dir)).seal(
        Session(api.owner, "s_aaaaaaaaaaaaaaaaaaaa", now, now + 600, admin=True)
    )
    async with api.client(**MARK) as client:
        client.cookies.set(COOKIE, cookie)
        yield client


async def test_the_overview_counts_and_names_nobody(api: RunningApi, admin: httpx.AsyncClient) -> None:
    person = api.person()
    paired = await api.pair(person.id, "a desktop of hers")
    async with api.bridge(paired):
        await api.authorize("POST", "/v1/chat/completions", person.headers)
        answer = await admin.get("/api/admin/overview")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["bridges_connected"], shown["instances"], shown["users_active"]) == (1, 1, 1)
    assert (shown["sign_up"], shown["provider"]) == ("closed", None)
    assert person.id not in answer.text
    assert "desktop" not in answer.text


async def test_signing_a_user_out_ends_sessions_and_nothing_else(api: RunningApi, admin: httpx.AsyncClient) -> None:
    person = api.person()
    async with await api.sign_in(person.id) as session:
        assert (await session.get("/api/auth/session")).json()["signed_in"] is True
        assert (await admin.post(f"/api/admin/users/{person.id}/sign-out", json={})).status_code == 204
        assert (await session.get("/api/auth/session")).json()["signed_in"] is False
    async with api.client(**person.headers) as by_key:
        assert (await by_key.get("/api/bridge")).status_code == 200
    assert (await admin.get("/api/auth/session")).json()["signed_in"] is True


async def test_a_blocked_user_is_out_in_every_way_until_unblocked(api: RunningApi, admin: httpx.AsyncClient) -> None:
    person = api.person()
    paired = await api.pair(person.id)
    async with (
        await api.sign_in(person.id) as session,
        api.client(**person.headers) as by_key,
        api.bridge(paired) as b,
    ):
        await api.authorize("POST", "/v1/chat/completions", person.headers)
        await received(b)
        assert (await admin.post(f"/api/admin/users/{person.id}/block", json={})).status_code == 204
        with pytest.raises(ConnectionClosed) as closed:
            await received(b)
        assert closed.value.rcvd is not None
        assert "blocked" in closed.value.rcvd.reason
        assert (await session.get("/api/auth/session")).json()["signed_in"] is False
        assert problem(await by_key.get("/api/bridge"))[0] == 401
        assert person.id not in api.manager.instances
        answer = await api.authorize("POST", "/v1/chat/completions", person.headers)
        assert answer.status_code == 401
        with pytest.raises(Exception, match=r"HTTP 40[13]"):
            await api.dial(paired)
        assert (await admin.post(f"/api/admin/users/{person.id}/unblock", json={})).status_code == 204
        assert (await by_key.get("/api/bridge")).status_code == 200
        async with api.bridge(paired):
            pass


async def test_an_administrator_cannot_block_themselves(api: RunningApi, admin: httpx.AsyncClient) -> None:
    assert problem(await admin.post(f"/api/admin/users/{api.owner}/block", json={})) == (400, "bad-request")
    assert (await admin.get("/api/auth/session")).json()["signed_in"] is True


async def test_a_session_that_is_no_administrators_gets_nothing(api: RunningApi) -> None:
    other = api.person()
    async with await api.sign_in(api.person().id) as client:
        for method, target in (
            ("GET", "overview"),
            ("GET", "audit"),
            ("POST", f"users/{other.id}/block"),
            ("POST", f"users/{other.id}/unblock"),
            ("POST", f"users/{other.id}/sign-out"),
        ):
            answer = await client.request(method, f"/api/admin/{target}", headers=MARK)
            assert problem(answer) == (403, "forbidden"), target
