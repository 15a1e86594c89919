import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth.keys import (
    DAY,
    LEEWAY,
    MAX_LIFETIME,
    PREFIX,
    TYP,
    KeyClaims,
    KeyScope,
    KeyVerifier,
    mint_key,
)
from cloudtolocalllm.auth.signing import KeyRing, new_key

RING = KeyRing.generate()
USER = "u_guq5pi4vzry6glg2sssi"
SCOPE = KeyScope(("/v1/",), ("llama*",), 60, 100_000, "k2qxv7hd4m3a")


def mint(
    clock: FakeClock, ring: KeyRing = RING, *, lifetime: float = DAY, scope: KeyScope = SCOPE
) -> tuple[KeyClaims, str]:
    return mint_key(ring, user=USER, scope=scope, lifetime=lifetime, now=clock.wall())


def b64(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def payload(clock: FakeClock, **changes: Any) -> dict[str, Any]:
    now = int(clock.wall())
    value = {"jti": "3fomfi6a5lvd", "sub": USER, "iat": now, "exp": now + 60, **changes}
    return {name: member for name, member in value.items() if member is not None}


def test_a_key_says_whose_it_is_and_what_it_may_do() -> None:
    clock = FakeClock()
    claims, text = mint(clock)
    assert text.startswith(PREFIX)
    assert claims == KeyClaims(claims.id, USER, int(clock.now), int(clock.now + DAY), SCOPE)
    verifier = KeyVerifier(RING, clock)
    assert verifier.verify(text) == claims
    assert verifier.verify(text) == claims, "once remembered"


def test_a_key_of_another_signer_is_refused() -> None:
    clock = FakeClock()
    verifier = KeyVerifier(RING, clock)
    assert verifier.verify(mint(clock, KeyRing.generate())[1]) is None
    stranger = new_key()
    twin = OKPKey.import_key({**stranger.as_dict(private=True), "kid": RING.kids[0]})
    assert verifier.verify(mint(clock, KeyRing((twin,)))[1]) is None, "with our kid"


def test_a_key_holds_until_it_expires_also_once_remembered() -> None:
    clock = FakeClock()
    _, text = mint(clock)
    verifier = KeyVerifier(RING, clock)
    assert verifier.verify(text) is not None
    clock.advance(DAY - 1)
    assert verifier.verify(text) is not None
    assert KeyVerifier(RING, clock).verify(text) is not None
    clock.advance(1)
    assert verifier.verify(text) is None
    assert KeyVerifier(RING, clock).verify(text) is None


def test_a_key_from_the_future_holds_only_within_the_leeway_of_clocks() -> None:
    clock = FakeClock()
    _, text = mint(clock)
    clock.advance(-LEEWAY)
    verifier = KeyVerifier(RING, clock)
    assert verifier.verify(text) is not None
    clock.advance(-1)
    assert verifier.verify(text) is None
    assert KeyVerifier(RING, clock).verify(text) is None


def test_every_changed_character_voids_a_key() -> None:
    clock = FakeClock()
    _, text = mint(clock)
    verifier = KeyVerifier(RING, clock)
    for at in range(len(text)):
        for other in {"A", "B", "_", "."} - {text[at]}:
            assert verifier.verify(text[:at] + other + text[at + 1 :]) is None, at
    for other in (text + "A", text + "=", " " + text, text + "\n", text[1:], text[:-1], text.upper(), ""):
        assert verifier.verify(other) is None


@pytest.mark.parametrize("typ", ["JWT", "c2l-bridge+jwt", "c2l-service+jwt", "dpop+jwt", "C2L-KEY+JWT", ""])
def test_a_token_of_another_kind_is_no_key(typ: str) -> None:
    clock = FakeClock()
    assert KeyVerifier(RING, clock).verify(PREFIX + RING.sign(payload(clock), typ=typ)) is None


def test_a_key_without_its_prefix_is_none() -> None:
    clock = FakeClock()
    _, text = mint(clock)
    assert KeyVerifier(RING, clock).verify(text.removeprefix(PREFIX)) is None
    assert KeyVerifier(RING, clock).verify("c2lb_" + text.removeprefix(PREFIX)) is None


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "EdDSA"},
        {"alg": "Ed25519", "jwk": RING.jwks()["keys"][0]},
        {"alg": "Ed25519", "jku": "http://127.0.0.1:1/keys"},
        {"alg": "Ed25519", "crit": ["exp"], "exp": 1},
        {"alg": "Ed25519", "b64": False, "crit": ["b64"]},
        {"alg": "Ed25519", "kid": "unknown"},
        {"alg": "Ed25519", "kid": None},
    ],
)
def test_a_header_chooses_nothing(header: dict[str, Any]) -> None:
    clock = FakeClock()
    value = {"kid": RING.kids[0], "typ": TYP, **header}
    signed = f"{b64(value)}.{b64(payload(clock))}"
    private = OKPKey.import_key(RING.jwks(private=True)["keys"][0])
    good = jws.serialize_compact(
        {"alg": "Ed25519"}, signed.encode(), private, registry=jws.JWSRegistry(algorithms=["Ed25519"])
    ).split(".")[2]
    public = json.dumps(RING.jwks()["keys"][0]).encode()
    mac = b64(hmac.digest(public, signed.encode(), "sha256") * 2)
    for signature in ("", good, mac):
        assert KeyVerifier(RING, clock).verify(f"{PREFIX}{signed}.{signature}") is None
    assert OctKey.import_key(public) is not None  # the confusion that HS256 with a public key would be


@pytest.mark.parametrize(
    "changes",
    [
        {"jti": None},
        {"jti": "short"},
        {"jti": 5},
        {"jti": "3fomfi6a5lvd\n"},
        {"sub": None},
        {"sub": "a b"},
        {"sub": ""},
        {"sub": ["u"]},
        {"exp": None},
        {"iat": None},
        {"exp": 2**40},
        {"rts": "/v1/"},
        {"mdl": ["[a-z]"]},
        {"rpm": 0},
        {"tpd": "many"},
        {"brg": ["b"]},
    ],
)
def test_claims_out_of_their_form_are_refused_even_when_signed(changes: dict[str, Any]) -> None:
    clock = FakeClock()
    assert KeyVerifier(RING, clock).verify(PREFIX + RING.sign(payload(clock), typ=TYP)) is not None
    assert KeyVerifier(RING, clock).verify(PREFIX + RING.sign(payload(clock, **changes), typ=TYP)) is None


def test_a_lifetime_is_at_most_a_year() -> None:
    clock = FakeClock()
    mint(clock, lifetime=MAX_LIFETIME)
    for lifetime in (0, -5, MAX_LIFETIME + 1):
        with pytest.raises(ValueError, match="366 days"):
            mint(clock, lifetime=lifetime)


def test_the_largest_scope_still_makes_a_key_that_holds() -> None:
    clock = FakeClock()
    scope = KeyScope(("/anthropic/" + "r" * 21,) * 16, ("m" * 64,) * 16, 10**12, 10**12, "b" * 64)
    _, text = mint(clock, scope=scope)
    verified = KeyVerifier(RING, clock).verify(text)
    assert verified is not None
    assert verified.scope == scope


def test_keys_of_a_rotated_ring_hold_until_its_old_key_is_dropped() -> None:
    clock = FakeClock()
    _, text = mint(clock)
    verifier = KeyVerifier(RING, clock)
    assert verifier.verify(text) is not None
    rotated = RING.rotated()
    verifier.use(rotated)
    assert verifier.verify(text) is not None
    assert verifier.verify(mint(clock, rotated)[1]) is not None
    verifier.use(rotated.rotated())
    assert verifier.verify(text) is None, "what was remembered went with its signer"


def test_a_verifier_remembers_a_bounded_number_and_no_forgery(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    verifier = KeyVerifier(RING, clock, remembered=2)
    texts = [mint(clock)[1] for _ in range(3)]
    counted: list[str] = []
    verify = KeyRing.verify

    def counting(ring: KeyRing, text: str, **how: Any) -> dict[str, Any]:
        counted.append(text)
        return verify(ring, text, **how)

    monkeypatch.setattr(KeyRing, "verify", counting)
    for text in (texts[0], texts[1], texts[0], texts[2], texts[0]):
        assert verifier.verify(text) is not None
    assert len(counted) == 3, "each signature once"
    assert verifier.verify(texts[1]) is not None
    assert len(counted) == 4, "it was not seen for longest"
    forged = texts[0][:-2] + ("AA" if texts[0][-2:] != "AA" else "QA")
    for _ in range(2):
        assert verifier.verify(forged) is None
    assert len(counted) == 6, "a forgery is not remembered"
