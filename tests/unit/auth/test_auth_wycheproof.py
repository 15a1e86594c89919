"""Project Wycheproof's vectors for JSON Web Signature, under our restrictions."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from cloudtolocalllm.auth.oidc import ALGORITHMS, ProviderTokenError, signed_payload
from cloudtolocalllm.auth.provider_keys import ProviderKeys

FILE = Path(__file__).parents[2] / "vectors" / "wycheproof" / "json_web_signature_test.json"
VECTORS = json.loads(FILE.read_text())
OURS = {"RS256", "PS256", "ES256"}
"""The algorithms that the file has and we take."""


def cases() -> list[Any]:
    found = []
    for group in VECTORS["testGroups"]:
        key = group.get("public") or group["private"]
        for test in group["tests"]:
            jws = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
            wanted = test["result"] == "valid" and accepted(key, jws)
            found.append(pytest.param(key, jws, wanted, id=f"{test['tcId']}-{test['comment']}"))
    return found


def accepted(key: dict[str, Any], jws: str) -> bool:
    """Tell whether a signature that is valid by the standard is one that we take."""
    head, payload, _ = jws.split(".")
    said = json.loads(base64.urlsafe_b64decode(head + "=="))["alg"]
    # No token of ours has an empty payload, and a key is used for nothing but what it is for: two of the vectors sign
    # by PS384 with a key for PS256.
    return key.get("alg") == said and said in OURS and payload != ""


@pytest.mark.parametrize(("key", "jws", "wanted"), cases())
def test_a_vector(key: dict[str, Any], jws: str, wanted: bool) -> None:
    keys = ProviderKeys.from_jwks({"keys": [key]})
    try:
        signed_payload(jws, keys, ALGORITHMS, types=("jwt", "jose"))
    except ProviderTokenError:
        assert not wanted
    else:
        assert wanted


def test_the_vectors_say_both() -> None:
    verdicts = [case.values[2] for case in cases()]
    assert len(verdicts) == VECTORS["numberOfTests"]
    assert sum(verdicts) >= 10
