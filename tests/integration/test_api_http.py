import asyncio
import re
import secrets
import socket
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import HOST, MARK, ORIGIN, Paired, RunningApi, engine, problem, running_api
from tests.support.eventually import eventually

from cloudtolocalllm.api.app import build_app
from cloudtolocalllm.api.secrets import load_sealing_keys
from cloudtolocalllm.api.service import ListenError, serve
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.sessions import Sealer, Session
from cloudtolocalllm.contracts.control import EngineState, Presence, encode


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


def mode_of(path: str) -> int | None:
    """Return a file's mode, None when there is none."""
    file = Path(path)
    return stat.S_IMODE(file.stat().st_mode) if file.exists() else None


async def test_the_socket_is_the_owners_alone_and_goes_with_the_service(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        assert mode_of(api.socket) == 0o600
        async with api.client() as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert mode_of(api.socket) is None


async def test_a_second_service_is_told_and_a_dead_ones_socket_is_replaced(tmp_path: Path) -> None:
    stale = tmp_path / "run" / "a.sock"
    stale.parent.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(stale))
    dead.close()
    async with running_api(tmp_path) as api:
        with pytest.raises(ListenError, match="another process"):
            await serve(api.settings, asyncio.Event())
        async with api.client() as client:
            assert (await client.get("/healthz")).status_code == 200


async def test_it_is_ready_when_the_manager_answers(api: RunningApi) -> None:
    async with api.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready", "manager": True}
        api.manager.ready = False  # it answers, but can make no proxy yet
        assert (await client.get("/readyz")).status_code == 503
        api.manager.ready, api.manager.broken = True, True
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "not-ready", "manager": False})


async def test_a_link_signs_in_once_and_sign_out_ends_the_session_everywhere(api: RunningApi) -> None:
    token = await api.sign_in_token(api.owner)
    async with api.client() as client, api.client() as copy:
        assert (await client.get("/api/auth/session")).json()["signed_in"] is False
        response = await client.post("/api/auth/sign-in", json={"token": token})
        assert response.status_code == 204
        cookie = response.headers["set-cookie"]
        assert cookie.startswith("c2l_session=")
        assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
            "httponly", "max-age=2592000", "path=/", "samesite=strict",
        }  # fmt: skip
        session = (await client.get("/api/auth/session")).json()
        assert (session["signed_in"], session["user"]) == (True, api.owner)
        assert problem(await client.post("/api/auth/sign-in", json={"token": token})) == (401, "unauthenticated")
        copy.cookies.update(client.cookies)
        assert (await client.post("/api/auth/sign-out", headers=MARK)).status_code == 200
        assert "c2l_session" not in client.cookies
        assert (await copy.get("/api/auth/session")).json()["signed_in"] is False
        assert problem(await copy.get("/api/bridge")) == (401, "unauthenticated")


async def test_on_https_the_cookie_is_secure_and_host_bound(tmp_path: Path) -> None:
    async with running_api(tmp_path, public_url="https://app.example.org") as api:
        token = await api.sign_in_token(api.owner)
        async with api.client(host="app.example.org") as client:
            response = await client.post("/api/auth/sign-in", json={"token": token})
        cookie = response.headers["set-cookie"]
        assert cookie.startswith("__Host-c2l_session=")
        assert "secure" in cookie.lower()
        assert "domain" not in cookie.lower()


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "A" * 200])
async def test_wrong_tokens_do_not_sign_in(api: RunningApi, token: str) -> None:
    async with api.client() as client:
        response = await client.post("/api/auth/sign-in", json={"token": token})
    assert problem(response) == (401, "unauthenticated")
    assert "set-cookie" not in response.headers


async def test_keys_are_made_used_and_revoked(api: RunningApi) -> None:
    async with await api.sign_in(api.owner) as client:
        made = await client.post("/api/auth/keys", json={"name": "Laptop"}, headers=MARK)
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        key = made.json()
        async with api.client(authorization=f"Bearer {key['key']}") as bearer:
            assert (await bearer.get("/api/bridge")).status_code == 200
            # a lost key must not be able to make more of them
            assert problem(await bearer.post("/api/auth/keys", json={"name": "x"})) == (403, "forbidden")
            assert problem(await bearer.delete(f"/api/auth/keys/{key['id']}")) == (403, "forbidden")
            gone = await client.delete(f"/api/auth/keys/{key['id']}", headers=MARK)
            assert gone.status_code == 204
            assert problem(await bearer.get("/api/bridge")) == (401, "unauthenticated"), "at once"


async def test_the_cloud_lists_no_keys(api: RunningApi) -> None:
    async with await api.sign_in(api.owner) as client:
        assert problem(await client.get("/api/auth/keys")) == (405, "method-not-allowed")


async def test_a_key_that_another_process_makes_holds_at_once_and_one_that_it_revokes_dies_soon(
    api: RunningApi,
) -> None:
    person = api.person()
    async with api.client(**person.headers) as client:
        assert (await client.get("/api/bridge")).status_code == 200
        await api.revoke_key(person)
        refused = await eventually(
            lambda: client.get("/api/bridge"), lambda response: response.status_code != 200, within=2
        )
        assert problem(refused) == (401, "unauthenticated")


BODIES: dict[str, object] = {
    "/api/auth/keys": {"name": "x"},
    "/api/bridge": {"name": "x", "jwk": ProofKey.generate().public_jwk()},
    "/api/bridge/{bridge_id}": {"name": "x"},
}
NOT_BY_SESSION = {
    ("POST", "/api/auth/sign-in"),  # has no session yet
    ("POST", "/api/auth/oidc/back-channel-logout"),  # the provider's, by a signed token
    ("POST", "/api/bridge/pairing/device"),  # a machine's, which grants nothing by itself
    ("POST", "/api/bridge/pairing/loopback"),
    ("POST", "/api/bridge/pairing/token"),  # a machine's, by its key
    ("POST", "/api/bridge/credential"),  # a bridge's, by its credential
    ("DELETE", "/api/bridge/credential"),
}


def state_changing() -> list[tuple[str, str]]:
    """Return every operation of the OpenAPI document that is no mere question."""
    paths = build_app(None).openapi()["paths"]
    return [(m.upper(), path) for path, item in paths.items() for m in item if m not in ("get", "head")]


BY_SESSION = [operation for operation in state_changing() if operation not in NOT_BY_SESSION]


def administrator(api: RunningApi) -> httpx.AsyncClient:
    """Return a client with the session of an administrator."""
    now = int(time.time())
    session = Session(api.owner, f"s_{secrets.token_hex(10)}", now, now + 60, admin=True)
    cookie = Sealer(load_sealing_keys(api.settings.secrets_dir)).seal(session)
    client = api.client()
    client.cookies.set("c2l_session", cookie)
    return client


def test_the_list_of_routes_that_no_session_opens_is_current() -> None:
    assert set(state_changing()) >= NOT_BY_SESSION
    assert len(BY_SESSION) >= 7


def target(path: str) -> str:
    """Return a path with ids that look right."""
    return re.sub(r"\{.*?\}", lambda found: "u_" + "a" * 20 if found[0] == "{user}" else "a" * 12, path)


async def test_with_a_session_another_sites_page_changes_nothing(api: RunningApi) -> None:
    for method, path in BY_SESSION:
        async with administrator(api) as client:
            for fields in (
                {},
                {**MARK, "origin": "https://evil.example"},
                {**MARK, "origin": "null"},
                {**MARK, "origin": "http://127.0.0.1:9999"},
                {**MARK, "sec-fetch-site": "cross-site"},
                {**MARK, "sec-fetch-site": "same-site"},
            ):
                response = await client.request(method, target(path), json=BODIES.get(path), headers=fields)
                assert problem(response) == (403, "forbidden"), (method, path, fields)
            good = {**MARK, "origin": ORIGIN, "sec-fetch-site": "same-origin"}
            response = await client.request(method, target(path), json=BODIES.get(path), headers=good)
            assert response.status_code in (200, 201, 204, 404), (method, path, response.text)


async def test_nobody_changes_anything(api: RunningApi) -> None:
    async with api.client() as client:
        for method, path in [*BY_SESSION, ("POST", "/api/bridge/credential"), ("DELETE", "/api/bridge/credential")]:
            response = await client.request(method, target(path), json=BODIES.get(path), headers=MARK)
            assert problem(response) == (401, "unauthenticated"), (method, path)


async def test_a_key_does_nothing_that_could_make_it_more(api: RunningApi) -> None:
    async with api.client(**api.key_of(api.owner).headers) as client:
        by_key = set()
        for method, path in BY_SESSION:
            response = await client.request(method, target(path), json=BODIES.get(path))
            if response.status_code != 403:
                by_key.add((method, path))
    assert by_key == {
        ("POST", "/api/bridge"),
        ("PATCH", "/api/bridge/{bridge_id}"),
        ("DELETE", "/api/bridge/{bridge_id}"),
        ("DELETE", "/api/streaming/proxy"),
    }


async def test_another_sites_page_cannot_sign_somebody_in(api: RunningApi) -> None:
    token = await api.sign_in_token(api.owner)
    async with api.client() as client:
        evil = await client.post(
            "/api/auth/sign-in", json={"token": token}, headers={"origin": "https://evil.example"}
        )
        assert problem(evil) == (403, "forbidden")
        assert (await client.post("/api/auth/sign-in", json={"token": token})).status_code == 204


async def test_no_answer_lets_another_origin_read_it(api: RunningApi) -> None:
    async with api.client(**api.person().headers, origin="https://evil.example") as client:
        response = await client.get("/api/bridge")
        preflight = await client.options("/api/bridge", headers={"access-control-request-method": "GET"})
    for answer in (response, preflight):
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("method", "path", "content", "expected"),
    [
        ("GET", "/api/nothing", b"", (404, "not-found")),
        ("GET", "/", b"", (404, "not-found")),
        ("PUT", "/api/bridge", b"", (405, "method-not-allowed")),
        ("POST", "/api/auth/sign-in", b"{", (400, "bad-request")),
        ("POST", "/api/auth/sign-in", b"{}", (400, "bad-request")),
        ("POST", "/api/auth/sign-in", b'{"token": 1}', (400, "bad-request")),
        ("POST", "/api/auth/sign-in", b'{"token": "x", "more": 1}', (400, "bad-request")),
        ("POST", "/api/auth/sign-in", b"\xff\xfe", (400, "bad-request")),
        ("POST", "/api/auth/sign-in", b"[" * 10_000, (400, "bad-request")),
        ("POST", "/api/auth/sign-in", b'"' + b"x" * 70_000 + b'"', (413, "too-large")),
        ("POST", "/api/bridge", b'{"name": ""}', (400, "bad-request")),
        ("POST", "/api/bridge", b'{"name": "   "}', (400, "bad-request")),
        ("POST", "/api/bridge", b'{"name": "' + b"x" * 101 + b'"}', (400, "bad-request")),
    ],
)
async def test_failures_are_problems(
    api: RunningApi, method: str, path: str, content: bytes, expected: tuple[int, str]
) -> None:
    async with api.client(**api.person().headers, **{"content-type": "application/json"}) as client:
        response = await client.request(method, path, content=content)
    assert problem(response) == expected
    assert "xxxx" not in response.text


async def test_a_form_is_no_json(api: RunningApi) -> None:
    async with api.client() as client:
        response = await client.post(
            "/api/auth/sign-in", content=b'{"token": "x"}', headers={"content-type": "text/plain"}
        )
    assert problem(response) == (400, "bad-request")


async def test_a_crash_shows_nothing(api: RunningApi) -> None:
    person = api.person()
    async with api.client(**person.headers) as client:
        await api.state.add(f"bridges/{person.id}", "damaged", b"hidden nonsense", 60)
        response = await client.get("/api/bridge")
        await api.state.remove(f"bridges/{person.id}", "damaged")
        assert problem(response) == (500, "internal")
        assert "hidden" not in response.text
        assert "damaged" not in response.text
        assert (await client.get("/api/bridge")).status_code == 200


async def test_while_the_state_does_not_answer_that_is_said_and_nothing_is_lost(api: RunningApi) -> None:
    person = api.person()
    paired = await api.pair(person.id)
    async with api.client(**person.headers) as client, api.bridge(paired) as socket:
        api.database.execute("ALTER TABLE members RENAME TO hidden")
        for ask in (client.get("/api/bridge"), client.get("/api/streaming/status")):
            response = await ask
            assert problem(response) == (503, "overloaded")
            assert response.headers["retry-after"] == "1"
            assert "hidden" not in response.text
        decided = await api.authorize("GET", "/v1/models", person.headers)
        assert (decided.status_code, decided.headers["c2l-problem"]) == (403, "overloaded")
        await asyncio.sleep(2.5)  # the tasks that look at it meet it too
        api.database.execute("ALTER TABLE hidden RENAME TO members")
        await (await socket.ping())
        assert (await client.get("/api/bridge")).json()[0]["connected"] is True
        assert (await api.authorize("GET", "/v1/models", person.headers)).status_code == 200


async def test_a_bridges_credential_is_no_key(api: RunningApi) -> None:
    paired = await api.pair(api.owner)
    for path in ("/api/bridge", "/api/streaming/status", "/api/streaming/events", "/api/admin/overview"):
        for fields in (
            {"authorization": f"Bearer {paired.credential}"},
            {"x-api-key": paired.credential},
            paired.headers(path, api.nonce()),
        ):
            async with api.client(**fields) as client:
                assert problem(await client.get(path)) == (401, "unauthenticated"), (path, fields)


async def test_ambiguous_credentials_are_refused(api: RunningApi) -> None:
    person = api.person()
    twice = [("authorization", f"Bearer {person.key}"), ("authorization", f"Bearer {person.key}")]
    async with api.client() as client:
        assert problem(await client.get("/api/bridge", headers=twice)) == (400, "bad-request")
        two = {"authorization": f"Bearer {person.key}", "x-api-key": "other"}
        assert problem(await client.get("/api/bridge", headers=two)) == (400, "bad-request")
        url = f"/api/bridge?key={person.key}&api_key={person.key}&access_token={person.key}"
        assert problem(await client.get(url)) == (401, "unauthenticated")


async def paired_by(client: httpx.AsyncClient, user: str) -> Paired:
    """Pair a machine by its user's key, as one without a person there is."""
    key = ProofKey.generate()
    made = await client.post("/api/bridge", json={"name": "Desktop", "jwk": key.public_jwk()})
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    return Paired(made.json()["bridge_id"], user, made.json()["credential"], key)


async def test_the_status_tells_what_stands_in_the_way(api: RunningApi) -> None:
    person = api.person()
    async with api.client(**person.headers) as client:

        async def state() -> str:
            return str((await client.get("/api/streaming/status")).json()["state"])

        assert await state() == "no-bridge"
        machine = await paired_by(client, person.id)
        assert await state() == "bridge-offline"
        async with api.bridge(machine, engine(EngineState.DOWN)) as socket:
            assert await state() == "engine-down"
            await socket.send(encode(Presence((engine(EngineState.LOADING),))))
            await eventually(state, lambda found: found == "loading")
            await socket.send(encode(Presence((engine(EngineState.UP),))))
            await eventually(state, lambda found: found == "ready")
            document = (await client.get("/api/streaming/status")).json()
            assert document["proxy"] is None
            assert document["bridges"][0]["name"] == "Desktop"
            assert document["bridges"][0]["engines"] == [{"id": "ollama", "kind": "ollama", "state": "up"}]
            assert (await api.authorize("POST", "/v1/x", person.headers)).status_code == 200
            assert (await client.get("/api/streaming/status")).json()["proxy"] == {"state": "ready"}
            assert (await client.delete("/api/streaming/proxy")).status_code == 204
            assert (await client.get("/api/streaming/status")).json()["proxy"] is None
            api.manager.broken = True
            assert (await client.get("/api/streaming/status")).json()["proxy"] == {"state": "unknown"}
        await eventually(state, lambda found: found == "bridge-offline")
        renamed = await client.patch(f"/api/bridge/{machine.id}", json={"name": "Tower"})
        assert renamed.json()["name"] == "Tower"
        await eventually(
            lambda: client.get("/api/bridge"), lambda response: response.json()[0]["last_seen"] is not None
        )
        assert (await client.delete(f"/api/bridge/{machine.id}")).status_code == 204
        assert await state() == "no-bridge"


async def test_one_line_is_logged_a_request_without_its_query(
    api: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    person = api.person()
    async with api.client(**person.headers) as client:
        await client.get(f"/api/bridge?secret={person.key}", headers={"x-request-id": "r-7"})
        await client.post("/api/auth/sign-in", json={"token": person.key[-100:]})
        await client.get("/api/bridge/pairing/requests/BCDF-GHJK", headers={"authorization": "Bearer x"})
        await client.get("/api/BCDF-GHJK")
    lines = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/api/bridge", 200),
        ("POST", "/api/auth/sign-in", 401),
        ("GET", "/api/bridge/pairing/requests/{reference}", 401),
        ("GET", None, 404),
    ]
    assert "BCDF-GHJK" not in str(lines), "the path itself may say anything"
    assert lines[0]["request_id"] == "r-7"
    assert person.key[-43:] not in str([vars(record) for record in caplog.records if record.name != "httpx"])


async def test_host_and_origin_are_compared_as_the_browser_sent_them(api: RunningApi) -> None:
    async with await api.sign_in(api.owner) as client:
        fields = {**MARK, "host": "localhost:8080", "origin": "http://localhost:8080"}
        assert (await client.post("/api/auth/keys", json={"name": "x"}, headers=fields)).status_code == 201
        fields["origin"] = f"http://{HOST}"
        assert problem(await client.post("/api/auth/keys", json={"name": "x"}, headers=fields)) == (403, "forbidden")
