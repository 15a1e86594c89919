"""The operator's commands on the data directory of a cloud with three replicas, while it runs."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.deployment import Deployment, await_connected, await_refusal, running_deployment, sign_in
from tests.support.long_answer import question
from tests.support.stack import wait_for

pytestmark = pytest.mark.timeout(120)

SOON = 2.0
"""Seconds within which a revocation holds at every replica."""


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with running_deployment(3) as running:
        yield running


def make_key(deployment: Deployment, *arguments: str) -> tuple[str, str]:
    """Return a key's text and its id."""
    made = deployment.cli("keys", "create", *arguments)
    return made.stdout.strip(), made.stderr.split()[1]


def test_a_key_of_the_operator_works_at_every_replica_until_it_is_revoked(deployment: Deployment) -> None:
    key, key_id = make_key(deployment, "Rack", "--days", "1")
    pairing = {"C2L_BRIDGE_PAIRING_KEY": key}
    rack = deployment.bridge("rack", environ=pairing)
    with httpx.Client(base_url=deployment.url, headers={"x-api-key": key}, timeout=20) as client:
        await_connected(client, "rack", rack)
        answer = client.post("/ollama/api/chat", json=question(3, 0) | {"stream": False})
        assert answer.status_code == 200, answer.text
        for name in deployment.names:
            with deployment.replica(name, None, **{"x-api-key": key}) as replica:
                assert [bridge["name"] for bridge in replica.get("/api/bridge").json()] == ["rack"]
        assert key_id in deployment.cli("keys", "list").stdout
        revoked = deployment.cli("keys", "revoke", key_id, C2L_API_STATE=deployment.redis.url)
        assert revoked.returncode == 0
        began = time.monotonic()
        for name in deployment.names:
            with deployment.replica(name, None, **{"x-api-key": key}) as replica:
                await_refusal(replica, "/api/bridge", SOON)
        assert time.monotonic() - began < SOON
        assert client.get("/v1/models").status_code == 401
    assert rack.running, "expected the machine itself to stay paired"
    assert "revoked" in deployment.cli("keys", "list").stdout
    rack.stop()


def test_the_services_keys_change_while_all_runs(deployment: Deployment) -> None:
    with sign_in(deployment, "alice") as alice:
        changed = deployment.cli("services", "rotate", "api", "--keys", str(keys_of(deployment)))
        assert changed.returncode == 0
        # each asks the manager with a token of its own
        for name in deployment.names:
            with deployment.replica(name, alice.cookies, **{"c2l-request": "1"}) as replica:
                assert replica.get("/api/admin/overview").json()["instances"] is not None


def keys_of(deployment: Deployment) -> Path:
    return deployment.root / "cloud" / "secrets" / "services"


def test_the_audit_logs_of_all_are_whole_and_a_change_of_one_is_found(deployment: Deployment) -> None:
    make_key(deployment, "Another")

    def good(count: int) -> bool:
        found = deployment.cli("audit", "verify", check=False)
        return found.returncode == 0 and found.stdout.count(": good: ") == count

    # manager, edge, three replicas and the command line itself; what was just recorded is signed for soon
    wait_for(lambda: good(6), within=20, what="six logs that are whole")
    log = deployment.root / "audit" / "cli"
    (entries,) = [path for path in log.iterdir() if b'"key-made"' in path.read_bytes()]
    before = entries.read_bytes()
    changes = {
        "an edit": before.replace(b'"Success"', b'"Failure"', 1).replace(b'"key-made"', b'"key-mode"', 1),
        "a deletion": b"".join(before.splitlines(keepends=True)[1:]),
        "a truncation": b"".join(before.splitlines(keepends=True)[:-1]),
    }
    try:
        for what, change in changes.items():
            assert change != before
            entries.write_bytes(change)
            found = deployment.cli("audit", "verify", check=False)
            assert found.returncode == 1, what
            assert "audit/cli: CHANGED" in found.stdout, what
            assert found.stdout.count(": good: ") == 5, what
    finally:
        entries.write_bytes(before)
    assert good(6)
