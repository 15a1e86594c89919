"""Bad input to the running platform: refused with the documented answer, and the platform goes on."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.support.raw_http import Answer, request, send, send_to_socket, works
from tests.support.smuggling_shapes import SHAPES
from tests.support.stack import Stack

from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, Assertion, manager_token, mint

pytestmark = pytest.mark.timeout(60)
FOREIGN = bytes(range(32))


@pytest.fixture(autouse=True)
def nothing_dies(paced_stack: Stack) -> Iterator[None]:
    """Every part is the same process before and after each test."""
    before = {name: process.pid for name, process in paced_stack.processes().items()}
    yield
    after = {name: process.pid for name, process in paced_stack.processes().items()}
    assert {name: after.get(name) for name in before} == before


def addressed(stack: Stack, shape: bytes) -> bytes:
    """Return the shape as a request that would be served if it were well-formed."""
    ours = f"Host: 127.0.0.1:{stack.port}\r\nAuthorization: Bearer {stack.api_key}\r\n".encode()
    one, _, rest = shape.partition(b"Host: h\r\n")
    return one.replace(b"POST / ", b"POST /v1/chat/completions ") + (ours + rest if rest else b"")


LARGE = [
    ("a head of 64 KiB", b"GET /v1/models HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 65_536 + b"\r\n\r\n", 431),
    ("200 fields", b"GET /v1/models HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    ("a target of 9 KiB", b"GET /v1/models?" + b"a" * 9216 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
]


@pytest.mark.parametrize(("shape", "status"), [s[1:] for s in SHAPES + LARGE], ids=[s[0] for s in SHAPES + LARGE])
async def test_a_shape_that_smuggles_is_refused(paced_stack: Stack, shape: bytes, status: int) -> None:
    smuggled = request(paced_stack, "/healthz")
    answer = await send(paced_stack, addressed(paced_stack, shape) + smuggled)
    assert answer.status == status
    assert answer.count == 1, "the request behind it was seen"
    assert answer.problem
    assert b"connection: close" in answer.head
    assert b"x-content-type-options: nosniff" in answer.head
    assert paced_stack.api_key.encode() not in answer.data
    await works(paced_stack)


async def test_the_absolute_form_of_our_own_host_is_served(paced_stack: Stack) -> None:
    """RFC 9112 §3.2.2 asks for it; one for another host is among the shapes."""
    target = f"{paced_stack.url}/v1/models"
    assert (await send(paced_stack, request(paced_stack, target))).status == 200
    assert (await send(paced_stack, request(paced_stack, f"{paced_stack.url}/internal/authorize"))).status == 404


TRICKS = [
    "/v1/../internal/authorize",
    "/v1/./models",
    "/v1/%2e%2e/internal/authorize",
    "/v1/%2E%2E/models",
    "/v1/.%2e/models",
    "//internal/authorize",
    "/v1//models",
    "//v1/models",
    "/v1/%2fmodels",
    "/v1%2fmodels",
    "/v1/..%2finternal",
    "/v1/..\\models",
    "/v1\\models",
    "/v1/%5cmodels",
    "/v1/models%00",
    "/v1/models%0d%0aX:y",
    "/v1/models%",
    "/v1/models%zz",
    "/ollama/../v1/models",
    "/ollama/api/tags/..",
    "/..",
    "/assets/../../owner.key",
    "/assets/%2e%2e/%2e%2e/owner.key",
]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("target", TRICKS)
async def test_a_path_with_two_readings_is_refused(paced_stack: Stack, target: str, method: str) -> None:
    answer = await send(paced_stack, request(paced_stack, target, method=method))
    assert (answer.status, answer.problem) == (400, "bad-request")
    await works(paced_stack)


@pytest.mark.parametrize("target", ["/v1/%252e%252e/internal/authorize", "/ollama/api/%74ags", "/v1/;x"])
async def test_a_path_that_only_looks_like_a_route_is_refused_at_home(paced_stack: Stack, target: str) -> None:
    """Routes are exact: what would have to be decoded first is none."""
    answer = await send(paced_stack, request(paced_stack, target))
    assert (answer.status, answer.problem) == (403, "route-refused")


async def test_slow_connections_stop_nobody(paced_stack: Stack) -> None:
    """300 at once: heads that never end (given up after 10 s) and contents that never come."""
    began = time.monotonic()
    slow = [await asyncio.open_connection("127.0.0.1", paced_stack.port) for _ in range(300)]
    try:
        for number, (_, writer) in enumerate(slow):
            post = request(paced_stack, "/v1/chat/completions", "Content-Length: 100", method="POST")
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: 127.0" if number < 200 else post + b"{")
        for _ in range(20):
            await asyncio.wait_for(works(paced_stack), 3)
            await asyncio.sleep(0.02)
        given_up = await asyncio.wait_for(slow[0][0].read(), 14)
        assert Answer(given_up).status == 408
    finally:
        for _, writer in slow:
            writer.close()
    await asyncio.wait_for(works(paced_stack), 3)
    assert time.monotonic() - began < 20


FORGED = [
    "C2L-Assertion: v1.e30.x",
    "C2L-Assertion: v1.e30.x\r\nC2L-Assertion: v1.e30.y",
    "C2L-Endpoint: unix:/tmp/nobody.sock",
    "C2L-Fresh: 1",
    "X-Original-Uri: /internal/authorize",
    "X-Original-Method: DELETE",
    "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=192.0.2.1",
    "Connection: c2l-assertion, x-request-id",
]


@pytest.mark.parametrize("field", FORGED)
async def test_a_field_of_ours_that_a_client_sends_has_no_effect(paced_stack: Stack, field: str) -> None:
    answer = await send(paced_stack, request(paced_stack, "/v1/models", field))
    assert answer.status == 200
    assert b"demo:latest" in answer.content
    anonymous = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{field}\r\nConnection: close\r\n\r\n"
    answer = await send(paced_stack, anonymous.encode())
    assert (answer.status, answer.problem) == (401, "unauthenticated")


@pytest.mark.parametrize("named", ["host", "authorization", "content-length", "content-type", "transfer-encoding"])
async def test_fields_that_connection_must_not_name(paced_stack: Stack, named: str) -> None:
    """RFC 9110 §7.6.1 forbids it; whatever comes of it comes to the sender, as one answer."""
    fields = (f"Connection: {named}", "Content-Length: 2", "Content-Type: application/json")
    answer = await send(paced_stack, request(paced_stack, "/v1/embeddings", *fields, method="POST") + b"{}")
    assert answer.count == 1
    assert answer.status in (400, 404, 422)
    await works(paced_stack)


# --- straight at the proxy's socket ---------------------------------------------------------------------------


class Target:
    """The owner's proxy, and assertions for it."""

    def __init__(self, stack: Stack) -> None:
        (owned,) = [instance for instance in stack.instances() if instance["user"]]
        self.instance: dict[str, Any] = owned
        self.key = bytes.fromhex(owned["key"])
        self.socket = str(stack.data_dir / "run" / "proxies" / owned["id"] / "http.sock")
        now = int(time.time())
        home = json.loads((stack.data_dir / "bridge" / "credential.json").read_text())["bridge_id"]
        self.claims = Assertion(owned["id"], owned["user"], CLIENT, "key", now, now + 60, (home,), "rid")

    async def ask(self, *fields: str, target: str = "/v1/models") -> Answer:
        lines = [f"GET {target} HTTP/1.1", "Host: relay", *fields, "Connection: close", "", ""]
        return await send_to_socket(self.socket, "\r\n".join(lines).encode("latin-1"))


@pytest.fixture
async def target(paced_stack: Stack) -> Target:
    await works(paced_stack)  # so that the owner has a proxy
    return Target(paced_stack)


def jwt(header: dict[str, str], signature: str = "") -> str:
    claims = {"iid": "x", "usr": "x", "knd": "client", "sub": "x", "iat": 0, "exp": 2**40, "brs": [], "rid": ""}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, signature])


def bad_tokens(target: Target) -> dict[str, str]:
    good, key = target.claims, target.key
    spare = "px-" + "0" * 16
    return {
        "empty": "",
        "forged": mint(good, FOREIGN),
        "with the key's hex": mint(good, target.instance["key"].encode()),
        "expired": mint(replace(good, issued=good.issued - 120, expires=good.issued - 60), key),
        "from the future": mint(replace(good, issued=good.issued + 600, expires=good.issued + 660), key),
        "another instance's": mint(replace(good, instance=spare), key),
        "another user's": mint(replace(good, user="u_somebodyelse"), key),
        "a bridge's": mint(replace(good, kind=BRIDGE), key),
        "of no kind": mint(replace(good, kind="manager"), key),
        "cut": mint(good, key)[:-1],
        "longer": mint(good, key) + "A",
        "another version": "v2" + mint(good, key)[2:],
        "without its mac": mint(good, key).rpartition(".")[0] + ".",
        "another's claims": ".".join(
            ["v1", mint(replace(good, user="u_x"), key).split(".")[1], mint(good, key).split(".")[2]]
        ),
        "the manager's": manager_token(key),
        "alg none": jwt({"alg": "none"}),
        "alg none as ours": "v1." + jwt({"alg": "none"}).split(".")[1] + ".",
        "with a kid": jwt({"alg": "HS256", "kid": "../../../../dev/null"}, "AAAA"),
        "with a jku": jwt({"alg": "RS256", "jku": "http://127.0.0.1:9/keys", "kid": "1"}, "AAAA"),
        "huge": "v1." + "A" * 20_000 + ".x",
        "not ASCII": "v1.\xff\xfe.\xe9",
    }


async def test_the_proxy_refuses_every_assertion_that_does_not_hold(paced_stack: Stack, target: Target) -> None:
    assert (await target.ask(f"C2L-Assertion: {mint(target.claims, target.key)}")).status == 200
    for name, token in bad_tokens(target).items():
        for path in ("/v1/models", "/ollama/api/tags", "/c2l/exchanges/x"):
            refused(target, name, token, await target.ask(f"C2L-Assertion: {token}", target=path))
    refused(target, "none", "", await target.ask())
    good = mint(target.claims, target.key)
    refused(target, "two", good, await target.ask(f"C2L-Assertion: {good}", f"C2L-Assertion: {good}"))
    log = (paced_stack.data_dir / "logs" / "up.log").read_text()
    for name, token in bad_tokens(target).items():
        assert len(token) < 20 or token not in log, f"the token {name} is in the log"
    await works(paced_stack)


def refused(target: Target, name: str, token: str, answer: Answer) -> None:
    assert (answer.status, answer.problem) == (401, "unauthenticated"), name
    for secret in (target.instance["key"], target.instance["user"], target.instance["id"], token):
        assert len(secret) < 20 or secret.encode("latin-1") not in answer.data, name
    assert b"expired" not in answer.content, "the reason is for the log"


async def test_a_tunnel_needs_an_assertion_of_its_own_kind(target: Target) -> None:
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    for token in (mint(target.claims, target.key), mint(replace(target.claims, kind=BRIDGE), FOREIGN)):
        answer = await target.ask(f"C2L-Assertion: {token}", "Connection: upgrade", *upgrade, target="/ws/tunnel")
        assert (answer.status, answer.problem) == (401, "unauthenticated")


async def test_only_the_manager_asks_a_proxy_for_its_figures(target: Target) -> None:
    assert (await target.ask(f"Authorization: Bearer {manager_token(target.key)}", target="/stats")).status == 200
    for token in (manager_token(FOREIGN), mint(target.claims, target.key), ""):
        for path in ("/stats", "/healthz"):
            answer = await target.ask(f"Authorization: Bearer {token}", target=path)
            assert (answer.status, answer.problem) == (401, "unauthenticated")
