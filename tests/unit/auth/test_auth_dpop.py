"""Proof of possession: what holds, and every way in which it does not."""

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey

from cloudtolocalllm.auth import dpop
from cloudtolocalllm.auth.dpop import (
    MAX_SKEW,
    NONCE_LIFETIME,
    NonceRefusedError,
    Nonces,
    Proof,
    ProofKey,
    ProofRefusedError,
)
from cloudtolocalllm.auth.signing import KeyRing

NOW = 1_800_000_000.0
URL = "https://app.example.org/ws/tunnel"
HOSTS = {"app.example.org:443"}
CREDENTIAL = "the.bridge.credential"
NONCES = Nonces((b"k" * 32,))
KEY = ProofKey.generate()


def prove(**changes: Any) -> str:
    """Return a proof that holds, but for what is changed."""
    given: dict[str, Any] = {"method": "GET", "url": URL, "now": NOW, "nonce": NONCES.issue(NOW)}
    given |= {"credential": CREDENTIAL, **changes}
    return KEY.prove(given.pop("method"), given.pop("url"), **given)


def verify(text: str, **changes: Any) -> Proof:
    given: dict[str, Any] = {"method": "GET", "path": "/ws/tunnel", "authorities": HOSTS, "nonces": NONCES}
    given |= {"now": NOW, "credential": CREDENTIAL, "key": KEY.thumbprint, **changes}
    return dpop.verify(text, **given)


def signed(header: dict[str, Any], claims: Any, key: Any, algorithm: str = "Ed25519") -> str:
    """Return a proof made by hand."""
    registry = jws.JWSRegistry(algorithms=[algorithm])
    return jws.serialize_compact(header, json.dumps(claims).encode(), key, registry=registry)


def claims(**changes: Any) -> dict[str, Any]:
    found = json.loads(base64.urlsafe_b64decode(prove().split(".")[1] + "=="))
    return {name: value for name, value in {**found, **changes}.items() if value is not ...}


def header(**changes: Any) -> dict[str, Any]:
    found = {"typ": "dpop+jwt", "alg": "Ed25519", "jwk": KEY.public_jwk()}
    return {name: value for name, value in {**found, **changes}.items() if value is not ...}


def own(**changes: Any) -> str:
    """Return a proof by our key with other claims; `...` leaves one out."""
    return signed(header(), claims(**changes), OKPKey.import_key(dict(KEY.private_jwk())))


def test_a_proof_holds_for_its_request_and_names_its_key() -> None:
    first, second = verify(prove()), verify(prove())
    assert first.thumbprint == KEY.thumbprint
    assert first.id != second.id, "expected each proof to have an id of its own, so that it can be taken once"


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert dpop.thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        ({"method": "POST"}, "another method"),
        ({"url": "https://app.example.org/ws/bridge"}, "another path"),
        ({"url": URL + "?a=b"}, "another path"),
        ({"url": URL + "/"}, "another path"),
        ({"url": "https://evil.example.org/ws/tunnel"}, "another server"),
        ({"url": "https://app.example.org:8443/ws/tunnel"}, "another server"),
        ({"url": "http://app.example.org/ws/tunnel"}, "another server"),
        ({"url": "https://u@app.example.org/ws/tunnel"}, "another server"),
        ({"url": "wss://app.example.org/ws/tunnel"}, "another server"),
        ({"url": "/ws/tunnel"}, "another server"),
        ({"credential": "another.bridges.credential"}, "another credential"),
        ({"credential": ""}, "another credential"),
        ({"now": NOW - MAX_SKEW - 1}, "another time"),
        ({"now": NOW + MAX_SKEW + 1}, "another time"),
    ],
)
def test_a_proof_for_something_else_is_refused(proof: dict[str, Any], text: str) -> None:
    with pytest.raises(ProofRefusedError, match=text) as caught:
        verify(prove(**proof))
    assert not isinstance(caught.value, NonceRefusedError), "expected no word that trying again would help"


def test_a_proof_with_a_credential_does_not_hold_without_one() -> None:
    with pytest.raises(ProofRefusedError, match="another credential"):
        verify(prove(), credential="")
    assert verify(prove(credential=""), credential="", key=None).thumbprint == KEY.thumbprint


def test_another_key_than_the_credential_names_is_refused() -> None:
    thief = ProofKey.generate()
    stolen = thief.prove("GET", URL, now=NOW, nonce=NONCES.issue(NOW), credential=CREDENTIAL)
    with pytest.raises(ProofRefusedError, match="another key"):
        verify(stolen)


@pytest.mark.parametrize(
    ("nonce", "at"),
    [
        ("", NOW),
        (NONCES.issue(NOW - NONCE_LIFETIME), NOW),
        (NONCES.issue(NOW + 10), NOW),
        (Nonces((b"x" * 32,)).issue(NOW), NOW),
        ("A" * 32, NOW),
        ("ü" * 32, NOW),
        (NONCES.issue(NOW)[:-1], NOW),
    ],
)
def test_without_a_recent_nonce_of_ours_the_client_is_asked_to_try_again(nonce: str, at: float) -> None:
    with pytest.raises(NonceRefusedError):
        verify(prove(nonce=nonce), now=at)


def test_a_nonce_of_another_type_is_refused() -> None:
    values: tuple[Any, ...] = (..., None, 7, ["x"])
    for value in values:
        with pytest.raises(NonceRefusedError):
            verify(own(nonce=value))


def test_a_nonce_lives_a_minute_and_survives_a_rotation() -> None:
    ring = KeyRing.generate()
    before = Nonces.of_ring(ring)
    nonce = before.issue(NOW)
    after = Nonces.of_ring(ring.rotated())
    assert before.holds(nonce, NOW + NONCE_LIFETIME - 1)
    assert not before.holds(nonce, NOW + NONCE_LIFETIME)
    assert after.holds(nonce, NOW), "expected a rotation to keep the nonces of the key before"
    assert not Nonces.of_ring(KeyRing.generate()).holds(nonce, NOW)


def test_nonces_need_private_keys() -> None:
    with pytest.raises(ValueError, match="private key"):
        Nonces.of_ring(KeyRing.from_jwks(KeyRing.generate().jwks()))
    with pytest.raises(ValueError, match="at least one key"):
        Nonces(())


def test_a_wrong_clock_at_home_does_no_harm() -> None:
    # Two systems on one machine often differ by the time zone; the server's nonce is what makes a proof fresh.
    assert verify(prove(now=NOW - 12 * 3600)).thumbprint == KEY.thumbprint


@pytest.mark.parametrize(
    "changed",
    [
        {"typ": "JWT"},
        {"typ": "c2l-bridge+jwt"},
        {"typ": ...},
        {"alg": "EdDSA"},
        {"kid": "x"},
        {"crit": ["exp"], "exp": 1},
        pytest.param({"jwk": {**KEY.private_jwk()}}, id="jwk-private"),
        pytest.param({"jwk": {**KEY.public_jwk(), "use": "sig"}}, id="jwk-use"),
        pytest.param({"jwk": {**KEY.public_jwk(), "x": "AAAA"}}, id="jwk-short"),
        pytest.param({"jwk": {**KEY.public_jwk(), "x": 5}}, id="jwk-number"),
        pytest.param({"jwk": {**KEY.public_jwk(), "crv": "X25519"}}, id="jwk-curve"),
        {"jwk": "text"},
    ],
    ids=str,
)
def test_another_header_is_refused(changed: dict[str, Any]) -> None:
    algorithm = "EdDSA" if changed.get("alg") == "EdDSA" else "Ed25519"
    try:
        text = signed(header(**changed), claims(), OKPKey.import_key(dict(KEY.private_jwk())), algorithm)
    except Exception:  # joserfc does not make every one of them, so it is made by hand
        parts = prove().split(".")
        head = base64.urlsafe_b64encode(json.dumps(header(**changed)).encode()).rstrip(b"=").decode()
        text = ".".join([head, *parts[1:]])
    with pytest.raises(ProofRefusedError):
        verify(text)


def test_no_other_algorithm_is_taken() -> None:
    elliptic = ECKey.generate_key("P-256")
    text = signed(
        {"typ": "dpop+jwt", "alg": "ES256", "jwk": elliptic.as_dict(private=False)}, claims(), elliptic, "ES256"
    )
    with pytest.raises(ProofRefusedError):
        verify(text, key=None)
    shared = OctKey.import_key(b"0" * 32)
    text = signed({"typ": "dpop+jwt", "alg": "HS256", "jwk": KEY.public_jwk()}, claims(), shared, "HS256")
    with pytest.raises(ProofRefusedError):
        verify(text, key=None)
    head, body, _ = prove().split(".")
    unsigned = base64.urlsafe_b64encode(json.dumps(header(alg="none")).encode()).rstrip(b"=").decode()
    for text in (f"{unsigned}.{body}.", f"{unsigned}.{body}.{'A' * 86}", f"{head}.{body}.{'A' * 86}"):
        with pytest.raises(ProofRefusedError):
            verify(text, key=None)


def test_a_key_that_did_not_sign_proves_nothing() -> None:
    other = OKPKey.generate_key("Ed25519")
    with pytest.raises(ProofRefusedError, match="forged"):
        verify(signed(header(), claims(), other), key=None)


@pytest.mark.parametrize(
    "changed",
    [
        {"jti": ...}, {"jti": "short"}, {"jti": "x" * 65}, {"jti": 7}, {"jti": "a b" * 8}, {"iat": ...}, {"iat": "1"},
        {"iat": True}, {"iat": 1.5}, {"htm": ...}, {"htm": "get"}, {"htu": ...}, {"htu": 5}, {"htu": "https://["},
        {"htu": "https://app.example.org:x/ws/tunnel"}, {"ath": ...}, {"ath": 5}, {"ath": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_missing_and_malformed_claims_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ProofRefusedError):
        verify(own(**changed))


def test_a_proof_whose_claims_are_no_object_is_refused() -> None:
    key = OKPKey.import_key(dict(KEY.private_jwk()))
    values: tuple[Any, ...] = ([], 7, "x", None)
    for value in values:
        with pytest.raises(ProofRefusedError):
            verify(signed(header(), value, key))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from("Aa0-_.=\x00é "))
def test_any_change_of_a_proof_is_refused(at: int, character: str) -> None:
    text = prove()
    at %= len(text)
    changed = text[:at] + character + text[at + 1 :]
    if changed != text:
        with pytest.raises(ProofRefusedError):
            verify(changed)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400))
def test_garbage_gives_the_documented_error_only(text: str) -> None:
    with pytest.raises(ProofRefusedError):
        verify(text)


def test_what_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(ProofRefusedError):
        verify("A" * 1_000_000)


def test_private_keys_are_not_shown() -> None:
    secret = KEY.private_jwk()["d"]
    assert secret not in repr(KEY)
    assert "d" not in KEY.public_jwk()
    assert ProofKey.from_jwk(KEY.private_jwk()) == KEY
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", KEY.thumbprint)


@pytest.mark.parametrize("value", [{}, {"kty": "OKP"}, KEY.public_jwk(), {**KEY.private_jwk(), "d": "x"}, []])
def test_what_is_no_private_key_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="private Ed25519"):
        ProofKey.from_jwk(value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://App.Example.org/x", "app.example.org:443"),
        ("http://[::1]:8080/x", "[::1]:8080"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("ftp://x/", None),
        ("https://u:p@x/", None),
        ("nonsense", None),
        ("http://x:99999/", None),
    ],
)
def test_authorities_are_spelled_one_way(url: str, found: str | None) -> None:
    assert dpop.authority(url) == found
