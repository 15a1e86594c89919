import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import HOST, MARK, ORIGIN, Paired, Person, RunningApi, question, received, running_api
from tests.support.eventually import eventually
from websockets.asyncio.client import ClientConnection

from cloudtolocalllm.auth import assertion
from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, Assertion
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.keys import DAY, KeyScope, mint_key
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.contracts.control import Wake


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


async def paired(api: RunningApi) -> tuple[Person, Paired]:
    """Return a person and their bridge."""
    person = api.person()
    return person, await api.pair(person.id)


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


async def woken(socket: ClientConnection) -> str:
    """Return for which proxy the next message wakes a bridge."""
    message = await received(socket)
    assert isinstance(message, Wake)
    assert len(message.nonce) == 32, "so that the dial takes one round trip"
    return message.instance


async def no_more(socket: ClientConnection) -> bool:
    try:
        await received(socket, 0.2)
    except TimeoutError:
        return True
    return False


async def test_a_key_is_led_to_its_users_proxy_and_the_bridge_is_woken(api: RunningApi) -> None:
    person, bridge = await paired(api)
    async with api.bridge(bridge) as socket:
        fields = {**person.headers, "x-request-id": "r-1"}
        response = await api.authorize("POST", "/v1/chat/completions?x=1", fields)
        claims = claims_of(api, response, person.id, CLIENT)
        assert (claims.user, claims.subject, claims.bridges) == (person.id, person.key_id, (bridge.id,))
        assert claims.expires - claims.issued == 60
        assert claims.request_id == "r-1"
        assert await woken(socket) == claims.instance


async def test_x_api_key_and_session_come_in_too(api: RunningApi) -> None:
    person, bridge = await paired(api)
    async with api.bridge(bridge), await api.sign_in(person.id) as browser:
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
    person, bridge = await paired(api)
    async with api.bridge(bridge) as socket, await api.sign_in(person.id) as browser:
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
    person, bridge = await paired(api)
    async with api.bridge(bridge):
        filled = {name: value.format(key=person.key) for name, value in fields.items()}
        response = await api.authorize("GET", uri.format(key=person.key), filled)
    assert refusal(response) == (401, "401", "unauthenticated")
    assert api.manager.puts() == 0


async def test_ambiguous_credentials_are_refused(api: RunningApi) -> None:
    person, bridge = await paired(api)
    other = api.person()
    fields = question("GET", "/v1/models", {"authorization": f"Bearer {person.key}", "x-api-key": other.key})
    async with api.bridge(bridge), api.client() as client:
        assert refusal(await client.get("/internal/authorize", headers=fields)) == (403, "400", "bad-request")
        twice = [*question("GET", "/v1/models").items(), *([("authorization", f"Bearer {person.key}")] * 2)]
        assert refusal(await client.get("/internal/authorize", headers=twice)) == (403, "400", "bad-request")


async def test_preflights_and_other_routes_are_refused(api: RunningApi) -> None:
    person, bridge = await paired(api)
    async with api.bridge(bridge):
        preflight = await api.authorize("OPTIONS", "/v1/models", person.headers)
        assert refusal(preflight) == (403, "403", "forbidden")
        assert refusal(await api.authorize("GET", "/api/bridge", person.headers)) == (403, "404", "not-found")


async def test_what_stands_in_the_way_is_told_apart(api: RunningApi) -> None:
    person = api.person()
    response = await api.authorize("GET", "/v1/models", person.headers)
    assert refusal(response) == (403, "503", "no-bridge-paired")
    bridge = await api.pair(person.id, "Früh")
    response = await api.authorize("GET", "/v1/models", person.headers)
    assert refusal(response) == (403, "503", "bridge-offline")
    assert response.headers["c2l-detail"] == '"Fr?h" has not connected yet.'
    async with api.bridge(bridge):
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200
    response = await eventually(
        lambda: api.authorize("GET", "/v1/models", person.headers),
        lambda r: "offline since" in r.headers.get("c2l-detail", ""),
    )
    assert refusal(response) == (403, "503", "bridge-offline")


def dial(api: RunningApi, bridge: Paired, *, method: str = "GET", path: str = "/ws/tunnel") -> dict[str, str]:
    """Return the fields of a bridge's request, with a proof of its own."""
    return bridge.headers(path, api.nonce(), method=method)


async def test_a_bridge_opens_its_tunnel_and_nothing_else(api: RunningApi) -> None:
    person, bridge = await paired(api)
    claims = claims_of(api, await api.authorize("GET", "/ws/tunnel?x=1", dial(api, bridge)), person.id, BRIDGE)
    assert (claims.user, claims.subject, claims.bridges) == (person.id, bridge.id, ())
    data = await api.authorize("GET", "/v1/models", dial(api, bridge, path="/v1/models"))
    assert refusal(data) == (403, "403", "forbidden")
    assert refusal(await api.authorize("GET", "/ws/tunnel", person.headers)) == (403, "403", "forbidden")
    posted = await api.authorize("POST", "/ws/tunnel", dial(api, bridge, method="POST"))
    assert refusal(posted) == (403, "405", "method-not-allowed")
    await api.registry.revoke(person.id, bridge.id)
    assert await eventually_refused(api, bridge) == (401, "401", "unauthenticated")


async def eventually_refused(api: RunningApi, bridge: Paired) -> tuple[int, str, str]:
    """Return how a bridge is refused that another process revoked: it holds within a second or so."""
    response = await eventually(
        lambda: api.authorize("GET", "/ws/tunnel", dial(api, bridge)), lambda r: r.status_code != 200, within=2
    )
    return refusal(response)


async def test_a_bridges_credential_without_a_fresh_proof_of_its_own_opens_nothing(api: RunningApi) -> None:
    person, bridge = await paired(api)
    thief = replace(bridge, key=ProofKey.generate())
    other = await api.pair(api.person().id)
    good = dial(api, bridge)
    for fields in (
        {"authorization": f"Bearer {bridge.credential}"},
        {"x-api-key": bridge.credential},
        {"authorization": f"DPoP {bridge.credential}"},
        {"authorization": f"DPoP {person.key}", "dpop": good["dpop"]},
        {**good, "authorization": f"DPoP {other.credential}"},
        dial(api, thief),
        dial(api, bridge, method="POST"),
        dial(api, bridge, path="/ws/bridge"),
        bridge.headers("/ws/tunnel"),
        bridge.headers("/ws/tunnel", "A" * 32),
    ):
        response = await api.authorize("GET", "/ws/tunnel", fields)
        assert refusal(response) == (401, "401", "unauthenticated"), fields
    assert (await api.authorize("GET", "/ws/tunnel", good)).status_code == 200
    assert refusal(await api.authorize("GET", "/ws/tunnel", good)) == (401, "401", "unauthenticated"), "used before"
    assert api.manager.puts() == 1


async def test_one_proof_does_for_the_edges_second_question_about_one_request(api: RunningApi) -> None:
    """The proxy that the first answer named was dead: the bridge, which dialled once, comes to the next one."""
    _, bridge = await paired(api)
    first = {**dial(api, bridge), "x-request-id": "r-1"}
    second = {**first, "c2l-fresh": "1"}
    assert (await api.authorize("GET", "/ws/tunnel", first)).status_code == 200
    refused = (401, "401", "unauthenticated")
    for replayed in (first, {**second, "x-request-id": "r-2"}, {**second, "x-request-id": ""}):
        assert refusal(await api.authorize("GET", "/ws/tunnel", replayed)) == refused, replayed
    assert (await api.authorize("GET", "/ws/tunnel", second)).status_code == 200
    assert api.manager.asked[-1][1].endswith("?check=true")
    assert refusal(await api.authorize("GET", "/ws/tunnel", second)) == refused, "a third time"
    without = dial(api, bridge)
    assert (await api.authorize("GET", "/ws/tunnel", without)).status_code == 200
    again = await api.authorize("GET", "/ws/tunnel", {**without, "c2l-fresh": "1"})
    assert refusal(again) == refused, "nothing says that it is the same request"


async def test_a_bridge_is_given_the_nonce_that_it_needs(api: RunningApi) -> None:
    _, bridge = await paired(api)
    response = await api.authorize("GET", "/ws/tunnel", bridge.headers("/ws/tunnel"))
    assert refusal(response) == (401, "401", "unauthenticated")
    nonce = response.headers["c2l-dpop-nonce"]
    again = await api.authorize("GET", "/ws/tunnel", bridge.headers("/ws/tunnel", nonce))
    assert again.status_code == 200


async def test_the_manager_is_asked_once_for_many_and_again_when_told(api: RunningApi) -> None:
    person, bridge = await paired(api)
    api.manager.delay = 0.1
    async with api.bridge(bridge) as socket:
        answers = await asyncio.gather(*(api.authorize("GET", "/v1/models", person.headers) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert api.manager.puts() == 1
        first = await woken(socket)
        assert await no_more(socket)
        fresh = await api.authorize("GET", "/v1/models", {**person.headers, "c2l-fresh": "1"})
        claims = claims_of(api, fresh, person.id, CLIENT)
        assert api.manager.asked[-1][1].endswith("?check=true")
        second = await woken(socket)
        assert second == claims.instance
        assert second != first


async def test_a_full_or_mute_manager_is_overload(api: RunningApi) -> None:
    person, bridge = await paired(api)
    async with api.bridge(bridge) as socket:
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
    person, bridge = await paired(api)
    async with api.bridge(bridge) as socket:
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200
        first = await woken(socket)
    async with api.bridge(bridge) as socket:
        assert await woken(socket) == first


async def test_two_bridges_are_named_the_latest_first(api: RunningApi) -> None:
    person, first = await paired(api)
    second = await api.pair(person.id, "Laptop")
    async with api.bridge(second), api.bridge(first):
        claims = claims_of(api, await api.authorize("GET", "/v1/x", person.headers), person.id, CLIENT)
        assert claims.bridges == (first.id, second.id)


async def test_users_are_apart(api: RunningApi) -> None:
    alice, bridge = await paired(api)
    bob = api.person()
    async with api.bridge(bridge) as socket:
        # Bob has no bridge: Alice's does not serve him, is not named to him, and is not woken by him.
        response = await api.authorize("GET", "/v1/models", bob.headers)
        assert refusal(response) == (403, "503", "no-bridge-paired")
        other = await api.pair(bob.id, "Bob's")
        async with api.bridge(other) as his:
            minted = await api.authorize("GET", "/v1/models", bob.headers)
            claims = claims_of(api, minted, bob.id, CLIENT)
            assert (claims.user, claims.bridges) == (bob.id, (other.id,))
            assert await woken(his) == claims.instance
            assert await no_more(socket)
            hers = claims_of(api, await api.authorize("GET", "/v1/models", alice.headers), alice.id, CLIENT)
            assert hers.bridges == (bridge.id,)
            assert hers.instance != claims.instance
        # Bob's bridge never gets into Alice's proxy.
        tunnel = claims_of(api, await api.authorize("GET", "/ws/tunnel", dial(api, other)), bob.id, BRIDGE)
        assert tunnel.instance == claims.instance
        # The assertion of one is none for the proxy of the other.
        text = minted.headers["c2l-assertion"]
        key = bytes.fromhex(api.manager.instances[alice.id]["key"])
        with pytest.raises(assertion.AssertionRefusedError, match="MAC"):
            assertion.verify(text, key, instance=hers.instance, kind=CLIENT, now=time.time())


async def test_nobody_touches_anothers_by_guessed_ids(api: RunningApi) -> None:
    alice, bridge = await paired(api)
    bob = api.person()
    async with api.bridge(bridge) as socket, api.client(**bob.headers) as client:
        assert (await client.get("/api/bridge")).json() == []
        assert (await client.patch(f"/api/bridge/{bridge.id}", json={"name": "stolen"})).status_code == 404
        assert (await client.delete(f"/api/bridge/{bridge.id}")).status_code == 404
        assert (await client.get("/api/streaming/status")).json()["bridges"] == []
        assert (await api.authorize("GET", "/v1/x", alice.headers)).status_code == 200
        assert (await client.delete("/api/streaming/proxy")).status_code == 204
        assert alice.id in api.manager.instances
        assert isinstance(await received(socket), Wake)
    async with await api.sign_in(bob.id) as browser:
        await browser.delete(f"/api/auth/keys/{alice.key_id}", headers=MARK)
    # What Bob revokes is a key of Bob's, whatever its id: Alice's goes on.
    offline = await api.authorize("GET", "/v1/x", alice.headers)
    assert offline.headers.get("c2l-problem") in (None, "bridge-offline")


async def test_a_key_of_one_user_with_the_bridge_of_another_reaches_nothing(api: RunningApi) -> None:
    _, hers = await paired(api)
    bob = api.person(KeyScope(bridge=hers.id))
    his = await api.pair(bob.id)
    async with api.bridge(hers) as socket, api.bridge(his):
        assert refusal(await api.authorize("GET", "/v1/models", bob.headers)) == (403, "403", "key-scope")
        assert await no_more(socket)
    assert api.manager.puts() == 0


async def test_a_key_reaches_what_its_scope_says(api: RunningApi) -> None:
    person, desktop = await paired(api)
    laptop = await api.pair(person.id, "Laptop")
    narrow = api.key_of(person.id, KeyScope(("/v1/",), ("qwen*",), 60, 1000, desktop.id))
    async with api.bridge(desktop), api.bridge(laptop):
        claims = claims_of(api, await api.authorize("GET", "/v1/models", narrow.headers), person.id, CLIENT)
        assert claims.bridges == (desktop.id,)
        assert (claims.via, claims.key_requests_per_minute) == (assertion.KEY, 60)
        scope = json.loads(claims.scope)
        assert (scope["mdl"], scope["tpd"]) == (["qwen*"], 1000)
        refused = await api.authorize("POST", "/ollama/api/chat", narrow.headers)
        assert refusal(refused) == (403, "403", "key-scope")
        wide = claims_of(api, await api.authorize("GET", "/ollama/x", person.headers), person.id, CLIENT)
        assert set(wide.bridges) == {desktop.id, laptop.id}
        assert wide.limits == claims.limits == api.settings.user_limits


async def test_a_key_that_another_process_revokes_is_refused_within_a_second_or_so(api: RunningApi) -> None:
    person, bridge = await paired(api)
    other = api.key_of(person.id)
    async with api.bridge(bridge):
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200
        await api.revoke_key(person)
        response = await eventually(
            lambda: api.authorize("GET", "/v1/models", person.headers), lambda r: r.status_code != 200, within=2
        )
        assert refusal(response) == (401, "401", "unauthenticated")
        assert (await api.authorize("GET", "/v1/models", other.headers)).status_code == 200


async def test_a_key_that_expired_is_refused(api: RunningApi) -> None:
    person, bridge = await paired(api)
    short = api.key_of(person.id, lifetime=1.0)
    async with api.bridge(bridge):
        response = await eventually(
            lambda: api.authorize("GET", "/v1/models", short.headers), lambda r: r.status_code != 200
        )
        assert refusal(response) == (401, "401", "unauthenticated")


async def test_a_key_of_another_installation_is_refused(api: RunningApi) -> None:
    person, bridge = await paired(api)
    scope = KeyScope()
    _, foreign = mint_key(KeyRing.generate(), user=person.id, scope=scope, lifetime=DAY, now=time.time())
    async with api.bridge(bridge):
        response = await api.authorize("GET", "/v1/models", {"x-api-key": foreign})
        assert refusal(response) == (401, "401", "unauthenticated")
