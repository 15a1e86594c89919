"""Hostile tokens against what verifies a provider's tokens and against our own key ring."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from cloudtolocalllm.auth.oidc import (
    ALGORITHMS,
    LEEWAY,
    LOGOUT_EVENT,
    MAX_LENGTH,
    MAX_LOGOUT_AGE,
    NonceMismatchError,
    Provider,
    ProviderTokenError,
    UnknownKeyError,
    common_algorithms,
    verify_id_token,
    verify_logout_token,
)
from cloudtolocalllm.auth.provider_keys import MAX_KEYS, ProviderKeys
from cloudtolocalllm.auth.signing import KeyRing, TokenRefusedError

NOW = 1_800_000_000.0
LATER = 4_102_444_800
ISSUER, CLIENT = "https://i.example", "a"
PROVIDER = Provider(ISSUER, CLIENT, ("RS256",))
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": CLIENT,
    "sub": "u",
    "exp": int(NOW) + 300,
    "iat": int(NOW),
    "nonce": "n",
}
LOGOUT: dict[str, Any] = {
    "iss": ISSUER,
    "aud": CLIENT,
    "sub": "u",
    "sid": "s",
    "exp": int(NOW) + 120,
    "iat": int(NOW),
    "jti": "j",
    "events": {LOGOUT_EVENT: {}},
}
HEAD = {"alg": "RS256", "kid": "1", "typ": "JWT"}

OWN = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EVIL = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk_of(key: rsa.RSAPrivateKey, kid: str = "1", **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    n = b64(numbers.n.to_bytes(key.key_size // 8, "big"))
    return {"kty": "RSA", "kid": kid, "use": "sig", "n": n, "e": "AQAB", **more}


JWK = jwk_of(OWN, alg="RS256")
PEM = OWN.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
KEYS = ProviderKeys.from_jwks({"keys": [JWK]})

Sign = Callable[[bytes], bytes]


def rs256(key: rsa.RSAPrivateKey = OWN) -> Sign:
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def hs256(secret: bytes) -> Sign:
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


BY_US = rs256()


def token(header: dict[str, Any], claims: object, sign: Sign = BY_US, raw: bytes | None = None) -> str:
    """Make a JWS by hand, from RFC 7515 §5.1: an attacker has no library that refuses."""
    payload = raw if raw is not None else json.dumps(claims).encode()
    signed = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def without(claims: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in names}


def hostile(head: dict[str, Any], claims: dict[str, Any], good: str) -> dict[str, str]:
    """Return tokens of which none may hold, made from one that does."""
    bare = without(head, "kid", "typ")
    spelled = json.dumps(claims)[:-1]
    return {
        "no algorithm": token({**head, "alg": "none"}, claims, lambda _: b""),
        "no algorithm in other letters": token({**head, "alg": "nOnE"}, claims, lambda _: b""),
        "no algorithm but a signature": token({**head, "alg": "none"}, claims),
        "HMAC with the public key as PEM": token({**head, "alg": "HS256"}, claims, hs256(PEM)),
        "HMAC with the public key as JWK": token({**head, "alg": "HS256"}, claims, hs256(json.dumps(JWK).encode())),
        "its own key": token({**bare, "jwk": jwk_of(EVIL)}, claims, rs256(EVIL)),
        "its own key, signed by ours": token({**head, "jwk": jwk_of(EVIL)}, claims),
        "the address of its own key": token({**bare, "jku": "http://127.0.0.1:1/j"}, claims, rs256(EVIL)),
        "the address of its own key, signed by ours": token({**head, "jku": "http://127.0.0.1:1/j"}, claims),
        "its own certificate": token({**head, "x5c": ["AA"]}, claims),
        "another's signature": token(head, claims, rs256(EVIL)),
        "an unknown critical member": token({**head, "crit": ["x"], "x": 1}, claims),
        "critical b64": token({**head, "crit": ["b64"], "b64": False}, claims),
        "b64 that is not critical": token({**head, "b64": False}, claims),
        "a nested token": token({**head, "cty": "JWT"}, claims),
        "an empty signature": token(head, claims, lambda _: b""),
        "a signature of zeros": token(head, claims, lambda _: bytes(256)),
        "expired": token(head, {**claims, "exp": 1}),
        "just expired": token(head, {**claims, "exp": int(NOW - LEEWAY)}),
        "not valid before": token(head, {**claims, "nbf": LATER}),
        "issued later": token(head, {**claims, "iat": LATER, "exp": LATER + 1}),
        "for others too": token(head, {**claims, "aud": [CLIENT, "b"]}),
        "for nobody": token(head, {**claims, "aud": []}),
        "for another": token(head, {**claims, "aud": "b"}),
        "for one whose name ours is part of": token(head, {**claims, "aud": "ab"}),
        "issued to another": token(head, {**claims, "azp": "b"}),
        "from another issuer": token(head, {**claims, "iss": ISSUER + "/"}),
        "from a list of issuers": token(head, {**claims, "iss": [ISSUER]}),
        "no exp": token(head, without(claims, "exp")),
        "no iat": token(head, without(claims, "iat")),
        "no aud": token(head, without(claims, "aud")),
        "no iss": token(head, without(claims, "iss")),
        "exp NaN": token(head, None, raw=(json.dumps(without(claims, "exp"))[:-1] + ',"exp":NaN}').encode()),
        "exp Infinity": token(
            head, None, raw=(json.dumps(without(claims, "exp"))[:-1] + ',"exp":Infinity}').encode()
        ),
        "exp beyond numbers": token(head, None, raw=(spelled.replace(str(claims["exp"]), "1e999") + "}").encode()),
        "exp of 5000 digits": token(head, None, raw=(spelled.replace(str(claims["exp"]), "9" * 5000) + "}").encode()),
        "exp true": token(head, {**claims, "exp": True}),
        "exp as text": token(head, {**claims, "exp": str(LATER)}),
        "a claim twice": token(head, None, raw=(spelled + f',"iss":"{ISSUER}"}}').encode()),
        "sub a number": token(head, {**claims, "sub": 1}),
        "sub empty": token(head, {**claims, "sub": ""}),
        "sub too long": token(head, {**claims, "sub": "x" * 256}),
        "no object": token(head, [1]),
        "deeply nested": token(head, None, raw=b"[" * 100_000),
        "deeply nested and short": token(head, None, raw=b'{"a":' + b"[" * 9_000),
        "not UTF-8": token(head, None, raw=b'{"iss":"\xff"}'),
        "UTF-16": token(head, None, raw=json.dumps(claims).encode("utf-16")),
        "padding": good + "==",
        "a line's end": good + "\n",
        "a space before": " " + good,
        "four parts": good + ".x",
        "a header that is no object": ".".join([b64(b"[]"), *good.split(".")[1:]]),
        "no header": "." + ".".join(good.split(".")[1:]),
        "an access token": token({**head, "typ": "at+jwt"}, claims),
        "an access token by its long name": token({**head, "typ": "application/at+jwt"}, claims),
        "typ a list": token({**head, "typ": ["JWT"]}, claims),
        "a security event": token({**head, "typ": "secevent+jwt"}, claims),
        "kid a list": token({**head, "kid": ["1"]}, claims),
        "kid an object": token({**head, "kid": {"1": 1}}, claims),
        "kid a path": token({**head, "kid": "../1"}, claims),
    }


def id_token(text: str, nonce: str | None = "n", keys: ProviderKeys = KEYS, provider: Provider = PROVIDER) -> Any:
    return verify_id_token(text, keys, provider, nonce=nonce, now=NOW)


def logout_token(text: str) -> Any:
    return verify_logout_token(text, KEYS, PROVIDER, now=NOW)


GOOD = token(HEAD, CLAIMS)
LOGOUT_HEAD = {**HEAD, "typ": "logout+jwt"}
GOOD_LOGOUT = token(LOGOUT_HEAD, LOGOUT)


@pytest.mark.parametrize(("name", "text"), hostile(HEAD, CLAIMS, GOOD).items())
def test_a_hostile_id_token(name: str, text: str) -> None:
    with pytest.raises(ProviderTokenError):
        id_token(text)


@pytest.mark.parametrize(("name", "text"), hostile(LOGOUT_HEAD, LOGOUT, GOOD_LOGOUT).items())
def test_a_hostile_logout_token(name: str, text: str) -> None:
    with pytest.raises(ProviderTokenError):
        logout_token(text)


def test_what_is_as_it_should_be_holds() -> None:
    found = id_token(GOOD)
    assert (found.subject, found.session) == ("u", None)
    for header in ({**HEAD, "typ": "jwt"}, without(HEAD, "typ"), without(HEAD, "kid"), {**HEAD, "x5t": "AA"}):
        assert id_token(token(header, CLAIMS)).subject == "u"
    for claims in (
        {**CLAIMS, "aud": [CLIENT]},
        {**CLAIMS, "azp": CLIENT},
        {**CLAIMS, "exp": NOW + 0.5},
        {**CLAIMS, "exp": int(NOW - LEEWAY) + 1},
        {**CLAIMS, "iat": int(NOW + LEEWAY)},
    ):
        assert id_token(token(HEAD, claims)).subject == "u"
    assert id_token(token(HEAD, {**CLAIMS, "sid": "s"})).session == "s"


def test_the_text_of_a_token_is_in_no_error_and_no_repr() -> None:
    secret = token(HEAD, {**CLAIMS, "sub": "very-secret", "iss": "https://secret.example"})
    with pytest.raises(ProviderTokenError) as caught:
        id_token(secret)
    assert "secret" not in str(caught.value)
    assert "very-secret" not in repr(id_token(token(HEAD, {**CLAIMS, "sub": "very-secret"})))


@pytest.mark.parametrize("said", ["m", "", "nn", None, 1, ["n"], "\ud800"])
def test_a_nonce_of_another_sign_in(said: object) -> None:
    claims = {**CLAIMS, "nonce": said} if said is not None else without(CLAIMS, "nonce")
    with pytest.raises(NonceMismatchError):
        id_token(token(HEAD, claims))
    assert id_token(token(HEAD, claims), nonce=None).subject == "u"  # the ID token of a refresh


def test_an_id_token_is_no_logout_token_and_the_other_way_round() -> None:
    for text in (GOOD, token(LOGOUT_HEAD, CLAIMS)):
        with pytest.raises(ProviderTokenError):
            logout_token(text)
    for text in (GOOD_LOGOUT, token(HEAD, LOGOUT), token(HEAD, {**LOGOUT, "nonce": "n"})):
        with pytest.raises(ProviderTokenError):
            id_token(text, nonce=None)


def test_logout_tokens() -> None:
    found = logout_token(GOOD_LOGOUT)
    assert (found.subject, found.session, found.issued) == ("u", "s", NOW)
    assert logout_token(token(HEAD, LOGOUT)).session == "s"  # of providers that name no type
    assert logout_token(token(LOGOUT_HEAD, without(LOGOUT, "sub"))).subject is None
    for claims in (
        without(LOGOUT, "sub", "sid"),
        without(LOGOUT, "jti"),
        without(LOGOUT, "events"),
        {**LOGOUT, "events": {}},
        {**LOGOUT, "events": [LOGOUT_EVENT]},
        {**LOGOUT, "events": {LOGOUT_EVENT: None}},
        {**LOGOUT, "nonce": "n"},
        {**LOGOUT, "nonce": None},
        {**LOGOUT, "sid": 1},
        {**LOGOUT, "iat": int(NOW - MAX_LOGOUT_AGE - LEEWAY) - 1},
    ):
        with pytest.raises(ProviderTokenError):
            logout_token(token(LOGOUT_HEAD, claims))


def test_only_what_the_provider_announced_and_we_take() -> None:
    assert common_algorithms(None) == ("RS256",)
    assert common_algorithms(["none", "HS256", "ES256", "RS256", "RS512"]) == ("RS256", "ES256")
    assert common_algorithms("RS256") == ()
    assert common_algorithms(["HS256", ["RS256"], None]) == ()
    with pytest.raises(ProviderTokenError, match="ES256"):
        id_token(GOOD, provider=Provider(ISSUER, CLIENT, ("ES256",)))
    everything = Provider(ISSUER, CLIENT, ("none", "HS256", "RS256"))  # whoever configures it, it is not taken
    for alg, sign in (("none", hs256(b"")), ("HS256", hs256(PEM)), ("RS512", rs256())):
        with pytest.raises(ProviderTokenError):
            id_token(token({**HEAD, "alg": alg}, CLAIMS, sign), provider=everything)


def test_each_algorithm_with_a_key_of_its_kind() -> None:
    curve, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    numbers = curve.public_key().public_numbers()
    raw = edwards.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def es256(data: bytes) -> bytes:
        r, s = decode_dss_signature(curve.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def ps256(data: bytes) -> bytes:
        return OWN.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())

    x, y = b64(numbers.x.to_bytes(32, "big")), b64(numbers.y.to_bytes(32, "big"))
    keys = ProviderKeys.from_jwks(
        {
            "keys": [
                jwk_of(OWN, "r"),
                {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "e"},
                {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "o", "alg": "EdDSA"},
            ]
        }
    )
    provider = Provider(ISSUER, CLIENT, ALGORITHMS)
    signers: dict[str, tuple[str, Sign]] = {
        "RS256": ("r", rs256()),
        "PS256": ("r", ps256),
        "ES256": ("e", es256),
        "EdDSA": ("o", edwards.sign),
        "Ed25519": ("o", edwards.sign),
    }
    assert set(signers) == set(ALGORITHMS)
    for alg, (kid, sign) in signers.items():
        assert id_token(token({"alg": alg, "kid": kid}, CLAIMS, sign), keys=keys, provider=provider).subject == "u"
        for other_alg, (other_kid, _) in signers.items():
            if other_alg != alg and {alg, other_alg} != {"EdDSA", "Ed25519"}:
                with pytest.raises(ProviderTokenError):
                    id_token(token({"alg": other_alg, "kid": other_kid}, CLAIMS, sign), keys=keys, provider=provider)


# keys


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}, "x", {"keys": "x"}, {"Keys": []}])
def test_what_is_no_key_set(document: object) -> None:
    with pytest.raises(ValueError, match="JWK set"):
        ProviderKeys.from_jwks(document)


@pytest.mark.parametrize(
    "item",
    [
        {**JWK, "use": "enc"},
        {**JWK, "key_ops": ["encrypt"]},
        {**JWK, "alg": "RSA-OAEP"},
        {**JWK, "alg": "RS512"},
        {**JWK, "kty": "oct", "k": "AAAA"},
        {**JWK, "kty": ["RSA"]},
        {**JWK, "kid": 1},
        {**JWK, "n": "AQAB"},
        {**JWK, "n": None},
        {**JWK, "n": "!" * 342},
        {**JWK, "n": b64(bytes([255] * 1200))},
        {**JWK, "e": ""},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "1"},
        {"kty": "EC", "crv": "P-256", "x": b64(bytes(32)), "y": b64(bytes(31) + b"\1"), "kid": "1"},
        {"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": b64(bytes(32)), "kid": "1"},
        {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(31)), "kid": "1"},
        {"kty": "oct", "k": "AAAA", "kid": "1"},
        {},
        1,
        None,
    ],
)
def test_a_key_that_we_do_not_take_is_left_out(item: object) -> None:
    keys = ProviderKeys.from_jwks({"keys": [item, {**JWK, "kid": "2"}]})
    assert len(keys) == 1
    with pytest.raises(UnknownKeyError):
        id_token(GOOD, keys=keys)
    assert id_token(token({**HEAD, "kid": "2"}, CLAIMS), keys=keys).subject == "u"


def test_a_private_key_that_a_provider_publishes_is_used_as_a_public_one() -> None:
    keys = ProviderKeys.from_jwks({"keys": [{**JWK, "d": "AAAA", "p": "x"}]})
    assert id_token(GOOD, keys=keys).subject == "u"


def test_without_a_kid_there_must_be_one_key_only() -> None:
    keys = ProviderKeys.from_jwks({"keys": [JWK, jwk_of(EVIL, "2")]})
    with pytest.raises(UnknownKeyError):
        id_token(token(without(HEAD, "kid"), CLAIMS), keys=keys)
    one = ProviderKeys.from_jwks({"keys": [without(JWK, "kid")]})
    assert id_token(token(without(HEAD, "kid"), CLAIMS), keys=one).subject == "u"
    with pytest.raises(UnknownKeyError):
        id_token(GOOD, keys=one)


def test_two_keys_of_one_kid_are_both_tried() -> None:
    keys = ProviderKeys.from_jwks({"keys": [jwk_of(EVIL), JWK]})
    assert id_token(GOOD, keys=keys).subject == "u"


def test_a_huge_key_set_is_cut() -> None:
    assert len(ProviderKeys.from_jwks({"keys": [JWK] * (MAX_KEYS + 10)})) == MAX_KEYS


def test_an_unknown_kid_is_told_apart() -> None:
    with pytest.raises(UnknownKeyError):
        id_token(token({**HEAD, "kid": "2"}, CLAIMS))


# garbage


@settings(max_examples=150)
@given(st.text(max_size=200) | st.text(alphabet="eyJ.-_AQ=", max_size=80))
def test_garbage(text: str) -> None:
    for verify in (id_token, logout_token):
        with pytest.raises(ProviderTokenError):
            verify(text)


@settings(max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 127))
def test_any_changed_character(at: int, change: int) -> None:
    raw = bytearray(GOOD.encode())
    raw[at % len(raw)] ^= change
    with pytest.raises(ProviderTokenError):
        id_token(raw.decode("latin-1"))


def test_another_spelling_of_the_same_bytes() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = GOOD[:-1] + alphabet[alphabet.index(GOOD[-1]) + 1]
    assert base64.urlsafe_b64decode(twin.split(".")[2] + "==") == base64.urlsafe_b64decode(GOOD.split(".")[2] + "==")
    with pytest.raises(ProviderTokenError, match="malformed"):
        id_token(twin)


def test_too_long() -> None:
    with pytest.raises(ProviderTokenError, match="too long"):
        id_token("A" * (MAX_LENGTH + 1))


# our own tokens

RING_KEY = ed25519.Ed25519PrivateKey.generate()
RING_PUBLIC = RING_KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
RING = KeyRing((OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": b64(RING_PUBLIC), "kid": "1"}),))
RING_HEAD = {"alg": "Ed25519", "kid": "1", "typ": "c2l-test+jwt"}
RING_CLAIMS = {"sub": "u", "iat": int(NOW), "exp": int(NOW) + 60}


def ring(header: dict[str, Any], claims: object = None, sign: Sign = RING_KEY.sign, raw: bytes | None = None) -> str:
    return token(header, RING_CLAIMS if claims is None else claims, sign, raw)


def twice(secret: bytes) -> Sign:
    """Return what makes an HMAC of the length of an Ed25519 signature."""
    return lambda data: hs256(secret)(data) * 2


RING_GOOD = ring(RING_HEAD)
OTHER_KEY = ed25519.Ed25519PrivateKey.generate()
RING_HOSTILE = {
    "no algorithm": ring({**RING_HEAD, "alg": "none"}, sign=lambda _: b""),
    "no algorithm but a signature": ring({**RING_HEAD, "alg": "none"}),
    "in other letters": ring({**RING_HEAD, "alg": "nOnE"}),
    "the older name": ring({**RING_HEAD, "alg": "EdDSA"}),
    "HMAC with the public key": ring({**RING_HEAD, "alg": "HS256"}, sign=hs256(RING_PUBLIC)),
    "HMAC of the right length": ring({**RING_HEAD, "alg": "HS512"}, sign=twice(RING_PUBLIC)),
    "its own key": ring(
        {**RING_HEAD, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(RING_PUBLIC)}}, sign=OTHER_KEY.sign
    ),
    "its own key, signed by ours": ring({**RING_HEAD, "jwk": {"kty": "OKP"}}),
    "the address of its own key": ring({**RING_HEAD, "jku": "http://127.0.0.1:1/j"}),
    "another's signature": ring(RING_HEAD, sign=OTHER_KEY.sign),
    "an unknown critical member": ring({**RING_HEAD, "crit": ["x"], "x": 1}),
    "critical b64": ring({**RING_HEAD, "crit": ["b64"], "b64": False}),
    "b64 that is not critical": ring({**RING_HEAD, "b64": False}),
    "an empty signature": ring(RING_HEAD, sign=lambda _: b""),
    "expired": ring(RING_HEAD, {**RING_CLAIMS, "exp": 1}),
    "issued later": ring(RING_HEAD, {**RING_CLAIMS, "iat": LATER}),
    "no exp": ring(RING_HEAD, without(RING_CLAIMS, "exp")),
    "no iat": ring(RING_HEAD, without(RING_CLAIMS, "iat")),
    "exp NaN": ring(RING_HEAD, raw=b'{"sub":"u","iat":1800000000,"exp":NaN}'),
    "exp Infinity": ring(RING_HEAD, raw=b'{"sub":"u","iat":1800000000,"exp":Infinity}'),
    "exp true": ring(RING_HEAD, {**RING_CLAIMS, "exp": True}),
    "no object": ring(RING_HEAD, [1]),
    "deeply nested": ring(RING_HEAD, raw=b"[" * 100_000),
    "deeply nested and short": ring(RING_HEAD, raw=b"[" * 2_000),
    "padding": RING_GOOD + "==",
    "a line's end": RING_GOOD + "\n",
    "another kind": ring({**RING_HEAD, "typ": "at+jwt"}),
    "no kind": ring(without(RING_HEAD, "typ")),
    "an unknown kid": ring({**RING_HEAD, "kid": "2"}),
    "kid a list": ring({**RING_HEAD, "kid": ["1"]}),
    "no kid": ring(without(RING_HEAD, "kid")),
    "a provider's token": GOOD,
}


@pytest.mark.parametrize(("name", "text"), RING_HOSTILE.items())
def test_a_hostile_token_of_our_own_kind(name: str, text: str) -> None:
    with pytest.raises(TokenRefusedError):
        RING.verify(text, typ="c2l-test+jwt", now=NOW)


def test_our_own_kind_holds() -> None:
    assert RING.verify(RING_GOOD, typ="c2l-test+jwt", now=NOW) == RING_CLAIMS
