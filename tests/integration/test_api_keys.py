"""API keys made and revoked by a running API, and what bridges are told of them."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.api_parts import MARK, ORIGIN, RunningApi, problem, received, running_api

from cloudtolocalllm.api.routes.keys import MADE_PER_HOUR
from cloudtolocalllm.auth import assertion
from cloudtolocalllm.auth.assertion import Assertion
from cloudtolocalllm.auth.keys import DAY, KeyScope, KeyVerifier
from cloudtolocalllm.contracts.authorize import ASSERTION
from cloudtolocalllm.contracts.control import KeyAdded, KeyRevoked, Wake
from cloudtolocalllm.runtime.clock import SystemClock

LIMITED = {
    "name": "Phone",
    "days": 7,
    "routes": ["/v1/"],
    "models": ["llama*"],
    "requests_per_minute": 5,
    "tokens_per_day": 1000,
}


async def claims_of(api: RunningApi, headers: dict[str, str], uri: str = "/v1/chat/completions") -> Assertion:
    """What the proxy is told of a request."""
    answer = await api.authorize("POST", uri, headers)
    assert answer.status_code == 200, answer.headers
    (instance,) = api.manager.instances.values()
    return assertion.verify(
        answer.headers[ASSERTION.decode()],
        bytes.fromhex(instance["key"]),
        instance=instance["id"],
        kind=assertion.CLIENT,
        now=time.time(),
    )


async def test_a_key_is_made_used_and_revoked(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        user = api.person().id
        paired = await api.pair(user)
        async with await api.sign_in(user) as browser, api.bridge(paired) as bridge:
            made = await browser.post("/api/auth/keys", json={**LIMITED, "bridge": paired.id}, headers=MARK)
            assert made.status_code == 201, made.text
            assert made.headers["cache-control"] == "no-store"
            key = made.json()
            assert key["expires"] - key["created"] == 7 * DAY
            claims = KeyVerifier(api.ring, SystemClock()).verify(key["key"])
            assert claims is not None
            assert (claims.user, claims.id) == (user, key["id"])
            assert claims.scope == KeyScope(("/v1/",), ("llama*",), 5, 1000, paired.id)

            told = await received(bridge)
            assert isinstance(told, KeyAdded)
            assert (told.key_id, told.name) == (key["id"], "Phone")
            assert json.loads(told.scope) == {
                "rts": ["/v1/"], "mdl": ["llama*"], "rpm": 5, "tpd": 1000, "brg": paired.id,
                "iat": claims.issued, "exp": claims.expires,
            }  # fmt: skip

            bearer = {"authorization": f"Bearer {key['key']}"}
            said = await claims_of(api, bearer)
            assert (said.via, said.subject, said.key_requests_per_minute) == ("key", key["id"], 5)
            assert json.loads(said.scope) == json.loads(told.scope)
            assert said.limits == api.settings.user_limits
            assert (await api.authorize("POST", "/v1/x", {"x-api-key": key["key"]})).status_code == 200
            refused = await api.authorize("POST", "/ollama/api/chat", bearer)
            assert (refused.status_code, refused.headers["c2l-problem"]) == (403, "key-scope")

            gone = await browser.delete(f"/api/auth/keys/{key['id']}", headers=MARK)
            assert gone.status_code == 204
            while isinstance(heard := await received(bridge), Wake):
                pass
            assert heard == KeyRevoked(key["id"])
            assert (await api.authorize("POST", "/v1/x", bearer)).status_code == 401


async def test_a_session_is_told_as_one(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        user = api.person().id
        async with await api.sign_in(user) as browser, api.bridge(await api.pair(user)):
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            said = await claims_of(api, {"cookie": cookie, "origin": ORIGIN, **MARK}, "/v1/models")
            assert (said.via, said.scope, said.key_requests_per_minute) == ("session", "", 0)
            assert said.limits == api.settings.user_limits


async def test_a_bridge_that_was_away_learns_what_was_revoked(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        alice, bob = api.person(), api.person()
        mine, other = await api.pair(alice.id), await api.pair(bob.id)
        await api.revoke_key(alice)
        await asyncio.sleep(1.5)
        async with api.bridge(mine) as bridge, api.bridge(other) as stranger:
            assert await received(bridge) == KeyRevoked(alice.key_id)
            with pytest.raises(TimeoutError):
                await received(stranger, 0.2)


async def test_nobody_revokes_anothers_key(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        alice, bob = api.person(), api.person()
        async with await api.sign_in(bob.id) as browser, api.bridge(await api.pair(alice.id)) as bridge:
            assert (await browser.delete(f"/api/auth/keys/{alice.key_id}", headers=MARK)).status_code == 204
            with pytest.raises(TimeoutError):
                await received(bridge, 0.2)
            assert (await api.authorize("POST", "/v1/x", alice.headers)).status_code == 200


async def test_a_key_for_anothers_bridge_is_not_made(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        alice, bob = api.person(), api.person()
        paired = await api.pair(alice.id)
        async with await api.sign_in(bob.id) as browser:
            answer = await browser.post("/api/auth/keys", json={"name": "x", "bridge": paired.id}, headers=MARK)
            assert problem(answer) == (400, "bad-request")
        # Nor does one that somebody made by himself open it.
        stolen = api.key_of(bob.id, KeyScope(bridge=paired.id))
        answer = await api.authorize("POST", "/v1/x", stolen.headers)
        assert answer.headers["c2l-problem"] in ("key-scope", "no-bridge-paired")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "days": 0},
        {"name": "x", "days": 367},
        {"name": "x", "days": 1.5},
        {"name": "x", "routes": ["/api/"]},
        {"name": "x", "routes": ["/v1/../"]},
        {"name": "x", "routes": ["/v1/"] * 17},
        {"name": "x", "models": ["[a]"]},
        {"name": "x", "models": ["m" * 200]},
        {"name": "x", "models": ["a" * 100] * 12},
        {"name": "x", "requests_per_minute": 0},
        {"name": "x", "tokens_per_day": -5},
        {"name": "x", "tokens_per_day": 10**13},
        {"name": "x", "bridge": "a b"},
        {"name": "x", "bridge": "k2qxv7hd4m3a"},
        {"name": "x", "user": "u_other"},
    ],
)
async def test_a_malformed_request_makes_no_key(tmp_path: Path, body: dict[str, Any]) -> None:
    async with running_api(tmp_path) as api, await api.sign_in(api.person().id) as browser:
        answer = await browser.post("/api/auth/keys", json=body, headers=MARK)
        assert problem(answer) == (400, "bad-request")


async def test_creations_are_counted_exactly_also_at_once(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        async with await api.sign_in(api.person().id) as browser:
            asked = [
                browser.post("/api/auth/keys", json={"name": "x"}, headers=MARK) for _ in range(MADE_PER_HOUR + 15)
            ]
            answers = await asyncio.gather(*asked)
            assert [answer.status_code for answer in answers].count(201) == MADE_PER_HOUR
            refused = [answer for answer in answers if answer.status_code != 201]
            assert {problem(answer) for answer in refused} == {(429, "rate-limited")}
            assert all(1 <= int(answer.headers["retry-after"]) <= 3600 for answer in refused)
        async with await api.sign_in(api.person().id) as other:
            assert (await other.post("/api/auth/keys", json={"name": "x"}, headers=MARK)).status_code == 201


async def test_only_our_page_with_a_session_makes_and_revokes_keys(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        person = api.person()
        target = f"/api/auth/keys/{person.key_id}"
        async with api.client(**person.headers) as client:
            assert problem(await client.post("/api/auth/keys", json={"name": "x"})) == (403, "forbidden")
            assert problem(await client.delete(target)) == (403, "forbidden")
        async with api.client() as nobody:
            assert problem(await nobody.post("/api/auth/keys", json={"name": "x"}, headers=MARK))[0] == 401
            assert problem(await nobody.delete(target, headers=MARK))[0] == 401
        async with await api.sign_in(person.id) as browser:
            assert problem(await browser.post("/api/auth/keys", json={"name": "x"})) == (403, "forbidden")
            assert problem(await browser.delete(target)) == (403, "forbidden")
            elsewhere = {**MARK, "origin": "https://evil.example"}
            assert problem(await browser.delete(target, headers=elsewhere)) == (403, "forbidden")
        assert (await api.authorize("POST", "/v1/x", person.headers)).headers["c2l-problem"] == "no-bridge-paired"


@pytest.mark.parametrize("id_", ["x", "A" * 12, "a" * 13, "..", "3fomfi6a5lv%0a"])
async def test_what_is_no_id_revokes_nothing(tmp_path: Path, id_: str) -> None:
    async with running_api(tmp_path) as api, await api.sign_in(api.person().id) as browser:
        answer = await browser.delete(f"/api/auth/keys/{id_}", headers=MARK)
        assert answer.status_code in (400, 404, 405)
        assert await api.state.members("revoked") == [{}]


@pytest.mark.parametrize(
    "scope",
    [
        KeyScope(routes=("/v1/",)),
        KeyScope(models=("a",)),
        KeyScope(requests_per_minute=9),
        KeyScope(tokens_per_day=9),
        KeyScope(bridge="k2qxv7hd4m3a"),
    ],
)
async def test_a_limited_key_pairs_no_machine(tmp_path: Path, scope: KeyScope) -> None:
    async with running_api(tmp_path) as api:
        person = api.person(scope)
        async with api.client(**person.headers) as client:
            assert problem(await client.post("/api/bridge", json={"name": "mine"})) == (403, "key-scope")
            status = await client.get("/api/streaming/status")
            assert status.status_code == (403 if scope.routes else 200)


async def test_nothing_of_a_key_is_kept_by_the_cloud(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        user = api.person().id
        async with await api.sign_in(user) as browser, api.bridge(await api.pair(user)):
            body = {"name": "Marzipan", "models": ["nougat*"]}
            key = (await browser.post("/api/auth/keys", json=body, headers=MARK)).json()
            await browser.delete(f"/api/auth/keys/{key['id']}", headers=MARK)
            await asyncio.sleep(0.1)
    held = b"".join(path.read_bytes() for path in (tmp_path / "cloud").rglob("*") if path.is_file())
    assert key["id"].encode() in held, "that it is revoked"
    for secret in (b"Marzipan", b"nougat", key["key"].encode(), key["key"].split(".")[2].encode()):
        assert secret not in held
