"""Addresses, links, paths, fields, lists and refusals: what is read of others, and what is said to them."""

import json

import pytest
from tests.support.sealed_parts import PINNED, SECRET

from cloudtolocalllm.connect import fields, lists
from cloudtolocalllm.connect.address import ServerAddress, read_invitation
from cloudtolocalllm.connect.errors import Fault
from cloudtolocalllm.connect.paths import Door, changes_nothing, inner_target
from cloudtolocalllm.connect.refusals import read_problem, refused_in_the_clear
from cloudtolocalllm.contracts.problems import Problem, problem_content
from cloudtolocalllm.sealed.pairing import PairingLink

LINK = PairingLink("home", PINNED, SECRET)
OHTTP_KEY = "https://iana.org/assignments/http-problem-types#ohttp-key"  # RFC 9458 §6.2.1
PROBLEM = ((b"content-type", b"application/problem+json"),)


@pytest.mark.parametrize(
    ("url", "told", "private"),
    [
        ("https://app.example.org", "https://app.example.org", True),
        ("https://app.example.org:443/", "https://app.example.org", True),
        ("https://APP.example.org:8443/c2l/", "https://app.example.org:8443/c2l", True),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("http://[::1]:8080", "http://[::1]:8080", True),
        ("http://192.168.1.5:8080", "http://192.168.1.5:8080", False),
        ("http://127.0.0.1.example.org", "http://127.0.0.1.example.org", False),
    ],
)
def test_servers(url: str, told: str, private: bool) -> None:
    address = ServerAddress.parse(url)
    assert address.url == told
    assert address.is_private is private
    assert ServerAddress.parse(address.url) == address


@pytest.mark.parametrize("url", ["", "app.example.org", "ftp://x", "https://", "https://x:99999", "https://x/?a=b"])
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        ServerAddress.parse(url)


@pytest.mark.parametrize("page", ["https://app.test/pair", "https://app.test/pair/", "https://app.test/pair?a=b"])
def test_a_link_says_which_server(page: str) -> None:
    address, link = read_invitation(f" {page}#{LINK.fragment}\n")
    assert address.url == "https://app.test"
    assert link == LINK


def test_the_part_behind_the_mark_needs_a_server() -> None:
    assert read_invitation(LINK.fragment, "https://app.test/under")[0].url == "https://app.test/under"
    assert read_invitation("#" + LINK.fragment, "https://app.test")[1] == LINK
    with pytest.raises(ValueError, match="--server"):
        read_invitation(LINK.fragment)


def test_a_broken_link_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="copy it again") as caught:
        read_invitation("https://app.test/pair#c2l1.home.secret-part")
    assert "secret-part" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "inside"),
    [
        ("/", "/ollama/"),
        ("/api/tags?x=1", "/ollama/api/tags?x=1"),
        ("/v1/models", "/v1/models"),
        ("/v1/messages", "/anthropic/v1/messages"),
        ("/v1/messages/count_tokens", "/anthropic/v1/messages/count_tokens"),
        ("/v1/messagesx", "/v1/messagesx"),
        ("/anthropic/v1/messages", "/anthropic/v1/messages"),
        ("/anthropic/v2", None),
        ("/v1", None),
        ("/c2l/devices", None),
        ("/ollama/api/tags", None),
        ("*", None),
    ],
)
def test_paths(target: str, inside: str | None) -> None:
    assert inner_target(target) == inside


@pytest.mark.parametrize(
    ("method", "target", "found"),
    [
        ("POST", "/ollama/api/chat", True),
        ("POST", "/anthropic/v1/messages?beta=true", True),
        ("POST", "/ollama/api/pull", False),
        ("POST", "/ollama/api/copy", False),
        ("DELETE", "/ollama/api/delete", False),
    ],
)
def test_what_leaves_a_home_as_it_was(method: str, target: str, found: bool) -> None:
    assert changes_nothing(method, target) is found


def test_a_door_without_origins_lets_no_page_in() -> None:
    door = Door()
    page = ((b"host", b"localhost:11434"), (b"origin", b"https://evil.test"))
    assert door.refusal(page) is not None
    assert door.cors_fields(page) == ()
    assert door.refusal(((b"host", b"localhost:11434"), (b"origin", b"http://localhost:11434"))) is None
    assert door.refusal(((b"host", b"localhost:11434"), (b"origin", b"http://localhost:3000"))) is not None
    assert door.refusal(()) is None  # HTTP/1.0; no browser does without


def test_an_origin_is_allowed_whole() -> None:
    door = Door.of((), ("http://app.test",))
    assert door.refusal(((b"origin", b"http://app.test"),)) is None
    assert door.refusal(((b"origin", b"http://app.test.evil"),)) is not None
    assert Door.of((), ("*",)).refusal(((b"origin", b"https://any.test"), (b"sec-fetch-site", b"cross-site"))) is None


def test_fields_to_the_home() -> None:
    sent = fields.to_home(
        (
            (b"host", b"localhost"), (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"authorization", b"Bearer x"),
            (b"content-length", b"3"), (b"content-type", b"application/json"), (b"x-stainless-lang", b"python"),
            (b"c2l-device", b"forged"), (b"sec-fetch-site", b"none"), (b"transfer-encoding", b"chunked"),
        ),
        3,
    )  # fmt: skip
    assert sent == (
        (b"content-type", b"application/json"),
        (b"x-stainless-lang", b"python"),
        (b"content-length", b"3"),
    )
    with pytest.raises(fields.FieldsRefusedError, match="96"):
        fields.to_home(tuple((b"x-%d" % number, b"") for number in range(97)), 0)


def test_fields_from_the_home() -> None:
    told = fields.from_home(
        ((b"content-type", b"text/plain"), (b"c2l-offset", b"5"), (b"set-cookie", b"a"), (b"date", b"d"),
         (b"access-control-allow-origin", b"*"), (b"content-length", b"3"))
    )  # fmt: skip
    assert told == ((b"content-type", b"text/plain"), (b"date", b"d"))


def test_lists_are_joined_by_name() -> None:
    one = lists.entries(b'{"models":[{"name":"a:latest","size":1},{"name":"b"},5]}', "models")
    two = lists.entries(b'{"models":[{"model":"A","size":2},{"name":"c"}]}', "models")
    assert one is not None
    assert two is not None
    joined = json.loads(lists.joined([one, two], "models"))
    assert [item.get("size") for item in joined["models"]] == [1, None, None]
    assert lists.names(one) == {"a", "b"}
    assert json.loads(lists.joined([], "data")) == {"object": "list", "data": []}


def test_what_is_away_is_marked_and_comes_last() -> None:
    joined = json.loads(lists.joined([[{"id": "b"}]], "data", [[{"id": "a"}, {"id": "b"}]]))
    assert joined["data"] == [{"id": "b"}, {"id": "a", "c2l_away": True}]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"models":5}', b"\xff", b"[" * 100_000])
def test_what_is_no_list(content: bytes) -> None:
    assert lists.entries(content, "models") is None


@pytest.mark.parametrize(
    ("status", "content", "fault"),
    [
        (400, json.dumps({"type": OHTTP_KEY}).encode(), Fault.STALE_KEY),
        (400, problem_content(Problem.BAD_REQUEST, "x"), Fault.DAMAGED),
        (401, problem_content(Problem.UNAUTHENTICATED, "x"), Fault.REFUSED),
        (403, problem_content(Problem.KEY_SCOPE, "x"), Fault.REFUSED),
        (404, problem_content(Problem.NOT_FOUND, "x"), Fault.REFUSED),
        (413, problem_content(Problem.TOO_LARGE, "x"), Fault.REFUSED),
        (429, problem_content(Problem.RATE_LIMITED, "x"), Fault.NOT_TAKEN),
        (503, problem_content(Problem.BRIDGE_OFFLINE, "x"), Fault.AWAY),
        (503, problem_content(Problem.BRIDGE_OFFLINE, "x", exchange="abc"), Fault.AWAY),
        (503, problem_content(Problem.CONNECTION_LOST, "x", exchange="abc"), Fault.LOST),
        (503, problem_content(Problem.CONNECTION_LOST, "x"), Fault.LOST),
        (503, problem_content(Problem.OVERLOADED, "x"), Fault.NOT_TAKEN),
        (503, problem_content(Problem.OVERLOADED, "x", exchange="abc"), Fault.NOT_TAKEN),
        (502, b"<html>", Fault.LOST),
        (504, problem_content(Problem.TIMED_OUT, "x", exchange="abc"), Fault.LOST),
        (500, b"", Fault.LOST),
        (200, b"<html>please sign in to this network", Fault.NOT_TAKEN),
        (302, b"", Fault.NOT_TAKEN),
        (404, b"<html>", Fault.NOT_TAKEN),
    ],
)  # fmt: skip
def test_what_an_answer_in_the_clear_means(status: int, content: bytes, fault: Fault) -> None:
    headers = PROBLEM if content.startswith(b"{") else ((b"content-type", b"text/html"),)
    assert refused_in_the_clear(status, headers, content).fault is fault


def test_how_long_a_server_wants_to_be_left_alone() -> None:
    content = problem_content(Problem.RATE_LIMITED, "x")
    assert refused_in_the_clear(429, (*PROBLEM, (b"retry-after", b"7")), content).retry_after == 7
    assert refused_in_the_clear(429, (*PROBLEM, (b"retry-after", b"soon")), content).retry_after is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"type":5,"detail":[]}', b"\xff", b"[" * 100_000])
def test_what_is_no_problem_says_nothing(content: bytes) -> None:
    said = read_problem(content)
    assert (said.type, said.detail, said.slug) == ("", "", "")


def test_a_sentence_of_others_is_made_harmless() -> None:
    assert read_problem(json.dumps({"detail": "a\x1b[31m\nb" + "x" * 9999}).encode()).detail.startswith("a[31mbx")
    assert len(read_problem(json.dumps({"detail": "x" * 9999}).encode()).detail) == 500
