import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.auth.links import mint_link_token, parse_link_token
from cloudtolocalllm.auth.tokens import digest, random_id


@settings(max_examples=150)
@given(st.text(max_size=80) | st.text("aZ09_-=", min_size=42, max_size=44))
def test_whatever_is_sent_is_a_link_token_only_if_it_has_the_shape_of_one(text: str) -> None:
    expected = digest(text) if re.fullmatch(r"[A-Za-z0-9_-]{43}", text) else None
    assert parse_link_token(text) == expected


def test_ids_are_of_the_asked_length_and_differ() -> None:
    found = {random_id(20) for _ in range(200)}
    assert len(found) == 200
    assert all(re.fullmatch(r"[a-z2-7]{20}", id_) for id_ in found)


def test_a_link_token_is_found_by_its_hash_only() -> None:
    text, hash_ = mint_link_token()
    assert parse_link_token(text) == hash_
    for other in (text[:-1], text + "A", text + "=", "", "x" * 5000):
        assert parse_link_token(other) is None
