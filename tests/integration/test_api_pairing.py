"""Pairing against the real API: who may ask, who may say yes, and who gets the credential."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.support.api_parts import MARK, ORIGIN, Paired, RunningApi, problem, question, received, running_api
from tests.support.pairing_parts import PAIRING, REDIRECT, STATE, Machine, decide, error, look
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cloudtolocalllm.api import pairing
from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import Revoked


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


@pytest.fixture
async def ann(api: RunningApi) -> AsyncGenerator[httpx.AsyncClient]:
    async with await api.sign_in(api.owner) as client:
        yield client


@pytest.fixture
async def bob(api: RunningApi) -> AsyncGenerator[httpx.AsyncClient]:
    async with await api.sign_in(api.person().id) as client:
        yield client


async def polled(machine: Machine, device_code: str) -> httpx.Response:
    """Ask until it is not too soon any more."""
    for _ in range(20):
        response = await machine.poll(device_code)
        if response.status_code != 400 or error(response) != "slow_down":
            return response
        await asyncio.sleep(0.2)
    raise AssertionError("expected a question every two seconds to be taken")


def of(response: httpx.Response, user: str, machine: Machine) -> Paired:
    assert response.status_code == 200, response.text
    value = response.json()
    return Paired(value["bridge_id"], user, value["credential"], machine.key)


# --- by a code -----------------------------------------------------------------------------------------------------


async def test_a_code_that_is_confirmed_gives_a_bridge(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.device()
    assert began["interval"] == 2
    assert began["expires_in"] == 300
    assert began["verification_uri"] == f"{ORIGIN}/pair"
    assert began["verification_uri_complete"] == f"{ORIGIN}/pair?code={began['user_code']}"
    assert error(await machine.poll(began["device_code"])) == "authorization_pending"

    shown = (await look(ann, began["user_code"])).json()
    assert shown["name"] == "Desktop"
    assert shown["address"] == "203.0.113.7"
    assert shown["version"] == "0.1.0"
    assert shown["kind"] == "device"
    assert abs(shown["requested"] - time.time()) < 30
    answer = await decide(ann, began["user_code"])
    assert answer.status_code == 200
    assert answer.json() == {"redirect_to": None}

    paired = of(await polled(machine, began["device_code"]), api.owner, machine)
    said = credentials.verify(api.ring, paired.credential, now=time.time())
    assert (said.bridge, said.user, said.thumbprint) == (paired.id, api.owner, machine.key.thumbprint)
    listed = (await ann.get("/api/bridge")).json()
    assert [(bridge["id"], bridge["name"]) for bridge in listed] == [(paired.id, "Desktop")]
    async with api.bridge(paired):
        assert (await ann.get("/api/bridge")).json()[0]["connected"]


async def test_codes_are_short_and_say_nothing(api: RunningApi) -> None:
    codes = [(await Machine(api).device())["user_code"] for _ in range(5)]
    assert len(set(codes)) == 5
    for code in codes:
        assert len(code) == 9
        assert code[4] == "-"
        assert set(code) - {"-"} <= set("BCDFGHJKLMNPQRSTVWXZ")


@pytest.mark.parametrize(
    "spelling", [str.lower, lambda code: code.replace("-", ""), lambda code: code.replace("-", " ")]
)
async def test_a_code_may_be_typed_as_people_do(api: RunningApi, ann: httpx.AsyncClient, spelling: Any) -> None:
    code = (await Machine(api).device())["user_code"]
    assert (await look(ann, spelling(code))).status_code == 200


async def test_looking_never_grants(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.device()
    for target in (f"{PAIRING}/requests/{began['user_code']}", f"{PAIRING}/requests/{began['user_code']}/approve"):
        await ann.get(target, headers=MARK)
        await ann.get(target)
    assert error(await machine.poll(began["device_code"])) == "authorization_pending"


async def test_granting_needs_our_own_page_and_a_session(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    code = (began := await machine.device())["user_code"]
    target = f"{PAIRING}/requests/{code}/approve"
    assert problem(await ann.post(target, json={})) == (403, "forbidden")
    strange = {**MARK, "origin": "https://evil.example"}
    assert problem(await ann.post(target, json={}, headers=strange)) == (403, "forbidden")
    assert problem(await ann.post(target, json={}, headers={**MARK, "sec-fetch-site": "cross-site"})) == (
        403,
        "forbidden",
    )
    async with api.client() as nobody:
        assert problem(await decide(nobody, code)) == (401, "unauthenticated")
        assert problem(await look(nobody, code)) == (401, "unauthenticated")
        key = api.person().headers
        assert problem(await nobody.post(target, json={}, headers={**MARK, **key})) == (403, "forbidden")
    assert error(await machine.poll(began["device_code"])) == "authorization_pending"


async def test_a_denied_code_gives_nothing(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.device()
    assert (await decide(ann, began["user_code"], "deny")).json() == {"redirect_to": None}
    assert error(await polled(machine, began["device_code"])) == "access_denied"
    assert error(await machine.poll(began["device_code"])) == "expired_token"
    assert (await ann.get("/api/bridge")).json() == []


async def test_one_decision_is_the_last(api: RunningApi, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.device()
    code = began["user_code"]
    assert (await decide(ann, code)).status_code == 200
    for client in (bob, ann):
        assert problem(await look(client, code)) == (404, "not-found")
        assert problem(await decide(client, code)) == (404, "not-found")
        assert problem(await decide(client, code, "deny")) == (404, "not-found")
    await polled(machine, began["device_code"])
    assert len((await ann.get("/api/bridge")).json()) == 1
    assert (await bob.get("/api/bridge")).json() == []


async def test_of_two_who_decide_at_once_one_does(
    api: RunningApi, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    code = (await Machine(api).device())["user_code"]
    answers = await asyncio.gather(*(decide(client, code) for client in (ann, bob, ann, bob)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]


async def test_a_code_is_used_once_by_whoever_comes_first(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.device()
    await decide(ann, began["user_code"])
    answers = await asyncio.gather(*(machine.poll(began["device_code"]) for _ in range(5)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) == 1
    await asyncio.sleep(pairing.INTERVAL)
    assert error(await machine.poll(began["device_code"])) == "expired_token"
    assert len((await ann.get("/api/bridge")).json()) == 1


async def test_asking_too_often_is_told(api: RunningApi) -> None:
    machine = Machine(api)
    code = (await machine.device())["device_code"]
    assert error(await machine.poll(code)) == "authorization_pending"
    assert error(await machine.poll(code)) == "slow_down"
    await asyncio.sleep(pairing.INTERVAL)
    assert error(await machine.poll(code)) == "authorization_pending"


async def test_a_code_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "LIFETIME", 1)
    async with running_api(tmp_path) as api, await api.sign_in(api.owner) as ann:
        machine = Machine(api)
        began = await machine.device()
        granted = Machine(api)
        second = await granted.device()
        assert (await decide(ann, second["user_code"])).status_code == 200
        await asyncio.sleep(1.1)
        assert problem(await look(ann, began["user_code"])) == (404, "not-found")
        assert error(await machine.poll(began["device_code"])) == "expired_token"
        assert error(await granted.poll(second["device_code"])) == "expired_token"


async def test_guessing_codes_is_capped(api: RunningApi, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    code = (await Machine(api).device())["user_code"]
    statuses = [(await look(bob, f"BBBB-{n:04d}".translate(_CONSONANTS))).status_code for n in range(40)]
    limit = pairing.LOOKS[0]
    assert statuses[:limit] == [404] * limit
    assert set(statuses[limit:]) == {429}
    refused = await look(bob, code)
    assert problem(refused) == (429, "rate-limited")
    assert int(refused.headers["retry-after"]) > 0
    assert "pairing-looks" in refused.headers["ratelimit-policy"]
    assert problem(await decide(bob, code)) == (429, "rate-limited"), "expected decisions to count as guesses too"
    assert (await look(ann, code)).status_code == 200, "expected others to go on"


_CONSONANTS = str.maketrans("0123456789", "BCDFGHJKLM")


async def test_looks_at_one_request_are_capped_in_total(
    api: RunningApi, ann: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "REQUEST_LOOKS", (2, 300.0))
    code = (await Machine(api).device())["user_code"]
    assert [(await look(ann, code)).status_code for _ in range(3)] == [200, 200, 429]


async def test_starts_from_one_address_are_capped(api: RunningApi) -> None:
    machine = Machine(api)
    responses = [await machine.ask("device") for _ in range(pairing.STARTS[0] + 3)]
    assert [r.status_code for r in responses] == [200] * pairing.STARTS[0] + [429] * 3
    assert problem(responses[-1]) == (429, "rate-limited")
    assert (await Machine(api, address="203.0.113.8").ask("device")).status_code == 200


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42 + "B"},
        ProofKey.generate().private_jwk(),
    ],
    ids=lambda jwk: ",".join(jwk),
)
async def test_no_other_key_is_taken_and_none_is_echoed(api: RunningApi, jwk: dict[str, str]) -> None:
    response = await Machine(api).ask("device", jwk=jwk)
    assert problem(response) == (400, "bad-request")
    assert jwk.get("d", "?" * 9) not in response.text


async def test_a_name_cannot_hide_what_it_is(api: RunningApi, ann: httpx.AsyncClient) -> None:
    began = await Machine(api).device(name="Desk\u202etop\x1b[2J\n")
    shown = (await look(ann, began["user_code"])).json()
    assert shown["name"] == "Desktop[2J"


# --- whose key ------------------------------------------------------------------------------------------------------


async def test_a_stolen_code_is_worth_nothing_without_the_key(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine, thief = Machine(api), Machine(api)
    began = await machine.device()
    await decide(ann, began["user_code"])
    assert error(await thief.poll(began["device_code"])) == "invalid_grant"
    assert problem(await thief.poll(began["device_code"], proof="")) == (401, "unauthenticated")
    of(await polled(machine, began["device_code"]), api.owner, machine)


async def test_without_a_nonce_the_machine_is_given_one(api: RunningApi) -> None:
    machine = Machine(api)
    began = await machine.device()
    target = f"{ORIGIN}{PAIRING}/token"
    refused = await machine.poll(began["device_code"], proof=machine.key.prove("POST", target, now=time.time()))
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
    nonce = refused.headers["dpop-nonce"]
    proof = machine.key.prove("POST", target, now=time.time(), nonce=nonce)
    assert error(await machine.poll(began["device_code"], proof=proof)) == "authorization_pending"
    replayed = await machine.poll(began["device_code"], proof=proof)
    assert replayed.status_code == 401
    assert "invalid_dpop_proof" in replayed.headers["www-authenticate"]


async def test_wrong_and_foreign_codes_are_told_apart_from_nothing(api: RunningApi) -> None:
    machine = Machine(api)
    began = await machine.device()
    id_ = began["device_code"].partition(".")[0]
    assert error(await machine.poll(f"{id_}.{'A' * 43}")) == "invalid_grant"
    for code in ("", "x", "." * 70, f"{'a' * 26}.{'A' * 43}"):
        assert error(await machine.poll(code)) == "expired_token"
    assert error(await machine.exchange(began["device_code"])) == "invalid_grant"


# --- by the machine's own browser ----------------------------------------------------------------------------------


def code_of(redirect: str) -> str:
    parts = urlsplit(redirect)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == REDIRECT
    query = parse_qs(parts.query)
    assert query["state"] == [STATE]
    return query["code"][0]


async def test_the_browser_is_sent_back_with_a_code(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.loopback()
    assert began["authorization_uri"] == f"{ORIGIN}/pair?request={began['request']}"
    shown = (await look(ann, began["request"])).json()
    assert shown["kind"] == "loopback"
    assert shown["user_code"] is None
    granted = (await decide(ann, began["request"])).json()
    code = code_of(granted["redirect_to"])
    paired = of(await machine.exchange(code), api.owner, machine)
    assert error(await machine.exchange(code)) == "expired_token", "expected a code to be used once"
    async with api.bridge(paired):
        pass


async def test_a_denied_browser_is_sent_back_without_one(api: RunningApi, ann: httpx.AsyncClient) -> None:
    began = await Machine(api).loopback()
    answer = (await decide(ann, began["request"], "deny")).json()
    assert answer["redirect_to"] == f"{REDIRECT}?error=access_denied&state={STATE}"


async def test_a_wrong_verifier_costs_the_code(api: RunningApi, ann: httpx.AsyncClient) -> None:
    machine = Machine(api)
    began = await machine.loopback()
    code = code_of((await decide(ann, began["request"])).json()["redirect_to"])
    assert error(await Machine(api).exchange(code)) == "invalid_grant", "expected another key to get nothing"
    assert error(await machine.exchange(code, "x" * 43)) == "invalid_grant"
    assert error(await machine.exchange(code)) == "expired_token"
    assert (await ann.get("/api/bridge")).json() == []


async def test_before_the_click_there_is_no_code(api: RunningApi) -> None:
    machine = Machine(api)
    began = await machine.loopback()
    for secret in ("", "A" * 43):
        assert error(await machine.exchange(f"{began['request']}.{secret}")) in ("invalid_grant", "expired_token")


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:5000/callback", "http://127.0.0.1/callback", "http://evil.example:5000/callback",
        "http://127.0.0.1.evil.example:5000/cb", "http://127.0.0.1@evil.example:5000/cb", "http://2130706433:5000/cb",
        "http://127.0.0.2:5000/callback", "http://127.0.0.1:5000/callback?x=1", "http://127.0.0.1:5000/callback#x",
        "http://127.0.0.1:5000", "http://127.0.0.1:0/cb", "http://127.0.0.1:5000//evil.example/%2e%2e",
        "javascript:0",
        "http://localhost.:5000/cb", "http://u:p@127.0.0.1:5000/cb", "http://[::2]:5000/cb", "http://127.1:5000/cb",
        "http://127.0.0.1:05000/cb", "HTTP://127.0.0.1:5000/cb", "http://127.0.0.1\\@evil.example:5000/cb", "http://[",
    ],
)  # fmt: skip
async def test_only_this_machine_is_sent_back_to(api: RunningApi, uri: str) -> None:
    response = await Machine(api).ask("loopback", redirect_uri=uri, code_challenge="A" * 43, state=STATE)
    assert problem(response) == (400, "bad-request")
    assert "evil" not in response.text


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_loopback_is_loopback(host: str) -> None:
    assert pairing.is_loopback(f"http://{host}:5000/callback")


# --- without a person ----------------------------------------------------------------------------------------------


async def test_an_api_key_pairs_a_machine_of_its_user(api: RunningApi) -> None:
    person, key = api.person(), ProofKey.generate()
    async with api.client(**person.headers) as client:
        response = await client.post("/api/bridge", json={"name": "Server", "jwk": key.public_jwk()})
        assert response.status_code == 201
        assert response.headers["cache-control"] == "no-store"
        value = response.json()
        paired = Paired(value["bridge_id"], person.id, value["credential"], key)
        async with api.bridge(paired):
            assert [bridge["id"] for bridge in (await client.get("/api/bridge")).json()] == [paired.id]
        assert problem(await client.post("/api/bridge", json={"name": "Server"})) == (400, "bad-request")
    async with api.client() as nobody:
        body = {"name": "Server", "jwk": key.public_jwk()}
        assert problem(await nobody.post("/api/bridge", json=body)) == (401, "unauthenticated")


# --- what a credential is worth ---------------------------------------------------------------------------------


async def refused(api: RunningApi, headers: dict[str, str]) -> str:
    """Dial the control connection and return what the refusal's challenge says."""
    with pytest.raises(InvalidStatus) as caught:
        async with api.dial(Paired("", "", "", ProofKey.generate()), additional_headers=headers):
            pass
    response = caught.value.response
    assert response.status_code == 401
    assert response.headers["DPoP-Nonce"]
    return response.headers["WWW-Authenticate"]


async def test_a_credential_without_its_key_opens_nothing(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    thief = Paired(paired.id, paired.user, paired.credential, ProofKey.generate())
    assert "invalid_dpop_proof" in await refused(api, thief.headers("/ws/bridge", api.nonce()))
    assert "invalid_token" in await refused(api, {"authorization": f"Bearer {paired.credential}"})
    assert "invalid_dpop_proof" in await refused(api, {"authorization": f"DPoP {paired.credential}"})
    seen = paired.headers("/ws/tunnel", api.nonce())
    assert "invalid_dpop_proof" in await refused(api, seen), "expected a proof for the tunnel to open the tunnel only"
    another = await api.pair(api.owner)
    mixed = {"authorization": f"DPoP {another.credential}", "dpop": paired.headers("/ws/bridge", api.nonce())["dpop"]}
    assert "invalid_dpop_proof" in await refused(api, mixed)


async def test_a_proof_is_taken_once_and_must_be_fresh(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    headers = paired.headers("/ws/bridge", api.nonce())
    async with api.dial(paired, additional_headers=headers):
        pass
    assert "invalid_dpop_proof" in await refused(api, headers), "expected a proof that was seen to be worth nothing"
    assert "use_dpop_nonce" in await refused(api, paired.headers("/ws/bridge"))


async def test_the_tunnel_asks_the_same(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    good = paired.headers("/ws/tunnel", api.nonce())
    assert (await api.authorize("GET", "/ws/tunnel", good)).status_code == 200
    again = await api.authorize("GET", "/ws/tunnel", good)
    assert again.status_code == 401
    assert "invalid_dpop_proof" in again.headers["www-authenticate"]
    stale = await api.authorize("GET", "/ws/tunnel", paired.headers("/ws/tunnel"))
    assert "use_dpop_nonce" in stale.headers["www-authenticate"]
    proof = paired.headers("/ws/tunnel", stale.headers["c2l-dpop-nonce"])
    assert (await api.authorize("GET", "/ws/tunnel", proof)).status_code == 200
    elsewhere = {
        **question("GET", "/ws/tunnel", paired.headers("/ws/tunnel", api.nonce())),
        "x-original-host": "evil.example",
    }
    async with api.client() as client:
        # The proof names the address that people use, so it holds whatever a front calls this machine ...
        assert (await client.get("/internal/authorize", headers=elsewhere)).status_code == 200
        text = paired.key.prove(
            "GET", "http://evil.example/ws/tunnel", now=time.time(), nonce=api.nonce(), credential=paired.credential
        )
        # ... and one that was made for another server does not hold here.
        answer = await api.authorize(
            "GET", "/ws/tunnel", {"authorization": f"DPoP {paired.credential}", "dpop": text}
        )
        assert answer.status_code == 401


async def test_the_tunnel_ends_with_the_credential(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    answer = await api.authorize("GET", "/ws/tunnel", paired.headers("/ws/tunnel", api.nonce()))
    part = answer.headers["c2l-assertion"].split(".")[1]
    value = json.loads(base64.urlsafe_b64decode(part + "=="))
    assert value["unt"] == credentials.verify(api.ring, paired.credential, now=time.time()).expires


async def test_an_expired_credential_is_refused(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    text, _ = credentials.issue(
        api.ring,
        bridge=paired.id,
        user=api.owner,
        thumbprint=paired.key.thumbprint,
        now=time.time() - 60,
        lifetime=50,
    )
    old = Paired(paired.id, api.owner, text, paired.key)
    assert "invalid_token" in await refused(api, old.headers("/ws/bridge", api.nonce()))


async def test_a_connection_ends_with_its_credential(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    text, _ = credentials.issue(
        api.ring, bridge=paired.id, user=api.owner, thumbprint=paired.key.thumbprint, now=time.time(), lifetime=1
    )
    async with api.bridge(Paired(paired.id, api.owner, text, paired.key)) as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await received(socket)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008


# --- renewal ------------------------------------------------------------------------------------------------------


async def test_renewal_gives_the_same_bridge_a_new_credential(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    async with api.client() as client:
        target = "/api/bridge/credential"
        headers = paired.headers(target, api.nonce(), method="POST")
        response = await client.post(target, headers=headers)
        assert response.status_code == 200, response.text
        renewed = of(response, api.owner, Machine(api, paired.key))
        assert renewed.id == paired.id
        assert response.headers["dpop-nonce"]
        assert response.headers["cache-control"] == "no-store"
        assert problem(await client.post(target, headers=headers)) == (401, "unauthenticated")
        assert problem(await client.post(target, headers=api.person().headers)) == (401, "unauthenticated")
    async with api.bridge(renewed):
        known = await api.registry.find(api.owner, paired.id)
        assert known is not None
        assert known.record.expires == response.json()["expires"]


# --- revocation ------------------------------------------------------------------------------------------------


async def test_a_revoked_bridge_is_cut_and_stays_out(api: RunningApi, ann: httpx.AsyncClient) -> None:
    paired = await api.pair(api.owner)
    async with api.bridge(paired) as socket:
        began = time.monotonic()
        assert (await ann.delete(f"/api/bridge/{paired.id}", headers=MARK)).status_code == 204
        assert isinstance(await received(socket), Revoked)
        assert time.monotonic() - began < 2.0
    assert api.manager.asked.count(("POST", f"/v1/instances/{api.owner}/disconnect")) == 1
    assert "revoked" in await refused(api, paired.headers("/ws/bridge", api.nonce()))
    answer = await api.authorize("GET", "/ws/tunnel", paired.headers("/ws/tunnel", api.nonce()))
    assert answer.status_code == 401
    assert "revoked" in answer.headers["www-authenticate"]
    thief = Paired(paired.id, paired.user, paired.credential, ProofKey.generate())
    assert "revoked" not in await refused(api, thief.headers("/ws/bridge", api.nonce())), (
        "expected no word to strangers"
    )
    async with api.client() as client:
        target = "/api/bridge/credential"
        response = await client.post(target, headers=paired.headers(target, api.nonce(), method="POST"))
        assert problem(response) == (401, "unauthenticated")
    assert (await ann.get("/api/bridge")).json() == []


async def test_nobody_revokes_anothers_bridge(api: RunningApi, bob: httpx.AsyncClient) -> None:
    paired = await api.pair(api.owner)
    async with api.bridge(paired) as socket:
        assert problem(await bob.delete(f"/api/bridge/{paired.id}", headers=MARK)) == (404, "not-found")
        await socket.send(control.encode(control.Presence(())))
        with pytest.raises(TimeoutError):
            await received(socket, 0.3)
    assert not any("disconnect" in target for _, target in api.manager.asked)


async def test_a_bridge_may_take_leave(api: RunningApi) -> None:
    paired, other = await api.pair(api.owner), await api.pair(api.owner)
    target = "/api/bridge/credential"
    async with api.client() as client:
        headers = paired.headers(target, api.nonce(), method="DELETE")
        assert (await client.delete(target, headers=headers)).status_code == 204
    assert "revoked" in await refused(api, paired.headers("/ws/bridge", api.nonce()))
    async with api.bridge(other):
        pass
