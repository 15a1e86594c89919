"""Sealed requests through a real tunnel to a real bridge and engines over real HTTP."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.bridge_parts import home
from tests.support.gateway_parts import CHAT, NAMED, THREE, gateway_of, paired, store_of, stream_three
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine
from tests.support.sealed_client import ClearProblemError, CutError, SealedClient, TunnelOuter, link_of

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.service import Bridge
from cloudtolocalllm.bridge.settings import BridgeSettings, Plain
from cloudtolocalllm.contracts.control import KeyAdded, KeyRevoked
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE

SESSION = (b"c2l-via", b"session")


def limited(name: str = "", **scope: Any) -> tuple[tuple[bytes, bytes], ...]:
    """As the proxy says it of a request with an API key."""
    value = json.dumps({"iat": 1_700_000_000, "exp": 4_000_000_000, **scope}).encode()
    return (
        (b"c2l-via", b"key"),
        (b"c2l-key", b"key-" + name.encode().hex().encode()[:40]),
        (b"c2l-scope", base64.urlsafe_b64encode(value).rstrip(b"=")),
    )


async def test_an_engine_answers_a_sealed_request_as_a_plain_one(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (_, client):
        answer = await client.open("POST", "/v1/chat/completions", CHAT, fields=((b"origin", b"https://evil"),))
        assert answer.status == 200
        assert answer.field(b"content-type") == b"text/event-stream"
        assert answer.field(b"set-cookie") is None
        assert answer.field(b"c2l-readable") is None
        assert await answer.read() == THREE
        [asked] = engine.asked
        assert (asked.method, asked.target, json.loads(asked.body)) == ("POST", "/v1/chat/completions", CHAT)
        for dropped in ("origin", "date", "c2l-device", "c2l-proof"):
            assert asked.field(dropped) is None, dropped


async def test_the_relay_sees_nothing_of_it(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        sealed, _ = client.seal(RequestHead(b"POST", b"/v1/chat/completions", (), b"https", b"home"), b"{}")
        answer = await TunnelOuter(at).send("POST", client.target, REQUEST_TYPE, sealed)
        seen = b"".join([data async for data in answer.pieces()])
        assert answer.head is not None
        assert {name for name, _ in answer.head.headers} == {b"content-type", b"cache-control"}
        for word in (b"data", b"tiny", b"chat", b"event"):
            assert word not in sealed
            assert word not in seen


async def test_the_home_api_is_reached_sealed_and_only_so(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        made = await client.ask("POST", "/c2l/conversations", {"title": "plans"})
        listed = await client.ask("GET", "/c2l/conversations?limit=5")
        assert [one["id"] for one in listed["conversations"]] == [made["id"]]
        assert (await client.ask("GET", "/c2l/devices"))["own"] == client.device
        assert await client.refused("GET", "/c2l/nothing") == (404, "not-found")
        assert await client.refused("GET", "/c2l/conversations?limit=5&limit=6") == (400, "bad-request")
        assert (await at.answer("GET", "/c2l/conversations", None, SESSION)).problem == "route-refused"


async def test_the_api_keys_are_listed_sealed_and_only_so(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        now = int(time.time())
        at.bridge.keys.take(KeyAdded("aaaaaaaaaaaa", "Laptop", now, now + 900, '{"mdl":["tiny"],"brg":"br_1"}'))
        at.bridge.keys.take(KeyRevoked("bbbbbbbbbbbb"))  # of which nothing else is known
        await at.answer("GET", "/v1/models", None, *limited("c"))
        listed = (await client.ask("GET", "/c2l/keys"))["keys"]
        told = {key["name"]: (key["models"], key["bridge"], key["revoked"], key["last_used"]) for key in listed}
        assert told.pop("Laptop") == (["tiny"], "br_1", False, None)
        [(name, met)] = told.items()
        assert name.startswith("key-")
        assert met[:3] == ([], None, False)
        assert met[3] >= now
        assert (await at.answer("GET", "/c2l/keys", None, SESSION)).problem == "route-refused"


async def test_events_come_as_lines_and_end_when_the_reader_leaves(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        state = await client.ask("GET", "/c2l/home")
        watch = await client.open("GET", f"/c2l/changes/events?epoch={state['epoch']}&since={state['newest']}")
        assert watch.field(b"content-type") == b"application/x-ndjson"
        lines = watch.lines()
        await anext(lines)
        made = await client.ask("POST", "/c2l/conversations", {"title": "t"})
        async with asyncio.timeout(15):
            while not any(change["id"] == made["id"] for change in (await anext(lines))["changes"]):
                pass
        assert len(gateway_of(at).tasks) == 1
        await watch.leave()
        await until(lambda: not len(gateway_of(at).tasks))


async def test_streams_without_an_end_do_not_keep_the_bridge_from_ending(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine, drain_grace=40.0) as (at, client):
        state = await client.ask("GET", "/c2l/home")
        watch = await client.open("GET", f"/c2l/changes/events?epoch={state['epoch']}&since={state['newest']}")
        async with asyncio.timeout(30):
            await at.bridge.close()
        with pytest.raises(CutError):
            await watch.read()


async def test_a_run_is_watched_sealed_at_any_offset(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        for word in ("Hello ", "wörld"):
            delta = {"choices": [{"index": 0, "delta": {"content": word}}]}
            asked.chunk(b"data: " + json.dumps(delta).encode() + b"\n\n")
        asked.chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        asked.last_chunk()

    async with scripted_engine(answer=answer) as engine, paired(tmp_path, engine) as (_, client):
        talk = (await client.ask("POST", "/c2l/conversations", {"title": "t"}))["id"]
        question = {"role": "user", "content": "hi"}
        note = (await client.ask("POST", f"/c2l/conversations/{talk}/messages", question))["id"]
        run = await client.ask("POST", f"/c2l/conversations/{talk}/runs", {"model": "tiny", "parent": note})
        for offset, rest in ((0, "Hello wörld"), (6, "wörld")):
            watch = await client.open("GET", f"/c2l/runs/{run['id']}/events?offset={offset}")
            text = "".join([event["text"]["text"] async for event in watch.lines() if event["text"] is not None])
            assert text == rest


async def test_content_of_any_size_arrives_whole_and_is_bounded(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        picture = bytes(range(256)) * 4096 * 4
        stored = await client.ask("PUT", "/c2l/attachments", content=picture)
        answer = await client.open("GET", f"/c2l/attachments/{stored['sha256']}")
        assert await answer.read() == picture
        too_much = b"[" + b" " * (7 * 1024 * 1024)
        assert await client.refused("POST", "/c2l/conversations", content=too_much) == (413, "too-large")
        assert at.bridge._desk.memory.held == 0


async def test_a_delete_with_a_model_reaches_ollama_when_it_is_allowed(tmp_path: Path) -> None:
    for allow, status in (((), 403), (("delete",), 200)):
        folder = tmp_path / str(status)
        folder.mkdir()
        async with scripted_engine(kind="ollama") as engine, paired(folder, engine, allow=allow) as (_, client):
            answer = await client.open("DELETE", "/ollama/api/delete", {"model": "tiny"})
            assert answer.status == status
            bodies = [json.loads(asked.body) for asked in engine.asked]
            assert bodies == ([{"model": "tiny"}] if allow else [])


async def test_the_lists_of_several_engines_are_one_and_head_has_no_content(tmp_path: Path) -> None:
    async with (
        scripted_engine(models=["tiny"]) as one,
        scripted_engine(models=["large"]) as other,
        home(tmp_path, one.url, other.url) as at,
    ):
        client = await SealedClient.paired(TunnelOuter(at), link_of(at))
        for _ in range(2):
            listed = await client.ask("GET", "/v1/models", exchange=NAMED)
            assert [model["id"] for model in listed["data"]] == ["tiny", "large"]
        answer = await client.open("HEAD", "/v1/models")
        assert (answer.status, await answer.read()) == (200, b"")
        assert await client.refused("POST", "/ollama/api/create", {"model": "x"}) == (403, "route-refused")


async def test_a_keys_limits_hold_for_what_is_sealed(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        for scope, refused in (
            ({"rts": ["/e2e/", "/v1/"]}, [("POST", "/ollama/api/chat"), ("GET", "/c2l/conversations")]),
            ({"mdl": ["other*"]}, [("POST", "/v1/chat/completions"), ("GET", "/c2l/conversations")]),
            ({"tpd": 1000}, [("GET", "/c2l/conversations"), ("POST", "/c2l/pairings")]),
        ):
            client.outer = TunnelOuter(at, limited(str(scope), **scope))
            for method, path in refused:
                value = CHAT if path.endswith(("chat", "completions")) else None
                assert await client.refused(method, path, value) == (403, "key-scope"), (scope, path)
        assert engine.asked == []
        client.outer = TunnelOuter(at, limited())
        assert (await client.open("POST", "/v1/chat/completions", CHAT)).status == 200
        assert await client.ask("GET", "/c2l/conversations")


async def test_a_keys_tokens_a_day_are_counted_in_sealed_answers(tmp_path: Path) -> None:
    async def counted(asked: Asked) -> None:
        asked.json({"usage": {"total_tokens": 60}})

    async with scripted_engine(answer=counted) as engine, paired(tmp_path, engine) as (at, client):
        client.outer = TunnelOuter(at, limited(tpd=50))
        assert await client.ask("POST", "/v1/chat/completions", CHAT)
        assert await client.refused("POST", "/v1/chat/completions", CHAT) == (429, "rate-limited")


async def test_only_this_bridges_own_address_is_served(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        for method, target, status in (
            ("GET", "/e2e/other", 404),
            ("GET", "/e2e/br-test/", 404),
            ("GET", "/e2e/br-test?x=1", 404),
            ("PUT", "/e2e/br-test", 405),
            ("POST", "/e2e/br-test", 400),
        ):
            answer = await at.answer(method, target, None, SESSION)
            assert answer.status == status, (method, target)
        found = await at.answer("GET", "/e2e/br-test", None, SESSION)
        assert (found.status, found.field(b"cache-control")) == (200, b"no-store")
        assert found.field(b"content-type") == b"application/c2l-keys+jwt"
        sealed, sealer = client.seal(RequestHead(b"GET", b"/v1/models", (), b"https", b"elsewhere"))
        other_home = await client.sent(sealed, sealer)
        assert await other_home.problem() == "bad-request"


async def test_an_unknown_key_is_said_in_the_clear_and_the_client_goes_on(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        before = client.statement
        assert before is not None
        for _ in range(2):  # the key and the one before are good; older ones are not
            at.bridge.gateway.keys._ring = at.bridge.gateway.keys._ring.rotated(bytes(range(32)), client.now())  # type: ignore[union-attr] # it runs
        sealed, sealer = client.seal(RequestHead(b"GET", b"/v1/models", (), b"https", b"home"))
        with pytest.raises(ClearProblemError) as caught:
            await client.sent(sealed, sealer)
        assert (caught.value.status, caught.value.slug) == (400, "ohttp-key")
        assert await client.ask("GET", "/v1/models")
        assert client.statement is not None
        assert client.statement.seq > before.seq


async def test_a_restarted_bridge_has_another_key_the_same_identity_and_its_devices(tmp_path: Path) -> None:
    async with scripted_engine() as engine:
        async with paired(tmp_path, engine) as (_, client):
            old = client.statement
        async with home(tmp_path, engine.url) as at:
            client.outer = TunnelOuter(at)
            assert await client.ask("GET", "/v1/models")
            assert old is not None
            assert client.statement is not None
            assert client.statement.seq > old.seq
            assert client.statement.configs != old.configs


async def test_plain_routes_are_off_unless_the_relay_is_here_or_the_owner_wants_it(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine:
        for plain, served in ((Plain.AUTO, True), (Plain.ON, True), (Plain.OFF, False)):
            folder = tmp_path / plain.value
            folder.mkdir()
            async with paired(folder, engine, plain=plain) as (at, client):
                answer = await at.answer("POST", "/v1/chat/completions", CHAT, SESSION)
                listed = await at.answer("GET", "/v1/models", None, SESSION)
                if served:
                    assert answer.field(b"c2l-readable") == listed.field(b"c2l-readable") == b"in-passing"
                else:
                    assert (answer.status, answer.problem) == (listed.status, listed.problem) == (403, "plain-off")
                    assert "connect" in answer.json["detail"]
                assert (await client.open("POST", "/v1/chat/completions", CHAT)).status == 200


async def test_a_relay_elsewhere_reads_nothing_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    credential, now = tmp_path / "credential.json", time.time()
    BridgeIdentity("https://relay.example", "br", "s", ProofKey.generate(), now, now + 1000).save(credential)
    for plain, served in ((Plain.AUTO, False), (Plain.ON, True)):
        bridge = Bridge(BridgeSettings(server="https://relay.example", credential_file=credential, plain=plain))
        try:
            assert bridge.acceptor._plain is served
            assert ("whoever runs the server can read them" in caplog.text) is served
        finally:
            await bridge.close()


async def test_devices_are_noted_as_seen(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        await client.ask("GET", "/v1/models")
        [device] = (await client.ask("GET", "/c2l/devices"))["devices"]
        assert device["last_seen"] is not None
        assert store_of(at).point_of(client.device) is not None


async def test_what_an_engine_says_that_cannot_be_sealed_breaks_off_and_stops_it(tmp_path: Path) -> None:
    async def strange(asked: Asked) -> None:
        asked.head(700, "content-type: text/plain", chunked=True)
        while not asked.gone.is_set():
            asked.chunk(b"x")
            await asked.writer.drain()
            await asyncio.sleep(0.01)

    async with scripted_engine(answer=strange) as engine, paired(tmp_path, engine) as (at, client):
        sealed, _ = client.seal(RequestHead(b"POST", b"/v1/chat/completions", (), b"https", b"home"), b"{}")
        answer = TunnelOuter(at).begin("POST", client.target, REQUEST_TYPE, sealed)
        await until(lambda: answer.reset is not None or answer.ended)
        await until(lambda: not at.bridge._desk.live)
