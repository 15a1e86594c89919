"""Which host names are answered: against DNS rebinding, where a name of an attacker's points at this machine."""

import pytest
from tests.contract.edge.conftest import EdgeMaker
from tests.contract.edge.test_edge_admission import check_security
from tests.support.edge_doubles import EdgeUnderTest, Message

TARGETS = ["/", "/healthz", "/api/x", "/v1/models"]


async def ask(edge: EdgeUnderTest, line: str, *fields: str) -> Message:
    return await edge.send("\r\n".join([line, *fields, "", ""]).encode("latin-1"))


def reached_nobody(edge: EdgeUnderTest) -> bool:
    return edge.api.requests == edge.api.questions == edge.proxy.requests == []


ODD = [
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "127.0.0.1.nip.io",
    "0.0.0.0",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:0:0:1]",
    "localhost.",
    "localhost.localdomain",
    "localhost_",
    "xn--localhost",
    "localhost:65536",
    "localhost:99999",
    "app.localhost",
]


@pytest.mark.parametrize("host", ODD)
@pytest.mark.parametrize("target", TARGETS)
async def test_odd_spellings_are_other_names(edge: EdgeUnderTest, host: str, target: str) -> None:
    answer = await edge.get(target, host=host)
    assert (answer.status, answer.problem) == (421, "not-found")
    assert b'"status": 421' in answer.body
    assert reached_nobody(edge)
    check_security(answer)


MALFORMED = [
    "localhost:",
    "localhost:80:80",
    "localhost:-1",
    "localhost:80a",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost, evil.example",
    "localhost evil.example",
    "localhost/",
    "http://localhost",
    "localhost%2eevil.example",
    "localhost#",
    "[::1",
    "::1",
    "[::1%25lo]",
    "loc\xe0lhost",
    "*",
    "",
]


@pytest.mark.parametrize("host", MALFORMED)
async def test_what_is_no_host_is_a_bad_request(edge: EdgeUnderTest, host: str) -> None:
    answer = await ask(edge, "GET /v1/models HTTP/1.1", f"Host: {host}")
    assert answer.status == 400
    assert reached_nobody(edge)
    check_security(answer)


@pytest.mark.parametrize("port", ["", ":0", ":1", ":80", ":8080", ":65535"])
async def test_any_port_will_do(edge: EdgeUnderTest, port: str) -> None:
    # Behind a mapped port or another proxy it is not the one that is listened on; rebinding needs a name.
    assert (await edge.get("/", host=f"localhost{port}")).status == 200


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ([], 400),
        (["localhost", "localhost"], 400),
        (["localhost", "evil.example"], 400),
        (["evil.example", "localhost"], 400),
        (["localhost", ""], 400),
    ],
)
async def test_there_is_one_host(edge: EdgeUnderTest, hosts: list[str], status: int) -> None:
    answer = await ask(edge, "GET /v1/models HTTP/1.1", *(f"Host: {host}" for host in hosts))
    assert answer.status == status
    assert reached_nobody(edge)
    check_security(answer)


async def test_http_1_0_needs_one_too(edge: EdgeUnderTest) -> None:
    assert (await ask(edge, "GET / HTTP/1.0")).status == 421
    assert (await ask(edge, "GET / HTTP/1.0", "Host: localhost")).status == 200
    assert (await ask(edge, "GET / HTTP/1.0", "Host: evil.example")).status == 421


ABSOLUTE = [
    ("http://localhost/api/x", "localhost", 200),
    ("HTTP://LOCALHOST/api/x", "localhost", 200),
    ("http://localhost:8080/api/x", "localhost:8080", 200),
    ("http://evil.example/api/x", "evil.example", 421),
    ("http://evil.example/api/x", "localhost", 400),
    ("http://localhost/api/x", "evil.example", 400),
    ("http://localhost:81/api/x", "localhost", 400),
    ("http://localhost@evil.example/api/x", "localhost", 400),
    ("http://evil.example\\@localhost/api/x", "localhost", 400),
    ("http://localhost?/api/x", "localhost", 400),
    ("ftp://localhost/api/x", "localhost", 400),
    ("//localhost/api/x", "localhost", 400),
    ("localhost:80", "localhost", 400),
    ("*", "localhost", 400),
]


@pytest.mark.parametrize(("target", "host", "status"), ABSOLUTE)
async def test_absolute_targets_name_the_same_host(edge: EdgeUnderTest, target: str, host: str, status: int) -> None:
    answer = await ask(edge, f"GET {target} HTTP/1.1", f"Host: {host}")
    assert answer.status == status
    assert [request.target for request in edge.api.requests] == (["/api/x"] if status == 200 else [])
    check_security(answer)


async def test_further_names(make_edge: EdgeMaker) -> None:
    async with make_edge(allowed_hosts=("Home.Example", "192.0.2.7", "[2001:db8::7]")) as edge:
        for host in ("home.example", "HOME.example:8080", "192.0.2.7:80", "[2001:DB8::7]", "localhost"):
            assert (await edge.get("/", host=host)).status == 200, host
        for host in ("x.home.example", "home.example.evil.example", "192.0.2.70"):
            assert (await edge.get("/", host=host)).status == 421, host


async def test_a_domain_leaves_no_local_names(make_edge: EdgeMaker) -> None:
    async with make_edge(domain="llm.example", allowed_hosts=("other.example",)) as edge:
        for host in ("llm.example", "app.llm.example", "other.example", "APP.LLM.EXAMPLE:443"):
            assert (await edge.get("/", host=host)).status == 200, host
        for host in ("localhost", "127.0.0.1", "[::1]", "llm.example.", "app.other.example", "app.app.llm.example"):
            assert (await edge.get("/", host=host)).status == 421, host
