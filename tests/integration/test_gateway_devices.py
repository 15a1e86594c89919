"""Devices are let in by a link or by an approval, and put out at once."""

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.bridge_parts import Home, home
from tests.support.fake_clock import FakeClock
from tests.support.gateway_parts import CHAT, NAMED, gateway_of, paired, store_of
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine
from tests.support.sealed_client import (
    ClearProblemError,
    CutError,
    SealedClient,
    TunnelOuter,
    link_of,
)

from cloudtolocalllm.bridge.store import database, devices, offers
from cloudtolocalllm.bridge.store.errors import NotHereError, StoreBusyError, StoreError
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.sealed import pairing
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.device import public_point
from cloudtolocalllm.sealed.pairing import OFFER_LIFE, Introduction, PairingLink, read_link

ROUTE = ("POST", "/v1/chat/completions")


def in_another_process(at: Home, work: Callable[[Tx], Any], clock: FakeClock | None = None) -> None:
    """Change the store as the owner's commands do: by a connection of their own."""
    db = database.connect(store_of(at).path, check=False, aside=False)
    try:
        db.execute("BEGIN IMMEDIATE")
        work(Tx(db, clock.wall() if clock is not None else time.time()))
        db.execute("COMMIT")
    finally:
        db.close()


async def endless(asked: Asked) -> None:
    asked.head(200, "content-type: text/event-stream", chunked=True)
    while not asked.gone.is_set():
        asked.chunk(b"data: 1\n\n")
        await asked.writer.drain()
        await asyncio.sleep(0.01)


# --- links ---


async def test_a_link_pairs_one_device(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        link = link_of(at)
        first = SealedClient(TunnelOuter(at), link.bridge_id, link.fingerprint)
        answer = await first.introduce("my laptop", link.shared)
        made = await answer.json()
        assert (answer.status, made["id"], made["name"]) == (201, first.device, "my laptop")
        assert (made["paired"], made["approved_by"]) == (True, "link")
        second = SealedClient(TunnelOuter(at), link.bridge_id, link.fingerprint)
        with pytest.raises(ClearProblemError) as caught:
            await second.introduce("another", link.shared)
        assert caught.value.slug == "ohttp-key"
        assert await second.refused("GET", "/v1/models") == (401, "device-unknown")
        assert await first.ask("GET", "/v1/models")


async def test_of_two_devices_with_one_link_one_is_let_in(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        link = link_of(at)
        clients = [SealedClient(TunnelOuter(at), link.bridge_id, link.fingerprint) for _ in range(4)]
        for client in clients:
            await client.refresh()

        async def attempt(client: SealedClient) -> int:
            try:
                return (await client.introduce("one of them", link.shared)).status
            except ClearProblemError as error:
                return error.status

        assert sorted(await asyncio.gather(*map(attempt, clients))).count(201) == 1
        assert len(await store_of(at).read(devices.all_of)) == 1


async def test_a_link_is_not_used_up_by_whoever_proves_nothing(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        link = link_of(at)
        client = SealedClient(TunnelOuter(at), link.bridge_id, link.fingerprint)
        await client.refresh()
        stranger = SealedClient(client.outer, client.bridge_id, client.pinned)
        kinds = (pairing.REQUEST_TYPE, pairing.RESPONSE_TYPE)
        head = RequestHead(b"POST", pairing.PATH, (), b"https", b"home")
        theirs = Introduction(public_point(stranger.key), "x").encode()
        for content, path in ((theirs, pairing.PATH), (b"{}", pairing.PATH), (theirs, b"/c2l/conversations")):
            at_path = RequestHead(head.method, path, (), head.scheme, head.authority)
            sealed, sealer = client.seal(at_path, content, link.shared)
            answer = await client.sent(sealed, sealer, kinds)
            assert answer.status in (400, 401)
        sealed, _ = client.seal(head, theirs, link.shared)
        refused = await client.outer.send("POST", client.target, kinds[0], sealed[:-1])
        assert refused.status == 400
        client.now = lambda: 1_000_000_000.0
        sealed, sealer = client.seal(head, Introduction(public_point(client.key), "x").encode(), link.shared)
        assert await (await client.sent(sealed, sealer, kinds)).problem() == "date"
        client.now = time.time
        assert (await client.introduce("laptop", link.shared)).status == 201


async def test_a_link_is_good_for_ten_minutes(tmp_path: Path) -> None:
    clock = FakeClock()
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=clock) as at:
        for wait, good in ((OFFER_LIFE - 1, True), (OFFER_LIFE + 1, False)):
            link = link_of(at)
            clock.advance(wait)
            client = SealedClient(TunnelOuter(at), link.bridge_id, link.fingerprint, now=clock.wall)
            if good:
                assert (await client.introduce("laptop", link.shared)).status == 201
            else:
                with pytest.raises(ClearProblemError):
                    await client.introduce("laptop", link.shared)


async def test_the_running_bridge_takes_an_offer_of_the_owners_command(tmp_path: Path) -> None:
    clock = FakeClock()
    async with scripted_engine() as engine, home(tmp_path, engine.url, clock=clock) as at:
        for age, good in ((0.0, True), (OFFER_LIFE - 5, True), (OFFER_LIFE + 5, False)):
            secret = secrets.token_bytes(32)
            in_another_process(at, lambda tx, secret=secret: offers.add(tx, secret), clock)  # type: ignore[misc] # bound
            clock.advance(age)
            link = PairingLink("br-test", gateway_of(at).keys.fingerprint, secret)
            client = SealedClient(TunnelOuter(at), link.bridge_id, link.fingerprint, now=clock.wall)
            if good:
                assert (await client.introduce("laptop", link.shared)).status == 201
            else:
                with pytest.raises(ClearProblemError):
                    await client.introduce("laptop", link.shared)
        left = await store_of(at).read(lambda tx: tx.one("SELECT count(*) FROM pairing_offers"))
        assert left == (0,), "expected no secret to stay on the disk"


async def test_a_device_makes_a_link_for_the_next_one(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        offer = await client.ask("POST", "/c2l/pairings")
        assert offer["expires"] == OFFER_LIFE
        link = read_link(offer["link_fragment"])
        assert (link.bridge_id, link.fingerprint) == ("br-test", client.pinned)
        other = await SealedClient.paired(TunnelOuter(at), link, "phone")
        assert await other.ask("GET", "/v1/models")
        for _ in range(pairing.MAX_OFFERS):
            await client.ask("POST", "/c2l/pairings")
        assert await client.refused("POST", "/c2l/pairings") == (503, "overloaded")
        secret = secrets.token_bytes(32)
        in_another_process(at, lambda tx: offers.add(tx, secret))
        owners = PairingLink("br-test", client.pinned, secret)
        new = await SealedClient.paired(
            TunnelOuter(at), owners, "tablet"
        )  # devices never leave no room for the owner
        assert await new.ask("GET", "/v1/models")


@pytest.mark.parametrize("by_the_owners_command", [False, True])
async def test_a_link_is_put_out_with_the_device_that_made_it(tmp_path: Path, by_the_owners_command: bool) -> None:
    """Else whoever has a lost device lets in another before it is removed."""
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        lost = await SealedClient.paired(TunnelOuter(at), link_of(at), "phone")
        offers_made = [await each.ask("POST", "/c2l/pairings") for each in (lost, client)]
        theirs, ours = (read_link(offer["link_fragment"]) for offer in offers_made)
        if by_the_owners_command:
            in_another_process(at, lambda tx: devices.remove(tx, lost.device))
        else:
            await client.ask("DELETE", f"/c2l/devices/{lost.device}", status=204)
        new = SealedClient(TunnelOuter(at), client.bridge_id, client.pinned)
        with pytest.raises(ClearProblemError) as caught:
            await new.introduce("thief", theirs.shared)
        assert caught.value.slug == "ohttp-key"
        assert (await new.introduce("tablet", ours.shared)).status == 201


# --- without a link ---


async def test_a_device_without_a_link_waits_until_it_is_approved(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (_, client):
        new = SealedClient(client.outer, client.bridge_id, client.pinned)
        for _ in range(2):
            answer = await new.introduce("phone")
            waiting = await answer.json()
            assert (answer.status, waiting["id"], waiting["paired"]) == (202, new.device, False)
            assert await new.refused("GET", "/v1/models") == (401, "device-unknown")
        listed = (await client.ask("GET", "/c2l/devices"))["devices"]
        assert [device["paired"] for device in listed] == [True, False]
        approved = await client.ask("POST", f"/c2l/devices/{new.device}/approve")
        assert approved["approved_by"] == client.device
        answer = await new.introduce("phone")
        assert (answer.status, (await answer.json())["paired"]) == (200, True)
        assert await new.ask("GET", "/v1/models")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (NotHereError("removed just now"), (401, "device-unknown")),
        (StoreBusyError("busy"), (503, "overloaded")),
        (StoreError("broken"), (500, "internal")),
        (ValueError("a mistake of ours"), (500, "internal")),
    ],
)
async def test_whoever_asks_how_it_stands_is_answered_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, expected: tuple[int, str]
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise fault

    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        with monkeypatch.context() as patch:
            patch.setattr(store_of(at), "read", fails)
            answer = await client.introduce("laptop")
            assert (answer.status, await answer.problem()) == expected
            if not isinstance(fault, NotHereError):
                patch.setattr(store_of(at), "write", fails)
                stranger = SealedClient(client.outer, client.bridge_id, client.pinned)
                answer = await stranger.introduce("phone")
                assert (answer.status, await answer.problem()) == expected
            patch.setattr(gateway_of(at).keys, "statement", fails)
            with pytest.raises(ClearProblemError) as caught:
                await client.refresh()
            assert caught.value.status == 500


async def test_who_waits_has_shown_its_key(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        liar, victim = (SealedClient(client.outer, client.bridge_id, client.pinned) for _ in range(2))
        await liar.refresh()
        head = RequestHead(b"POST", pairing.PATH, (), b"https", b"home")
        remembered = gateway_of(at)._replays.size
        for content, slug in (
            (Introduction(public_point(victim.key), "x").encode(), "device-unknown"),
            (b"x" * 2000, "bad-request"),
            (json.dumps({"key": "AAAA", "name": "x"}).encode(), "bad-request"),
        ):
            sealed, sealer = liar.seal(head, content)
            assert await (await liar.sent(sealed, sealer)).problem() == slug
        assert len(await store_of(at).read(devices.all_of)) == 1
        for n in range(20):
            stranger = SealedClient(client.outer, client.bridge_id, client.pinned, statement=liar.statement)
            assert (await stranger.introduce(f"stranger {n}")).status == 202
        assert len(await store_of(at).read(devices.all_of)) == 1 + devices.MAX_WAITING
        assert gateway_of(at)._replays.size == remembered, "expected strangers to fill a memory of their own"


# --- removed ---


async def test_a_removed_device_is_cut_and_refused_at_once_and_for_good(tmp_path: Path) -> None:
    async with scripted_engine(answer=endless) as engine, paired(tmp_path, engine) as (at, client):
        other = await SealedClient.paired(TunnelOuter(at), link_of(at), "phone")
        state = await other.ask("GET", "/c2l/home")
        watch = await other.open("GET", f"/c2l/changes/events?epoch={state['epoch']}&since={state['newest']}")
        its = await other.open(*ROUTE, CHAT, exchange=NAMED)
        mine = await client.open(*ROUTE, CHAT, exchange=NAMED)
        await its.some()
        await client.ask("DELETE", f"/c2l/devices/{other.device}", status=204)
        for answer in (its, watch):
            with pytest.raises(CutError):
                await asyncio.wait_for(answer.read(), 15)
        await until(lambda: engine.asked[0].gone.is_set())
        assert not engine.asked[1].gone.is_set()
        assert await mine.some()
        for _ in range(2):
            assert await other.refused("GET", "/v1/models") == (401, "device-unknown")
        assert (await other.introduce("again")).status == 409
        with pytest.raises(AssertionError, match="was not removed"):
            await SealedClient.paired(TunnelOuter(at), link_of(at), key=other.key)


async def test_a_device_that_the_owners_command_removes_is_put_out(tmp_path: Path) -> None:
    async with scripted_engine(answer=endless) as engine, paired(tmp_path, engine) as (at, client):
        answer = await client.open(*ROUTE, CHAT, exchange=NAMED)
        await answer.some()
        in_another_process(at, lambda tx: devices.remove(tx, client.device))
        assert await client.refused("GET", "/v1/models") == (401, "device-unknown"), "expected it at once"
        with pytest.raises(CutError):
            await asyncio.wait_for(answer.read(), 15)
        await until(lambda: engine.asked[0].gone.is_set())


async def test_an_open_answer_ends_without_another_request_when_the_owner_removes_the_device(tmp_path: Path) -> None:
    async with scripted_engine(answer=endless) as engine, paired(tmp_path, engine) as (at, client):
        answer = await client.open(*ROUTE, CHAT, exchange=NAMED)
        in_another_process(at, lambda tx: devices.remove(tx, client.device))
        async with asyncio.timeout(15):
            with pytest.raises(CutError):
                await answer.read()


async def test_a_device_that_the_owners_command_approves_is_let_in(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        new = SealedClient(client.outer, client.bridge_id, client.pinned)
        assert (await new.introduce("phone")).status == 202
        in_another_process(at, lambda tx: devices.approve(tx, new.device, approved_by="local"))
        assert await new.ask("GET", "/v1/models")


async def test_a_device_may_remove_itself_and_hears_that_it_is_done(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (_, client):
        await client.ask("DELETE", f"/c2l/devices/{client.device}", status=204)
        assert await client.refused("GET", "/v1/models") == (401, "device-unknown")


async def test_a_removal_that_cannot_be_written_holds_all_the_same(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        other = await SealedClient.paired(TunnelOuter(at), link_of(at), "phone")
        db = sqlite3.connect(store_of(at).path, isolation_level=None)
        db.execute("CREATE TRIGGER broken BEFORE DELETE ON devices BEGIN SELECT raise(ABORT, 'no'); END")
        answer = await client.open("DELETE", f"/c2l/devices/{other.device}")
        assert answer.status == 500
        # Another change has the list read again, in which it is still.
        db.execute("UPDATE store SET devices_revision = devices_revision + 1")
        db.close()
        assert await other.refused("GET", "/v1/models") == (401, "device-unknown")
        assert await client.ask("GET", "/v1/models")
