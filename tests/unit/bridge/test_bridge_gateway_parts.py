"""Parts of the gateway alone: identity, encryption keys, offers, the sealing port, taking answers up."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_clock import FakeClock
from tests.support.home_store import DirectStore
from tests.support.sealed_parts import opener, sealer

from cloudtolocalllm.auth.scopes import KeyScope
from cloudtolocalllm.bridge.caller import Caller
from cloudtolocalllm.bridge.gateway.identity import (
    HomeIdentityError,
    fingerprint_of,
    identity_path,
    load_identity,
    replace_identity,
)
from cloudtolocalllm.bridge.gateway.key_keeper import KeyKeeper
from cloudtolocalllm.bridge.gateway.resuming import name_of, take_up
from cloudtolocalllm.bridge.gateway.sealed_port import MAX_UNSENT, SealedPort
from cloudtolocalllm.bridge.journal import Journal
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store import offers, preferences
from cloudtolocalllm.bridge.store.errors import ConflictError, StoreError
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.sealed import statement
from cloudtolocalllm.sealed.bhttp import Content, End
from cloudtolocalllm.sealed.exchange import ResponseReader
from cloudtolocalllm.sealed.key_ring import LIFE, PERIOD
from cloudtolocalllm.sealed.ohttp import RequestOpener
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY, NO_PADDING
from cloudtolocalllm.sealed.pairing import MAX_OFFERS, OFFER_LIFE
from cloudtolocalllm.sealed.resume import Resume
from cloudtolocalllm.tunnel import Headers, RequestHead, ResetReason, ResponseHead

# --- identity ---


def test_an_identity_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    credential = tmp_path / "new" / "credential.json"
    first, path = load_identity(credential), identity_path(credential)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == "credential.identity.pem"
    assert fingerprint_of(load_identity(credential)) == fingerprint_of(first)
    assert fingerprint_of(replace_identity(path)) != fingerprint_of(first)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_identity_is_neither_used_nor_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.identity.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(HomeIdentityError, match="new-identity"):
        load_identity(tmp_path / "x.json")
    assert "AAAA" in path.read_text()


async def test_an_identity_that_was_lost_is_not_replaced_in_silence(tmp_path: Path, clock: FakeClock) -> None:
    credential = tmp_path / "a.json"
    path = identity_path(credential)
    opened = await HomeStore.open(tmp_path / "a.home.db", clock)
    load_identity(credential)
    path.unlink()
    identity = load_identity(credential)  # nothing was signed by the first yet: no device knows it
    await KeyKeeper.open(identity, opened, clock)
    await opened.close()
    path.unlink()
    with pytest.raises(HomeIdentityError, match="new-identity"):
        load_identity(credential)
    assert not path.exists()
    replace_identity(path)
    assert fingerprint_of(load_identity(credential)) != fingerprint_of(identity)


# --- keys ---


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncGenerator[HomeStore]:
    opened = await HomeStore.open(tmp_path / "a.home.db", clock)
    yield opened
    await opened.close()


async def test_keys_are_replaced_after_a_day_and_forgotten_after_two(
    tmp_path: Path, store: HomeStore, clock: FakeClock
) -> None:
    keeper = await KeyKeeper.open(load_identity(tmp_path / "i.json"), store, clock)

    async def stated() -> statement.Statement:
        text = await keeper.statement("home")
        return statement.verify(text, keeper.fingerprint, "home", clock.wall())

    first = await stated()
    id_ = first.configs[0].key_id
    assert (await stated()).seq == first.seq
    clock.advance(PERIOD)
    assert keeper.private_key(id_) is not None
    second = await stated()
    assert second.configs != first.configs
    assert second.seq > first.seq
    assert keeper.private_key(id_) is not None, "expected the one before to be good for requests under way"
    clock.advance(LIFE - PERIOD)
    assert keeper.private_key(id_) is None
    await keeper.rotate()
    assert keeper._ring.previous is not None
    assert keeper._ring.previous.key_id == second.configs[0].key_id


async def test_numbers_rise_over_restarts_and_with_a_clock_that_was_set_back(
    tmp_path: Path, store: HomeStore, clock: FakeClock
) -> None:
    identity = load_identity(tmp_path / "i.json")
    seen = 0
    for step in (0.0, 10.0, -1_000_000.0, 5.0):
        clock.advance(step)
        keeper = await KeyKeeper.open(identity, store, clock)
        text = await keeper.statement("home")
        said = statement.verify(text, keeper.fingerprint, "home", clock.wall(), seen=seen + 1)
        seen = said.seq
        assert await store.read(preferences.statement_seq) == seen
    clock.advance(-500_000.0)  # while it runs
    said = statement.verify(await keeper.statement("home"), keeper.fingerprint, "home", clock.wall(), seen=seen + 1)


async def test_a_key_whose_number_cannot_be_written_is_not_used(
    tmp_path: Path, store: HomeStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await KeyKeeper.open(load_identity(tmp_path / "i.json"), store, clock)
    before = keeper._ring.current

    async def fails(*_: Any, **__: Any) -> None:
        raise StoreError("no")

    monkeypatch.setattr(store, "write", fails)
    clock.advance(PERIOD)
    await keeper.rotate()
    assert keeper._ring.current is before


# --- offers ---


def test_offers_are_taken_out_once_while_they_are_good(tmp_path: Path) -> None:
    home = DirectStore(tmp_path / "a.home.db")
    for n in range(MAX_OFFERS):
        home(offers.add, bytes([n]) * 32)
        home.clock.advance(1)
    with pytest.raises(ConflictError, match="at most"):
        home(offers.add, bytes(32))
    home.clock.advance(OFFER_LIFE - 2)
    assert home(offers.take_all) == [(bytes([MAX_OFFERS - 1]) * 32, OFFER_LIFE - 1)]
    assert home(offers.take_all) == []
    home.close()


# --- the port ---


class Wire:
    """A stream whose credit a test gives."""

    def __init__(self, window: int = 1 << 30) -> None:
        self.window = window
        self.heads: list[ResponseHead] = []
        self.data = bytearray()
        self.ended = False
        self.resets: list[ResetReason] = []

    def send_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def send_data(self, data: bytes) -> None:
        assert len(data) <= self.window
        assert not self.ended
        self.window -= len(data)
        self.data += data

    def end(self, trailers: Headers = ()) -> None:
        self.ended = True

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        self.resets.append(reason)

    def consumed(self, size: int) -> None:
        pass


def port_on(wire: Wire, label: str = "ephemeral", **more: Any) -> tuple[SealedPort, ResponseReader]:
    sealed = sealer(label)
    opened: RequestOpener = opener()
    opened.receive_data(sealed.header)
    sides: dict[str, Callable[..., None]] = {"on_over": lambda: None, "on_broken": lambda: None}
    port = SealedPort(wire, opened.response(bytes(16)), "x/y", consumed=lambda size: None, **(sides | more))
    return port, ResponseReader(sealed.response())


HEAD = ResponseHead(200, ((b"content-type", b"text/event-stream"),))


def content_of(reader: ResponseReader, data: bytearray, *, whole: bool = True) -> bytes:
    events = reader.receive_data(bytes(data)) + (reader.end() if whole else [])
    assert isinstance(events[-1], End) is whole
    return b"".join(event.data for event in events if isinstance(event, Content))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 40_000), max_size=12),
    st.lists(st.integers(1, 30_000), max_size=30),
    st.sampled_from([DEFAULT_POLICY, NO_PADDING]),
)
def test_whatever_the_credit_all_comes_in_order_and_little_is_held(
    pieces: list[int], credits_: list[int], policy: Any
) -> None:
    async def run() -> None:
        wire = Wire(0)
        port, reader = port_on(wire, policy=policy)
        left = [bytes([n % 251]) * size for n, size in enumerate(pieces)]
        whole = b"".join(left)
        port.send_head(HEAD)

        def pump() -> None:
            while left and (size := port.window):
                data = left.pop(0)
                port.send_data(data[:size])
                if data[size:]:
                    left.insert(0, data[size:])
                assert len(port._unsent) <= 2 * MAX_UNSENT + 20_000

        pump()
        for credit in (*credits_, *([100_000] * 20)):
            wire.window += credit
            if port.writable():
                pump()
        assert not left
        port.end()
        while not wire.ended:
            wire.window += 10_000
            port.writable()
        assert port.over
        assert content_of(reader, wire.data) == whole

    asyncio.run(run())


class Loop:
    """A loop whose time a test sets; it knows timers only."""

    def __init__(self) -> None:
        self.now = 50.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, work: Callable[[], None]) -> "Loop":
        self.made += 1
        self.timers.append((when, work))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [work for when, work in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for work in due:
            work()


async def test_content_leaves_on_the_grid_by_one_timer_and_the_end_at_once() -> None:
    wire, loop = Wire(), Loop()
    port, reader = port_on(wire)
    port._loop = loop  # type: ignore[assignment] # all of it that the port uses
    port.send_head(HEAD)
    sizes = [len(wire.data)]
    for n in range(70):  # a token each 5 ms, for 350 ms
        port.send_data(b"token %02d " % n)
        sizes.append(len(wire.data))
        assert len(loop.timers) <= 1
        loop.advance(0.005)
        sizes.append(len(wire.data))
    sent = [later - earlier for earlier, later in pairwise(sizes) if later != earlier]
    assert len(sent) == 4, "expected the first at once, and then one each 100 ms"
    assert loop.made == 4, "expected a timer a flush, not one a token"
    port.send_data(b"last")
    port.end()
    assert wire.ended
    assert not loop.timers
    assert content_of(reader, wire.data) == b"".join(b"token %02d " % n for n in range(70)) + b"last"


async def test_a_full_chunk_does_not_wait_and_leaves_no_early_timer() -> None:
    wire, loop = Wire(), Loop()
    port, _ = port_on(wire)
    port._loop = loop  # type: ignore[assignment] # all of it that the port uses
    port.send_head(HEAD)
    port.send_data(b"first")
    loop.advance(0.01)
    port.send_data(b"x" * 100)  # waits until 0.1
    port.send_data(b"x" * 20_000)
    before = len(wire.data)
    loop.advance(0.08)
    assert len(wire.data) == before
    loop.advance(0.011)
    assert len(wire.data) > before


async def test_a_reset_is_not_an_end_and_nothing_follows_it() -> None:
    wire, loop, over = Wire(), Loop(), []
    port, reader = port_on(wire, on_over=lambda: over.append(1))
    port._loop = loop  # type: ignore[assignment] # all of it that the port uses
    port.send_head(HEAD)
    port.send_data(b"first")
    port.send_data(b"second")
    port.reset(ResetReason.ENGINE_ERROR)
    port.send_data(b"third")
    port.end()
    port.reset(ResetReason.INTERNAL)
    loop.advance(1.0)
    assert (wire.resets, wire.ended, over) == ([ResetReason.ENGINE_ERROR], False, [1])
    assert content_of(reader, wire.data, whole=False) == b"first"


async def test_fields_that_cannot_be_sealed_are_left_out_and_a_status_breaks_off() -> None:
    wire, broken = Wire(), []
    port, reader = port_on(wire)
    port.send_head(ResponseHead(103, ((b"link", b"</x>"),)))
    port.send_head(ResponseHead(200, ((b"bad", b"a\r\nb"), (b"te", b"x"), (b"Upper", b"x"), (b"good", b"1"))))
    port.end(((b"bad", b"\0"), (b"sum", b"1")))
    events = reader.receive_data(bytes(wire.data)) + reader.end()
    assert events[1].fields == ((b"good", b"1"),)  # type: ignore[union-attr] # a head
    assert events[-1] == End(((b"sum", b"1"),))
    wire = Wire()
    port, _ = port_on(wire, "another", on_broken=lambda: broken.append(1))
    port.send_head(ResponseHead(999))
    await asyncio.sleep(0)
    assert (wire.resets, wire.heads, broken) == ([ResetReason.ENGINE_ERROR], [], [1])


# --- taking up ---

ASKED = RequestHead("POST", "/v1/chat/completions")
NAME = bytes(range(16))


async def test_a_records_state_says_whether_it_is_taken_up() -> None:
    def outcome(journal: Journal, offset: int = 0, head: RequestHead = ASKED, device: str = "d") -> object:
        try:
            return take_up(journal, Resume(NAME, offset), device, head, Wire(), 1.0) is not None
        except RefusalError as error:
            return error.problem

    def journal_with(*steps: str) -> Journal:
        journal = Journal(1 << 20)
        record = journal.open(name_of(Resume(NAME)), 0.0, device="d")
        record.request = "POST /v1/chat/completions"
        for step in steps:
            match step:
                case "head":
                    record.start(200, ())
                case "data":
                    record.write(b"12345")
                case "finish":
                    record.finish((), 0.5)
                case "cut":
                    record.break_off("the engine broke off", 0.5)
                case "stop":
                    record.stop(0.5)
                case "shed":
                    record.shed()
        return journal

    unknown = Problem.EXCHANGE_UNKNOWN
    assert outcome(Journal(1)) is False
    assert outcome(Journal(1), 1) is unknown
    assert outcome(journal_with()) is True
    assert outcome(journal_with("head", "data"), 5) is True
    assert outcome(journal_with("head", "data"), 6) is Problem.BAD_REQUEST
    assert outcome(journal_with("head", "data", "finish"), 5) is True
    assert outcome(journal_with("head", "data", "cut"), 4) is True
    assert outcome(journal_with("head", "data", "cut"), 5) is Problem.ENGINE_ERROR
    assert outcome(journal_with("cut")) is False, "expected what never began to begin"
    assert outcome(journal_with("stop")) is unknown
    assert outcome(journal_with("head", "data", "stop"), 2) is unknown
    assert outcome(journal_with("head", "shed")) is unknown
    assert outcome(journal_with("head"), head=RequestHead("POST", "/v1/completions")) is Problem.BAD_REQUEST
    assert outcome(journal_with("head"), device="other") is False
    assert outcome(journal_with("head", "data", "stop"), 2, device="other") is unknown


def test_one_devices_names_are_nothing_to_another() -> None:
    journal = Journal(1 << 20)
    one, other, plain = (journal.open("name", 0.0, device=device) for device in ("a", "b", ""))
    assert len(journal) == 3
    one.write(b"x")
    one.finish((), 1.0)
    assert journal.find("name", 1.0, "a") is one
    assert journal.find("name", 1.0, "b") is other
    assert journal.find("name", 1.0) is plain
    plain.finish((), 1.0)
    other.finish((), 1.0)
    journal.expire(10_000.0)
    assert (len(journal), journal.held) == (0, 0)


def test_a_stop_calls_the_work_off_once() -> None:
    journal, calls = Journal(1 << 20), []
    record = journal.open("name", 0.0)
    record.cancel = lambda: calls.append(1)
    record.stop(1.0)
    record.stop(2.0)
    assert (calls, record.stopped, record.ended, record.finished_at) == ([1], True, True, 1.0)
    done = journal.open("done", 0.0)
    done.finish((), 1.0)
    done.stop(2.0)
    assert not done.stopped, "expected an answer that was complete to stay what it is"


# --- what a key may ---


@pytest.mark.parametrize(
    ("scope", "route", "home"),
    [
        (KeyScope(), True, True),
        (KeyScope(requests_per_minute=5, bridge="b"), True, True),
        (KeyScope(routes=("/e2e/",)), False, False),
        (KeyScope(routes=("/e2e/", "/v1/")), True, False),
        (KeyScope(routes=("/e2e/", "/ollama/")), False, False),
        (KeyScope(models=("a*",)), True, False),
        (KeyScope(tokens_per_day=5), True, False),
    ],
)
def test_what_a_limited_key_reaches_sealed(scope: KeyScope, route: bool, home: bool) -> None:
    caller = Caller(key="k", scope=scope, device="d")
    checks: dict[Callable[[], None], bool] = {
        lambda: caller.check_route("/v1/models?x"): route,
        caller.check_home: home,
    }
    for check, allowed in checks.items():
        if allowed:
            check()
        else:
            with pytest.raises(RefusalError, match="key-scope"):
                check()
