"""Who gets where: routes, hosts, paths, the API's verdicts, and fields that nobody may forge."""

import re
from pathlib import Path

import pytest
from tests.support.edge_doubles import EdgeUnderTest, Message, allowed

SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
CSP = [
    "default-src 'none'",
    "script-src 'self'",
    "img-src 'self' data: blob:",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types dompurify",
]


def check_security(answer: Message) -> None:
    for name, value in SECURITY.items():
        assert answer.one(name) == value
    policy = answer.one("content-security-policy") or ""
    assert [part for part in CSP if part not in policy] == []
    assert "unsafe" not in policy
    assert "'allow-duplicates'" not in policy
    assert "camera=()" in (answer.one("permissions-policy") or "")


@pytest.mark.parametrize("target", ["/api/x", "/api/auth/y?z=1", "/readyz"])
async def test_api_routes(edge: EdgeUnderTest, target: str) -> None:
    answer = await edge.get(target, "Authorization: Bearer k", "Cookie: a=b")
    assert (answer.status, answer.body) == (200, target.encode())
    (request,) = edge.api.requests
    assert request.one("host") == "localhost"
    assert (request.one("authorization"), request.one("cookie")) == ("Bearer k", "a=b")
    assert edge.api.questions == []
    assert edge.proxy.requests == []
    check_security(answer)


@pytest.mark.parametrize(
    "target",
    ["/v1/models?a=b", "/ollama/api/tags", "/anthropic/v1/messages", "/c2l/exchanges/x", "/e2e/k2qxv7hd4m3a"],
)
async def test_data_routes(edge: EdgeUnderTest, target: str) -> None:
    answer = await edge.get(
        target,
        "Authorization: Bearer k",
        "X-Api-Key: k2",
        "Cookie: a=b",
        "C2L-Request: 1",
        "Origin: http://localhost",
        "Sec-Fetch-Site: same-origin",
        "User-Agent: curl",
    )
    assert (answer.status, answer.body) == (200, target.encode())
    assert answer.one("x-accel-buffering") == "no"
    check_security(answer)
    (question,) = edge.api.questions
    assert question.one("x-original-method") == "GET"
    assert question.one("x-original-uri") == target
    assert question.one("x-original-host") == "localhost"
    assert question.one("c2l-fresh") is None
    for name, value in {"authorization": "Bearer k", "x-api-key": "k2", "cookie": "a=b", "c2l-request": "1"}.items():
        assert question.one(name) == value
    assert (question.one("origin"), question.one("sec-fetch-site")) == ("http://localhost", "same-origin")
    (request,) = edge.proxy.requests
    assert request.one("c2l-assertion") == "v1.claims.mac"
    assert [request.one(name) for name in ("authorization", "x-api-key", "cookie")] == [None] * 3
    assert request.one("user-agent") == "curl"
    assert request.one("x-request-id") == question.one("x-request-id")
    assert "v1.claims.mac" not in str(answer.fields)


async def test_what_a_client_forges_does_not_pass(edge: EdgeUnderTest) -> None:
    forged = (
        "C2L-Assertion: forged",
        "C2L-Endpoint: unix:/forged",
        "C2L-Fresh: forged",
        "C2L-Status: forged",
        "X-Original-Uri: forged",
        "X-Original-Method: forged",
        "X-Original-Host: forged",
        "X-Forwarded-For: forged",
        "X-Forwarded-Host: forged",
        "X-Forwarded-Proto: forged",
        "X-Real-Ip: forged",
        "Forwarded: for=forged",
        "X-Request-Id: forged forged",
        "Connection: C2L-Secret-Hop",
        "C2L-Secret-Hop: forged",
        "Keep-Alive: forged",
        "Te: forged",
    )
    await edge.get("/v1/models", *forged)
    await edge.get("/api/x", *forged)
    for message in (edge.api.questions[0], edge.proxy.requests[0], edge.api.requests[0]):
        assert "forged" not in str(message.fields)
    assert edge.api.requests[0].one("x-forwarded-for") == "127.0.0.1"
    assert edge.api.requests[0].one("x-forwarded-proto") == "http"


async def test_the_assertion_cannot_be_dropped_by_connection(edge: EdgeUnderTest) -> None:
    await edge.get("/v1/models", "Connection: c2l-assertion, x-request-id")
    assert edge.proxy.requests[0].one("c2l-assertion") == "v1.claims.mac"


async def test_a_harmless_request_id_is_kept_and_else_made(edge: EdgeUnderTest) -> None:
    await edge.get("/v1/models", "X-Request-Id: abcdef-123456")
    await edge.get("/v1/models")
    assert edge.proxy.requests[0].one("x-request-id") == "abcdef-123456"
    assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", edge.proxy.requests[1].one("x-request-id") or "")


async def test_an_upstream_cannot_weaken_the_security_fields(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: object, writer: object) -> None:
        assert hasattr(writer, "write")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Security-Policy: default-src *\r\nX-Frame-Options: ALLOWALL\r\n"
            b"X-Accel-Buffering: yes\r\nPermissions-Policy: camera=*\r\nContent-Length: 0\r\n\r\n"
        )

    edge.proxy.script = script
    answer = await edge.get("/v1/models")
    check_security(answer)  # each field once
    assert answer.one("x-accel-buffering") == "no"


async def test_an_engine_cannot_act_on_the_whole_origin(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: object, writer: object) -> None:
        assert hasattr(writer, "write")
        writer.write(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
        )

    edge.proxy.script = script
    answer = await edge.get("/v1/models")
    assert answer.one("access-control-allow-origin") is None
    assert answer.one("set-cookie") is None


def verdict(status: int, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", *fields, "Content-Length: 0", "", ""]).encode()


VERDICTS = [
    (
        verdict(401, "C2L-Status: 401", "C2L-Problem: unauthenticated", "C2L-Detail: Send a key."),
        401,
        "unauthenticated",
    ),
    (verdict(403, "C2L-Status: 403", "C2L-Problem: forbidden", "C2L-Detail: No."), 403, "forbidden"),
    (verdict(403, "C2L-Status: 503", "C2L-Problem: no-bridge-paired", "C2L-Detail: Pair."), 503, "no-bridge-paired"),
    (verdict(403, "C2L-Status: 503", "C2L-Problem: overloaded", "C2L-Retry-After: 7"), 503, "overloaded"),
    (verdict(401), 401, None),
    (verdict(403, "C2L-Status: x", "C2L-Problem: nonsense"), 403, None),
    (verdict(500), None, None),
    (verdict(302, "Location: /x"), None, None),
    (verdict(200), None, None),
    (verdict(200, "C2L-Endpoint: nonsense", "C2L-Assertion: a"), None, None),
]


@pytest.mark.parametrize(("given", "status", "problem"), VERDICTS)
async def test_verdicts(edge: EdgeUnderTest, given: bytes, status: int | None, problem: str | None) -> None:
    edge.api.verdict = lambda _: given
    answer = await edge.get("/v1/models")
    assert answer.status == status if status else answer.status in (500, 502, 503)
    assert answer.problem == problem if problem else answer.problem
    assert answer.one("retry-after") == ("7" if b"Retry-After" in given else answer.one("retry-after"))
    if problem == "unauthenticated":
        assert (answer.one("www-authenticate") or "").startswith("Bearer")
        assert b"Send a key." in answer.body
    assert edge.proxy.requests == []
    check_security(answer)


async def test_without_the_api_there_is_a_problem_and_still_the_page(edge: EdgeUnderTest) -> None:
    await edge.api.stop()
    edge.api.path.unlink()
    for target in ("/v1/models", "/api/x"):
        answer = await edge.get(target)
        assert (answer.status, answer.problem) == (503, "overloaded")
        assert answer.one("retry-after")
        check_security(answer)
    assert (await edge.get("/")).status == 200
    assert (await edge.get("/healthz")).status == 200


async def test_a_dead_endpoint_is_asked_about_once_more(edge: EdgeUnderTest, folder: Path) -> None:
    dead = folder / "dead.sock"
    edge.api.verdict = lambda question: allowed(edge.proxy.path if question.one("c2l-fresh") else dead)
    answer = await edge.send(edge.head("POST", "/v1/x", "Content-Length: 5") + b"hello")
    assert answer.status == 200
    assert [question.one("c2l-fresh") for question in edge.api.questions] == [None, "1"]
    assert edge.proxy.requests[0].body == b"hello"


async def test_an_endpoint_that_stays_dead_is_given_up(edge: EdgeUnderTest, folder: Path) -> None:
    edge.api.verdict = lambda _: allowed(folder / "dead.sock")
    answer = await edge.get("/v1/models")
    assert (answer.status, answer.problem) == (503, "overloaded")
    assert len(edge.api.questions) == 2


@pytest.mark.parametrize("target", ["/internal", "/internal/", "/internal/authorize", "/internal/x?y", "/ws/other"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_inside_is_not_reachable(edge: EdgeUnderTest, method: str, target: str) -> None:
    answer = await edge.get(target, "Content-Length: 0", method=method)
    assert (answer.status, answer.problem) == (404, "not-found")
    assert edge.api.requests == edge.api.questions == edge.proxy.requests == []
    check_security(answer)


PATHS = [
    "/v1/../internal/authorize",
    "/v1/./models",
    "/v1/%2e%2e/internal/authorize",
    "/v1/%2E./x",
    "/v1//models",
    "//internal/authorize",
    "/v1/%2finternal",
    "/v1/%2Finternal",
    "/v1/..\\x",
    "/v1/%5c..",
    "/v1/%00",
    "/..",
    "/assets/../../secret.txt",
    "/assets/%2e%2e/%2e%2e/secret.txt",
]


@pytest.mark.parametrize("path", PATHS)
async def test_path_tricks(edge: EdgeUnderTest, path: str) -> None:
    answer = await edge.get(path)
    assert (answer.status, answer.problem) == (400, "bad-request")
    assert edge.api.requests == edge.api.questions == edge.proxy.requests == []
    check_security(answer)


async def test_a_query_may_have_anything(edge: EdgeUnderTest) -> None:
    answer = await edge.get("/v1/models?next=//x/../y%2f%2e")
    assert answer.body == b"/v1/models?next=//x/../y%2f%2e"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080"])
async def test_local_names(edge: EdgeUnderTest, host: str) -> None:
    assert (await edge.get("/", host=host)).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.2", "llm.example", "localhost.:80"]
)
@pytest.mark.parametrize("target", ["/", "/api/x", "/v1/models", "/ws/tunnel"])
async def test_other_names_are_refused(edge: EdgeUnderTest, host: str, target: str) -> None:
    answer = await edge.get(target, host=host)
    assert answer.status == 421
    assert edge.api.requests == edge.api.questions == edge.proxy.requests == []
    check_security(answer)


async def test_with_a_domain(edge_with_domain: EdgeUnderTest) -> None:
    edge = edge_with_domain
    for host in ("llm.example", "app.llm.example", "App.LLM.example:443"):
        assert (await edge.get("/", host=host)).status == 200
    for host in ("localhost", "x.llm.example", "evil-llm.example", "127.0.0.1"):
        assert (await edge.get("/", host=host)).status == 421


H = b"Host: localhost\r\n"
SHAPES = [
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Content-Length: +4\r\n\r\nabcd",
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, identity\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n",
    pytest.param(b"GET /v1/x HTTP/1.1\nHost: localhost\n\n", id="bare-lf"),
    b"GET /v1/x HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\n" + H + b"X: a\0b\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\n" + H + H + b"\r\n",
    b"GET http://evil.example/v1/x HTTP/1.1\r\n" + H + b"\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\n" + H + b"\r\n",
    b"POST /v1/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n",
    b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + H + b"X: y\r\n" * 200 + b"\r\n",
]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
async def test_smuggling_shapes_are_refused_with_security_fields(edge: EdgeUnderTest, shape: bytes) -> None:
    answer = await edge.send(shape)
    assert answer.status in (400, 405, 414, 431)
    assert answer.one("connection") == "close"
    check_security(answer)
    assert edge.api.requests == []
    assert all(request.body == b"" for request in edge.proxy.requests)
