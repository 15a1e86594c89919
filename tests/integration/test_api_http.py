import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import HOST, MARK, ORIGIN, RunningApi, engine, problem, running_api

from cloudtolocalllm.api.service import ListenError, serve
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
    token, _ = api.store.create_sign_in_link(api.store.owner())
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
        assert (session["signed_in"], session["user"]) == (True, api.store.owner())
        assert problem(await client.post("/api/auth/sign-in", json={"token": token})) == (401, "unauthenticated")
        copy.cookies.update(client.cookies)
        assert (await client.post("/api/auth/sign-out", headers=MARK)).status_code == 204
        assert "c2l_session" not in client.cookies
        assert (await copy.get("/api/auth/session")).json()["signed_in"] is False
        assert problem(await copy.get("/api/auth/keys")) == (401, "unauthenticated")


async def test_on_https_the_cookie_is_secure_and_host_bound(tmp_path: Path) -> None:
    async with running_api(tmp_path, public_url="https://app.example.org") as api:
        token, _ = api.store.create_sign_in_link(api.store.owner())
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


async def test_keys_are_made_listed_used_and_deleted(api: RunningApi) -> None:
    async with await api.sign_in(api.store.owner()) as client:
        made = await client.post("/api/auth/keys", json={"name": "Laptop"}, headers=MARK)
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        key = made.json()
        listed = (await client.get("/api/auth/keys")).json()
        assert [(k["id"], k["name"]) for k in listed] == [(key["id"], "Laptop")]
        assert key["key"] not in json.dumps(listed)
        async with api.client(authorization=f"Bearer {key['key']}") as bearer:
            assert (await bearer.get("/api/bridge")).status_code == 200
            # a lost key must not be able to make more of them
            assert problem(await bearer.get("/api/auth/keys")) == (403, "forbidden")
            assert problem(await bearer.post("/api/auth/keys", json={"name": "x"})) == (403, "forbidden")
            gone = await client.delete(f"/api/auth/keys/{key['id']}", headers=MARK)
            assert gone.status_code == 204
            assert problem(await bearer.get("/api/bridge")) == (401, "unauthenticated")
        assert problem(await client.delete(f"/api/auth/keys/{key['id']}", headers=MARK)) == (404, "not-found")


async def test_keys_that_another_process_makes_and_deletes_hold_at_once(api: RunningApi) -> None:
    person = api.person()
    async with api.client(**person.headers) as client:
        assert (await client.get("/api/bridge")).status_code == 200
        api.store.delete_key(person.id, person.key_id)
        assert problem(await client.get("/api/bridge")) == (401, "unauthenticated")


STATE_CHANGING = [
    ("POST", "/api/auth/sign-out", None),
    ("POST", "/api/auth/keys", {"name": "x"}),
    ("DELETE", "/api/auth/keys/x", None),
    ("POST", "/api/bridge", {"name": "x"}),
    ("PATCH", "/api/bridge/x", {"name": "x"}),
    ("DELETE", "/api/bridge/x", None),
    ("DELETE", "/api/streaming/proxy", None),
]


@pytest.mark.parametrize(("method", "path", "body"), STATE_CHANGING)
async def test_with_a_session_another_sites_page_changes_nothing(
    api: RunningApi, method: str, path: str, body: object
) -> None:
    async with await api.sign_in(api.store.owner()) as client:
        for fields in (
            {},
            {**MARK, "origin": "https://evil.example"},
            {**MARK, "origin": "null"},
            {**MARK, "origin": "http://127.0.0.1:9999"},
            {**MARK, "sec-fetch-site": "cross-site"},
            {**MARK, "sec-fetch-site": "same-site"},
        ):
            response = await client.request(method, path, json=body, headers=fields)
            assert problem(response) == (403, "forbidden"), fields
        good = {**MARK, "origin": ORIGIN, "sec-fetch-site": "same-origin"}
        assert (await client.request(method, path, json=body, headers=good)).status_code in (201, 204, 404)


async def test_the_list_of_state_changing_routes_is_whole(api: RunningApi) -> None:
    async with api.client() as client:
        paths = (await client.get("/api/openapi.json")).json()["paths"]
    found = {
        (method.upper(), path.replace("{key_id}", "x").replace("{bridge_id}", "x"))
        for path, item in paths.items()
        for method in item
        if method not in ("get", "head")
    }
    assert found - {("POST", "/api/auth/sign-in")} == {(method, path) for method, path, _ in STATE_CHANGING}


async def test_another_sites_page_cannot_sign_somebody_in(api: RunningApi) -> None:
    token, _ = api.store.create_sign_in_link(api.store.owner())
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
        api.store._db.execute("ALTER TABLE bridges RENAME TO hidden")
        response = await client.get("/api/bridge")
        api.store._db.execute("ALTER TABLE hidden RENAME TO bridges")
        assert problem(response) == (500, "internal")
        assert "bridges" not in response.text
        assert (await client.get("/api/bridge")).status_code == 200


async def test_a_bridges_credential_is_no_key(api: RunningApi) -> None:
    _, credential = api.store.create_bridge(api.store.owner(), "Desktop")
    async with api.client(authorization=f"Bearer {credential}") as client:
        for path in ("/api/bridge", "/api/streaming/status", "/api/streaming/events", "/api/auth/keys"):
            assert problem(await client.get(path)) == (403, "forbidden")


async def test_ambiguous_credentials_are_refused(api: RunningApi) -> None:
    person = api.person()
    twice = [("authorization", f"Bearer {person.key}"), ("authorization", f"Bearer {person.key}")]
    async with api.client() as client:
        assert problem(await client.get("/api/bridge", headers=twice)) == (400, "bad-request")
        two = {"authorization": f"Bearer {person.key}", "x-api-key": "other"}
        assert problem(await client.get("/api/bridge", headers=two)) == (400, "bad-request")
        url = f"/api/bridge?key={person.key}&api_key={person.key}&access_token={person.key}"
        assert problem(await client.get(url)) == (401, "unauthenticated")


async def test_the_status_tells_what_stands_in_the_way(api: RunningApi) -> None:
    person = api.person()
    async with api.client(**person.headers) as client:

        async def state() -> str:
            return str((await client.get("/api/streaming/status")).json()["state"])

        assert await state() == "no-bridge"
        paired = (await client.post("/api/bridge", json={"name": "Desktop"})).json()
        assert await state() == "bridge-offline"
        async with api.bridge(paired["credential"], engine(EngineState.DOWN)) as socket:
            assert await state() == "engine-down"
            await socket.send(encode(Presence((engine(EngineState.LOADING),))))
            assert await eventually(state, "loading")
            await socket.send(encode(Presence((engine(EngineState.UP),))))
            assert await eventually(state, "ready")
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
        assert await eventually(state, "bridge-offline")
        renamed = await client.patch(f"/api/bridge/{paired['bridge_id']}", json={"name": "Tower"})
        assert renamed.json()["name"] == "Tower"
        assert renamed.json()["last_seen"] is not None or await eventually_seen(client)
        assert (await client.delete(f"/api/bridge/{paired['bridge_id']}")).status_code == 204
        assert await state() == "no-bridge"


async def eventually_seen(client: httpx.AsyncClient) -> bool:
    for _ in range(40):
        if (await client.get("/api/bridge")).json()[0]["last_seen"] is not None:
            return True
        await asyncio.sleep(0.1)
    return False


async def eventually(ask: object, wanted: str) -> bool:
    for _ in range(100):
        if await ask() == wanted:  # type: ignore[operator] # a coroutine function
            return True
        await asyncio.sleep(0.02)
    return False


async def test_one_line_is_logged_a_request_without_its_query(
    api: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    person = api.person()
    async with api.client(**person.headers) as client:
        await client.get(f"/api/bridge?secret={person.key}", headers={"x-request-id": "r-7"})
        await client.post("/api/auth/sign-in", json={"token": person.key})
    lines = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/api/bridge", 200),
        ("POST", "/api/auth/sign-in", 401),
    ]
    assert lines[0]["request_id"] == "r-7"
    assert person.key[-43:] not in str([vars(record) for record in caplog.records if record.name != "httpx"])


async def test_host_and_origin_are_compared_as_the_browser_sent_them(api: RunningApi) -> None:
    async with await api.sign_in(api.store.owner()) as client:
        fields = {**MARK, "host": "localhost:8080", "origin": "http://localhost:8080"}
        assert (await client.post("/api/auth/keys", json={"name": "x"}, headers=fields)).status_code == 201
        fields["origin"] = f"http://{HOST}"
        assert problem(await client.post("/api/auth/keys", json={"name": "x"}, headers=fields)) == (403, "forbidden")
