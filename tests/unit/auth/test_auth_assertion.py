import base64
import hashlib
import hmac
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.auth.assertion import (
    BRIDGE,
    CLIENT,
    LIFETIME,
    MAX_LENGTH,
    SKEW,
    Assertion,
    AssertionRefusedError,
    mint,
    verify,
)

KEY = bytes(range(32))
NOW = 1_800_000_000.0
CLAIMS = Assertion(
    instance="px-0123456789abcdef",
    user="u_a",
    kind=CLIENT,
    subject="3fomfi6a5lvd",
    issued=int(NOW),
    expires=int(NOW + LIFETIME),
    bridges=("k2qxv7hd4m3a", "a2qxv7hd4m3a"),
    request_id="r-1",
)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def check(text: str, *, now: float = NOW, instance: str = CLAIMS.instance, kind: str = CLIENT) -> Assertion:
    return verify(text, KEY, instance=instance, kind=kind, now=now)


def refused(text: str, reason: str | None = None, **how: object) -> None:
    with pytest.raises(AssertionRefusedError, match=reason):
        check(text, **how)  # type: ignore[arg-type] # passed on as given


def signed(claims: object, prefix: bytes = b"v1") -> str:
    text = prefix + b"." + b64(claims if isinstance(claims, bytes) else json.dumps(claims).encode()).encode()
    return text.decode() + "." + b64(hmac.digest(KEY, text, "sha256"))


def test_what_was_minted_comes_back() -> None:
    assert check(mint(CLAIMS, KEY)) == CLAIMS


def test_another_key_is_refused() -> None:
    refused(mint(CLAIMS, bytes(32)), "MAC")


def test_another_proxy_is_refused() -> None:
    refused(mint(CLAIMS, KEY), "another proxy", instance="px-ffffffffffffffff")


@pytest.mark.parametrize(("minted", "asked"), [(CLIENT, BRIDGE), (BRIDGE, CLIENT)])
def test_another_kind_is_refused(minted: str, asked: str) -> None:
    refused(mint(replace(CLAIMS, kind=minted), KEY), "another kind", kind=asked)


def test_it_holds_from_the_skew_before_until_it_expires() -> None:
    text = mint(CLAIMS, KEY)
    check(text, now=NOW - SKEW)
    check(text, now=NOW + LIFETIME - 1)
    refused(text, "expired", now=NOW + LIFETIME)
    refused(text, "not yet valid", now=NOW - SKEW - 1)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "nOnE", "typ": "JWT"},
        {"alg": "HS256"},
        {"alg": "HS256", "kid": "../../dev/null"},
        {"alg": "HS256", "kid": "' OR 1=1 --"},
        {"alg": "RS256", "jku": "http://127.0.0.1:1/keys"},
        {"alg": "HS256", "jwk": {"kty": "oct", "k": b64(KEY)}},
    ],
)
def test_a_jwt_is_refused_even_if_made_with_the_right_key(header: dict[str, object]) -> None:
    value = json.loads(base64.urlsafe_b64decode(mint(CLAIMS, KEY).split(".")[1] + "=="))
    body = b64(json.dumps(header).encode()) + "." + b64(json.dumps(value).encode())
    for mac in ("", b64(hmac.digest(KEY, body.encode(), "sha256"))):
        refused(f"{body}.{mac}", "the first v1")


def test_a_key_id_among_the_claims_changes_nothing() -> None:
    claims = json.loads(base64.urlsafe_b64decode(mint(CLAIMS, KEY).split(".")[1] + "=="))
    assert check(signed({**claims, "kid": "evil", "alg": "none"})) == CLAIMS


def test_an_empty_mac_is_refused() -> None:
    version, claims, _ = mint(CLAIMS, KEY).split(".")
    refused(f"{version}.{claims}.", "MAC")


def test_a_plain_hash_is_no_mac() -> None:
    version, claims, _ = mint(CLAIMS, KEY).split(".")
    refused(f"{version}.{claims}.{b64(hashlib.sha256(claims.encode()).digest())}", "MAC")


def test_every_truncation_is_refused() -> None:
    text = mint(CLAIMS, KEY)
    for size in range(len(text)):
        refused(text[:size])


def test_every_other_spelling_of_the_same_bytes_is_refused() -> None:
    text = mint(CLAIMS, KEY)
    version, claims, mac = text.split(".")
    standard = base64.b64encode(base64.urlsafe_b64decode(mac + "=")).decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 43 characters hold 258 bits: two bits of the last are unused, so three other letters decode to the same MAC
    last = alphabet.index(mac[-1])
    twins = [mac[:-1] + alphabet[(last & ~3) | spare] for spare in range(4) if (last & ~3) | spare != last]
    assert {base64.urlsafe_b64decode(twin + "=") for twin in twins} == {base64.urlsafe_b64decode(mac + "=")}
    for other in [*twins, mac + "=", mac + "==", standard, " " + mac, mac + "\n", mac + "\0", mac.swapcase()]:
        refused(f"{version}.{claims}.{other}", "MAC")
    for other in (claims + "=", claims + "\n", " " + claims, claims + "A"):
        refused(f"{version}.{other}.{mac}", "MAC")
    for other in (f" {text}", f"V1.{claims}.{mac}", f"v2.{claims}.{mac}", f"{text}.", f"{text}.x", f"\ufeff{text}"):
        refused(other)


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b"\xff\xfe",
        b"[" * 3000,
        b"{}",
        b'{"iid":"px-0123456789abcdef"}',
        b'{"iid":"px-0123456789abcdef","usr":"u","knd":"client","sub":"s","iat":1,"exp":NaN,"brs":[],"rid":""}',
        b'{"iid":"px-0123456789abcdef","usr":"u","knd":"client","sub":"s","iat":1,"exp":Infinity,"brs":[],"rid":""}',
        b'{"iid":"px-0123456789abcdef","usr":"u","knd":"client","sub":"s","iat":1,"exp":"x","brs":[],"rid":""}',
        b'{"iid":"px-0123456789abcdef","usr":"u","knd":"client","sub":"s","iat":1,"exp":2,"brs":1,"rid":""}',
    ],
)
def test_malformed_claims_are_refused_even_with_a_right_mac(claims: bytes) -> None:
    refused(signed(claims))


def test_too_long_is_refused_before_it_is_hashed() -> None:
    refused("v1." + "A" * MAX_LENGTH, "too long")


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_garbage_is_refused_and_never_crashes(text: str) -> None:
    refused(text)


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    raw = bytearray(mint(CLAIMS, KEY).encode())
    raw[at % len(raw)] ^= change
    refused(raw.decode("latin-1"))


def test_the_proxy_can_import_it_without_any_crypto_package() -> None:
    code = (
        "import sys, cloudtolocalllm.auth.assertion\n"
        "bad = {'joserfc', 'cryptography', 'sqlite3', 'pydantic', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
