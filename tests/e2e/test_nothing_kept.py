"""Everything of the platform is used, then it is stopped: the cloud side has kept nothing of what people did."""

import base64
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from redis import Redis
from tests.support.deployment import (
    Deployment,
    Part,
    await_connected,
    bridges,
    decide,
    fake_browser,
    go_through,
    opened_page,
    paired,
    running_deployment,
    shown_code,
    sign_in,
)
from tests.support.long_answer import question
from tests.support.marks import found_in
from tests.support.stack import wait_for

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.keys import KeyList, key_list_path
from cloudtolocalllm.runtime.clock import SystemClock

pytestmark = pytest.mark.timeout(150)

PROMPT = "zq7promptzq7"
MODEL = "zq8modelzq8:7b"
KEY_NAME = "zq9keynamezq9"
AGENT = "zq6agentzq6"
ADDRESS = "203.0.113.77"
"""A client's, as a reverse proxy that is trusted says it."""
WRONG_CODE = "BCDF-GHJK"
PACKED = bytes(int(part) for part in ADDRESS.split("."))
PAIRING_LIFETIME = 300
"""Seconds for which the address of who asks to be paired is kept, to be shown to who decides."""
REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--rdbcompression", "no", "--save", "3600", "1")
"""With all that it can write to disk, and readable."""


@dataclass
class Used:
    """A deployment that was used and stopped, and what must not be found."""

    deployment: Deployment
    marks: dict[str, str] = field(default_factory=dict)
    passing: dict[str, str] = field(default_factory=lambda: {"address": ADDRESS, "wrong code": WRONG_CODE})
    """What may be in Redis for some minutes."""
    unbounded: set[bytes] = field(default_factory=set)
    """Keys of Redis that had no expiry at some time."""
    addresses: dict[bytes, int] = field(default_factory=dict)
    """Keys of Redis that told a client's address, and the milliseconds that they had left."""
    content: dict[bytes, list[bytes]] = field(default_factory=dict)
    """All of Redis after the stop."""
    killed: str = ""
    written: bytes = b""
    """What Redis had appended to its file until then."""

    def note_store(self) -> None:
        """Look at every key of Redis as it is now."""
        with self.deployment.store() as store:
            for key in store.scan_iter():
                left = store.pttl(key)
                if left == -1:
                    self.unbounded.add(key)
                if left != -2 and any(ADDRESS.encode() in part for part in content_of(store, key)):
                    self.addresses[key] = left


def content_of(store: Redis, key: bytes) -> list[bytes]:
    """Return a key of any type, with everything in it."""
    kind = store.type(key)
    if kind == b"hash":
        return [key, *(raw(part) for pair in store.hgetall(key).items() for part in pair)]
    if kind == b"zset":
        return [key, *(raw(part) for part in store.zrange(key, 0, -1))]  # type: ignore[arg-type] # asked for no scores
    if kind == b"none":
        return []
    assert kind == b"string", f"expected a known type, got {kind!r} of {key!r}"
    return [key, raw(store.get(key) or b"")]


def raw(value: bytes | str) -> bytes:
    assert isinstance(value, bytes)  # as the client was made; its types allow for both
    return value


def chat(prompt: str, **members: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **members}


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    with (
        running_deployment(
            3,
            engine={"models": MODEL, "tokens_per_second": 0},
            redis_options=REDIS,
            trusted_proxies="127.0.0.0/8",
            limit_sign_in="120/min burst 120",
        ) as deployment,
    ):
        made = Used(deployment, {"prompt": PROMPT, "model": MODEL, "key's name": KEY_NAME, "browser": AGENT})
        made.marks |= {"answer": "scripted demo engine", "name": "Alice Example", "e-mail": "alice@example.test"}
        made.marks |= {"another's e-mail": "bob@example.test", "subject": "alice"}
        use(made)
        made.note_store()
        deployment.stop()
        with deployment.store() as store:
            made.content = {key: content_of(store, key) for key in store.scan_iter()}
            made.written = b"".join(path.read_bytes() for path in files_of(deployment.root / "redis"))
            compact(store)
        yield made


def compact(store: Redis) -> None:
    """Let the five minutes of open pairings pass, and Redis write anew what is left."""
    for key in store.scan_iter(match="*pairing*"):
        store.delete(key)
    store.save()
    store.bgrewriteaof()
    wait_for(
        lambda: (
            store.info("persistence")["aof_rewrite_in_progress"] == 0
            and store.info("persistence")["aof_rewrite_scheduled"] == 0
        ),
        within=20,
        what="Redis to write its file anew",
    )


# what people do


def use(used: Used) -> None:
    deployment = used.deployment
    with sign_in(deployment, "alice", **{"x-forwarded-for": ADDRESS, "user-agent": AGENT}) as alice:
        used.marks["session"] = next(iter(alice.cookies.values()))
        tower = paired(deployment, alice, "tower")
        credential = json.loads(deployment.credential("tower").read_text())
        used.marks["credential"] = credential["credential"]
        by_session(alice)
        used.note_store()
        by_key(used, alice)
        used.note_store()
        pair_in_every_way(used, alice)
        used.note_store()
        revoke(used, alice)
        by_mistake(used)
        administer(used, alice)
        used.note_store()
        fail_over(used, alice, tower)
        leave(used, alice)


def by_session(alice: httpx.Client) -> None:
    """What the page asks, on all its routes."""
    for path, body in (
        ("/v1/chat/completions", chat(PROMPT)),
        ("/ollama/api/chat", chat(PROMPT, stream=False)),
        ("/v1/embeddings", {"model": MODEL, "input": PROMPT}),
        ("/anthropic/v1/messages", chat(PROMPT, max_tokens=9)),
        ("/ollama/api/show", {"model": MODEL}),
    ):
        assert alice.post(path, json=body).status_code == 200, path
    assert alice.get("/v1/models", params={"q": PROMPT}).status_code == 200
    assert alice.get("/api/streaming/status").status_code == 200
    with alice.stream("GET", "/api/streaming/events") as events:
        assert next(events.iter_lines())
    with alice.stream(
        "POST", "/ollama/api/chat", json=question(500, 100, prompt=PROMPT) | {"model": MODEL}
    ) as answer:
        next(answer.iter_lines())  # and leave in the middle


def by_key(used: Used, alice: httpx.Client) -> None:
    """Keys with and without limits, used by a client that is not ours."""
    limits = {"routes": ["/v1/"], "models": [MODEL], "requests_per_minute": 5, "tokens_per_day": 300}
    key = make_key(alice, **limits)
    used.marks["limited key"] = key
    client = openai.OpenAI(base_url=f"{used.deployment.url}/v1", api_key=key, max_retries=0, timeout=20)
    with client:
        said = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}])
        assert PROMPT in (said.choices[0].message.content or ""), "expected the engine to repeat what it was asked"
        for _ in range(8):  # until one of its limits is reached
            try:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}])
            except openai.RateLimitError:
                break
        else:
            pytest.fail("expected the key's limits to be reached")
    fields = {"x-api-key": key}
    assert httpx.get(f"{used.deployment.url}/ollama/api/tags", headers=fields, timeout=20).status_code == 403
    assert alice.get("/v1/models").status_code == 200


def make_key(client: httpx.Client, **limits: object) -> str:
    answer = client.post("/api/auth/keys", json={"name": KEY_NAME, "days": 1, **limits})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def pair_in_every_way(used: Used, alice: httpx.Client) -> None:
    """By its own browser, by a denied code, by a wrong one, by a key; and one that nobody answers."""
    deployment = used.deployment
    environ, file = fake_browser(deployment.homes / "opener")
    by_browser = deployment.login("study", environ=environ)
    request = opened_page(by_browser, file).partition("?request=")[2]
    back = decide(alice, request)["redirect_to"]
    used.marks["authorization code"] = httpx.URL(back).params["code"]
    assert httpx.get(back, timeout=10).status_code == 200
    assert by_browser.wait(20) == 0, by_browser.said()
    denied = deployment.login("cellar", "--no-browser")
    used.passing["code"] = shown_code(denied)
    decide(alice, used.passing["code"], "deny")
    assert denied.wait(20) == 1
    assert alice.get(f"/api/bridge/pairing/requests/{WRONG_CODE}").status_code == 404
    made = alice.post("/api/bridge", json={"name": "attic", "jwk": ProofKey.generate().public_jwk()})
    assert made.status_code == 201, made.text
    used.marks["second credential"] = made.json()["credential"]
    ask = {"name": "nobodys", "version": "0.1.0", "jwk": ProofKey.generate().public_jwk()}
    assert alice.post("/api/bridge/pairing/device", json=ask).status_code == 200


def known_at_home(deployment: Deployment) -> list[str]:
    """Return the ids of the API keys that a home of Alice's lists."""
    listed = []
    for credential in deployment.homes.glob("*/*.json"):
        keys = KeyList(key_list_path(credential), SystemClock())
        listed += list(keys)
        keys.close()
    assert KEY_NAME in {key.name for key in listed}, "expected home to know it"
    return sorted({key.id for key in listed})


def revoke(used: Used, alice: httpx.Client) -> None:
    """Rename and revoke machines and keys."""
    known = bridges(alice)
    assert alice.patch(f"/api/bridge/{known['attic']['id']}", json={"name": "loft"}).status_code == 200
    for name in ("attic", "study"):
        assert alice.delete(f"/api/bridge/{known[name]['id']}").status_code == 204
    for key in known_at_home(used.deployment):
        assert alice.delete(f"/api/auth/keys/{key}").status_code == 204
    fields = {"x-api-key": used.marks["limited key"]}
    wait_for(
        lambda: httpx.get(f"{used.deployment.url}/v1/models", headers=fields, timeout=20).status_code == 401,
        within=2,
        what="the key to be refused",
    )


def by_mistake(used: Used) -> None:
    """What is the user's in places where it does not belong, and where a careless program would log it."""
    url, mark = used.deployment.url, PROMPT
    given = {"x-forwarded-for": ADDRESS, "user-agent": AGENT}
    with httpx.Client(base_url=url, headers=given, timeout=20) as client:
        for fields in ({"authorization": f"Bearer {mark}"}, {"x-api-key": mark}, {"cookie": f"c2l_session={mark}"}):
            assert client.get("/v1/models", headers=fields).status_code == 401
        for path in (f"/{mark}", f"/v1/{mark}", f"/ollama/api/{mark}", f"/api/{mark}", f"/api/bridge/{mark}"):
            assert client.get(path).status_code in (200, 401, 404, 405), path
        assert client.get("/", headers={"host": f"{mark}.example"}).status_code == 421
        assert client.post("/api/auth/sign-in", json={"token": mark}).status_code in (401, 403)
        assert client.post("/api/bridge/pairing/device", json={"nome": mark}).status_code in (400, 422)
        assert client.get(f"/api/auth/oidc/callback?code={mark}&state={mark}").status_code == 302
        logout = {"logout_token": mark}
        assert client.post("/api/auth/oidc/back-channel-logout", data=logout).status_code == 400
        for path in ("/ws/tunnel", "/ws/bridge", "/ws/events"):
            upgrade = {"connection": "upgrade", "upgrade": "websocket", "authorization": f"DPoP {mark}"}
            assert client.get(path, headers=upgrade).status_code in (400, 401, 403, 404, 426), path
        assert client.get("/v1/models", headers={"origin": f"https://{mark}.example"}).status_code == 403
        statuses = {client.get("/api/auth/oidc/start").status_code for _ in range(150)}
        assert 429 in statuses, "expected the limit of an address to be reached"


def administer(used: Used, alice: httpx.Client) -> None:
    """Look at everything, and send somebody away."""
    deployment = used.deployment
    with deployment.browser(**{"x-forwarded-for": "203.0.113.78"}) as bob:
        go_through(bob, "bob")
        user = bob.get("/api/auth/session").json()["user"]
        assert bob.get("/api/admin/audit").status_code == 403
        for action in ("sign-out", "block", "unblock"):
            assert alice.post(f"/api/admin/users/{user}/{action}", json={}).status_code == 204
    assert alice.get("/api/admin/overview").status_code == 200
    events = alice.get("/api/admin/audit").json()["events"]
    assert {"sign-in", "key-made", "bridge-revoked"} <= {event["event"] for event in events}


def fail_over(used: Used, alice: httpx.Client, tower: Part) -> None:
    """A replica and a proxy die; an engine fails."""
    deployment = used.deployment
    used.killed = deployment.names[0]
    deployment.parts[f"api-{used.killed}"].kill()
    for record in deployment.run.glob("proxies/*/instance.json"):
        instance = json.loads(record.read_text())
        if instance.get("user"):
            os.kill(instance["pid"], signal.SIGKILL)
    await_connected(alice, "tower", tower)
    wait_for(
        lambda: alice.post("/ollama/api/chat", json=chat(PROMPT, stream=False)).status_code == 200,
        within=30,
        what="an answer",
    )
    broken = chat(PROMPT, stream=False, options={"demo_http_error": 500})
    assert alice.post("/ollama/api/chat", json=broken).status_code == 500
    died = chat(PROMPT, stream=True, options={"demo_die_after_tokens": 3})
    with pytest.raises(httpx.RemoteProtocolError):
        alice.post("/ollama/api/chat", json=died)


def leave(used: Used, alice: httpx.Client) -> None:
    """The provider changes its keys, and the session is refreshed and ended."""
    used.deployment.provider.rotate()
    assert alice.get("/api/auth/session").json()["email"] == used.marks["e-mail"], "the page may know it"
    assert alice.post("/api/auth/sign-out", json={}).status_code == 200


# what is left


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, bytes.hex, bytes])
def test_the_search_finds(before: int, encode: Callable[[bytes], bytes | str]) -> None:
    written = encode(b"\xfb\xff\xfe"[:before] * 1 + PROMPT.encode() + b"\xff\xfe")
    data = written.encode() if isinstance(written, str) else written
    assert found_in(b"...." + data, {"it": PROMPT, "not it": "zq0another"}) == ["it"]


def test_no_file_of_the_cloud_has_anything(used: Used) -> None:
    root = used.deployment.root
    looked = files_of(root)
    names = {path.relative_to(root).as_posix() for path in looked}
    for wanted in ("logs/edge.log", "logs/manager.log", "logs/api-a.log", "cloud/secrets/pseudonym.key"):
        assert wanted in names
    assert {"audit/edge", "audit/manager", "audit/api-b"} <= {name.rpartition("/")[0] for name in names}
    assert {"redis/dump.rdb"} <= names
    marks = {**used.marks, **used.passing}
    found = [
        (path.relative_to(root).as_posix(), name, line[:1000])
        for path in looked
        for line in path.read_bytes().split(b"\n")
        for name in found_in(line, marks)
    ]
    assert found == []
    assert [path for path in looked if PACKED.hex().encode() in path.read_bytes()] == []
    assert (root / "logs" / "edge.log").read_text().count('"edge.access"') > 100, "expected the requests in the log"


def test_nothing_is_in_redis(used: Used) -> None:
    assert len(used.content) > 10, "expected it to have been used"
    for key, parts in used.content.items():
        assert found_in(b"\n".join(parts), used.marks) == [], key


def test_nothing_was_ever_written_by_redis(used: Used) -> None:
    """Not even for a moment: what it appended to its file while all that went on holds every value that was set."""
    assert used.written.count(b"c2l:k:pairing/") >= 8, "expected every command"
    assert found_in(used.written, used.marks) == []


def test_every_key_of_redis_has_an_expiry(used: Used) -> None:
    assert used.unbounded == set()


def test_an_address_is_kept_with_a_pairing_that_waits_and_no_longer(used: Used) -> None:
    assert used.addresses, "expected the pairing that nobody answered"
    for key, left in used.addresses.items():
        assert re.fullmatch(rb"c2l:k:pairing/[a-z2-7]{26}", key)
        assert 0 < left <= PAIRING_LIFETIME * 1000
    still = [key for key, parts in used.content.items() if ADDRESS.encode() in b"\n".join(parts)]
    assert set(still) <= set(used.addresses)
    assert len(still) == 1


# what was recorded, and that it cannot be changed


def test_the_audit_logs_are_whole_and_an_edit_is_found(used: Used) -> None:
    deployment = used.deployment
    good = deployment.cli("audit", "verify")
    assert good.stdout.count(": good: ") == 2 + len(deployment.names), good.stdout
    shown = deployment.cli("audit", "show").stdout
    for event in ("sign-in", "sign-in-refused", "pairing-approved", "pairing-denied", "bridge-revoked", "key-made",
                  "key-revoked", "key-first-used", "limit-hit", "forbidden", "user-disabled", "user-enabled",
                  "proxy-assigned", "proxy-killed", "host-refused", "sign-out"):  # fmt: skip
        assert f" {event} " in shown, event
    log = deployment.root / "audit" / "api-b"
    path = max(
        (path for path in files_of(log) if b'"event_code"' in path.read_bytes()), key=lambda p: p.stat().st_size
    )
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"success"', b'"failure"', 1).replace(b"Success", b"Failure", 1))
    assert path.read_bytes() != before
    found = deployment.cli("audit", "verify", check=False)
    assert found.returncode == 1
    assert found.stdout.count(": good: ") == 1 + len(deployment.names)
    assert "audit/api-b: CHANGED" in found.stdout
    path.write_bytes(before)
    assert deployment.cli("audit", "verify").returncode == 0
