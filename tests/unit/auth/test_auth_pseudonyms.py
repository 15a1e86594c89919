import base64
import hashlib
import hmac

import pytest

from cloudtolocalllm.auth.pseudonyms import hidden, new_key, owner_of, parse_key, user_of

KEY = bytes(range(32))


def test_a_users_id_is_the_hmac_of_issuer_and_subject() -> None:
    digest = hmac.new(KEY, b"https://i.example/\0auth0|1", hashlib.sha256).digest()
    assert user_of(KEY, "https://i.example/", "auth0|1") == "u_" + base64.b32encode(digest).decode().lower()[:20]
    assert owner_of(KEY) == user_of(KEY, "local", "owner")


def test_others_have_other_ids() -> None:
    ids = {
        user_of(KEY, "https://i.example", "a"),
        user_of(KEY, "https://i.example", "b"),
        user_of(KEY, "https://i.example/", "a"),
        user_of(KEY, "https://i.example", "A"),
        user_of(bytes(32), "https://i.example", "a"),
        user_of(KEY, "https://i.examplea", ""),
        owner_of(KEY),
    }
    assert len(ids) == 7


def test_what_is_hidden_depends_on_its_kind() -> None:
    texts = {hidden(KEY, "address", "a"), hidden(KEY, "session", "a"), hidden(KEY, "address", "b")}
    assert len(texts) == 3
    assert all(text.isascii() and text.isalnum() and len(text) == 52 for text in texts)


def test_keys_are_read_as_they_are_written() -> None:
    text = new_key()
    assert parse_key(text + "\n") == bytes.fromhex(text)
    for bad in ("", "00", text + "0", text.upper() + "g", "z" * 64):
        with pytest.raises(ValueError, match="64"):
            parse_key(bad)
