"""API keys as the home judges them: through a real tunnel and a real bridge to engines over real HTTP."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.bridge_parts import Ask, home
from tests.support.fake_clock import FakeClock
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.bridge.keys import DAY, KeyList, key_list_path
from cloudtolocalllm.contracts.control import KeyAdded, KeyRevoked

KEY_ID = "3fomfi6a5lvd"
OTHER = "aaaaaaaaaaaa"
NOW = 1_800_000_000.0 // DAY * DAY + 3600
SESSION = (b"c2l-via", b"session")
EXCHANGE = "exchange-0123456789"
ID = (b"c2l-exchange-id", EXCHANGE.encode())
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True}
FINAL = b'{"model":"tiny","done":true,"prompt_eval_count":26,"eval_count":74}\n'


def by_key(key: str = KEY_ID, **scope: Any) -> tuple[tuple[bytes, bytes], ...]:
    """As the proxy says it of a request with a key that the cloud has let pass."""
    value = json.dumps({"iat": int(NOW) - 5, "exp": int(NOW) + 9 * DAY, **scope}).encode()
    return (
        (b"c2l-via", b"key"),
        (b"c2l-key", key.encode()),
        (b"c2l-scope", base64.urlsafe_b64encode(value).rstrip(b"=")),
    )


def said(ask: Ask) -> tuple[int, str]:
    return ask.status, ask.problem


async def ollama(asked: Asked) -> None:
    asked.head(200, "content-type: application/x-ndjson", chunked=True)
    for _ in range(3):
        asked.chunk(b'{"message":{"content":"w"},"done":false}\n')
    asked.chunk(FINAL)
    asked.last_chunk()


async def events(asked: Asked) -> None:
    asked.head(200, "content-type: text/event-stream", chunked=True)
    for _ in range(9):
        asked.chunk(b'data: {"choices":[{"delta":{"content":"w"}}]}\n\n')
    asked.chunk(b"data: [DONE]\n\n")
    asked.last_chunk()


async def forever(asked: Asked) -> None:
    asked.head(200, "content-type: text/event-stream", chunked=True)
    while not asked.gone.is_set():
        asked.chunk(b"data: 1\n\n")
        await asked.writer.drain()
        await asyncio.sleep(0.01)


async def test_a_key_revoked_at_home_is_refused_though_the_cloud_lets_it_pass(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=clock) as at:
        assert (await at.answer("POST", "/v1/chat/completions", CHAT, *by_key())).status == 200
        at.bridge.keys.take(KeyRevoked(KEY_ID))
        engine.asked.clear()
        for method, target in (
            ("POST", "/v1/chat/completions"),
            ("GET", "/v1/models"),
            ("GET", f"/c2l/exchanges/{EXCHANGE}"),
            ("POST", "/nowhere"),
        ):
            refused = await at.answer(method, target, CHAT if method == "POST" else None, *by_key())
            assert said(refused) == (401, "unauthenticated"), target
            assert refused.field(b"www-authenticate") == b"Bearer"
        assert not engine.asked
        assert (await at.answer("POST", "/v1/chat/completions", CHAT, *by_key(OTHER))).status == 200
        assert (await at.answer("POST", "/v1/chat/completions", CHAT, SESSION)).status == 200
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=clock) as at:
        again = await at.answer("POST", "/v1/chat/completions", CHAT, *by_key())
        assert said(again) == (401, "unauthenticated"), "after a restart"


async def test_the_owner_revokes_with_another_process_and_running_answers_end(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=clock) as at:
        engine.answer = forever
        mine = at.ask("POST", "/v1/chat/completions", CHAT, *by_key())
        other = at.ask("POST", "/v1/chat/completions", CHAT, *by_key(OTHER))
        page = at.ask("POST", "/v1/chat/completions", CHAT, SESSION)
        for ask in (mine, other, page):
            await ask.headed()
        owner = KeyList(key_list_path(tmp_path / "credential.json"), clock)
        owner.revoke(KEY_ID)
        owner.close()
        await mine.finished()
        assert mine.reset is not None, "cut, not ended"
        assert not other.done.is_set()
        assert not page.done.is_set()
        await until(lambda: sum(asked.gone.is_set() for asked in engine.asked) == 1)


async def test_an_expired_key_is_refused(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=clock) as at:
        assert (await at.answer("GET", "/v1/models", None, *by_key())).status == 200
        clock.advance(9 * DAY)
        assert said(await at.answer("GET", "/v1/models", None, *by_key())) == (401, "unauthenticated")


MODELS: dict[str, Any] = {"mdl": ["tiny", "qwen*"]}


@pytest.mark.parametrize("kind", ["openai", "ollama"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"model": "tiny"}, 200),
        ({"model": "tiny:latest"}, 200),
        ({"model": "Qwen3:8b"}, 200),
        ({"model": "big"}, 403),
        ({"model": "tinyx"}, 403),
        ({"Model": "big"}, 403),
        ({"model": "tiny", "MODEL": "big"}, 403),
        ({"model": "tiny", "name": "big"}, 403),
        ({"model": "tiny", "\u017fource": "big"}, 403),
        ({}, 403),
        ({"model": ""}, 403),
        ({"model": ["tiny"]}, 400),
        ({"model": None}, 400),
    ],
)
async def test_a_model_out_of_the_scope_never_reaches_an_engine(
    tmp_path: Path, kind: str, content: dict[str, Any], status: int
) -> None:
    async with scripted_engine(kind=kind, models=["tiny", "big"]) as engine, home(
        tmp_path, engine.url, clock=FakeClock(NOW)
    ) as at:  # fmt: skip
        answer = await at.answer("POST", "/v1/chat/completions", {**content, "stream": False}, *by_key(**MODELS))
        assert answer.status == status
        assert len(engine.asked) == (status == 200)
        if status == 403:
            assert answer.problem == "key-scope"
            assert "big" not in answer.data.decode()


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"tiny","model":"big"}',
        b'{"model":"big","model":"tiny"}',
        b'{"model":"tiny"}{"model":"big"}',
        b'{"mod\\u0065l":"big"}',
        b"",
        b"model=tiny",
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_is_none(tmp_path: Path, content: bytes) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        answer = await at.ask("POST", "/v1/chat/completions", None, *by_key(**MODELS), content=content).finished()
        assert answer.status in (400, 403)
        assert not engine.asked


async def test_compressed_content_hides_no_model(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        fields = (*by_key(**MODELS), (b"content-encoding", b"gzip"))
        assert (await at.answer("POST", "/v1/chat/completions", CHAT, *fields)).status == 400
        assert not engine.asked


@pytest.mark.parametrize("engines", [1, 2])
async def test_lists_show_the_models_of_the_scope_only(tmp_path: Path, engines: int) -> None:
    async with (
        scripted_engine(kind="ollama", models=["tiny", "big"], loaded=["big"]) as first,
        scripted_engine(kind="ollama", models=["qwen3:8b", "huge"]) as second,
        home(tmp_path, *[first.url, second.url][:engines], clock=FakeClock(NOW)) as at,
    ):
        seen = ["tiny", "qwen3:8b"][:engines]
        fields = by_key(**MODELS)
        tags = await at.answer("GET", "/ollama/api/tags", None, *fields)
        assert [model["name"] for model in tags.json["models"]] == seen
        listed = await at.answer("GET", "/v1/models", None, *fields)
        assert [model["id"] for model in listed.json["data"]] == seen
        assert (await at.answer("GET", "/ollama/v1/models", None, *fields)).json["data"] == listed.json["data"]
        assert (await at.answer("GET", "/ollama/api/ps", None, *fields)).json == {"models": []}
        assert (await at.answer("HEAD", "/ollama/api/tags", None, *fields)).data == b""
        everything = await at.answer("GET", "/ollama/api/tags", None, *by_key(OTHER))
        assert len(everything.json["models"]) == 2 * engines


async def test_a_key_reaches_its_own_exchanges_only(tmp_path: Path) -> None:
    target = f"/c2l/exchanges/{EXCHANGE}"
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        engine.answer = forever
        running = at.ask("POST", "/v1/chat/completions", CHAT, *by_key(), ID)
        await running.headed()
        for method in ("GET", "HEAD", "DELETE"):
            assert (await at.answer(method, target, None, *by_key(OTHER))).status == 404
        assert not running.done.is_set()
        own = at.ask("GET", target, None, *by_key())
        await own.headed()
        assert own.status == 200
        page = at.ask("GET", target, None, SESSION)
        await page.headed()
        assert page.status == 200
        assert (await at.answer("DELETE", target, None, *by_key())).status == 204
        await running.finished()


async def test_tokens_of_a_day_are_counted_over_restarts_until_midnight(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    fields = by_key(tpd=250)
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url, clock=clock) as at:
        engine.answer = ollama
        for _ in range(2):
            answer = await at.answer("POST", "/ollama/api/chat", CHAT, *fields)
            assert answer.data.endswith(FINAL)
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url, clock=clock) as at:
        engine.answer = ollama
        assert (await at.answer("POST", "/ollama/api/chat", CHAT, *fields)).status == 200, "200 of 250"
        engine.asked.clear()
        for target in ("/ollama/api/chat", "/v1/chat/completions", "/v1/embeddings"):
            refused = await at.answer("POST", target, CHAT, *fields)
            assert said(refused) == (429, "rate-limited")
            assert refused.field(b"retry-after") == str(round(DAY - 3600)).encode()
        assert not engine.asked
        assert (await at.answer("GET", "/v1/models", None, *fields)).status == 200, "lists cost none"
        assert (await at.answer("POST", "/ollama/api/chat", CHAT, *by_key(OTHER, tpd=250))).status == 200
        clock.advance(DAY - 3600)
        assert (await at.answer("POST", "/ollama/api/chat", CHAT, *fields)).status == 200


async def test_an_answer_without_usage_counts_its_events_also_when_it_is_stopped(tmp_path: Path) -> None:
    fields = by_key(tpd=1000)
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        engine.answer = events
        await at.answer("POST", "/v1/chat/completions", CHAT, *fields)
        key = at.bridge.keys.find(KEY_ID)
        assert key is not None
        assert key.tokens == 10
        engine.answer = forever
        running = at.ask("POST", "/v1/chat/completions", CHAT, *fields)
        await until(lambda: running.data.count(b"data") >= 5)
        running.cancel()
        await until(lambda: engine.asked[-1].gone.is_set())
        assert key.tokens >= 15
        engine.answer = None
        before = key.tokens
        await at.answer("POST", "/v1/chat/completions", CHAT, *by_key(OTHER))
        other = at.bridge.keys.find(OTHER)
        assert other is not None
        assert (key.tokens, other.tokens) == (before, 0)


async def test_the_list_is_for_nobody_in_the_clear(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        at.bridge.keys.take(KeyAdded(KEY_ID, "Laptop", int(NOW), int(NOW + DAY), "{}"))
        for fields in (by_key(), (SESSION,), ()):
            for method in ("GET", "POST", "DELETE"):
                assert said(await at.answer(method, "/c2l/keys", None, *fields)) == (403, "route-refused")


async def test_fields_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        for fields in ((*by_key(), SESSION), (SESSION, SESSION), by_key()[:2], by_key()[1:]):
            assert said(await at.answer("GET", "/v1/models", None, *fields)) == (400, "bad-request")


async def test_the_engine_never_sees_who_asks(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=FakeClock(NOW)) as at:
        await at.answer("POST", "/v1/chat/completions", CHAT, *by_key())
        (asked,) = engine.asked
        assert not [name for name, _ in asked.headers if name.startswith("c2l")]
