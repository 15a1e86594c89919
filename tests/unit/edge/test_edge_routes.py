"""Where paths and hosts lead, for whatever paths and hosts."""

import posixpath
import string
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudtolocalllm.edge.routes import LOCAL_HOSTS, Route, host_name, hosts, is_plain, route

PASSED_ON = {Route.API, Route.API_WEBSOCKET, Route.DATA, Route.TUNNEL}
PREFIXES = ("/api/", "/v1/", "/ollama/", "/anthropic/", "/c2l/", "/e2e/", "/ws/", "/readyz", "/internal/")

# What the HTTP server lets through in a path: a slash, then visible ASCII without "?" and "#".
visible = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#")
odd = st.sampled_from(
    ["..", ".", "/", "//", "%2e", "%2E", "%2f", "%5C", "\\", "%00", "%25", "%252e", "internal", "authorize", ";"]
)
pieces = st.lists(st.one_of(odd, st.text(visible, max_size=6)), max_size=8).map("".join)
paths = st.builds("{}{}".format, st.sampled_from(("/", *PREFIXES)), pieces)


@given(paths)
@example("/v1/../internal/authorize")
@example("/api/%2e%2e/internal/authorize")
@example("//internal/authorize")
@example("/api/..%5cinternal")
def test_nothing_that_is_passed_on_can_be_read_as_internal(path: str) -> None:
    if is_plain(path) and route(path) in PASSED_ON:
        once_decoded = {path, unquote(path), posixpath.normpath(path), posixpath.normpath(unquote(path))}
        assert not any(each == "/internal" or each.startswith("/internal/") for each in once_decoded)


@given(st.text(visible))
def test_whatever_is_below_internal_is_not_passed_on(rest: str) -> None:
    assert route(f"/internal/{rest}") is Route.NOTHING


@pytest.mark.parametrize("path", ["/internal", "/ws", "/ws/other", "/api", "/internal/authorize", "/ws/tunnel/x"])
def test_nothing_is_there(path: str) -> None:
    assert route(path) is Route.NOTHING


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", Route.STATIC),
        ("/chat/1", Route.STATIC),
        ("/internals", Route.STATIC),
        ("/v1", Route.STATIC),
        ("/v1/models", Route.DATA),
        ("/ollama", Route.DATA),
        ("/ollama/api/chat", Route.DATA),
        ("/anthropic/v1/messages", Route.DATA),
        ("/c2l/exchanges/x", Route.DATA),
        ("/e2e/k2qxv7hd4m3a", Route.DATA),
        ("/e2e/", Route.DATA),
        ("/e2e", Route.STATIC),
        ("/api/bridge", Route.API),
        ("/readyz", Route.API),
        ("/healthz", Route.HEALTH),
        ("/ws/bridge", Route.API_WEBSOCKET),
        ("/ws/events", Route.API_WEBSOCKET),
        ("/ws/tunnel", Route.TUNNEL),
    ],
)
def test_each_route(path: str, expected: Route) -> None:
    assert route(path) is expected
    assert is_plain(path)


@given(paths)
def test_a_plain_path_has_one_reading(path: str) -> None:
    """Decoding, resolving dots and joining slashes changes no segment boundary and reveals no dot segment."""
    if not is_plain(path):
        return
    assert posixpath.normpath(path) == (path.rstrip("/") or "/")
    decoded = unquote(path, errors="strict") if "%" not in path else unquote(path, errors="replace")
    assert decoded.count("/") == path.count("/")
    assert "\\" not in decoded
    assert ".." not in decoded.split("/")
    assert "." not in decoded.split("/")
    assert not any(character < " " or character == "\x7f" for character in decoded)


@given(st.lists(st.text(string.ascii_letters + string.digits + "-_~:@!$&'()*+,;=", min_size=1), max_size=6))
def test_ordinary_paths_are_plain(segments: list[str]) -> None:
    assert is_plain("/" + "/".join(segments))


@pytest.mark.parametrize(
    "path", ["/a.b/c.tar.gz", "/models/llama3.1:8b", "/x%20y", "/%C3%A9", "/.well-known/x", "/a."]
)
def test_dots_and_escapes_that_mean_nothing_else_are_plain(path: str) -> None:
    assert is_plain(path)


@given(st.text(string.hexdigits + "%gz/", max_size=12))
def test_a_malformed_escape_is_never_plain(text: str) -> None:
    path = "/" + text + "%g1"
    assert not is_plain(path)


TRICKS = [
    "..",
    "a/..",
    "./a",
    "a/.",
    "a//b",
    "/a",
    "%2e%2e",
    "%2E.",
    "a%2fb",
    "a%5Cb",
    "a\\b",
    "%00",
    "%7f",
    "%",
    "%4",
]


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("prefix", ["/", "/v1/", "/api/"])
def test_tricks_are_not_plain(prefix: str, trick: str) -> None:
    assert not is_plain(prefix + trick)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"LocalHost:80", "localhost"),
        (b"[::1]:8080", "[::1]"),
        (b"app.llm.example", "app.llm.example"),
        (b"", None),
        (b"a b", None),
        (b"a@b", None),
        (b"a:b", None),
        (b"a:123456", None),
        (b"a,b", None),
        (b"a\xe9", None),
        (b"[::1", None),
        (b"localhost\n", None),
    ],
)
def test_host_names(field: bytes, name: str | None) -> None:
    assert host_name(field) == name


@given(st.binary(max_size=30))
def test_whatever_host_comes_only_known_ones_are_served(field: bytes) -> None:
    served = hosts("", "127.0.0.1", ())
    name = host_name(field)
    if name in served:
        assert field.lower().startswith((b"localhost", b"127.0.0.1", b"[::1]"))
        assert name in LOCAL_HOSTS


def test_hosts_of_a_domain_are_no_local_ones() -> None:
    assert hosts("LLM.Example", "0.0.0.0", ()) == {"llm.example", "app.llm.example"}
    assert hosts("llm.example", "127.0.0.1", ("Home.Example",)) >= {"home.example"}
    assert hosts("", "fd00::1", ()) >= {"[fd00::1]", "localhost"}
