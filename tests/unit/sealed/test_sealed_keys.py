"""Key configurations, their rotation, and the statements in which a bridge publishes them."""

import dataclasses
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sealed_parts import IDENTITY, NOW, PINNED, RING, seeded

from cloudtolocalllm.sealed import base64url, statement
from cloudtolocalllm.sealed.errors import (
    ExpiredError,
    MalformedError,
    MisuseError,
    RollbackError,
    SealedError,
    UntrustedError,
)
from cloudtolocalllm.sealed.key_config import KeyConfig, decode_configs, encode_config, encode_configs
from cloudtolocalllm.sealed.key_ring import LIFE, PERIOD, GatewayKey, KeyRing
from cloudtolocalllm.sealed.limits import MAX_SKEW
from cloudtolocalllm.sealed.statement import Statement, sign, state_keys, verify

CONFIG = KeyConfig(1, seeded("public"))
STATEMENT = state_keys(RING, "home", NOW)


def listed(*configs: bytes) -> bytes:
    return b"".join(len(config).to_bytes(2, "big") + config for config in configs)


def test_configurations_are_read_as_written() -> None:
    configs = (CONFIG, KeyConfig(255, seeded("other")))
    assert decode_configs(encode_configs(configs)) == configs
    assert encode_config(CONFIG).hex() == "010020" + CONFIG.public.hex() + "000400010001"


def test_configurations_for_other_suites_are_passed_over() -> None:
    other_kem = bytes.fromhex("02647a") + bytes(40)
    other_aead = bytes.fromhex("030020") + seeded("x") + bytes.fromhex("000400010003")
    both = bytes.fromhex("040020") + CONFIG.public + bytes.fromhex("00080001000300010001")
    assert decode_configs(listed(other_kem, other_aead, both)) == (KeyConfig(4, CONFIG.public),)
    with pytest.raises(MalformedError):
        decode_configs(listed(other_kem, other_aead))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        listed(encode_config(CONFIG))[:-1],
        listed(encode_config(CONFIG)) + b"\0",
        listed(encode_config(CONFIG), encode_config(CONFIG)),
        listed(encode_config(CONFIG)[:-1]),
        listed(encode_config(CONFIG) + b"\0"),
        listed(b"\x01\0\x20" + CONFIG.public + b"\0\0"),
        listed(b"\x01\0\x20" + CONFIG.public + b"\0\x03\0\x01\0"),
        listed(b"\x01\0\x20" + CONFIG.public[:-1]),
        listed(*(bytes((index,)) + bytes.fromhex("647a") + bytes(1000) for index in range(5))),
    ],
)
def test_malformed_configurations(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_configs(data)


@given(st.binary(max_size=120))
@settings(max_examples=100)
def test_garbage_gives_typed_errors_only(data: bytes) -> None:
    for call in (lambda: decode_configs(data), lambda: verify(data.decode("latin-1"), PINNED, "home", NOW)):
        with pytest.raises(SealedError):
            call()


def test_a_key_is_replaced_after_24_h_and_forgotten_after_48() -> None:
    first = KeyRing.new(seeded("1"), NOW)
    assert not first.due(NOW + PERIOD - 1)
    assert first.due(NOW + PERIOD)
    second = first.rotated(seeded("2"), NOW + PERIOD)
    one, two = first.current.key_id, second.current.key_id
    assert second.previous == first.current
    assert second.private_key(one, NOW + LIFE - 1) == seeded("1")
    assert second.private_key(one, NOW + LIFE) is None
    assert second.private_key(two, NOW + LIFE) == seeded("2")
    assert second.private_key(two + 1, NOW) is None
    assert second.pruned(NOW + LIFE - 1).previous is not None
    assert second.pruned(NOW + LIFE).previous is None
    assert second.rotated(seeded("3"), NOW + LIFE).previous == second.current
    assert first.private_key(one, NOW + LIFE) is None  # also one that was never replaced


def test_the_number_of_a_statement_only_rises() -> None:
    ring = KeyRing.new(seeded("1"), NOW)
    assert ring.seq == NOW
    assert ring.rotated(seeded("2"), NOW).seq == NOW + 1
    assert ring.rotated(seeded("2"), NOW - 5000).seq == NOW + 1
    assert KeyRing.new(seeded("1"), NOW, seq=NOW + 9).seq == NOW + 10


def test_a_key_s_id_is_never_that_of_the_key_before_not_after_a_restart_either() -> None:
    """Else a request for a key that was lost would be taken for a forgery, and its client fetch no new one."""
    ring = KeyRing.new(seeded("1"), NOW)
    for later in range(1, 600):
        for after in (ring.rotated(seeded("2"), NOW + later), KeyRing.new(seeded("2"), NOW + later, seq=ring.seq)):
            assert 0 <= after.current.key_id <= 255
            assert after.current.key_id != ring.current.key_id
            assert after.seq > ring.seq


def test_a_ring_shows_no_private_key() -> None:
    ring = KeyRing.new(seeded("1"), NOW).rotated(seeded("2"), NOW)
    assert repr(seeded("1")) not in repr(ring)
    assert repr(seeded("2")) not in repr(ring)


def test_a_statement_is_read_as_signed() -> None:
    text = sign(STATEMENT, IDENTITY)
    assert verify(text, PINNED, "home", NOW) == STATEMENT
    assert STATEMENT.expires == NOW + LIFE - MAX_SKEW
    assert text == sign(STATEMENT, IDENTITY)  # Ed25519 signatures are the same each time


def test_a_statement_by_another_identity_is_not_believed() -> None:
    text = sign(STATEMENT, Ed25519PrivateKey.from_private_bytes(seeded("impostor")))
    with pytest.raises(UntrustedError):
        verify(text, PINNED, "home", NOW)


def test_the_pinned_identity_s_name_is_not_enough() -> None:
    """The header says the pinned key, another key has signed."""
    ours, theirs = (
        sign(STATEMENT, key).split(".")
        for key in (IDENTITY, Ed25519PrivateKey.from_private_bytes(seeded("impostor")))
    )
    for parts in ((ours[0], theirs[1], theirs[2]), (ours[0], ours[1], theirs[2])):
        with pytest.raises(UntrustedError):
            verify(".".join(parts), PINNED, "home", NOW)
    other = sign(dataclasses.replace(STATEMENT, seq=STATEMENT.seq + 1), IDENTITY).split(".")
    with pytest.raises(UntrustedError):
        verify(".".join((ours[0], other[1], ours[2])), PINNED, "home", NOW)


def test_the_identity_that_a_statement_claims_is_told_for_safety_words() -> None:
    impostor = Ed25519PrivateKey.from_private_bytes(seeded("impostor"))
    assert statement.claimed_fingerprint(sign(STATEMENT, IDENTITY)) == PINNED
    assert statement.claimed_fingerprint(sign(STATEMENT, impostor)) != PINNED
    for wrong in ("", "a.b.c", forged({**HEADER, "alg": "none"}, CLAIMS)):
        with pytest.raises(MalformedError):
            statement.claimed_fingerprint(wrong)


def test_a_statement_about_another_bridge_is_refused() -> None:
    with pytest.raises(UntrustedError):
        verify(sign(STATEMENT, IDENTITY), PINNED, "other", NOW)


def test_a_statement_holds_for_its_time_only() -> None:
    text = sign(STATEMENT, IDENTITY)
    for now in (NOW - MAX_SKEW, STATEMENT.expires + MAX_SKEW - 1):
        assert verify(text, PINNED, "home", now) == STATEMENT
    for now in (NOW - MAX_SKEW - 1, STATEMENT.expires + MAX_SKEW):
        with pytest.raises(ExpiredError):
            verify(text, PINNED, "home", now)


def test_an_older_statement_is_refused() -> None:
    text = sign(STATEMENT, IDENTITY)
    assert verify(text, PINNED, "home", NOW, seen=STATEMENT.seq) == STATEMENT
    with pytest.raises(RollbackError):
        verify(text, PINNED, "home", NOW, seen=STATEMENT.seq + 1)


def forged(header: dict[str, Any], claims: Any) -> str:
    """A text whose signature holds, whatever it says."""
    parts = [base64url.encode(json.dumps(part).encode()) for part in (header, claims)]
    signature = IDENTITY.sign(".".join(parts).encode())
    return ".".join((*parts, base64url.encode(signature)))


JWK = {"crv": "Ed25519", "kty": "OKP", "x": base64url.encode(IDENTITY.public_key().public_bytes_raw())}
HEADER = {"alg": "Ed25519", "typ": "c2l-keys+jwt", "jwk": JWK}
CLAIMS = {
    "iss": "home",
    "iat": NOW,
    "exp": NOW + 60,
    "seq": 1,
    "keys": base64url.encode(encode_configs(STATEMENT.configs)),
}


def test_a_well_formed_text_holds() -> None:
    assert verify(forged(HEADER, CLAIMS), PINNED, "home", NOW) == Statement(
        "home", STATEMENT.configs, NOW, NOW + 60, 1
    )


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({**HEADER, "alg": "EdDSA"}, CLAIMS),
        ({**HEADER, "alg": "none"}, CLAIMS),
        ({**HEADER, "typ": "JWT"}, CLAIMS),
        ({**HEADER, "kid": "x"}, CLAIMS),
        ({**HEADER, "crit": ["b64"], "b64": False}, CLAIMS),
        ({**HEADER, "jwk": {**JWK, "d": "x"}}, CLAIMS),
        ({**HEADER, "jwk": {**JWK, "kty": "oct"}}, CLAIMS),
        ({**HEADER, "jwk": "x"}, CLAIMS),
        ({"alg": "Ed25519", "typ": "c2l-keys+jwt"}, CLAIMS),
        (HEADER, {**CLAIMS, "extra": 1}),
        (HEADER, {**CLAIMS, "iss": 1}),
        (HEADER, {**CLAIMS, "iat": float(NOW)}),
        (HEADER, {**CLAIMS, "seq": True}),
        (HEADER, {**CLAIMS, "seq": -1}),
        (HEADER, {**CLAIMS, "seq": 2**53}),
        (HEADER, {**CLAIMS, "exp": NOW + LIFE + 1}),
        (HEADER, {**CLAIMS, "keys": "AA"}),
        (HEADER, {**CLAIMS, "keys": "A=="}),
        (HEADER, {key: value for key, value in CLAIMS.items() if key != "exp"}),
        (HEADER, [CLAIMS]),
    ],
)
def test_any_other_member_or_value_is_refused_though_it_is_signed(header: dict[str, Any], claims: Any) -> None:
    with pytest.raises(MalformedError):
        verify(forged(header, claims), PINNED, "home", NOW)


def test_a_statement_has_one_spelling() -> None:
    text = sign(STATEMENT, IDENTITY)
    last = text[-1]
    spellings = [text[:-1] + other for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    holding = 0
    for spelling in spellings:
        try:
            holding += verify(spelling, PINNED, "home", NOW) == STATEMENT
        except (MalformedError, UntrustedError):
            assert spelling[-1] != last
    assert holding == 1
    for other in (text + "=", text + "\n", " " + text, text + ".", text.replace(".", "..", 1)):
        with pytest.raises(MalformedError):
            verify(other, PINNED, "home", NOW)
    with pytest.raises(MalformedError):
        verify("A" * statement.MAX_LENGTH + "." + text, PINNED, "home", NOW)


@pytest.mark.parametrize("text", ["A", "AB", "A=", "AA==", "A+/A", "A\n", "Ä", "AAA A"])
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(MalformedError):
        base64url.decode(text, "it")


@given(st.binary(max_size=50))
def test_base64url(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data), "it", len(data)) == data
    with pytest.raises(MalformedError):
        base64url.decode(base64url.encode(data), "it", len(data) + 1)


def test_our_own_mistakes() -> None:
    for key_id, public in ((-1, bytes(32)), (256, bytes(32)), (1, bytes(31))):
        with pytest.raises(MisuseError):
            KeyConfig(key_id, public)
    with pytest.raises(MisuseError):
        GatewayKey(1, bytes(31), NOW).config  # noqa: B018 - the property raises
