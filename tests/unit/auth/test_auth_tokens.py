import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.auth.links import mint_link_token, parse_link_token
from cloudtolocalllm.auth.tokens import Minted, Presented, digest, mint, parse, random_id


def mint_key() -> Minted:
    return mint("c2l")


def parse_key(text: str) -> Presented | None:
    return parse("c2l", text)


def test_a_key_has_the_documented_shape_and_matches_only_its_own_hash() -> None:
    minted = mint_key()
    assert re.fullmatch(r"c2l_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", minted.text)
    presented = parse_key(minted.text)
    assert presented is not None
    assert presented.id == minted.id
    assert presented.matches(minted.hash)
    assert not presented.matches(mint_key().hash)


def test_a_token_of_another_prefix_is_none() -> None:
    assert parse_key(mint("c2lb").text) is None
    assert parse("c2lb", mint_key().text) is None


def test_the_secret_is_not_in_what_is_kept_nor_in_its_repr() -> None:
    minted = mint_key()
    secret = minted.text[-43:]
    assert minted.hash == digest(secret)
    assert secret not in repr(minted)
    assert secret not in repr(parse_key(minted.text))


def test_secrets_with_underscores_at_the_cuts_are_read() -> None:
    text = "c2l_" + "a" * 12 + "_" + "_" * 43
    assert parse_key(text) == Presented("a" * 12, digest("_" * 43))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t + "\n",
        lambda t: " " + t,
        lambda t: t.replace("c2l_", "C2L_"),
        lambda t: t.replace("c2l_", "c2l-"),
        lambda t: t[:5] + "A" + t[6:],
        lambda t: t[:5] + "1" + t[6:],
        lambda t: t[:16] + "-" + t[17:],
        lambda t: t[:-1] + "=",
        lambda t: t[:-1] + "+",
        lambda t: t[:-1] + "\u0661",
        lambda t: "",
        lambda t: "c2l_",
        lambda t: "c2l_" * 1000,
    ],
)
def test_malformed_keys_are_none(change: object) -> None:
    text = "c2l_abcdefghijkl_" + "x" * 43
    assert parse_key(text) is not None
    assert parse_key(change(text)) is None  # type: ignore[operator] # a lambda of the table


@settings(max_examples=150)
@given(st.text(max_size=80))
def test_garbage_never_crashes(text: str) -> None:
    assert parse_key(text) is None
    digest(text)


def test_ids_are_of_the_asked_length_and_differ() -> None:
    found = {random_id(20) for _ in range(200)}
    assert len(found) == 200
    assert all(re.fullmatch(r"[a-z2-7]{20}", id_) for id_ in found)


def test_a_link_token_is_found_by_its_hash_only() -> None:
    text, hash_ = mint_link_token()
    assert parse_link_token(text) == hash_
    for other in (text[:-1], text + "A", text + "=", "", "x" * 5000):
        assert parse_link_token(other) is None


def test_minted_values_can_be_compared() -> None:
    assert Minted("a", "b", b"c") == Minted("a", "b", b"c")
