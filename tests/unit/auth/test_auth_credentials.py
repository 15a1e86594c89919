"""Bridge credentials: what they say, and which do not hold."""

from typing import Any

import pytest

from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.credentials import LIFETIME, BridgeCredential
from cloudtolocalllm.auth.signing import KeyRing, TokenRefusedError

NOW = 1_800_000_000.0
RING = KeyRing.generate()
BRIDGE = credentials.new_bridge_id()
USER = "u_guq5pi4vzry6glg2sssi"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def issue(ring: KeyRing = RING) -> str:
    return credentials.issue(ring, bridge=BRIDGE, user=USER, thumbprint=THUMBPRINT, now=NOW)[0]


def test_a_credential_says_who_it_is_for_thirty_days() -> None:
    text, said = credentials.issue(RING, bridge=BRIDGE, user=USER, thumbprint=THUMBPRINT, now=NOW)
    assert said == BridgeCredential(BRIDGE, USER, THUMBPRINT, int(NOW), int(NOW) + LIFETIME)
    assert credentials.verify(RING, text, now=NOW) == said
    assert credentials.verify(RING, text, now=NOW + LIFETIME - 1) == said
    assert LIFETIME == 30 * 86_400


@pytest.mark.parametrize("at", [NOW + LIFETIME + 6, NOW - 6])
def test_out_of_its_time_it_is_refused(at: float) -> None:
    with pytest.raises(TokenRefusedError):
        credentials.verify(RING, issue(), now=at)


def test_a_forged_one_is_refused() -> None:
    with pytest.raises(TokenRefusedError):
        credentials.verify(RING, issue(KeyRing.generate()), now=NOW)


def test_a_rotation_ends_none() -> None:
    assert credentials.verify(RING.rotated(), issue(), now=NOW).bridge == BRIDGE


@pytest.mark.parametrize("typ", ["c2l-key+jwt", "c2l-service+jwt", "JWT", "dpop+jwt"])
def test_a_token_of_another_kind_is_refused(typ: str) -> None:
    claims = {"sub": BRIDGE, "usr": USER, "cnf": {"jkt": THUMBPRINT}, "iat": int(NOW), "exp": int(NOW) + 60}
    with pytest.raises(TokenRefusedError):
        credentials.verify(RING, RING.sign(claims, typ=typ), now=NOW)
    assert credentials.verify(RING, RING.sign(claims, typ=credentials.TYP), now=NOW).user == USER


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": None}, {"sub": "x"}, {"sub": 7}, {"usr": None}, {"usr": ""}, {"usr": "a/b"}, {"cnf": None},
        {"cnf": THUMBPRINT}, {"cnf": {}}, {"cnf": {"jkt": "x"}}, {"cnf": {"jkt": 7}}, {"cnf": [THUMBPRINT]},
    ],
    ids=str,
)  # fmt: skip
def test_one_that_is_bound_to_nothing_is_refused(changed: dict[str, Any]) -> None:
    claims = {"sub": BRIDGE, "usr": USER, "cnf": {"jkt": THUMBPRINT}, "iat": int(NOW), "exp": int(NOW) + 60}
    with pytest.raises(TokenRefusedError):
        credentials.verify(RING, RING.sign({**claims, **changed}, typ=credentials.TYP), now=NOW)
