"""Quota and retention, devices, attachments, settings, changes, export and import."""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.home_store import KINDS, DirectStore, store_path

from cloudtolocalllm.bridge.runs import prompt
from cloudtolocalllm.bridge.runs.answer import MAX_DETAIL, error_text
from cloudtolocalllm.bridge.runs.prompt import RunOptions
from cloudtolocalllm.bridge.store import (
    attachments,
    changes,
    conversations,
    devices,
    messages,
    preferences,
    retention,
    runs,
    transfer,
)
from cloudtolocalllm.bridge.store import tx as transactions
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError, StoreFullError, TooOldError
from cloudtolocalllm.bridge.store.messages import NewAttached, NewMessage
from cloudtolocalllm.bridge.store.preferences import Preferences
from cloudtolocalllm.bridge.store.runs import End, NewRun, Piece, RunState, TextKind
from cloudtolocalllm.sealed.device import public_point

DAY = 86_400.0


@pytest.fixture(params=KINDS)
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DirectStore]:
    made = DirectStore(store_path(tmp_path / "data" / "a.home.db", request.param))
    yield made
    made.close()


def point() -> bytes:
    return public_point(ec.generate_private_key(ec.SECP256R1()))


def talk_with(store: DirectStore, content: str, *, pinned: bool = False) -> str:
    id_ = store(conversations.create, "t", pinned=pinned).id
    store(messages.add, id_, NewMessage("user", content))
    return id_


def ids(store: DirectStore) -> set[str]:
    return {c.id for c in store(conversations.page).conversations}


def enforce(store: DirectStore) -> None:
    for _ in range(100):
        if not store(retention.enforce):
            return
    raise AssertionError("it never ends")


# --- quota and retention ------------------------------------------------------------------------------------------


def test_retention_deletes_what_is_old_but_not_what_is_pinned_or_running(store: DirectStore) -> None:
    store(preferences.put, Preferences(retention_days=7))
    pinned, old = talk_with(store, "a", pinned=True), [talk_with(store, "b") for _ in range(45)]
    busy = talk_with(store, "c")
    run = store(runs.begin, NewRun(busy, store(messages.tree, busy)[0].id, "m"))
    store.clock.advance(7 * DAY + 1)
    fresh = talk_with(store, "d")
    enforce(store)
    assert ids(store) == {pinned, busy, fresh}
    assert not ids(store) & set(old)
    store(runs.finish, run.id, End(RunState.DONE))
    store.clock.advance(6 * DAY)
    enforce(store)
    assert ids(store) == {pinned, busy, fresh}


def test_a_quota_takes_the_oldest_first_and_spares_what_is_pinned_or_running(store: DirectStore) -> None:
    big = "x" * 200_000
    pinned = talk_with(store, big, pinned=True)
    busy = talk_with(store, big)
    store(runs.begin, NewRun(busy, store(messages.tree, busy)[0].id, "m"))
    made = []
    for _ in range(8):
        store.clock.advance(1)
        made.append(talk_with(store, big))
    store(preferences.put, Preferences(quota_bytes=1_500_000))
    enforce(store)
    left = ids(store)
    assert {pinned, busy} <= left
    kept = [id_ for id_ in made if id_ in left]
    assert kept
    assert kept == made[-len(kept) :]
    assert store(retention.room).used <= 1_500_000


def test_over_quota_nothing_is_added_but_nothing_pinned_is_deleted(store: DirectStore) -> None:
    for _ in range(6):
        talk_with(store, "x" * 300_000, pinned=True)
    store(preferences.put, Preferences(quota_bytes=preferences.SMALLEST_QUOTA))
    with pytest.raises(StoreFullError):
        store(retention.check_room)
    assert len(ids(store)) == 6


def test_what_is_deleted_gives_its_room_back(store: DirectStore) -> None:
    talk = talk_with(store, "x" * 3_000_000)
    store(attachments.put, b"y" * 1_000_000)
    size = store.do(lambda tx: tx.one("PRAGMA page_count")[0])
    store(conversations.delete, talk)
    store.clock.advance(DAY + 1)
    enforce(store)
    assert store.do(lambda tx: tx.one("PRAGMA page_count")[0]) < size / 4


def test_a_file_that_gives_no_page_back_is_not_tidied_for_ever(
    store: DirectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was put together from a damaged one with tools of SQLite."""
    monkeypatch.setattr(retention, "VACUUM_PAGES", 10)
    store.db.execute("PRAGMA auto_vacuum = NONE")
    store.db.execute("VACUUM")
    assert store.db.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    store(conversations.delete, talk_with(store, "x" * 1_000_000))
    enforce(store)


# --- attachments --------------------------------------------------------------------------------------------------


def test_attachments_are_stored_once_and_go_with_their_last_message(store: DirectStore) -> None:
    sha256 = store(attachments.put, b"picture")
    assert sha256 == store(attachments.put, b"picture") == hashlib.sha256(b"picture").hexdigest()
    one, two = (store(conversations.create, name).id for name in "12")
    new = NewMessage("user", "look", attachments=(NewAttached(sha256, "a.png", "image/png"),))
    first = store(messages.add, one, new)
    store(messages.add, two, new)
    assert first.attachments[0].size == 7
    assert store(messages.edit, one, first.id, "look again").attachments == first.attachments
    store(conversations.delete, one)
    assert store(attachments.get, sha256) == b"picture"
    store(conversations.delete, two)
    with pytest.raises(NotHereError):
        store(attachments.get, sha256)


def test_attachments_are_bounded_and_must_be_there(store: DirectStore) -> None:
    with pytest.raises(ConflictError):
        store(attachments.put, b"x" * (attachments.MAX_SIZE + 1))
    talk = store(conversations.create, "t").id
    with pytest.raises(NotHereError):
        store(messages.add, talk, NewMessage("user", "x", attachments=(NewAttached("0" * 64),)))
    sha256 = store(attachments.put, b"x")
    with pytest.raises(ConflictError):
        store(messages.add, talk, NewMessage("user", "x", attachments=(NewAttached(sha256),) * 17))
    assert store(messages.tree, talk) == []


# --- devices ------------------------------------------------------------------------------------------------------


def test_a_removed_device_is_never_let_in_again(store: DirectStore) -> None:
    key = point()
    device = store(devices.pair, key, "phone", approved_by=devices.BY_LINK)
    assert store(devices.points) == {device.id: key}
    store(devices.remove, device.id)
    assert store(devices.points) == {}
    with pytest.raises(ConflictError):
        store(devices.pair, key, "phone", approved_by="local")
    with pytest.raises(ConflictError):
        store(devices.wait, key, "phone")


def test_a_device_that_waits_has_no_key_here_until_it_is_approved(store: DirectStore) -> None:
    key = point()
    device = store(devices.wait, key, "laptop")
    assert not device.paired
    assert store(devices.points) == {}
    assert store(devices.approve, device.id, approved_by="x").paired
    assert store(devices.points) == {device.id: key}
    assert store(devices.wait, key, "other name").name == "laptop"


def test_waiting_ends_and_is_bounded(store: DirectStore) -> None:
    first = store(devices.wait, point(), "0")
    for _ in range(devices.MAX_WAITING + 3):
        store.clock.advance(1)
        last = store(devices.wait, point(), "x")
    assert len(store(devices.all_of)) == devices.MAX_WAITING
    with pytest.raises(NotHereError):
        store(devices.approve, first.id, approved_by="local")
    store.clock.advance(devices.WAITING_LIFE)
    assert store(devices.all_of) == []
    with pytest.raises(NotHereError):
        store(devices.approve, last.id, approved_by="local")


def test_a_row_whose_id_is_not_its_keys_opens_nothing(store: DirectStore) -> None:
    device = store(devices.pair, point(), "phone", approved_by="link")
    store.do(lambda tx: tx.run("UPDATE devices SET point = ? WHERE id = ?", point(), device.id))
    assert store(devices.points) == {}


def test_the_number_of_a_key_statement_never_falls(store: DirectStore) -> None:
    assert store(preferences.statement_seq) == 0
    assert store(preferences.note_statement_seq, 7) == 7
    assert store(preferences.note_statement_seq, 5) == 7


# --- settings and changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"quota_bytes": 5}, {"quota_bytes": -1}, {"retention_days": -1}, {"default_model": "x" * 300}]
)
def test_settings_out_of_range_are_refused(store: DirectStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConflictError):
        store(preferences.put, Preferences(**wrong))
    assert store(preferences.get) == Preferences()


def test_old_changes_are_forgotten_and_that_shows(store: DirectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "KEPT_CHANGES", 300)
    epoch = store(changes.epoch)
    for _ in range(800):
        store.do(lambda tx: tx.changed("setting", "home"))
    with pytest.raises(TooOldError):
        store(changes.since, 0, epoch)
    page = store(changes.since, 760, epoch, 10)
    assert [change.n for change in page.changes] == list(range(761, 771))
    assert page.newest == 800
    for n, other in ((801, epoch), (-1, epoch), (790, "another")):
        with pytest.raises(TooOldError):
            store(changes.since, n, other)
    assert store.do(lambda tx: tx.one("SELECT count(*) FROM changes")[0]) < 700


# --- export and import --------------------------------------------------------------------------------------------


def rich(store: DirectStore) -> dict[str, Any]:
    """A conversation with everything in it, exported."""
    sha256 = store(attachments.put, b"\x00\xff")
    talk = store(conversations.create, "Tïtle", pinned=True).id
    asked = store(
        messages.add, talk, NewMessage("user", "q\u2028", attachments=(NewAttached(sha256, "ä.png", "image/png"),))
    )
    run = store(runs.begin, NewRun(talk, asked.id, "tiny", '{"seed": 1}'))
    call = json.dumps({"id": "1", "name": "f", "arguments": "{}"}) + "\n"
    pieces, at = [], 0
    for kind, text in (
        (TextKind.THINKING, "hm é"), (TextKind.CONTENT, "yes "), (TextKind.TOOL_CALL, call),
        (TextKind.THINKING, "more"), (TextKind.CONTENT, "no\n"),
    ):  # fmt: skip
        pieces.append(Piece(at, kind, text))
        at = pieces[-1].end
    store(runs.append, run.id, pieces)
    store(runs.finish, run.id, End(RunState.STOPPED, prompt_tokens=3, answer_tokens=5))
    store(messages.edit, talk, asked.id, "q2")
    document: dict[str, Any] = json.loads(json.dumps(store(transfer.export, talk)))
    return document


def test_what_is_exported_can_be_imported_the_same(store: DirectStore, tmp_path: Path) -> None:
    document = rich(store)
    other = DirectStore(tmp_path / "other.home.db")
    other.clock.advance(1e6)
    assert other(transfer.import_, document) == transfer.Imported(document["id"], added=True)
    assert other(transfer.import_, document) == transfer.Imported(document["id"], added=False)
    assert json.dumps(other(transfer.export, document["id"])) == json.dumps(document)
    run = document["runs"][0]
    assert other(runs.read, run["id"], 0) == store(runs.read, run["id"], 0)
    assert [piece.kind.value for piece in other(runs.read, run["id"], 0)] == [
        "thinking", "content", "tool_call", "thinking", "content",
    ]  # fmt: skip
    other.close()


def test_the_longest_that_a_run_may_say_can_be_imported(store: DirectStore) -> None:
    talk = store(conversations.create, "t").id
    asked = store(messages.add, talk, NewMessage("user", "q"))
    stops = ("\U0001f600" * prompt.MAX_OPTION_TEXT,) * prompt.MAX_STOPS
    options = RunOptions(stop=stops, reasoning_effort="\U0001f600" * prompt.MAX_OPTION_TEXT)
    options.check()
    new = NewRun(talk, asked.id, "m" * messages.MAX_MODEL, json.dumps(options.given()))
    run = store(runs.begin, new)
    detail = error_text({"error": "\U0001f600" * 2 * MAX_DETAIL})
    store(runs.finish, run.id, End(RunState.FAILED, "engine-error", detail))
    document = store(transfer.export, talk)
    store(conversations.delete, talk)
    store(transfer.import_, json.loads(json.dumps(document)))
    assert store(transfer.export, talk) == document


@pytest.mark.parametrize(
    ("sizes", "whole"),
    [
        ([["thinking", 3], ["thinking", 2]], True),
        ([["thinking", 4], ["thinking", 1]], False),
        ([["tool_call", 10], ["tool_call", 0]], False),
        ([["tool_call", 10]], False),
        ([["thinking", 6]], False),
    ],
    ids=["between characters", "inside a character", "nothing", "inside a call", "too much"],
)
def test_a_layout_that_cuts_what_is_one_is_refused(store: DirectStore, sizes: list[Any], whole: bool) -> None:
    """Else whoever watched the run would get an error instead of its text."""
    document = rich(store)
    store(conversations.delete, document["id"])
    (run,) = document["runs"]
    assert run["layout"][0] == ["thinking", 5]  # "hm é"
    place = next(n for n, (kind, _) in enumerate(run["layout"]) if kind == sizes[0][0])
    rest = run["layout"][place][1] - sum(size for _, size in sizes)
    run["layout"][place : place + 1] = [*sizes, *([[sizes[0][0], rest]] if rest > 0 else [])]
    if not whole:
        with pytest.raises(ConflictError):
            store(transfer.import_, document)
        return
    store(transfer.import_, document)
    assert [piece.text for piece in store(runs.read, run["id"], 0)][:2] == ["hm ", "é"]


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*path, key))
    yield path


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_document_that_was_tampered_with_is_refused_whole_or_taken_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    global _DOCUMENT, _OTHER
    if _DOCUMENT is None:
        source = DirectStore(tmp_path_factory.mktemp("from") / "a.home.db")
        _DOCUMENT = rich(source)
        source.close()
        _OTHER = DirectStore(tmp_path_factory.mktemp("to") / "a.home.db")
    assert _OTHER is not None
    document = copy.deepcopy(_DOCUMENT)
    path = data.draw(st.sampled_from([path for path in _leaves(document) if path]))
    junk: Any = data.draw(
        st.sampled_from([None, True, -1, 0, 1.5, 2**70, float("nan"), "", "x", "\ud800", "a" * 16, [], {}, [[]], [1]])
    )
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    try:
        id_ = _OTHER(transfer.import_, document).id
    except ConflictError:
        assert ids(_OTHER) == set()
    else:
        _OTHER(transfer.export, id_)
        _OTHER(messages.tree, id_)
        _OTHER(conversations.delete, id_)


_DOCUMENT: dict[str, Any] | None = None
_OTHER: DirectStore | None = None
