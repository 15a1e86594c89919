"""Pages of other origins: which may call what, and what their browser is told."""

from collections.abc import AsyncIterator

import pytest
from tests.contract.edge.conftest import EdgeMaker
from tests.contract.edge.test_edge_admission import check_security, verdict
from tests.contract.edge.test_edge_websocket import UPGRADE
from tests.support.edge_doubles import EdgeUnderTest, Message

ALLOWED = "https://chat.example"
ALSO = ("http://localhost:3000", "app://notes.example", "https://chat.example:8443")
PREFLIGHT = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,x-stainless-lang")
FOREIGN = [
    "https://evil.example",
    "null",
    "http://chat.example",
    "https://chat.example:444",
    "https://chat.example.",
    "https://chat.example/",
    "https://sub.chat.example",
    "https://chat.example.evil.example",
    "HTTPS://CHAT.EXAMPLE",
    "https://localhost.evil.example",
    "http://localhost:8081",
    "http://127.0.0.1",
    "http://localhost@evil.example",
    "http://localhost, https://evil.example",
    "file://",
    "*",
    "localhost",
    "",
]


@pytest.fixture
async def shared(make_edge: EdgeMaker) -> AsyncIterator[EdgeUnderTest]:
    async with make_edge(cors_origins=",".join((ALLOWED, *ALSO))) as edge:
        yield edge


def cors(answer: Message) -> dict[str, list[str]]:
    return {name: value for name, value in answer.fields.items() if name.startswith("access-control-")}


def check_shared(answer: Message, origin: str = ALLOWED) -> None:
    assert answer.one("access-control-allow-origin") == origin
    assert answer.one("access-control-allow-credentials") is None
    exposed = {name.strip() for name in (answer.one("access-control-expose-headers") or "").split(",")}
    assert exposed >= {"c2l-exchange-id", "c2l-readable", "retry-after", "ratelimit"}
    assert "origin" in ", ".join(answer.fields["vary"]).lower()
    assert "*" not in str(cors(answer))
    check_security(answer)


@pytest.mark.parametrize("origin", [ALLOWED, *ALSO])
async def test_an_allowed_page_may_read_answers(shared: EdgeUnderTest, origin: str) -> None:
    answer = await shared.get("/v1/models", f"Origin: {origin}", "Authorization: Bearer k")
    assert (answer.status, answer.body) == (200, b"/v1/models")
    check_shared(answer, origin)


async def test_its_cookies_do_not_count(shared: EdgeUnderTest) -> None:
    await shared.get("/v1/models", f"Origin: {ALLOWED}", "Cookie: c2l_session=x", "C2L-Request: 1", "X-Api-Key: k")
    (question,) = shared.api.questions
    assert (question.one("cookie"), question.one("x-api-key"), question.one("origin")) == (None, "k", ALLOWED)
    await shared.get("/v1/models", "Origin: http://localhost", "Cookie: c2l_session=x")
    assert shared.api.questions[1].one("cookie") == "c2l_session=x"


async def test_refusals_can_be_read_too(make_edge: EdgeMaker) -> None:
    async with make_edge(cors_origins=ALLOWED, limits={"data": "1/h burst 2"}) as edge:
        edge.api.verdict = lambda _: verdict(
            401, "C2L-Status: 401", "C2L-Problem: unauthenticated", "C2L-Detail: No."
        )
        seen = []
        for _ in range(3):
            answer = await edge.get("/v1/models", f"Origin: {ALLOWED}")
            seen.append(answer.status)
            check_shared(answer)
        assert seen == [401, 401, 429]
        edge.api.path.unlink()


async def test_without_the_api_too(shared: EdgeUnderTest) -> None:
    await shared.api.stop()
    shared.api.path.unlink(missing_ok=True)
    answer = await shared.get("/v1/models", f"Origin: {ALLOWED}")
    assert answer.status == 503
    check_shared(answer)


async def test_an_engine_cannot_widen_it(shared: EdgeUnderTest) -> None:
    async def script(request: Message, reader: object, writer: object) -> None:
        assert hasattr(writer, "write")
        writer.write(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"
            b"Vary: Accept\r\nContent-Length: 0\r\n\r\n"
        )

    shared.proxy.script = script
    answer = await shared.get("/v1/models", f"Origin: {ALLOWED}")
    check_shared(answer)
    assert "accept" in ", ".join(answer.fields["vary"]).lower()


async def test_a_cache_keeps_origins_apart(shared: EdgeUnderTest) -> None:
    answer = await shared.get("/v1/models")
    assert cors(answer) == {}
    assert answer.one("vary") == "Origin"


async def test_preflight(shared: EdgeUnderTest) -> None:
    answer = await shared.get("/v1/chat/completions", f"Origin: {ALLOWED}", *PREFLIGHT, method="OPTIONS")
    assert answer.status == 204
    check_shared(answer)
    methods = {name.strip() for name in (answer.one("access-control-allow-methods") or "").split(",")}
    assert methods >= {"GET", "POST", "DELETE"}
    assert answer.one("access-control-allow-headers") == "authorization,x-stainless-lang"
    assert 0 < int(answer.one("access-control-max-age") or 0) <= 7200
    assert shared.api.questions == shared.api.requests == shared.proxy.requests == []


@pytest.mark.parametrize("names", ["*\x01", "a b", "a,,b", ",".join(["x" * 60] * 65), "\xe9"])
async def test_names_that_are_none_are_not_allowed(shared: EdgeUnderTest, names: str) -> None:
    fields = (f"Origin: {ALLOWED}", PREFLIGHT[0], f"Access-Control-Request-Headers: {names}")
    answer = await shared.get("/v1/x", *fields, method="OPTIONS")
    assert answer.one("access-control-allow-headers") is None


@pytest.mark.parametrize("target", ["/api/auth/keys", "/api/bridge", "/ws/tunnel", "/", "/healthz"])
async def test_preflights_are_answered_on_the_data_routes_only(shared: EdgeUnderTest, target: str) -> None:
    answer = await shared.get(target, f"Origin: {ALLOWED}", *PREFLIGHT, method="OPTIONS")
    assert cors(answer) == {}
    assert shared.api.requests == []


async def test_options_that_ask_for_nothing_pass(shared: EdgeUnderTest) -> None:
    answer = await shared.get("/v1/x", f"Origin: {ALLOWED}", method="OPTIONS")
    assert (answer.status, len(shared.proxy.requests)) == (200, 1)


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize(("method", "target"), [("GET", "/v1/models"), ("POST", "/api/x"), ("OPTIONS", "/v1/x")])
async def test_any_other_page_is_refused(shared: EdgeUnderTest, method: str, target: str, origin: str) -> None:
    fields = ("Content-Length: 0", *(PREFLIGHT if method == "OPTIONS" else ()))
    answer = await shared.get(target, f"Origin: {origin}", *fields, method=method)
    assert (answer.status, answer.problem) == (403, "forbidden")
    assert cors(answer) == {}
    assert shared.api.questions == shared.api.requests == shared.proxy.requests == []
    check_security(answer)


@pytest.mark.parametrize(
    "fields", [("Origin: http://localhost", "Origin: https://evil.example"), (f"Origin: {ALLOWED}",) * 2]
)
@pytest.mark.parametrize("target", ["/v1/models", "/api/x"])
async def test_two_origins_are_refused(shared: EdgeUnderTest, target: str, fields: tuple[str, ...]) -> None:
    assert (await shared.get(target, *fields)).status == 403


@pytest.mark.parametrize("target", ["/api/x", "/readyz"])
async def test_allowed_is_for_the_data_routes(shared: EdgeUnderTest, target: str) -> None:
    answer = await shared.get(target, f"Origin: {ALLOWED}")
    assert (answer.status, cors(answer)) == (403, {})
    assert shared.api.requests == []


@pytest.mark.parametrize("origin", [*FOREIGN, ALLOWED])
@pytest.mark.parametrize("target", ["/ws/tunnel", "/ws/bridge", "/ws/events"])
async def test_no_other_page_opens_a_websocket(shared: EdgeUnderTest, target: str, origin: str) -> None:
    answer = await shared.get(target, *UPGRADE, f"Origin: {origin}")
    assert (answer.status, answer.problem) == (403, "forbidden")
    assert shared.api.questions == shared.api.requests == shared.proxy.requests == []


@pytest.mark.parametrize("target", ["/", "/healthz", "/assets/app-1a2b.js"])
async def test_public_files_are_for_all_but_not_shared(shared: EdgeUnderTest, target: str) -> None:
    answer = await shared.get(target, "Origin: https://evil.example")
    assert (answer.status, cors(answer)) == (200, {})
    check_security(answer)


OURS = [
    ("localhost", "http://localhost"),
    ("localhost:8080", "http://localhost:8080"),
    ("LOCALHOST:8080", "http://localhost:8080"),
    ("localhost:80", "http://localhost"),
    ("127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("[::1]:8080", "http://[::1]:8080"),
    ("[::1]", "http://[::1]"),
    ("localhost:443", "https://localhost"),
]


@pytest.mark.parametrize(("host", "origin"), OURS)
@pytest.mark.parametrize("target", ["/v1/models", "/api/x"])
async def test_our_own_page_may_call(edge: EdgeUnderTest, target: str, host: str, origin: str) -> None:
    answer = await edge.get(target, f"Origin: {origin}", host=host)
    assert (answer.status, cors(answer)) == (200, {})


async def test_a_trusted_proxys_scheme_counts(make_edge: EdgeMaker) -> None:
    async with make_edge(domain="llm.example", trusted_proxies="127.0.0.9/32") as edge:
        for said, origin, expected in (
            ("https", "https://llm.example", 200),
            ("https", "http://llm.example", 403),
            ("http", "https://llm.example", 403),
            ("https", "https://app.llm.example", 403),  # ours as well, but not the host that was asked
        ):
            fields = (f"Origin: {origin}", f"X-Forwarded-Proto: {said}")
            assert (await edge.get("/api/x", *fields, source="127.0.0.9")).status == expected, (said, origin)


async def test_nothing_is_shared_unless_switched_on(edge: EdgeUnderTest) -> None:
    answer = await edge.get("/v1/models", "Origin: https://chat.example")
    assert (answer.status, cors(answer)) == (403, {})
    answer = await edge.get("/v1/models")
    assert (answer.one("vary"), cors(answer)) == (None, {})
