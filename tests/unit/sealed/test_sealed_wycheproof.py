"""Wycheproof's vectors of the three primitives in use, by the very calls that the envelope makes."""

from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.support.sealed_parts import vectors

from cloudtolocalllm.sealed import device, hpke
from cloudtolocalllm.sealed.errors import MalformedError

unhex = bytes.fromhex


def cases(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    groups = vectors(f"wycheproof/{name}.json")["testGroups"]
    return [(group, case) for group in groups for case in group["tests"]]


def test_x25519() -> None:
    seen = {"valid": 0, "acceptable": 0}
    for _, case in cases("x25519_test"):
        private, public = unhex(case["private"]), unhex(case["public"])
        if "ZeroSharedSecret" in case["flags"]:
            with pytest.raises(MalformedError):
                hpke.sender(public, b"", private)
            with pytest.raises(MalformedError):
                hpke.recipient(public, private, b"")
        else:
            key = X25519PrivateKey.from_private_bytes(private)
            assert key.exchange(X25519PublicKey.from_public_bytes(public)) == unhex(case["shared"]), case["tcId"]
        seen[case["result"]] += 1
    assert seen == {"valid": 265, "acceptable": 253}


def test_aes_gcm() -> None:
    for _, case in cases("aes_gcm_test"):
        key, nonce, aad, plain = (unhex(case[name]) for name in ("key", "iv", "aad", "msg"))
        sealed = unhex(case["ct"]) + unhex(case["tag"])
        if case["result"] == "valid":
            assert AESGCM(key).encrypt(nonce, plain, aad) == sealed
            assert AESGCM(key).decrypt(nonce, sealed, aad) == plain
        else:
            with pytest.raises(InvalidTag):
                AESGCM(key).decrypt(nonce, sealed, aad)
    assert len(cases("aes_gcm_test")) == 67


def test_ecdsa_p256_in_64_bytes() -> None:
    for group, case in cases("ecdsa_secp256r1_sha256_p1363_test"):
        point = unhex(group["publicKey"]["uncompressed"])
        assert device.verify(point, unhex(case["sig"]), unhex(case["msg"])) == (case["result"] == "valid"), case
    assert len(cases("ecdsa_secp256r1_sha256_p1363_test")) == 252
