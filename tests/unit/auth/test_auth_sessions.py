import base64
import json
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe, jws
from joserfc.jwk import OctKey

from cloudtolocalllm.auth.sessions import (
    LIFETIME,
    MAX_LENGTH,
    SKEW,
    Sealer,
    SealingKey,
    Session,
    SessionRefusedError,
    new_sealing_key,
    new_session,
)

NOW = 1_800_000_000.0
KEY = SealingKey("k1", bytes(range(32)))
SESSION = Session("u_a", "s_a", int(NOW), int(NOW) + LIFETIME)
CLAIMS = {"sub": "u_a", "sid": "s_a", "iat": int(NOW), "exp": int(NOW) + LIFETIME}
HEADER: dict[str, Any] = {"alg": "dir", "enc": "A256GCM", "kid": "k1"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def seal(header: dict[str, Any], content: bytes, secret: bytes = KEY.secret) -> str:
    """Make a JWE by hand, from RFC 7516 §5.1: the reference that is not joserfc."""
    protected = b64(json.dumps(header).encode())
    iv = bytes(12)
    sealed = AESGCM(secret).encrypt(iv, content, protected.encode())
    return f"{protected}..{b64(iv)}.{b64(sealed[:-16])}.{b64(sealed[-16:])}"


def refused(text: str, reason: str | None = None, now: float = NOW) -> None:
    with pytest.raises(SessionRefusedError, match=reason):
        Sealer((KEY,)).open(text, now=now)


def test_what_was_sealed_opens_and_shows_nothing_before() -> None:
    sealer = Sealer((KEY,))
    text = sealer.seal(SESSION)
    assert sealer.open(text, now=NOW) == SESSION
    assert not any(b"u_a" in base64.urlsafe_b64decode(part + "==") for part in text.split("."))


def test_a_jwe_made_by_hand_opens() -> None:
    assert Sealer((KEY,)).open(seal(HEADER, json.dumps(CLAIMS).encode()), now=NOW) == SESSION


def test_a_session_lasts_thirty_days() -> None:
    session = new_session("u_a", now=NOW)
    assert session.expires - session.issued == 30 * 24 * 3600
    sealer = Sealer((KEY,))
    text = sealer.seal(session)
    sealer.open(text, now=NOW + LIFETIME - 1)
    refused(text, "expired", NOW + LIFETIME)
    refused(text, "not yet", NOW - SKEW - 1)


def test_rotation_keeps_sessions_and_seals_with_the_first_key() -> None:
    new = new_sealing_key()
    old_text = Sealer((KEY,)).seal(SESSION)
    both = Sealer((new, KEY))
    assert both.open(old_text, now=NOW) == SESSION
    text = both.seal(SESSION)
    assert Sealer((new,)).open(text, now=NOW) == SESSION
    refused(text, "unknown key")


def test_an_unknown_kid_is_refused_even_with_the_right_key() -> None:
    refused(seal({**HEADER, "kid": "k2"}, json.dumps(CLAIMS).encode()), "unknown key")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "dir", "enc": "A256GCM"},
        {**HEADER, "kid": None},
        {**HEADER, "kid": ["k1"]},
        {**HEADER, "kid": {"a": 1}},
        {**HEADER, "alg": "none"},
        {**HEADER, "alg": "A256KW"},
        {**HEADER, "alg": "PBES2-HS256+A128KW", "p2c": 2**31, "p2s": "AAAA"},
        {**HEADER, "enc": "A128CBC-HS256"},
        {**HEADER, "enc": "none"},
        {**HEADER, "jwk": {"kty": "oct", "k": b64(KEY.secret)}},
        {**HEADER, "jku": "http://127.0.0.1:1/"},
        {**HEADER, "crit": ["x"], "x": 1},
        {**HEADER, "typ": "JWT"},
    ],
)
def test_the_header_chooses_nothing(header: dict[str, Any]) -> None:
    refused(seal(header, json.dumps(CLAIMS).encode()))


def test_compressed_content_is_refused() -> None:
    packer = zlib.compressobj(wbits=-15)
    content = packer.compress(json.dumps(CLAIMS).encode()) + packer.flush()
    refused(seal({**HEADER, "zip": "DEF"}, content))


def test_other_jose_objects_under_the_same_key_are_refused() -> None:
    key = OctKey.import_key(KEY.secret)
    claims = json.dumps(CLAIMS)
    refused(jws.serialize_compact({"alg": "HS256", "kid": "k1"}, claims, key))
    refused(jwe.encrypt_compact({"alg": "A256KW", "enc": "A256GCM", "kid": "k1"}, claims, key))
    refused(b64(b'{"alg":"none"}') + "." + b64(claims.encode()) + ".")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        [],
        1,
        None,
        {**CLAIMS, "sub": 1},
        {**CLAIMS, "sub": None},
        {**CLAIMS, "sid": []},
        {**CLAIMS, "exp": "9999999999"},
        {**CLAIMS, "exp": 1e30},
        {**CLAIMS, "exp": True},
        {k: v for k, v in CLAIMS.items() if k != "exp"},
    ],
)
def test_malformed_claims_are_refused(claims: object) -> None:
    refused(seal(HEADER, json.dumps(claims).encode()))


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[" * 1000, b'{"exp": NaN}'])
def test_content_that_is_no_claims_is_refused(content: bytes) -> None:
    refused(seal(HEADER, content))


def test_too_long_is_refused() -> None:
    refused("A" * (MAX_LENGTH + 1), "too long")


def test_another_spelling_of_the_tag_is_refused() -> None:
    text = Sealer((KEY,)).seal(SESSION)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    assert base64.urlsafe_b64decode(twin[-22:] + "==") == base64.urlsafe_b64decode(text[-22:] + "==")
    refused(twin)
    for other in (text + "=", text + "\n", " " + text, text.replace("..", ".AA.")):
        refused(other)


@settings(max_examples=150)
@given(st.text(max_size=300) | st.text(alphabet="AQgw._-", min_size=60, max_size=120))
def test_garbage_is_refused(text: str) -> None:
    refused(text)


@settings(max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 127))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    raw = bytearray(Sealer((KEY,)).seal(SESSION).encode())
    raw[at % len(raw)] ^= change
    refused(raw.decode("latin-1"))


def test_a_key_of_another_size_or_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(())
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer((SealingKey("k", b"short"),))
    assert "secret" not in repr(KEY)
