"""Who a bridge is: its file, the fields that prove it, and what it makes of a refusal."""

import base64
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth import dpop
from cloudtolocalllm.auth.dpop import NonceRefusedError, Nonces, ProofKey
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError, Prover, error_code
from cloudtolocalllm.bridge.pairing import provision_local

NOW = FakeClock().wall()
NONCES = Nonces((b"k" * 32,))
IDENTITY = BridgeIdentity("https://cloud.test", "br-1", "the-credential", ProofKey.generate(), NOW, NOW + 1000)


def test_the_file_is_its_owners_alone_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "home" / "c.json"
    IDENTITY.save(path)
    assert BridgeIdentity.load(path) == IDENTITY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == {
        "server", "bridge_id", "credential", "key", "issued", "expires", "revoked"
    }  # fmt: skip
    assert [entry.name for entry in path.parent.iterdir()] == ["c.json"], "expected nothing to be left beside it"


def test_secrets_are_not_shown() -> None:
    assert "the-credential" not in repr(IDENTITY)
    assert IDENTITY.key.private_jwk()["d"] not in repr(IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        {"bridge_id": None}, {"bridge_id": "a b"}, {"credential": ""}, {"credential": "a\r\nb"}, {"key": None},
        pytest.param({"key": IDENTITY.key.public_jwk()}, id="key-public"),
        {"key": "text"}, {"issued": "x"}, {"expires": None}, {"credential": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_does_not_fit_says_how_to_mend_it(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "c.json"
    IDENTITY.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PairingError, match="pair this bridge again"):
        BridgeIdentity.load(path)


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '"x"', "{}", '{"bridge_id": "a", "credential": "b"}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(PairingError, match="pair this bridge again"):
        BridgeIdentity.load(path)


def test_no_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PairingError, match="cloudtolocalllm bridge login"):
        BridgeIdentity.load(tmp_path / "none.json")


def test_a_revoked_one_is_no_more_used_but_another_pairing_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    other = replace(IDENTITY, bridge_id="br-2")
    other.save(path)
    IDENTITY.void(path)
    assert BridgeIdentity.load(path) == other
    other.void(path)
    with pytest.raises(PairingError, match="revoked"):
        BridgeIdentity.load(path)
    IDENTITY.void(tmp_path / "none.json")


def test_it_is_renewed_at_half_of_its_life() -> None:
    assert IDENTITY.renew_at == NOW + 500


def verify(fields: dict[str, str], path: str = "/ws/tunnel") -> dpop.Proof:
    return dpop.verify(
        fields["DPoP"], method="GET", path=path, authorities={"cloud.test:443"}, nonces=NONCES, now=NOW,
        credential="the-credential", key=IDENTITY.key.thumbprint,
    )  # fmt: skip


def test_each_request_has_a_proof_of_its_own() -> None:
    prover = Prover("https://u:p@cloud.test/", lambda: IDENTITY, FakeClock())
    assert prover.learn(NONCES.issue(NOW))
    first, second = (prover.fields("GET", "/ws/tunnel") for _ in range(2))
    assert first["Authorization"] == "DPoP the-credential"
    assert verify(first).id != verify(second).id
    assert "u:p" not in base64.urlsafe_b64decode(first["DPoP"].split(".")[1] + "==").decode()


def test_a_refusal_with_a_new_nonce_is_tried_again_once() -> None:
    prover = Prover("https://cloud.test", lambda: IDENTITY, FakeClock())
    with pytest.raises(NonceRefusedError):
        verify(prover.fields("GET", "/ws/tunnel"))
    challenge = {"www-authenticate": 'DPoP error="use_dpop_nonce", algs="Ed25519"', "dpop-nonce": NONCES.issue(NOW)}
    assert prover.may_retry(challenge)
    verify(prover.fields("GET", "/ws/tunnel"))
    assert not prover.may_retry(challenge), "expected the same nonce to promise nothing"
    assert not prover.may_retry({"dpop-nonce": "another"}), "expected other refusals to be final"
    assert not prover.may_retry({"www-authenticate": 'DPoP error="invalid_token"', "dpop-nonce": "third"})


@pytest.mark.parametrize("nonce", ["", None, "a b", "a\r\nx: y", "x" * 300, "\u0661"])
def test_a_nonce_that_is_none_is_not_taken(nonce: str | None) -> None:
    assert not Prover("https://cloud.test", lambda: IDENTITY).learn(nonce)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('DPoP error="use_dpop_nonce", algs="Ed25519"', "use_dpop_nonce"),
        ('dpop algs="x", error="revoked"', "revoked"),
        ("Bearer", ""),
        ('Bearer error="revoked"', ""),
        ("DPoP", ""),
        ('DPoP error="' + "x" * 500, "x" * 64),
        ("", ""),
    ],
)
def test_the_code_of_a_challenge_is_read(text: str, code: str) -> None:
    assert error_code({"www-authenticate": text}) == code
    assert error_code({}) == ""


def test_a_local_bridge_stays_the_one_it_is(tmp_path: Path) -> None:
    path, ring = tmp_path / "credential.json", KeyRing.generate()
    now, day = 1_800_000_000.0, 86_400.0
    url = "http://127.0.0.1:8080"
    first = provision_local(path, ring, user="u_a", server=url, now=now)
    before = BridgeIdentity.load(path)
    assert provision_local(path, ring, user="u_a", server=url, now=now + day) == first
    assert BridgeIdentity.load(path) == before
    renewed = provision_local(path, ring, user="u_a", server=url, now=now + 16 * day)
    assert renewed.bridge == first.bridge
    assert renewed.thumbprint == first.thumbprint
    assert renewed.expires > first.expires
    assert provision_local(path, ring, user="u_a", server=url, now=now + 100 * day).bridge == first.bridge
    moved = provision_local(path, ring, user="u_a", server="http://127.0.0.1:8081", now=now + 100 * day)
    assert moved.bridge == first.bridge
    assert BridgeIdentity.load(path).server == "http://127.0.0.1:8081"
    other = provision_local(path, ring, user="u_b", server=url, now=now + 100 * day)
    assert other.bridge != first.bridge, "expected another user's bridge to be another"
    BridgeIdentity.load(path).void(path)
    assert provision_local(path, ring, user="u_b", server=url, now=now + 100 * day).bridge != other.bridge
    strange = KeyRing.generate()
    current = BridgeIdentity.load(path)
    assert provision_local(path, strange, user="u_b", server=url, now=now + 100 * day).bridge != current.bridge_id
    path.write_text("{}")
    assert provision_local(path, ring, user="u_b", server=url, now=now).user == "u_b"
