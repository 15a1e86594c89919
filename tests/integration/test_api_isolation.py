"""Nobody gets at what is another user's: by every route of the OpenAPI document, or this test fails.

Alice has a connected bridge, a session, a key, a proxy and a pairing that waits. Bob, who is somebody too, and a
stranger try each route on what is Alice's. `ATTEMPTS` says what comes of it; a route that is not in it fails.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.api_parts import MARK, Paired, Person, RunningApi, running_api

from cloudtolocalllm.api.app import build_app
from cloudtolocalllm.api.secrets import load_sealing_keys
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.sessions import COOKIE, Sealer, Session, new_sealing_key

DOCUMENT = build_app(None).openapi()
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
SECURED = [name for name, (_, _, operation) in OPERATIONS.items() if "security" in operation]
SESSION_ONLY = [name for name in SECURED if OPERATIONS[name][2]["security"] == [{"session": []}]]
NAME = "alices-own-desktop"


@dataclass
class Alice:
    """What is hers."""

    person: Person
    bridge: Paired
    session: httpx.AsyncClient
    device_code: str
    user_code: str

    def secrets(self) -> list[str]:
        """Return what no answer to Bob may hold."""
        return [self.person.id, self.bridge.id, NAME, self.person.key_id]

    def fill(self, path: str) -> str:
        """Put her ids into a path."""
        return path.format(
            bridge_id=self.bridge.id, id=self.person.key_id, user=self.person.id, reference=self.user_code
        )


@dataclass(frozen=True)
class Attempt:
    """What somebody else gets."""

    statuses: set[int]
    body: dict[str, Any] | None = None
    why: str = field(default="", compare=False)
    """Why a success does no harm."""


ATTEMPTS: dict[str, Attempt] = {
    "auth_sign_in": Attempt({401}, {"token": "A" * 43}),
    "auth_oidc_start": Attempt({302, 404}, why="it begins a sign-in of whoever asks"),
    "auth_oidc_callback": Attempt({302, 404}, why="without the asker's own cookie it ends in an error"),
    "auth_session": Attempt({200}, why="it tells of the asker's own session"),
    "auth_sign_out": Attempt({200, 204}, why="it ends the asker's own session"),
    "auth_oidc_back_channel_logout": Attempt({400, 404}),
    "keys_create": Attempt({201}, {"name": "bob's", "days": 7}, why="it is the asker's"),
    "keys_revoke": Attempt({204, 404}, why="ids are taken as the asker's own"),
    "pairing_begin_device": Attempt(
        {200}, {"name": "x", "version": "1", "jwk": ProofKey.generate().public_jwk()}, why="it is nobody's yet"
    ),
    "pairing_begin_loopback": Attempt({200, 400}, why="it is nobody's yet"),
    "pairing_look": Attempt({200}, why="whoever has the code may look: it is the secret of the request"),
    "pairing_approve": Attempt({200}, {}, why="whoever has the code gets the machine, not what is Alice's"),
    "pairing_deny": Attempt({200, 404}, {}, why="whoever has the code may refuse the machine"),
    "pairing_token": Attempt({400, 401}),
    "bridge_list_bridges": Attempt({200}, why="it lists the asker's own"),
    "bridge_create_bridge": Attempt(
        {201}, {"name": "bob's", "jwk": ProofKey.generate().public_jwk()}, why="it is the asker's"
    ),
    "bridge_renew_credential": Attempt({401}),
    "bridge_return_credential": Attempt({401}),
    "bridge_rename_bridge": Attempt({404}, {"name": "mine now"}),
    "bridge_delete_bridge": Attempt({404}),
    "streaming_status": Attempt({200}, why="it tells of the asker's own machines"),
    "streaming_events": Attempt({200}, why="it tells of the asker's own machines"),
    "streaming_remove_proxy": Attempt({204}, why="it removes the asker's own"),
    "admin_overview": Attempt({403}),
    "admin_audit": Attempt({403}),
    "admin_sign_out_user": Attempt({403}, {}),
    "admin_block_user": Attempt({403}, {}),
    "admin_unblock_user": Attempt({403}, {}),
    "health_healthz": Attempt({200}, why="it is public"),
    "health_readyz": Attempt({200}, why="it is public"),
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


@pytest.fixture
async def alice(api: RunningApi) -> AsyncIterator[Alice]:
    person = api.person()
    paired = await api.pair(person.id, NAME)
    session = await api.sign_in(person.id)
    async with api.client() as client:
        began = await client.post(
            "/api/bridge/pairing/device",
            json={"name": "waiting", "version": "1", "jwk": ProofKey.generate().public_jwk()},
        )
    assert began.status_code == 200, began.text
    async with api.bridge(paired, name=NAME), session:
        assert (await api.authorize("POST", "/v1/chat/completions", person.headers)).status_code == 200
        yield Alice(person, paired, session, began.json()["device_code"], began.json()["user_code"])


async def send(client: httpx.AsyncClient, name: str, alice: Alice, headers: dict[str, str]) -> tuple[int, str]:
    """Ask as the operation's document says; of an event stream, only the first event is read."""
    method, path, _ = OPERATIONS[name]
    body = ATTEMPTS[name].body
    async with client.stream(method, alice.fill(path), json=body, headers=headers) as response:
        if "event-stream" not in response.headers.get("content-type", ""):
            return response.status_code, (await response.aread()).decode()
        seen = ""
        async for text in response.aiter_text():
            seen += text
            if "data:" in seen:
                break
        return response.status_code, seen


async def nothing_happened(api: RunningApi, alice: Alice) -> None:
    """Check that all of Alice's is as it was."""
    assert (await alice.session.get("/api/auth/session")).json()["user"] == alice.person.id
    (bridge,) = (await alice.session.get("/api/bridge")).json()
    assert (bridge["id"], bridge["name"], bridge["connected"]) == (alice.bridge.id, NAME, True)
    answer = await api.authorize("POST", "/v1/chat/completions", alice.person.headers)
    assert answer.status_code == 200
    assert api.manager.instances[alice.person.id]["id"]
    assert not [target for method, target in api.manager.asked if method == "DELETE" and alice.person.id in target]


def test_every_route_has_an_attempt() -> None:
    assert set(ATTEMPTS) == set(OPERATIONS)
    assert [name for name, attempt in ATTEMPTS.items() if min(attempt.statuses) < 300 and not attempt.why] == []


@pytest.mark.parametrize("name", OPERATIONS)
async def test_another_user_gets_at_nothing(api: RunningApi, alice: Alice, name: str) -> None:
    before = api.manager.instances[alice.person.id]["id"]
    bob = api.person()
    async with await api.sign_in(bob.id) as client:
        status, text = await send(client, name, alice, MARK)
        assert status in ATTEMPTS[name].statuses, text
        assert [secret for secret in alice.secrets() if secret in text] == []
    await nothing_happened(api, alice)
    assert api.manager.instances[alice.person.id]["id"] == before


async def test_a_strangers_request_is_refused(api: RunningApi, alice: Alice) -> None:
    async with api.client() as client:
        for name in SECURED:
            for headers in ({}, MARK, {"authorization": "Bearer c2l_nonsense"}, {"x-api-key": alice.person.key[:-8]}):
                status, text = await send(client, name, alice, headers)
                assert status == 401, (name, text)
    await nothing_happened(api, alice)


async def test_an_api_key_does_not_stand_for_a_session(api: RunningApi, alice: Alice) -> None:
    async with api.client() as client:
        for name in SESSION_ONLY:
            status, text = await send(client, name, alice, alice.person.headers)
            assert status == 403, (name, text)
    await nothing_happened(api, alice)


async def test_another_sites_page_gets_nothing_done(api: RunningApi, alice: Alice) -> None:
    """With Alice's own cookie: her browser sends it."""
    for name in SECURED:
        if OPERATIONS[name][0] in ("GET", "HEAD"):
            continue
        expected = 401 if OPERATIONS[name][2]["security"] == [{"bridge": []}] else 403
        for headers in (
            {},
            {**MARK, "origin": "https://evil.test"},
            {**MARK, "sec-fetch-site": "cross-site"},
            {**MARK, "sec-fetch-site": "same-site"},
        ):
            status, text = await send(alice.session, name, alice, headers)
            assert status == expected, (name, text)
    await nothing_happened(api, alice)


async def test_an_expired_or_foreign_session_is_none(api: RunningApi, alice: Alice) -> None:
    now = int(time.time())
    ours = Sealer(load_sealing_keys(api.settings.secrets_dir))
    cookies = [
        ours.seal(Session(alice.person.id, "s_expired", now - 100, now - 1)),
        Sealer((new_sealing_key(),)).seal(Session(alice.person.id, "s_foreign", now, now + 600)),
        "nonsense",
    ]
    async with api.client() as client:
        for name in SECURED:
            for cookie in cookies:
                status, text = await send(client, name, alice, {**MARK, "cookie": f"{COOKIE}={cookie}"})
                assert status == 401, (name, text)


async def test_the_data_path_leads_to_ones_own_bridges_only(api: RunningApi, alice: Alice) -> None:
    bob = api.person()
    answer = await api.authorize("POST", "/v1/chat/completions", bob.headers)
    assert answer.headers["c2l-problem"] == "no-bridge-paired"
    await api.pair(bob.id, "bob's")
    answer = await api.authorize("POST", "/v1/chat/completions", bob.headers)
    assert answer.headers["c2l-problem"] == "bridge-offline"
    answer = await api.authorize("GET", "/ws/tunnel", {**bob.headers})
    assert answer.status_code in (401, 403)
    stolen = Paired(alice.bridge.id, alice.person.id, alice.bridge.credential, ProofKey.generate())
    answer = await api.authorize("GET", "/ws/tunnel", stolen.headers("/ws/tunnel", api.nonce()))
    assert answer.status_code == 401
