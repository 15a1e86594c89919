"""The home API: its table, its refusals, and several clients that stay equal."""

import asyncio
import base64
import json
import random
import sqlite3
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.home_parts import HomeClient, begin, event, finish, home
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.scopes import NO_SCOPE
from cloudtolocalllm.bridge.home_api.api import describe_api
from cloudtolocalllm.bridge.home_api.home import ROUTES
from cloudtolocalllm.bridge.home_api.house import QUIET
from cloudtolocalllm.bridge.home_api.messages import Caller, Events, Reply
from cloudtolocalllm.bridge.home_api.schema import SchemaError, describe, encoded, read
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError
from cloudtolocalllm.bridge.keys import KeyList
from cloudtolocalllm.bridge.service import serve
from cloudtolocalllm.bridge.settings import BridgeSettings
from cloudtolocalllm.bridge.store import devices
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.errors import StoreFullError
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.retention import AT_ONCE
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.sealed.device import public_point


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[HomeClient]:
    async with home(tmp_path) as running:
        yield running


# --- the table ----------------------------------------------------------------------------------------------------


def test_each_operation_has_a_name_of_its_own_and_every_reference_leads_somewhere() -> None:
    described = json.loads(describe_api())
    names = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES.all) > 30
    text = describe_api()
    for name in described["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in described["components"]["schemas"]


@pytest.mark.parametrize(
    ("method", "path", "value", "problem"),
    [
        ("GET", "/nothing", None, "not-found"),
        ("GET", "/conversations/../devices", None, "not-found"),
        ("GET", "//conversations", None, "not-found"),
        ("POST", "/home", None, "method-not-allowed"),
        ("GET", "/home", {"x": 1}, "bad-request"),
        ("POST", "/conversations", None, "bad-request"),
        ("POST", "/conversations", b"{", "bad-request"),
        ("POST", "/conversations", b"[" * 100_000, "bad-request"),
        ("POST", "/conversations", [], "bad-request"),
        ("POST", "/conversations", {"title": 1}, "bad-request"),
        ("POST", "/conversations", {"title": "x", "more": 1}, "bad-request"),
        ("POST", "/conversations", {"title": "x", "id": "../.."}, "conflict"),
        ("POST", "/conversations", {"title": "\ud800"}, "bad-request"),
        ("GET", "/conversations/" + "x" * 16, None, "not-found"),
        ("PUT", "/settings", {"quota_bytes": 2**60}, "bad-request"),
        ("PUT", "/settings", {"retention_days": -3}, "conflict"),
        ("POST", "/import", b"nonsense", "conflict"),
        ("PUT", "/attachments", b"x" * (16 * 1024 * 1024 + 1), "too-large"),
        ("GET", "/attachments/" + "0" * 64, None, "not-found"),
        ("DELETE", "/keys/unknown", None, "not-found"),
        ("POST", "/models/pull", {"model": "m"}, "route-refused"),
        ("POST", "/models/delete", {"model": "m"}, "route-refused"),
        ("POST", "/models/pull/stop", {"model": "m"}, "not-found"),
        ("POST", "/devices/" + "x" * 43 + "/approve", None, "not-found"),
    ],
)
async def test_refusals(client: HomeClient, method: str, path: str, value: Any, problem: str) -> None:
    assert await client.problem(method, path, value) == problem


async def test_wrong_queries_are_refused(client: HomeClient) -> None:
    assert await client.problem("GET", "/search") == "bad-request"
    assert await client.problem("GET", "/search", query="x", other=1) == "bad-request"
    assert await client.problem("GET", "/conversations", limit="many") == "bad-request"
    assert await client.problem("GET", "/changes", epoch="other", since=0) == "reload"
    assert await client.problem("GET", "/changes/events", epoch="other", since=0) == "reload"


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["role", "content", "parent", "attachments", "sha256", "name", "x"]), inner),
                    max_leaves=8))  # fmt: skip
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        found = read(NewMessage, value)
    except SchemaError:
        return
    assert read(NewMessage, json.loads(encoded(found))) == found
    assert describe(NewMessage, {})


# --- what it does -------------------------------------------------------------------------------------------------


async def test_conversations_from_first_to_last(client: HomeClient) -> None:
    talk, note = await client.asked("What about penguins?")
    assert (await client.get("GET", "/search", query="penguin"))["hits"][0]["message"] == note
    new = await client.get("POST", f"/conversations/{talk}/messages/{note}/edit", {"content": "And owls?"})
    await client.get("PATCH", f"/conversations/{talk}", {"title": "Birds", "pinned": True})
    chosen = await client.get("POST", f"/conversations/{talk}/messages/{note}/choose")
    assert (chosen["leaf"], chosen["title"], chosen["pinned"]) == (note, "Birds", True)
    document = (await client.get("GET", f"/conversations/{talk}/export"))["document"]
    exported = [one async for one in await client.events("GET", "/export")]
    assert [one["document"] for one in exported] == [document]
    await client.get("DELETE", f"/conversations/{talk}/messages/{new['id']}", status=204)
    await client.get("DELETE", f"/conversations/{talk}", status=204)
    assert (await client.get("GET", "/conversations"))["conversations"] == []
    assert (await client.get("POST", "/import", document))["added"]
    assert (await client.get("GET", f"/conversations/{talk}/export"))["document"] == document


async def test_attachments_come_back_and_reach_the_engine(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> None:
        begin(asked)
        finish(asked)

    async with scripted_engine(answer=answer) as engine, home(tmp_path, engine.url) as client:
        sha256 = (await client.get("PUT", "/attachments", b"\x89PNG"))["sha256"]
        reply = await client.ask("GET", f"/attachments/{sha256}")
        assert isinstance(reply, Reply)
        assert (reply.content, reply.media_type) == (b"\x89PNG", "application/octet-stream")
        talk = (await client.get("POST", "/conversations", {}))["id"]
        body = {"role": "user", "content": "see", "attachments": [{"sha256": sha256, "media_type": "image/png"}]}
        note = await client.get("POST", f"/conversations/{talk}/messages", body)
        await client.watched((await client.start(talk, note["id"]))["id"])
        sent = json.loads(engine.asked[0].body)["messages"][0]["content"]
        assert sent[1]["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


async def test_settings_and_state(client: HomeClient) -> None:
    wanted = {"quota_bytes": 2**30, "retention_days": 30, "default_model": "m", "system_prompt": "Be brief."}
    assert await client.get("PUT", "/settings", wanted) == wanted == await client.get("GET", "/settings")
    state = await client.get("GET", "/home")
    assert (state["quota_bytes"], state["notice"]) == (2**30, "")
    assert state["used_bytes"] > 0


async def test_over_its_quota_the_home_says_so(client: HomeClient) -> None:
    talk, _ = await client.asked("x" * 2_000_000)
    await client.get("PATCH", f"/conversations/{talk}", {"pinned": True})
    await client.get("PUT", "/settings", {"quota_bytes": 2**20})
    assert await client.problem("POST", "/conversations", {}) == "home-full"
    await client.get("DELETE", f"/conversations/{talk}", status=204)
    await client.get("POST", "/conversations", {})


async def test_over_its_quota_the_home_makes_room_for_what_is_new(client: HomeClient) -> None:
    """However many old conversations have to go, and although nobody has tidied yet."""
    for _ in range(3 * AT_ONCE):
        await client.asked("x" * 50_000)
    await client.get("PUT", "/settings", {"quota_bytes": 2**20})
    await client.get("POST", "/conversations", {})
    state = await client.get("GET", "/home")
    assert state["used_bytes"] <= state["quota_bytes"] + 100_000


async def test_a_removed_device_is_refused_before_it_is_written_down(client: HomeClient) -> None:
    store = client.home.store
    points = [public_point(ec.generate_private_key(ec.SECP256R1())) for _ in range(2)]
    phone = await store.pair(points[0], "phone", approved_by="link")
    asked = await store.write(lambda tx: devices.wait(tx, points[1], "laptop"))
    by_phone = HomeClient(client.bridge, Caller(phone.id))
    assert store.point_of(asked.id) is None
    let_in = await by_phone.get("POST", f"/devices/{asked.id}/approve")
    assert (let_in["paired"], let_in["approved_by"]) == (True, phone.id)
    assert store.point_of(asked.id) == points[1]
    listed = await by_phone.get("GET", "/devices")
    assert (len(listed["devices"]), listed["own"]) == (2, phone.id)
    assert (await by_phone.get("PATCH", f"/devices/{asked.id}", {"name": "work"}))["name"] == "work"
    gone: list[str] = []
    store.on_device_removed = gone.append
    removal = asyncio.create_task(by_phone.get("DELETE", f"/devices/{asked.id}", status=204))
    await asyncio.sleep(0)
    assert store.point_of(asked.id) is None
    assert gone == [asked.id]
    await removal
    again = await HomeStore.open(store.path, client.home.clock)
    assert again.point_of(asked.id) is None
    assert again.point_of(phone.id) == points[0]
    await again.close()


async def test_keys_are_listed_and_revoked(client: HomeClient) -> None:
    keys = client.home.keys
    keys.add("key-1", "work", NO_SCOPE, created=1, expires=2_000_000_000)
    (listed,) = (await client.get("GET", "/keys"))["keys"]
    assert (listed["id"], listed["name"], listed["revoked"]) == ("key-1", "work", False)
    await client.get("DELETE", "/keys/key-1", status=204)
    assert (await client.get("GET", "/keys"))["keys"][0]["revoked"]
    found = keys.find("key-1")
    assert found is not None
    assert found.revoked is not None


async def test_a_key_that_is_not_written_yet_outlives_a_look_at_the_file(client: HomeClient) -> None:
    keys = client.home.keys
    other = KeyList(client.home.store.path, client.home.clock)
    keys.add("key-1", "work", NO_SCOPE, created=1, expires=2_000_000_000)
    other.add("key-2", "by a command", NO_SCOPE, created=1, expires=2_000_000_000)
    keys.refresh()  # the writing of key-1 has not begun: this test has not returned to the loop
    assert [key.id for key in keys] == ["key-1", "key-2"]
    await until(lambda: keys.is_written("key-1"))
    keys.refresh()
    other.refresh()
    assert [key.id for key in other] == [key.id for key in keys] == ["key-1", "key-2"]
    other.revoke("key-1")
    keys.refresh()
    assert [key.revoked is not None for key in keys] == [True, False]
    other.close()


async def test_a_revocation_that_cannot_be_written_holds_and_is_told(
    client: HomeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = client.home.keys
    keys.add("key-1", "work", NO_SCOPE, created=1, expires=2_000_000_000)
    await until(lambda: keys.is_written("key-1"))

    def full(tx: Any, kind: str, *_: Any, **__: Any) -> None:
        raise StoreFullError("no room")

    monkeypatch.setattr(Tx, "changed", full)
    assert await client.problem("DELETE", "/keys/key-1") == "internal"
    found = keys.find("key-1")
    assert found is not None
    assert found.revoked is not None


async def test_a_fault_inside_is_not_shown(client: HomeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(client.home.store, "read", broken)
    reply = await client.ask("GET", "/settings")
    assert isinstance(reply, Reply)
    assert reply.status == 500
    assert b"secret" not in reply.content


# --- models -------------------------------------------------------------------------------------------------------


async def test_models_are_listed_pulled_and_deleted_when_that_is_switched_on(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def answer(asked: Asked) -> None:
        if asked.target == "/api/delete":
            engine.models.remove(json.loads(asked.body)["model"])
            asked.json({})
            return
        asked.head(200, "content-type: application/x-ndjson", chunked=True)
        asked.chunk(b'{"status":"pulling abc","total":100,"completed":5}\n')
        await hold.wait()
        asked.chunk(b'{"status":"succ')
        asked.chunk(b'ess"}\n')
        engine.models.append("new")
        asked.last_chunk()

    async with (
        scripted_engine(kind="ollama", answer=answer, models=["tiny", "old"]) as engine,
        home(tmp_path, engine.url, allow=("pull", "delete")) as client,
    ):
        await until(lambda: len(client.home.catalog.engines[0].models) == 2)
        first = await client.events("POST", "/models/pull", {"model": "new"})
        await anext(first)
        await first.aclose()
        second = await client.events("POST", "/models/pull", {"model": "new:latest"})
        seen = [await anext(second)]
        while not seen[-1]["total_bytes"]:
            seen.append(await anext(second))
        assert (seen[-1]["done_bytes"], seen[-1]["status"]) == (5, "pulling abc")
        hold.set()
        seen += [one async for one in second]
        assert seen[-1]["state"] == "done"
        assert "new" in [model["name"] for model in (await client.get("GET", "/models"))["models"]]
        assert len(engine.asked) == 1  # whoever came later watched the same pull
        await client.get("POST", "/models/delete", {"model": "old"}, status=204)
        listed = await client.get("GET", "/models")
        assert [model["name"] for model in listed["models"]] == ["tiny", "new"]
        assert [pull["state"] for pull in listed["pulls"]] == ["done"]


async def test_a_pull_is_stopped_at_the_engine(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> None:
        asked.head(200, "content-type: application/x-ndjson", chunked=True)
        asked.chunk(b'{"status":"pulling abc"}\n')
        await asked.gone.wait()

    async with (
        scripted_engine(kind="ollama", answer=answer) as engine,
        home(tmp_path, engine.url, allow=("pull",)) as client,
    ):
        watching = await client.events("POST", "/models/pull", {"model": "new"})
        await until(lambda: bool(engine.asked))
        assert (await client.get("POST", "/models/pull/stop", {"model": "new"}))["state"] == "stopped"
        async with asyncio.timeout(10):
            await engine.asked[0].gone.wait()
        assert [one async for one in watching][-1]["state"] == "stopped"


# --- several clients ----------------------------------------------------------------------------------------------


class Mirror:
    """A client that knows only what the changes told it to read again."""

    def __init__(self, client: HomeClient) -> None:
        self.client = client
        self.known: dict[str, Any] = {}
        self.seen = 0
        self.epoch = ""

    async def reload(self) -> None:
        state = await self.client.get("GET", "/home")
        self.epoch, self.seen = state["epoch"], state["newest"]
        self.known = {}
        after: dict[str, Any] = {}
        while True:
            page = await self.client.get("GET", "/conversations", limit=3, **after)
            for one in page["conversations"]:
                await self.fetch(one["id"])
            if page["after"] is None:
                return
            after = {"after": page["after"]}

    async def fetch(self, id_: str) -> None:
        reply = await self.client.ask("GET", f"/conversations/{id_}")
        assert isinstance(reply, Reply)
        if reply.status == 404:
            self.known.pop(id_, None)
        else:
            self.known[id_] = json.loads(reply.content)

    async def take(self, page: dict[str, Any]) -> None:
        for change in page["changes"]:
            if change["kind"] == "conversation" or change["conversation"]:
                await self.fetch(change["conversation"] or change["id"])
            self.seen = change["n"]

    async def follow(self) -> None:
        events = await self.client.events("GET", "/changes/events", epoch=self.epoch, since=self.seen)
        try:
            async for page in events:
                assert "problem" not in page, page
                await self.take(page)
        finally:
            await events.aclose()


async def test_two_clients_stay_equal_through_200_random_edits_stops_branches_and_disconnects(tmp_path: Path) -> None:
    rng = random.Random(20261123)

    async def answer(asked: Asked) -> None:
        begin(asked)
        for number in range(rng.randrange(1, 30)):
            asked.chunk(event(f"{number} "))
            await asked.writer.drain()
            await asyncio.sleep(0.001)
        finish(asked)

    async with scripted_engine(answer=answer) as engine, home(tmp_path, engine.url) as client:
        mirrors = [Mirror(client), Mirror(client)]
        following: list[asyncio.Task[None] | None] = [None, None]
        for mirror in mirrors:
            await mirror.reload()
        running: list[str] = []
        for _ in range(200):
            place = rng.randrange(2)
            mirror = mirrors[place]
            task = following[place]
            if task is None:
                following[place] = asyncio.create_task(mirror.follow())
            elif rng.random() < 0.1:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                following[place] = None
            await one_step(client, rng, running)
        for run in running:
            await client.watched(run)
        newest = (await client.get("GET", "/home"))["newest"]
        for place, mirror in enumerate(mirrors):
            if following[place] is None:
                following[place] = asyncio.create_task(mirror.follow())
        await until(lambda: all(mirror.seen >= newest for mirror in mirrors))
        for task in following:
            assert task is not None
            task.cancel()
        await asyncio.gather(*(task for task in following if task is not None), return_exceptions=True)
        truth = Mirror(client)
        await truth.reload()
        assert truth.known
        for mirror in mirrors:
            assert mirror.known == truth.known


async def one_step(client: HomeClient, rng: random.Random, running: list[str]) -> None:
    """Do something; what another step made impossible is refused, and that is all."""
    listed = (await client.get("GET", "/conversations", limit=100))["conversations"]
    if not listed or rng.random() < 0.1:
        await client.get("POST", "/conversations", {"title": str(rng.random())})
        return
    talk = rng.choice(listed)["id"]
    base = f"/conversations/{talk}"
    notes = [one["id"] for one in (await client.get("GET", base))["messages"]]
    note = rng.choice(notes) if notes else None
    kind = rng.choice(["add", "add", "edit", "choose", "run", "run", "stop", "drop", "rename", "delete"])
    if kind == "add" or note is None:
        await client.get("POST", base + "/messages", {"role": "user", "content": "x", "parent": note})
    elif kind == "edit":
        await client.get("POST", f"{base}/messages/{note}/edit", {"content": str(rng.random())})
    elif kind == "choose":
        await client.get("POST", f"{base}/messages/{note}/choose")
    elif kind == "rename":
        await client.get("PATCH", base, {"title": str(rng.random()), "pinned": rng.random() < 0.5})
    elif kind == "run" and len(running) < 20:
        reply = await client.ask("POST", base + "/runs", {"model": "tiny", "parent": note})
        assert isinstance(reply, Reply)
        if reply.status == 200:
            running.append(json.loads(reply.content)["id"])
        else:
            assert reply.status == 409, reply  # what is being written is not answered
    elif kind == "stop" and running:
        await client.get("POST", f"/runs/{running.pop()}/stop")
    elif kind == "drop" and rng.random() < 0.5:
        reply = await client.ask("DELETE", f"{base}/messages/{note}")
        assert isinstance(reply, Reply)
        if reply.status == 204:
            running[:] = [run for run in running if await exists(client, run)]
    elif kind == "delete" and rng.random() < 0.3:
        reply = await client.ask("DELETE", base)
        assert isinstance(reply, Reply)
        if reply.status == 204:
            running[:] = [run for run in running if await exists(client, run)]


async def exists(client: HomeClient, run: str) -> bool:
    reply = await client.ask("GET", f"/runs/{run}")
    return not isinstance(reply, Events) and reply.status == 200


async def test_another_client_is_told_of_a_new_conversation_at_once(client: HomeClient) -> None:
    """Pushed, not found at the next look: that would be after 15 s."""
    state = await client.get("GET", "/home")
    events = await client.events("GET", "/changes/events", epoch=state["epoch"], since=state["newest"])
    assert (await anext(events))["changes"] == []
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    talk = (await client.get("POST", "/conversations", {}))["id"]
    async with asyncio.timeout(QUIET / 2):
        (change,) = (await waiting)["changes"]
    assert (change["kind"], change["id"], change["gone"]) == ("conversation", talk, False)
    await events.aclose()


async def test_a_damaged_store_is_told_of(tmp_path: Path) -> None:
    async with home(tmp_path) as client:
        await client.asked()
        path = client.home.store.path
    path.write_bytes(b"x" * 10_000)
    async with home(tmp_path) as client:
        notice = (await client.get("GET", "/home"))["notice"]
        assert "home restore" in notice
        assert (await client.get("GET", "/conversations"))["conversations"] == []
    assert list(tmp_path.glob("*.damaged-*"))  # noqa: ASYNC240 - a small folder


async def test_a_bridge_whose_store_is_not_ours_says_so_and_does_not_start(tmp_path: Path) -> None:
    now = time.time()
    credential = tmp_path / "credential.json"
    url = "http://127.0.0.1:9"
    BridgeIdentity(url, "br-test", "secret", ProofKey.generate(), now, now + 86_400).save(credential)
    theirs = sqlite3.connect(home_path(credential))
    theirs.execute("CREATE TABLE theirs (x)")
    theirs.close()
    with pytest.raises(PairingError, match="another database"):
        await serve(BridgeSettings(server=url, credential_file=credential, engines=(url,)), asyncio.Event())
