import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import HOST, MARK, ORIGIN, Person, RunningApi, question, received, running_api
from websockets.asyncio.client import ClientConnection

from cloudtolocalllm.auth import assertion
from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, Assertion
from cloudtolocalllm.contracts.control import Wake


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


def paired(api: RunningApi) -> tuple[Person, str, str]:
    """Return a person, a bridge's id, and its credential."""
    person = api.person()
    record, credential = api.store.create_bridge(person.id, "Desktop")
    return person, record.id, credential


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    assert response.content == b""
    assert "c2l-assertion" not in response.headers
    assert "c2l-endpoint" not in response.headers
    return response.status_code, response.headers["c2l-status"], response.headers["c2l-problem"]


def claims_of(api: RunningApi, response: httpx.Response, user: str, kind: str) -> Assertion:
    """Verify an answer as the proxy would."""
    assert response.status_code == 200, response.headers
    instance = api.manager.instances[user]
    assert response.headers["c2l-endpoint"] == instance["endpoint"]
    return assertion.verify(
        response.headers["c2l-assertion"],
        bytes.fromhex(instance["key"]),
        instance=instance["id"],
        kind=kind,
        now=time.time(),
    )


async def no_more(socket: ClientConnection) -> bool:
    try:
        await received(socket, 0.2)
    except TimeoutError:
        return True
    return False


async def test_a_key_is_led_to_its_users_proxy_and_the_bridge_is_woken(api: RunningApi) -> None:
    person, bridge, credential = paired(api)
    async with api.bridge(credential) as socket:
        fields = {**person.headers, "x-request-id": "r-1"}
        response = await api.authorize("POST", "/v1/chat/completions?x=1", fields)
        claims = claims_of(api, response, person.id, CLIENT)
        assert (claims.user, claims.subject, claims.bridges) == (person.id, person.key_id, (bridge,))
        assert claims.expires - claims.issued == 60
        assert claims.request_id == "r-1"
        assert await received(socket) == Wake(claims.instance)


async def test_x_api_key_and_session_come_in_too(api: RunningApi) -> None:
    person, _, credential = paired(api)
    async with api.bridge(credential), await api.sign_in(person.id) as browser:
        response = await api.authorize("POST", "/anthropic/v1/messages", {"x-api-key": person.key})
        assert claims_of(api, response, person.id, CLIENT).subject == person.key_id
        fields = question("GET", "/v1/models", {**MARK, "origin": ORIGIN, "sec-fetch-site": "same-origin"})
        response = await browser.get("/internal/authorize", headers=fields)
        assert claims_of(api, response, person.id, CLIENT).subject.startswith("s_")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"origin": ORIGIN, "sec-fetch-site": "same-origin"},
        {**MARK, "origin": "https://evil.example"},
        {**MARK, "origin": "null"},
        {**MARK, "origin": f"https://{HOST}"},
        {**MARK, "sec-fetch-site": "cross-site"},
        {**MARK, "x-original-host": "evil.example", "origin": ORIGIN},
    ],
)
async def test_a_session_from_another_sites_page_is_refused(api: RunningApi, fields: dict[str, str]) -> None:
    person, _, credential = paired(api)
    async with api.bridge(credential) as socket, await api.sign_in(person.id) as browser:
        response = await browser.get("/internal/authorize", headers=question("GET", "/v1/models", fields))
        assert refusal(response) == (403, "403", "forbidden")
        assert await no_more(socket)
    assert api.manager.puts() == 0


@pytest.mark.parametrize(
    ("uri", "fields"),
    [
        ("/v1/models", {}),
        ("/v1/models", {"authorization": "Bearer nonsense"}),
        ("/v1/models", {"authorization": "Basic {key}"}),
        ("/v1/models", {"x-api-key": ""}),
        ("/v1/models", {"cookie": "c2l_session=nonsense"}),
        ("/v1/models?key={key}", {}),
        ("/v1/models?api_key={key}&access_token={key}&x-api-key={key}", {}),
    ],
)
async def test_nobody_is_refused(api: RunningApi, uri: str, fields: dict[str, str]) -> None:
    person, _, credential = paired(api)
    async with api.bridge(credential):
        filled = {name: value.format(key=person.key) for name, value in fields.items()}
        response = await api.authorize("GET", uri.format(key=person.key), filled)
    assert refusal(response) == (401, "401", "unauthenticated")
    assert api.manager.puts() == 0


async def test_ambiguous_credentials_are_refused(api: RunningApi) -> None:
    person, _, credential = paired(api)
    other = api.person()
    fields = question("GET", "/v1/models", {"authorization": f"Bearer {person.key}", "x-api-key": other.key})
    async with api.bridge(credential), api.client() as client:
        assert refusal(await client.get("/internal/authorize", headers=fields)) == (403, "400", "bad-request")
        twice = [*question("GET", "/v1/models").items(), *([("authorization", f"Bearer {person.key}")] * 2)]
        assert refusal(await client.get("/internal/authorize", headers=twice)) == (403, "400", "bad-request")


async def test_preflights_and_other_routes_are_refused(api: RunningApi) -> None:
    person, _, credential = paired(api)
    async with api.bridge(credential):
        preflight = await api.authorize("OPTIONS", "/v1/models", person.headers)
        assert refusal(preflight) == (403, "403", "forbidden")
        assert refusal(await api.authorize("GET", "/api/bridge", person.headers)) == (403, "404", "not-found")


async def test_what_stands_in_the_way_is_told_apart(api: RunningApi) -> None:
    person = api.person()
    response = await api.authorize("GET", "/v1/models", person.headers)
    assert refusal(response) == (403, "503", "no-bridge-paired")
    _, credential = api.store.create_bridge(person.id, "Früh")
    response = await api.authorize("GET", "/v1/models", person.headers)
    assert refusal(response) == (403, "503", "bridge-offline")
    assert response.headers["c2l-detail"] == '"Fr?h" has not connected yet.'
    async with api.bridge(credential):
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200
    for _ in range(100):
        response = await api.authorize("GET", "/v1/models", person.headers)
        if response.status_code == 403 and "offline since" in response.headers["c2l-detail"]:
            break
        await asyncio.sleep(0.05)
    assert refusal(response) == (403, "503", "bridge-offline")
    assert "offline since" in response.headers["c2l-detail"]


async def test_a_bridge_opens_its_tunnel_and_nothing_else(api: RunningApi) -> None:
    person, bridge, credential = paired(api)
    fields = {"authorization": f"Bearer {credential}"}
    claims = claims_of(api, await api.authorize("GET", "/ws/tunnel", fields), person.id, BRIDGE)
    assert (claims.user, claims.subject, claims.bridges) == (person.id, bridge, ())
    assert refusal(await api.authorize("GET", "/v1/models", fields)) == (403, "403", "forbidden")
    assert refusal(await api.authorize("GET", "/ws/tunnel", person.headers)) == (403, "403", "forbidden")
    assert refusal(await api.authorize("POST", "/ws/tunnel", fields)) == (403, "405", "method-not-allowed")
    api.store.delete_bridge(person.id, bridge)
    assert refusal(await api.authorize("GET", "/ws/tunnel", fields)) == (401, "401", "unauthenticated")


async def test_the_manager_is_asked_once_for_many_and_again_when_told(api: RunningApi) -> None:
    person, _, credential = paired(api)
    api.manager.delay = 0.1
    async with api.bridge(credential) as socket:
        answers = await asyncio.gather(*(api.authorize("GET", "/v1/models", person.headers) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert api.manager.puts() == 1
        first = await received(socket)
        assert await no_more(socket)
        fresh = await api.authorize("GET", "/v1/models", {**person.headers, "c2l-fresh": "1"})
        claims = claims_of(api, fresh, person.id, CLIENT)
        assert api.manager.asked[-1][1].endswith("?check=true")
        second = await received(socket)
        assert second == Wake(claims.instance)
        assert second != first


async def test_a_full_or_mute_manager_is_overload(api: RunningApi) -> None:
    person, _, credential = paired(api)
    async with api.bridge(credential) as socket:
        api.manager.capacity = 0
        response = await api.authorize("GET", "/v1/models", person.headers)
        assert refusal(response) == (403, "503", "overloaded")
        assert response.headers["c2l-retry-after"] == "7"
        api.manager.capacity, api.manager.broken = 10, True
        response = await api.authorize("GET", "/v1/models", person.headers)
        assert refusal(response) == (403, "503", "overloaded")
        assert response.headers["c2l-retry-after"] == "2"
        assert await no_more(socket)
        api.manager.broken = False
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200


async def test_a_bridge_that_connects_while_a_request_waits_is_woken(api: RunningApi) -> None:
    person, _, credential = paired(api)
    async with api.bridge(credential) as socket:
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200
        woken = await received(socket)
    async with api.bridge(credential) as socket:
        assert await received(socket) == woken


async def test_two_bridges_are_named_the_latest_first(api: RunningApi) -> None:
    person, first, credential = paired(api)
    second, other = api.store.create_bridge(person.id, "Laptop")
    async with api.bridge(other), api.bridge(credential):
        claims = claims_of(api, await api.authorize("GET", "/v1/x", person.headers), person.id, CLIENT)
        assert claims.bridges == (first, second.id)


async def test_users_are_apart(api: RunningApi) -> None:
    alice, bridge, credential = paired(api)
    bob = api.person()
    async with api.bridge(credential) as socket:
        # Bob has no bridge: Alice's does not serve him, is not named to him, and is not woken by him.
        response = await api.authorize("GET", "/v1/models", bob.headers)
        assert refusal(response) == (403, "503", "no-bridge-paired")
        other, other_credential = api.store.create_bridge(bob.id, "Bob's")
        async with api.bridge(other_credential) as his:
            minted = await api.authorize("GET", "/v1/models", bob.headers)
            claims = claims_of(api, minted, bob.id, CLIENT)
            assert (claims.user, claims.bridges) == (bob.id, (other.id,))
            assert await received(his) == Wake(claims.instance)
            assert await no_more(socket)
            hers = claims_of(api, await api.authorize("GET", "/v1/models", alice.headers), alice.id, CLIENT)
            assert hers.bridges == (bridge,)
            assert hers.instance != claims.instance
        # Bob's bridge never gets into Alice's proxy.
        fields = {"authorization": f"Bearer {other_credential}"}
        tunnel = claims_of(api, await api.authorize("GET", "/ws/tunnel", fields), bob.id, BRIDGE)
        assert tunnel.instance == claims.instance
        # The assertion of one is none for the proxy of the other.
        text = minted.headers["c2l-assertion"]
        key = bytes.fromhex(api.manager.instances[alice.id]["key"])
        with pytest.raises(assertion.AssertionRefusedError, match="MAC"):
            assertion.verify(text, key, instance=hers.instance, kind=CLIENT, now=time.time())


async def test_nobody_touches_anothers_by_guessed_ids(api: RunningApi) -> None:
    alice, bridge, credential = paired(api)
    bob = api.person()
    async with api.bridge(credential) as socket, api.client(**bob.headers) as client:
        assert (await client.get("/api/bridge")).json() == []
        assert (await client.patch(f"/api/bridge/{bridge}", json={"name": "stolen"})).status_code == 404
        assert (await client.delete(f"/api/bridge/{bridge}")).status_code == 404
        assert (await client.get("/api/streaming/status")).json()["bridges"] == []
        assert (await api.authorize("GET", "/v1/x", alice.headers)).status_code == 200
        assert (await client.delete("/api/streaming/proxy")).status_code == 204
        assert alice.id in api.manager.instances
        assert isinstance(await received(socket), Wake)
    async with await api.sign_in(bob.id) as browser:
        gone = await browser.delete(f"/api/auth/keys/{alice.key_id}", headers=MARK)
        assert gone.status_code == 404
    assert api.store.find_key(alice.key_id) is not None
