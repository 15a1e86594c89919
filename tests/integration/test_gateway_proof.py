"""Nothing is done for a request before its device is proved; what is not whole is never taken for it."""

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.bridge_parts import Home
from tests.support.fake_clock import FakeClock
from tests.support.gateway_parts import CHAT, THREE, gateway_of, paired, store_of, stream_three
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine
from tests.support.sealed_client import ClearProblemError, CutError, SealedClient, TunnelOuter, slug_of

from cloudtolocalllm.bridge.home_api.api import HomeApi
from cloudtolocalllm.bridge.home_api.messages import Caller, Events, Reply, Request
from cloudtolocalllm.sealed.bhttp import Content, Message, RequestHead
from cloudtolocalllm.sealed.device import proof_fields
from cloudtolocalllm.sealed.errors import ForgedError, SealedError, TruncatedError
from cloudtolocalllm.sealed.exchange import ResponseReader, seal_request
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RequestSealer
from cloudtolocalllm.sealed.replay import ReplayGuard

PATHS = (b"/v1/chat/completions", b"/c2l/conversations")
BODY = json.dumps(CHAT).encode()


def sealed_with(client: SealedClient, fields: Fields, path: bytes, content: bytes = BODY) -> bytes:
    """Return a request with exactly these fields."""
    assert client.statement is not None
    sealer = RequestSealer(client.statement.configs[0], bytes(range(32)))
    return seal_request(sealer, Message(RequestHead(b"POST", path, fields, b"https", b"home"), content))


class Proofs:
    """Fields of a proof, made wrong in one way.

    The bridge's clock and the client's are to be one that stands still: "too early" is by a second.
    """

    def __init__(self, client: SealedClient) -> None:
        assert client.statement is not None
        sealer = RequestSealer(client.statement.configs[0], bytes(range(32)))
        self.right = dict(proof_fields(sealer, client.key, client.now()))
        stranger = ec.generate_private_key(ec.SECP256R1())
        self.stranger = dict(proof_fields(sealer, stranger, client.now()))
        late, early = (dict(proof_fields(sealer, client.key, client.now() + by)) for by in (-121, 121))
        self.wrong: dict[str, tuple[Fields, tuple[int, str]]] = {
            "no device": (self._without(b"c2l-device"), (401, "device-unknown")),
            "no proof": (self._without(b"c2l-proof"), (401, "unauthenticated")),
            "no date": (self._without(b"date"), (400, "date")),
            "twice": ((*self.right.items(), (b"c2l-device", b"x")), (400, "bad-request")),
            "malformed": (tuple({**self.right, b"c2l-proof": b"!"}.items()), (400, "bad-request")),
            "a stranger": (tuple(self.stranger.items()), (401, "device-unknown")),
            "a stranger's proof": (
                tuple({**self.right, b"c2l-proof": self.stranger[b"c2l-proof"]}.items()),
                (401, "unauthenticated"),
            ),
            "too late": (tuple(late.items()), (400, "date")),
            "too early": (tuple(early.items()), (400, "date")),
        }

    def _without(self, name: bytes) -> Fields:
        return tuple((key, value) for key, value in self.right.items() if key != name)


async def outcome(at: Home, client: SealedClient, sealed: bytes) -> tuple[int, str, dict[bytes, bytes]]:
    """Send bytes made with the fixed ephemeral key; return status, problem and fields of the sealed answer."""
    assert client.statement is not None
    sealer = RequestSealer(client.statement.configs[0], bytes(range(32)))
    answer = await client.sent(sealed, sealer)
    assert answer.head is not None
    return answer.status, slug_of(await answer.json()), dict(answer.head.fields)


async def test_nothing_is_done_for_whoever_does_not_prove_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    handle = HomeApi.handle

    async def noting(api: HomeApi, caller: Caller, request: Request) -> Reply | Events:
        asked.append(request.path)
        return await handle(api, caller, request)

    monkeypatch.setattr(HomeApi, "handle", noting)
    async with scripted_engine() as engine, paired(tmp_path, engine, clock=FakeClock()) as (at, client):
        remembered = gateway_of(at)._replays.size
        for path in PATHS:
            for name, (fields, expected) in Proofs(client).wrong.items():
                status, slug, answered = await outcome(at, client, sealed_with(client, fields, path))
                assert (status, slug) == expected, (name, path)
                assert (b"date" in answered) == (slug == "date"), name
        assert (engine.asked, asked) == ([], [])
        assert at.bridge._desk.memory.held == 0
        assert len(at.bridge.journal) == 0
        assert gateway_of(at)._replays.size == remembered, "expected that strangers fill no memory"
        right = tuple(Proofs(client).right.items())
        assert (await outcome(at, client, sealed_with(client, right, PATHS[1], b'{"title": "t"}')))[0] == 200
        assert asked == ["/conversations"]


async def test_content_of_whoever_is_not_known_is_read_over(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        fields, _ = Proofs(client).wrong["a stranger"]
        sealed = sealed_with(client, fields, PATHS[1], b"x" * 3_000_000)
        answer = TunnelOuter(at).begin("POST", client.target, REQUEST_TYPE, sealed)
        await until(lambda: answer.ended)
        assert answer.stream is not None
        await until(lambda: answer.stream is not None and answer.stream._our_half_done)
        assert at.bridge._desk.memory.held == 0


async def test_refusals_do_not_differ_in_size_not_from_a_small_answer_either(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine, clock=FakeClock()) as (at, client):
        sizes = set()
        served, _ = client.seal(RequestHead(b"POST", PATHS[1], (), b"https", b"home"), b'{"title": "t"}')
        refused = [sealed_with(client, fields, PATHS[0]) for fields, _ in Proofs(client).wrong.values()]
        for sealed in (served, *refused):
            answer = await TunnelOuter(at).send("POST", client.target, REQUEST_TYPE, sealed)
            sizes.add(len(b"".join([data async for data in answer.pieces()])))
        assert len(sizes) == 1


async def test_a_request_is_taken_once(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (_, client):
        sealed, sealer = client.seal(RequestHead(b"POST", PATHS[0], (), b"https", b"home"), BODY)
        first = await client.sent(sealed, sealer)
        assert await first.read() == THREE
        again = await client.sent(sealed, sealer)
        assert (again.status, await again.problem()) == (503, "connection-lost")
        assert len(engine.asked) == 1


async def test_a_clock_within_two_minutes_is_right(tmp_path: Path) -> None:
    clock = FakeClock()
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine, clock=clock) as (_, client):
        for off in (-120, 120):
            client.now = lambda off=off: clock.wall() + off  # type: ignore[misc] # bound now
            assert (await client.open("POST", "/v1/chat/completions", CHAT)).status == 200


async def test_too_many_requests_are_refused_rather_than_forgotten(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        gateway_of(at)._replays = ReplayGuard(1)
        await client.ask("GET", "/v1/models")
        answer = await client.open("GET", "/v1/models")
        assert (answer.status, answer.field(b"retry-after")) == (503, b"240")


async def test_a_forged_or_truncated_request_is_refused_in_the_clear_and_does_nothing(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        head = RequestHead(b"POST", b"/c2l/conversations", (), b"https", b"home")
        before = await store_of(at).read(lambda tx: tx.all("SELECT id FROM conversations"))
        sealed, _ = client.seal(head, b'{"title": "t"}')
        cuts = [0, 1, 38, 39, 40, 41, 100, len(sealed) // 2, len(sealed) - 17, len(sealed) - 1]
        for damaged in (
            *(sealed[:cut] for cut in cuts),
            *(sealed[:at_] + bytes([sealed[at_] ^ 1]) + sealed[at_ + 1 :] for at_ in (1, 8, 41, 60, len(sealed) - 1)),
            sealed + b"x",
        ):
            answer = await TunnelOuter(at).send("POST", client.target, REQUEST_TYPE, damaged)
            content = b"".join([data async for data in answer.pieces()])
            assert (answer.status, slug_of(json.loads(content))) == (400, "bad-request"), len(damaged)
        after = await store_of(at).read(lambda tx: tx.all("SELECT id FROM conversations"))
        assert after == before == []


async def test_a_request_that_breaks_off_never_becomes_one_to_an_engine(tmp_path: Path) -> None:
    async def slow(asked: Asked) -> None:
        asked.json({"ok": True})

    async with scripted_engine(answer=slow) as engine, paired(tmp_path, engine) as (at, client):
        head = RequestHead(b"POST", b"/v1/chat/completions", (), b"https", b"home")
        sealed, _ = client.seal(head, json.dumps({**CHAT, "pad": "x" * 100_000}).encode())
        answer = TunnelOuter(at).begin("POST", client.target, REQUEST_TYPE, sealed[:60_000], end=False)
        await until(lambda: bool(at.bridge._desk.live))
        assert answer.stream is not None
        answer.stream.end()
        await until(lambda: not at.bridge._desk.live)
        await until(lambda: answer.ended)
        assert (answer.status, engine.asked) == (400, [])


async def test_truncation_is_seen_at_every_cut(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        sealed, sealer = client.seal(RequestHead(b"POST", PATHS[0], (), b"https", b"home"), BODY)
        answer = await TunnelOuter(at).send("POST", client.target, REQUEST_TYPE, sealed)
        whole = b"".join([data async for data in answer.pieces()])
        for cut in range(len(whole)):
            reader = ResponseReader(sealer.response())
            events = reader.receive_data(whole[:cut])
            assert THREE.startswith(b"".join(event.data for event in events if isinstance(event, Content)))
            # Within the final chunk a cut looks like a forgery: where that ends, only the end of the bytes tells.
            with pytest.raises((TruncatedError, ForgedError)):
                reader.end()


async def test_an_answer_that_breaks_off_at_home_is_not_whole(tmp_path: Path) -> None:
    async def broken(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        asked.chunk(b"data: 1\n\n")
        await asked.writer.drain()
        await asyncio.sleep(0.05)
        asked.writer.close()

    async with scripted_engine(answer=broken) as engine, paired(tmp_path, engine) as (_, client):
        answer = await client.open("POST", "/v1/chat/completions", CHAT)
        with pytest.raises(CutError):
            await answer.read()
        assert answer.trailers is None


async def test_what_is_sealed_to_another_home_is_not_opened(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path / "a", engine) as (at, client):
        del at
        async with paired(tmp_path / "b", engine) as (other, its):
            await its.refresh()
            strange = SealedClient(TunnelOuter(other), client.bridge_id, client.pinned, key=client.key)
            with pytest.raises(SealedError, match="pinned identity"):
                await strange.refresh()
            strange.statement = client.statement
            sealed, sealer = strange.seal(RequestHead(b"GET", b"/v1/models", (), b"https", b"home"))
            with pytest.raises(ClearProblemError) as caught:
                await strange.sent(sealed, sealer)
            assert caught.value.slug in ("ohttp-key", "bad-request")
