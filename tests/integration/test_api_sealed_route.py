"""Who may send a sealed request to which machine: the API's decision about `/e2e/{bridge id}`, over its socket.

What is inside only the home can judge; that nobody else's home is reached, and no other page comes in, is said here.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import HOST, MARK, ORIGIN, RunningApi, question, received, running_api
from tests.support.eventually import eventually
from websockets.asyncio.client import ClientConnection

from cloudtolocalllm.auth import assertion
from cloudtolocalllm.auth.assertion import CLIENT, Assertion
from cloudtolocalllm.auth.keys import KeyScope
from cloudtolocalllm.contracts.control import Wake

NOT_FOUND = (403, "404", "not-found")
KEY_SCOPE = (403, "403", "key-scope")
FORBIDDEN = (403, "403", "forbidden")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    assert "c2l-assertion" not in response.headers
    assert "c2l-endpoint" not in response.headers
    return response.status_code, response.headers["c2l-status"], response.headers["c2l-problem"]


def claims_of(api: RunningApi, response: httpx.Response, user: str) -> Assertion:
    """Verify an answer as that user's proxy would."""
    assert response.status_code == 200, response.headers
    instance = api.manager.instances[user]
    key = bytes.fromhex(instance["key"])
    given = response.headers["c2l-assertion"]
    return assertion.verify(given, key, instance=instance["id"], kind=CLIENT, now=time.time())


async def woken(socket: ClientConnection) -> bool:
    try:
        return isinstance(await received(socket, 0.3), Wake)
    except TimeoutError:
        return False


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_named_machine_is_woken_and_no_other(api: RunningApi, method: str) -> None:
    person = api.person()
    desktop, laptop = await api.pair(person.id), await api.pair(person.id, "Laptop")
    async with api.bridge(desktop) as named, api.bridge(laptop) as newer:
        response = await api.authorize(method, f"/e2e/{desktop.id}", person.headers)
        assert claims_of(api, response, person.id).bridges == (desktop.id,)
        assert isinstance(await received(named), Wake)
        assert not await woken(newer)


async def test_a_strangers_machine_is_not_there(api: RunningApi) -> None:
    alice, bob = api.person(), api.person()
    hers, his = await api.pair(alice.id), await api.pair(bob.id)
    async with api.bridge(hers) as socket, api.bridge(his) as own:
        for method in ("GET", "POST"):
            there = await api.authorize(method, f"/e2e/{hers.id}", bob.headers)
            nowhere = await api.authorize(method, "/e2e/aaaaaaaaaaaa", bob.headers)
            assert refusal(there) == refusal(nowhere) == NOT_FOUND
            assert there.headers["c2l-detail"] == nowhere.headers["c2l-detail"], "nothing tells that it exists"
        assert not await woken(socket)
        assert not await woken(own)
    assert api.manager.puts() == 0, "nobody's proxy was started"


async def test_a_key_for_a_strangers_machine_does_not_reach_it(api: RunningApi) -> None:
    hers = await api.pair(api.person().id)
    bob = api.person(KeyScope(bridge=hers.id))
    his = await api.pair(bob.id)
    async with api.bridge(hers), api.bridge(his):
        assert refusal(await api.authorize("POST", f"/e2e/{hers.id}", bob.headers)) == NOT_FOUND
        assert refusal(await api.authorize("POST", f"/e2e/{his.id}", bob.headers)) == KEY_SCOPE
    assert api.manager.puts() == 0


@pytest.mark.parametrize("path", ["/e2e/", "/e2e/{id}/", "/e2e/{id}/x", "/e2e/{id}.", "/e2e/{id},{id}"])
async def test_what_is_no_id_is_not_there(api: RunningApi, path: str) -> None:
    person = api.person()
    bridge = await api.pair(person.id)
    async with api.bridge(bridge):
        response = await api.authorize("POST", path.format(id=bridge.id), person.headers)
        assert refusal(response) == NOT_FOUND


async def test_the_scope_of_a_key_holds(api: RunningApi) -> None:
    person = api.person()
    desktop, laptop = await api.pair(person.id), await api.pair(person.id, "Laptop")
    sealed = api.key_of(person.id, KeyScope(("/e2e/", "/v1/"), ("qwen*",), 60, 1000, desktop.id))
    plain = api.key_of(person.id, KeyScope(("/v1/", "/ollama/", "/anthropic/")))
    async with api.bridge(desktop), api.bridge(laptop):
        claims = claims_of(api, await api.authorize("POST", f"/e2e/{desktop.id}", sealed.headers), person.id)
        assert (claims.bridges, claims.via, claims.key_requests_per_minute) == ((desktop.id,), assertion.KEY, 60)
        # What is inside is the home's to judge, by the whole scope.
        told = KeyScope.from_json(json.loads(claims.scope))
        assert (told.routes, told.models, told.tokens_per_day) == (("/e2e/", "/v1/"), ("qwen*",), 1000)
        assert refusal(await api.authorize("POST", f"/e2e/{laptop.id}", sealed.headers)) == KEY_SCOPE
        assert refusal(await api.authorize("POST", f"/e2e/{desktop.id}", plain.headers)) == KEY_SCOPE


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"origin": ORIGIN, "sec-fetch-site": "same-origin"},
        {**MARK, "origin": "https://evil.example"},
        {**MARK, "origin": "null"},
        {**MARK, "origin": f"https://{HOST}"},
        {**MARK, "sec-fetch-site": "cross-site"},
        {**MARK, "sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_session_comes_from_our_own_page_only(api: RunningApi, method: str, fields: dict[str, str]) -> None:
    person = api.person()
    bridge = await api.pair(person.id)
    async with api.bridge(bridge) as socket, await api.sign_in(person.id) as browser:
        asked = question(method, f"/e2e/{bridge.id}", fields)
        assert refusal(await browser.get("/internal/authorize", headers=asked)) == FORBIDDEN
        assert not await woken(socket)
        ours = question(method, f"/e2e/{bridge.id}", {**MARK, "origin": ORIGIN, "sec-fetch-site": "same-origin"})
        claims = claims_of(api, await browser.get("/internal/authorize", headers=ours), person.id)
        assert (claims.bridges, claims.via) == ((bridge.id,), assertion.SESSION)


@pytest.mark.parametrize("fields", [{}, {"authorization": "Bearer nonsense"}, {"cookie": "c2l_session=nonsense"}])
async def test_nobody_is_refused(api: RunningApi, fields: dict[str, str]) -> None:
    bridge = await api.pair(api.person().id)
    async with api.bridge(bridge):
        response = await api.authorize("POST", f"/e2e/{bridge.id}", fields)
        assert refusal(response) == (401, "401", "unauthenticated")


async def test_a_machine_asks_no_other(api: RunningApi) -> None:
    person = api.person()
    desktop, laptop = await api.pair(person.id), await api.pair(person.id, "Laptop")
    path = f"/e2e/{laptop.id}"
    async with api.bridge(laptop):
        fields = desktop.headers(path, api.nonce(), method="POST")
        assert refusal(await api.authorize("POST", path, fields)) == FORBIDDEN


async def test_one_that_is_away_is_told_from_one_that_is_not_there(api: RunningApi) -> None:
    person = api.person()
    away, here = await api.pair(person.id, "Attic"), await api.pair(person.id)
    async with api.bridge(here):
        response = await api.authorize("POST", f"/e2e/{away.id}", person.headers)
        assert refusal(response) == (403, "503", "bridge-offline")
        assert response.headers["c2l-detail"] == '"Attic" has not connected yet.'


async def test_one_whose_connection_broke_off_is_waited_for(api: RunningApi) -> None:
    person = api.person()
    bridge = await api.pair(person.id)
    async with api.bridge(bridge) as socket:
        socket.transport.abort()
        await socket.wait_closed()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(api.authorize("POST", f"/e2e/{bridge.id}", person.headers))
        assert not (await asyncio.wait([waiting], timeout=0.3))[0]
        async with api.bridge(bridge):
            assert claims_of(api, await waiting, person.id).bridges == (bridge.id,)


async def test_a_revoked_machine_is_not_there(api: RunningApi) -> None:
    person = api.person()
    bridge = await api.pair(person.id)
    async with api.bridge(bridge):
        assert (await api.authorize("GET", f"/e2e/{bridge.id}", person.headers)).status_code == 200
        await api.registry.revoke(person.id, bridge.id)
        response = await eventually(
            lambda: api.authorize("GET", f"/e2e/{bridge.id}", person.headers),
            lambda r: r.status_code != 200,
            within=2,
        )
        assert refusal(response) == NOT_FOUND
