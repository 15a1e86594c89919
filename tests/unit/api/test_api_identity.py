import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.browser import AmbiguousError
from cloudtolocalllm.api.identity import Identifier, Identity, Via
from cloudtolocalllm.api.recorder import RESOLUTION, Recorder
from cloudtolocalllm.api.store import Store
from cloudtolocalllm.auth.sessions import LIFETIME, Sealer, new_sealing_key, new_session


class Case:
    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.user = store.owner()
        self.sealer = Sealer((new_sealing_key(),))
        self.recorder = Recorder(store, clock)
        self.identifier = Identifier(store, self.sealer, self.recorder, clock, secure=False)
        self.key, self.key_text = store.create_key(self.user, "key")
        self.bridge, self.credential = store.create_bridge(self.user, "bridge")
        self.session = new_session(self.user, now=clock.now)
        self.cookie = f"c2l_session={self.sealer.seal(self.session)}"

    def of(self, **fields: str) -> Identity | None:
        return self.identifier.identify({k.replace("_", "-").encode(): v.encode() for k, v in fields.items()})


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    clock = FakeClock()
    with contextlib.closing(Store(tmp_path / "cloud.db", clock=clock)) as store:
        yield Case(store, clock)


def test_each_way_in(case: Case) -> None:
    by_key = Identity(Via.KEY, case.user, case.key.id)
    assert case.of(authorization=f"Bearer {case.key_text}") == by_key
    assert case.of(authorization=f"bearer {case.key_text}") == by_key
    assert case.of(x_api_key=case.key_text) == by_key
    assert case.of(x_api_key=case.key_text, authorization=f"Bearer {case.key_text}") == by_key
    assert case.of(authorization=f"Bearer {case.credential}") == Identity(Via.BRIDGE, case.user, case.bridge.id)
    session = Identity(Via.SESSION, case.user, case.session.id, case.session.expires)
    assert case.of(cookie=case.cookie) == session
    assert case.of() is None


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer x{}", "Token {}", "Bearer {}x"]
)
def test_a_wrong_key_is_nobody_and_does_not_fall_back_to_the_cookie(case: Case, authorization: str) -> None:
    text = authorization.format(case.key_text)
    assert case.of(authorization=text) is None
    assert case.of(authorization=text, cookie=case.cookie) is None


def test_a_right_key_wins_over_a_cookie(case: Case) -> None:
    found = case.of(authorization=f"Bearer {case.key_text}", cookie="c2l_session=nonsense")
    assert found is not None
    assert found.via is Via.KEY


def test_the_right_id_with_another_secret_is_nobody(case: Case) -> None:
    other, other_text = case.store.create_key(case.user, "other")
    assert case.of(x_api_key=case.key_text[:17] + other_text[17:]) is None
    credential = case.store.create_bridge(case.user, "other")[1]
    assert case.of(authorization="Bearer " + case.credential[:18] + credential[18:]) is None
    assert case.of(x_api_key=other_text) == Identity(Via.KEY, case.user, other.id)


def test_different_keys_are_ambiguous(case: Case) -> None:
    with pytest.raises(AmbiguousError):
        case.of(authorization=f"Bearer {case.key_text}", x_api_key="x")


def test_what_was_deleted_is_nobody(case: Case) -> None:
    identities = [case.of(x_api_key=case.key_text), case.of(x_api_key=case.credential), case.of(cookie=case.cookie)]
    assert all(identity and case.identifier.still_holds(identity) for identity in identities)
    case.store.delete_key(case.user, case.key.id)
    case.store.delete_bridge(case.user, case.bridge.id)
    case.store.revoke_session(case.session.id, case.session.expires)
    assert case.of(x_api_key=case.key_text) is None
    assert case.of(x_api_key=case.credential) is None
    assert case.of(cookie=case.cookie) is None
    assert not any(identity and case.identifier.still_holds(identity) for identity in identities)


def test_sessions_and_keys_end(case: Case) -> None:
    record, text = case.store.create_key(case.user, "short", expires=case.clock.now + 5)
    identity, session = case.of(x_api_key=text), case.of(cookie=case.cookie)
    assert identity is not None
    assert session is not None
    case.clock.advance(5)
    assert case.of(x_api_key=text) is None
    assert not case.identifier.still_holds(identity)
    case.clock.advance(LIFETIME)
    assert case.of(cookie=case.cookie) is None
    assert not case.identifier.still_holds(session)
    assert record.expires == identity.expires


def test_a_session_of_a_user_who_is_not_in_this_store_is_nobody(case: Case) -> None:
    foreign = case.sealer.seal(new_session("u_other", now=case.clock.now))
    assert case.of(cookie=f"c2l_session={foreign}") is None


def test_on_https_only_the_host_prefixed_cookie_counts(case: Case) -> None:
    secure = Identifier(case.store, case.sealer, case.recorder, case.clock, secure=True)
    assert secure.identify({b"cookie": case.cookie.encode()}) is None
    assert secure.identify({b"cookie": b"__Host-" + case.cookie.encode()}) is not None


def test_uses_are_noted_once_a_minute(case: Case) -> None:
    for _ in range(3):
        case.of(x_api_key=case.key_text)
    case.recorder.flush()
    first = case.clock.now
    case.clock.advance(RESOLUTION - 1)
    case.of(x_api_key=case.key_text)
    case.recorder.flush()
    assert case.store.list_keys(case.user)[0].last_used == first
    case.clock.advance(1)
    case.of(x_api_key=case.key_text)
    case.recorder.bridge_seen(case.bridge.id, "0.1")
    case.recorder.flush()
    assert case.store.list_keys(case.user)[0].last_used == case.clock.now
    assert case.store.list_bridges(case.user)[0].last_seen == case.clock.now


def test_a_busy_store_loses_no_sighting(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    case.store._db.execute("PRAGMA busy_timeout = 1")
    with contextlib.closing(sqlite3.connect(tmp_path / "cloud.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        case.of(x_api_key=case.key_text)
        case.recorder.flush()
        other.execute("ROLLBACK")
    assert case.store.list_keys(case.user)[0].last_used is None
    case.recorder.flush()
    assert case.store.list_keys(case.user)[0].last_used == case.clock.now
