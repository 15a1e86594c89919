"""What a session carries besides who it is of."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.auth.test_auth_sessions import CLAIMS, HEADER, KEY, NOW, SESSION, seal

from cloudtolocalllm.auth.sessions import MAX_LENGTH, Sealer, SessionRefusedError

FULL = replace(
    SESSION,
    name="Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}",
    email="zoe@example.org",
    admin=True,
    provider_session="p" * 52,
    refresh_token="r" * 1500,
    refreshed=int(NOW),
)


def test_all_of_it_comes_back() -> None:
    sealer = Sealer((KEY,))
    text = sealer.seal(FULL)
    assert sealer.open(text, now=NOW) == FULL
    assert len(text) < MAX_LENGTH


def test_what_is_not_said_takes_no_room() -> None:
    assert len(Sealer((KEY,)).seal(SESSION)) < 260


def test_none_of_it_is_in_its_repr() -> None:
    for text in ("zoe", "Zo", "rrr", "ppp"):
        assert text not in repr(FULL)


@pytest.mark.parametrize(
    "claims",
    [{"nam": 1}, {"eml": None}, {"adm": 1}, {"adm": "true"}, {"psi": []}, {"rtk": {}}, {"rfr": "1"}, {"rfr": True}],
)
def test_members_of_another_kind_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(SessionRefusedError):
        Sealer((KEY,)).open(seal(HEADER, json.dumps({**CLAIMS, **claims}).encode()), now=NOW)


def test_a_member_that_a_later_version_adds_is_no_fault() -> None:
    opened = Sealer((KEY,)).open(seal(HEADER, json.dumps({**CLAIMS, "new": 1}).encode()), now=NOW)
    assert opened == SESSION


def test_a_name_that_no_text_can_hold_is_sealed_all_the_same() -> None:
    sealer = Sealer((KEY,))
    assert sealer.open(sealer.seal(replace(SESSION, name="a\ud800b")), now=NOW).name == "a?b"
