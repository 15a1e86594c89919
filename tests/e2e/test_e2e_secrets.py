"""What is the user's stays the user's: no prompt, answer, model name, key or token is kept, logged or shown."""

import json
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.support.engines import demo_engine
from tests.support.stack import Stack, running_stack

from cloudtolocalllm.auth.dpop import ProofKey

pytestmark = pytest.mark.timeout(60)
MARK = "zq7markerzq7"
MODEL = "zq8modelzq8:7b"
KEY_NAME = "zq6laptopzq6"
"""Of an API key: known at home only."""
BRIDGE_NAME = "zq9machinezq9"
"""Of a bridge: what the cloud may know of a machine."""
OURS = {"c2l-request": "1"}
PRIVATE = {"owner.key", "bridge/credential.json"}
"""Files below the data directory whose very purpose is to keep a secret for their owner."""


@dataclass
class Used:
    """A platform that was used, and everything that must not be found afterwards."""

    stack: Stack
    secrets: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    with (
        demo_engine(models=MODEL, load_seconds=0, prefill_seconds=0, tokens_per_second=0) as engine,
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[engine.url]) as stack,
    ):
        made = Used(stack, {"prompt": MARK, "model": MODEL, "api key": stack.api_key})
        credential = json.loads((stack.data_dir / "bridge" / "credential.json").read_text())
        made.secrets["bridge credential"] = credential["credential"]
        made.secrets["bridge's private key"] = credential["key"]["d"]
        with httpx.Client(base_url=stack.url, timeout=20) as browser:
            sign_in(made, browser)
            by_key(made)
            by_session(made, browser)
        by_mistake(stack)
        yield made


def sign_in(used: Used, browser: httpx.Client) -> None:
    token = used.stack.sign_in_url.partition("#token=")[2].partition("&")[0]
    used.secrets["sign-in token"] = token
    headers = {**OURS, "origin": used.stack.url}
    assert browser.post("/api/auth/sign-in", json={"token": token}, headers=headers).status_code == 204
    used.secrets["session token"] = next(iter(browser.cookies.values()))
    assert browser.post("/api/auth/sign-in", json={"token": token}, headers=headers).status_code == 401


def chat(stream: bool) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": MARK}], "stream": stream}


def by_key(used: Used) -> None:
    """Every kind of request, streamed and not, well-formed and not."""
    stack = used.stack
    with httpx.Client(base_url=stack.url, timeout=20, headers=stack.headers) as client:
        for path in ("/ollama/api/chat", "/v1/chat/completions"):
            for stream in (True, False):
                answer = client.post(path, json=chat(stream))
                assert answer.status_code == 200
                assert stream or MARK in answer.text, "expected the engine to repeat what it was asked"
        assert client.post("/v1/embeddings", json={"model": MODEL, "input": MARK}).status_code == 200
        assert client.post("/ollama/api/show", json={"model": MODEL}).status_code == 200
        assert client.get("/v1/models").status_code == 200
        missing = {**chat(False), "model": f"{MARK}:latest"}
        assert client.post("/ollama/api/chat", json=missing).status_code == 404
        assert client.post("/ollama/api/chat", content=f'{{"{MARK}": '.encode()).status_code == 400
        assert client.post(f"/ollama/api/{MARK}", json=chat(False)).status_code == 403
        assert client.get(f"/v1/models?q={MARK}").status_code == 200
        assert client.get("/api/bridge", params={"q": MARK}, headers={"user-agent": MARK}).status_code == 200
        assert client.post("/api/bridge", json={"nome": MARK}).status_code in (400, 422)
        with client.stream("POST", "/ollama/api/chat", json=slow()) as response:
            next(response.iter_lines())  # and leave in the middle
        body = {"name": BRIDGE_NAME, "jwk": ProofKey.generate().public_jwk()}
        used.secrets["second bridge's credential"] = client.post("/api/bridge", json=body).json()["credential"]


def slow() -> dict[str, Any]:
    return {**chat(True), "options": {"demo_tokens": 1000, "demo_tokens_per_second": 100}}


def by_session(used: Used, browser: httpx.Client) -> None:
    headers = {**OURS, "origin": used.stack.url}
    assert browser.post("/ollama/api/chat", json=chat(False), headers=headers).status_code == 200
    made = browser.post("/api/auth/keys", json={"name": KEY_NAME}, headers=headers)
    assert made.status_code == 201, made.text
    (used.secrets["second key"],) = [v for v in made.json().values() if str(v).startswith("c2l_")]
    answer = httpx.get(f"{used.stack.url}/v1/models", headers={"x-api-key": used.secrets["second key"]}, timeout=20)
    assert answer.status_code == 200


def by_mistake(stack: Stack) -> None:
    """Secrets in places where they do not belong, and where a careless program would log them."""
    for headers in ({"Authorization": f"Basic {MARK}"}, {"x-api-key": MARK}, {"Cookie": f"c2l_session={MARK}"}):
        assert httpx.get(f"{stack.url}/v1/models", headers=headers, timeout=20).status_code == 401
    assert httpx.get(f"{stack.url}/v1/models?api_key={stack.api_key}", timeout=20).status_code == 401
    assert httpx.get(f"{stack.url}/{MARK}", timeout=20).status_code in (200, 404)
    assert httpx.get(f"{stack.url}/", headers={"Host": f"{MARK}.example"}, timeout=20).status_code == 421
    for path in ("/ws/tunnel", "/ws/bridge"):
        headers = {"Connection": "upgrade", "Upgrade": "websocket", "Authorization": f"Bearer {MARK}"}
        assert httpx.get(stack.url + path, headers=headers, timeout=20).status_code == 401


def everyone(stack: Stack) -> list[psutil.Process]:
    """`up`, its parts, and what they started (without what the tests themselves run)."""
    parent = psutil.Process(stack.pid)
    return [parent, *parent.children(recursive=True)]


def found_in(data: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if secret.encode() in data]


def test_the_logs_say_much_and_tell_nothing(used: Used) -> None:
    logs = list((used.stack.data_dir / "logs").iterdir())
    text = b"".join(path.read_bytes() for path in logs)
    assert text.count(b'"edge.access"') > 20, "expected the requests in the log"
    assert found_in(text, used.secrets) == []
    assert found_in("".join(used.stack.errors).encode(), used.secrets) == []


def test_no_file_has_a_secret_that_is_not_for_it(used: Used) -> None:
    looked = 0
    for path in used.stack.data_dir.rglob("*"):
        name = path.relative_to(used.stack.data_dir).as_posix()
        if path.is_file() and name not in PRIVATE:
            assert found_in(path.read_bytes(), used.secrets) == [], name
            looked += 1
    assert looked > 5
    raw = b"".join(path.read_bytes() for path in (used.stack.data_dir / "cloud").glob("state.db*"))
    assert BRIDGE_NAME.encode() in raw, "expected the machine's name in the state's bytes"
    # The signature alone would be as good as the whole to who knows the rest, which is no secret.
    signatures = {name: secret[-43:] for name, secret in used.secrets.items()}
    assert found_in(raw, signatures) == []


def test_the_cloud_does_not_know_what_keys_are_called(used: Used) -> None:
    home = used.stack.data_dir / "bridge"
    knowing = {
        path.relative_to(used.stack.data_dir).as_posix()
        for path in used.stack.data_dir.rglob("*")
        if path.is_file() and KEY_NAME.encode() in path.read_bytes()
    }
    assert knowing, "expected the list at home to have it"
    assert all((used.stack.data_dir / name).is_relative_to(home) for name in knowing), knowing


def test_the_private_files_have_only_their_own_secret(used: Used) -> None:
    folder = used.stack.data_dir
    assert found_in((folder / "owner.key").read_bytes(), used.secrets) == ["api key"]
    assert found_in((folder / "bridge" / "credential.json").read_bytes(), used.secrets) == [
        "bridge credential", "bridge's private key",
    ]  # fmt: skip


def test_everything_is_its_owners_only(used: Used) -> None:
    for path in (used.stack.data_dir, *used.stack.data_dir.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if "public" in path.parts:  # the services' public keys, which other users' services may have to read
            assert mode == (0o755 if path.is_dir() else 0o644)
            continue
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} has mode {mode:o}"


def test_no_process_shows_a_secret(used: Used) -> None:
    """Neither the users' secrets nor the parts' own stand where every process of the machine may look."""
    folder = used.stack.data_dir
    own = {f"key of {instance['id']}": instance["key"] for instance in used.stack.instances()}
    service_keys = json.loads((folder / "cloud" / "secrets" / "services" / "api.json").read_text())["keys"]
    own |= {f"the API's key {key['kid']}": key["d"] for key in service_keys}
    own |= {
        f"key of the audit log of {path.parent.name}": json.loads(path.read_text())["private"]
        for path in (folder / "audit").glob("*/key.json")
    }
    keys = json.loads((folder / "cloud" / "secrets" / "session-keys.json").read_text())["keys"]
    own |= {f"session key {key['kid']}": key["k"] for key in keys}
    assert len(own) >= 6
    secrets = {**used.secrets, **own}
    seen = everyone(used.stack)
    assert len(seen) >= 7
    for process in seen:
        shown = " ".join(process.cmdline()), " ".join(f"{k}={v}" for k, v in process.environ().items())
        for text in shown:
            assert found_in(text.encode(), secrets) == [], process.name()
    logs = b"".join(path.read_bytes() for path in (folder / "logs").iterdir())
    assert found_in(logs, own) == []


def test_a_proxy_gets_nothing_of_our_environment(used: Used) -> None:
    for instance in used.stack.instances():
        environment = psutil.Process(instance["pid"]).environ()
        assert set(environment) <= {"LANG", "LC_ALL", "TZ", "PATH"}, sorted(environment)
