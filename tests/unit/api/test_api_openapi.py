import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudtolocalllm.api.app import build_app

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_app(None).openapi()


def test_the_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "openapi.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_operations_have_names_of_their_own_and_a_summary(document: dict[str, Any]) -> None:
    operations = [o for item in document["paths"].values() for o in item.values()]
    assert len({o["operationId"] for o in operations}) == len(operations) >= 14
    assert all(o["summary"] and o["description"] for o in operations)


def test_every_schema_has_an_example(document: dict[str, Any]) -> None:
    without = [
        name
        for name, schema in document["components"]["schemas"].items()
        if "examples" not in schema and not all("examples" in p for p in schema["properties"].values())
    ]
    assert without == []


def test_no_answer_is_described_that_is_never_given(document: dict[str, Any]) -> None:
    text = str(document)
    assert "HTTPValidationError" not in text
    assert "'422'" not in text


def test_the_authorise_route_is_not_public(document: dict[str, Any]) -> None:
    assert not any(path.startswith("/internal") for path in document["paths"])


def test_all_but_the_open_routes_say_what_they_need(document: dict[str, Any]) -> None:
    open_routes = {
        f"{method} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if "security" not in operation
    }
    assert open_routes == {
        "post /api/auth/sign-in",
        "get /api/auth/session",
        "get /api/auth/oidc/start",
        "get /api/auth/oidc/callback",
        "post /api/auth/oidc/back-channel-logout",
        "post /api/bridge/pairing/device",
        "post /api/bridge/pairing/loopback",
        "post /api/bridge/pairing/token",  # a code and a proof of the key that asked
        "get /healthz",
        "get /readyz",
    }
