"""Links to the page at home, and the sessions that they begin."""

import os
import re
import sys
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.bridge.page.link import PageAddress, address_path, read_address, write_address
from cloudtolocalllm.bridge.page.sessions import (
    LINK_LIFE,
    MAX_SESSIONS,
    MAX_USED,
    SESSION_LIFE,
    Begun,
    Sessions,
    make_token,
)
from cloudtolocalllm.bridge.store.errors import StoreError

SECRET = bytes(range(32))


def begun(sessions: Sessions, clock: FakeClock) -> Begun:
    found = sessions.sign_in(make_token(SECRET, clock.wall()))
    assert found is not None
    return found[0]


def test_a_link_is_good_once_and_for_its_time() -> None:
    clock = FakeClock()
    sessions = Sessions(SECRET, clock)
    first, second = make_token(SECRET, clock.wall()), make_token(SECRET, clock.wall())
    assert sessions.sign_in(first) is not None
    assert sessions.sign_in(first) is None
    clock.advance(LINK_LIFE - 1)
    assert sessions.sign_in(second) is not None
    third = make_token(SECRET, clock.wall())
    clock.advance(LINK_LIFE)
    assert sessions.sign_in(third) is None


@pytest.mark.parametrize("ahead", [1, LINK_LIFE, 10**12])
def test_a_link_that_would_hold_for_longer_is_none(ahead: int) -> None:
    clock = FakeClock()
    assert Sessions(SECRET, clock).sign_in(make_token(SECRET, clock.wall() + ahead)) is None


def test_a_link_of_another_secret_or_changed_anywhere_is_none() -> None:
    clock = FakeClock()
    sessions = Sessions(SECRET, clock)
    assert sessions.sign_in(make_token(bytes(32), clock.wall())) is None
    good = make_token(SECRET, clock.wall())
    assert re.fullmatch(r"[A-Za-z0-9_-]+", good)
    for at in range(len(good)):
        changed = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
        assert sessions.sign_in(changed) is None, at
    for other in ("", "=", "é", good + "AAAA", good[:-4], good[4:]):
        assert sessions.sign_in(other) is None
    assert sessions.sign_in(good) is not None


def test_a_session_is_both_halves_for_its_time() -> None:
    clock = FakeClock()
    sessions = Sessions(SECRET, clock)
    mine, other = begun(sessions, clock), begun(sessions, clock)
    assert sessions.find(mine.cookie, mine.key) is mine.session
    for cookie, key in ((mine.cookie, other.key), (other.cookie, mine.key), (mine.cookie, ""), ("", mine.key)):
        assert sessions.find(cookie, key) is None
    clock.advance(SESSION_LIFE - 1)
    assert sessions.find(mine.cookie, mine.key) is mine.session
    clock.advance(1)
    assert sessions.find(mine.cookie, mine.key) is None
    assert not sessions.holds(mine.session)


def test_a_session_that_was_ended_stays_so() -> None:
    clock = FakeClock()
    sessions = Sessions(SECRET, clock)
    mine, other = begun(sessions, clock), begun(sessions, clock)
    sessions.end(mine.session)
    assert sessions.find(mine.cookie, mine.key) is None
    assert sessions.find(other.cookie, other.key) is other.session


def test_sessions_and_used_links_are_bounded() -> None:
    clock = FakeClock()
    sessions = Sessions(SECRET, clock)
    first = begun(sessions, clock)
    for _ in range(MAX_USED - 1):
        begun(sessions, clock)
    assert len(sessions) == MAX_SESSIONS
    assert sessions.find(first.cookie, first.key) is None
    assert sessions.sign_in(make_token(SECRET, clock.wall())) is None, "expected none beyond what is remembered"
    clock.advance(LINK_LIFE)
    assert sessions.sign_in(make_token(SECRET, clock.wall())) is not None


def test_the_file_for_links_is_private_and_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = address_path(tmp_path / "example.org-443.json")
    assert not path.name.endswith(".json"), "expected that it is taken for no credential"
    assert read_address(path) is None
    made = PageAddress("http://127.0.0.1:8790", SECRET)
    write_address(path, made)
    assert read_address(path) == made
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o600
    assert made.link(0.0).startswith("http://127.0.0.1:8790/sign-in#token=")
    for content in (b"", b"{}", b"[]", b'{"url": "x", "secret": 5}', b'{"url": "x", "secret": "00"}', os.urandom(9)):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="start the bridge again"):
            read_address(path)
