import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth.scopes import NO_SCOPE, KeyScope
from cloudtolocalllm.bridge import keys as room
from cloudtolocalllm.bridge.keys import DAY, KEPT_AFTER, KeyList, KeyListError, KeyListFullError, key_list_path
from cloudtolocalllm.contracts.control import KeyAdded, KeyRevoked

SCOPE = KeyScope(("/v1/",), ("llama*",), 60, 1000, "k2qxv7hd4m3a")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_800_000_000.0 // DAY * DAY + 3600)


class Home:
    """The list and its file, which can be opened anew."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.path = key_list_path(folder / "credential.json")
        self.clock = clock
        self.keys = KeyList(self.path, clock)

    def add(self, key_id: str = "3fomfi6a5lvd", name: str = "Laptop", *, life: float = 90 * DAY) -> None:
        now = int(self.clock.wall())
        self.keys.add(key_id, name, SCOPE, created=now, expires=int(now + life))

    def restart(self, *, crash: bool = False) -> None:
        if not crash:
            self.keys.close()
        self.keys = KeyList(self.path, self.clock)


@pytest.fixture
def home(tmp_path: Path, clock: FakeClock) -> Iterator[Home]:
    home = Home(tmp_path, clock)
    yield home
    home.keys.close()


def test_a_key_is_listed_with_all_that_is_known_of_it(home: Home, clock: FakeClock) -> None:
    home.add()
    home.restart()
    (key,) = home.keys
    assert (key.id, key.name, key.scope) == ("3fomfi6a5lvd", "Laptop", SCOPE)
    assert (key.created, key.expires) == (int(clock.now), int(clock.now + 90 * DAY))
    assert (key.last_used, key.revoked, key.tokens_on(clock.wall())) == (None, None, 0)


@pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
def test_its_files_are_for_the_owner_only(home: Home, clock: FakeClock) -> None:
    home.add()
    home.path.chmod(0o644)
    other = KeyList(home.path, clock)
    for path in home.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    other.close()


@pytest.mark.parametrize("crash", [False, True])
def test_a_revocation_survives_every_restart(home: Home, crash: bool) -> None:
    home.add()
    home.keys.revoke("3fomfi6a5lvd")
    home.restart(crash=crash)
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert key.revoked == home.clock.now
    home.add(name="Again")
    assert key.revoked is not None, "told of once more, it stays revoked"


def test_a_revoked_key_that_was_never_met_is_refused_when_it_comes(home: Home) -> None:
    home.keys.revoke("3fomfi6a5lvd")
    home.restart()
    home.add()
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert key.revoked is not None


def test_who_wants_to_know_hears_of_a_revocation_once(home: Home) -> None:
    heard: list[str] = []
    home.keys.on_revoked = heard.append
    home.add()
    home.keys.revoke("3fomfi6a5lvd")
    home.keys.revoke("3fomfi6a5lvd")
    assert heard == ["3fomfi6a5lvd"]


def test_what_another_process_writes_is_seen(home: Home, clock: FakeClock) -> None:
    heard: list[str] = []
    home.keys.on_revoked = heard.append
    home.add()
    home.keys.spend("3fomfi6a5lvd", 7)
    other = KeyList(home.path, clock)
    other.revoke("3fomfi6a5lvd")
    other.add("aaaaaaaaaaaa", "Other", NO_SCOPE, created=1, expires=int(clock.now + DAY))
    home.keys.refresh()
    assert heard == ["3fomfi6a5lvd"]
    assert home.keys.find("aaaaaaaaaaaa") is not None
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert key.tokens == 7
    other.close()


def test_the_scope_that_was_told_first_stands(home: Home, clock: FakeClock) -> None:
    home.add()
    again = home.keys.add("3fomfi6a5lvd", "X", NO_SCOPE, created=5, expires=int(clock.now + 900 * DAY))
    assert (again.scope, again.name, again.expires) == (SCOPE, "Laptop", int(clock.now + 90 * DAY))


def test_a_key_that_was_met_first_gets_its_name_later(home: Home) -> None:
    home.add(name="")
    home.add(name="Laptop")
    home.restart()
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert key.name == "Laptop"


@pytest.mark.parametrize("crash", [False, True])
def test_tokens_are_counted_for_a_day_of_utc_over_restarts(home: Home, clock: FakeClock, crash: bool) -> None:
    home.add()
    home.keys.spend("3fomfi6a5lvd", 600)
    home.restart(crash=crash)
    home.keys.spend("3fomfi6a5lvd", 30)
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert key.tokens_on(clock.wall()) == 630
    clock.now = clock.now // DAY * DAY + DAY - 0.001
    assert key.tokens_on(clock.wall()) == 630
    clock.advance(0.001)
    assert key.tokens_on(clock.wall()) == 0
    home.keys.spend("3fomfi6a5lvd", 5)
    assert key.tokens_on(clock.wall()) == 5


def test_nothing_is_counted_for_a_stranger_or_backwards(home: Home) -> None:
    home.add()
    home.keys.spend("nobody", 5)
    home.keys.spend("3fomfi6a5lvd", -5)
    (key,) = home.keys
    assert key.tokens == 0


def test_the_last_use_is_noted_now_and_then_and_at_the_end(home: Home, clock: FakeClock) -> None:
    home.add()
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    writes: list[str] = []
    home.keys._db.set_trace_callback(writes.append)
    for _ in range(100):
        home.keys.used(key)
        clock.advance(0.1)
    assert len([text for text in writes if text.startswith("UPDATE")]) == 1
    home.keys._db.set_trace_callback(None)
    home.restart()
    listed = home.keys.find("3fomfi6a5lvd")
    assert listed is not None
    assert listed.last_used == pytest.approx(clock.now - 0.1)


def test_expired_keys_go_after_a_while(home: Home, clock: FakeClock) -> None:
    home.add(life=60)
    clock.advance(60 + KEPT_AFTER)
    home.restart()
    assert len(home.keys) == 1
    clock.advance(1)
    home.restart()
    assert len(home.keys) == 0


def test_the_list_is_bounded(home: Home, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_KEYS", 3)
    for number in range(3):
        home.add(f"key-{number}", life=60 if number == 0 else DAY * 300)
    with pytest.raises(KeyListFullError):
        home.add("key-3")
    home.keys.revoke("key-4")
    assert home.keys.find("key-4") is None
    home.keys.revoke("key-1")
    key = home.keys.find("key-1")
    assert key is not None
    assert key.revoked is not None, "of a listed key it always holds"
    clock.advance(61 + KEPT_AFTER)
    home.add("key-3")
    assert home.keys.find("key-0") is None


def test_a_full_disk_takes_no_revocation_back(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.add()
    home.keys._db.execute("PRAGMA query_only = ON")
    home.keys.revoke("3fomfi6a5lvd")
    home.keys.spend("3fomfi6a5lvd", 9)
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert (key.revoked is not None, key.tokens) == (True, 9)
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 50, b"\x00" * 4096])
def test_a_file_that_is_no_list_is_not_replaced(tmp_path: Path, clock: FakeClock, content: bytes) -> None:
    path = tmp_path / "c.keys.db"
    path.write_bytes(content)
    with pytest.raises(KeyListError, match="expected the list of API keys"):
        KeyList(path, clock)
    assert path.read_bytes() == content


def test_a_malformed_scope_in_the_file_opens_no_key(home: Home, clock: FakeClock) -> None:
    home.add()
    home.keys.close()
    with sqlite3.connect(home.path) as database:
        database.execute("UPDATE keys SET scope = ?", (json.dumps({"mdl": "all"}),))
    database.close()
    with pytest.raises(KeyListError):
        KeyList(home.path, clock)
    home.path.unlink()
    home.keys = KeyList(home.path, clock)


def test_what_the_cloud_tells_is_taken_over(home: Home, clock: FakeClock) -> None:
    scope = json.dumps({**SCOPE.to_json(), "iat": 1, "exp": 2})
    home.keys.take(KeyAdded("3fomfi6a5lvd", "Laptop", int(clock.now), int(clock.now + DAY), scope))
    key = home.keys.find("3fomfi6a5lvd")
    assert key is not None
    assert (key.name, key.scope) == ("Laptop", SCOPE)
    home.keys.take(KeyRevoked("3fomfi6a5lvd"))
    assert key.revoked is not None


@pytest.mark.parametrize("scope", ["", "[]", "null", "1", '{"mdl":5}', "[" * 4000, '"x"'])
def test_what_the_cloud_tells_in_another_form_adds_no_key(home: Home, scope: str) -> None:
    home.keys.take(KeyAdded("3fomfi6a5lvd", "Laptop", 1, 2**40, scope))
    home.keys.take(KeyAdded("../../etc", "Laptop", 1, 2**40, "{}"))
    home.keys.take(KeyRevoked("a b"))
    home.keys.take(KeyRevoked(""))
    assert len(home.keys) == 0
