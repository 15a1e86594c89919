"""The guard serves exactly its table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.bridge.guard import (
    OPTIONAL_ROUTES,
    ROUTES,
    SWITCHED,
    ApiFamily,
    JournalRoute,
    Route,
    RouteRefusedError,
    admit,
)

ENGINE_PATHS = {route.path for route in ROUTES.values()} | {route.path for _, route in SWITCHED.values()}
ID = "abcdefgh-ABCDEFGH_0"

PUBLIC = [
    ("GET", "/v1/models", ApiFamily.OPENAI, "/v1/models"),
    ("POST", "/v1/chat/completions", ApiFamily.OPENAI, "/v1/chat/completions"),
    ("POST", "/v1/completions", ApiFamily.OPENAI, "/v1/completions"),
    ("POST", "/v1/embeddings", ApiFamily.OPENAI, "/v1/embeddings"),
    ("POST", "/v1/responses", ApiFamily.OPENAI, "/v1/responses"),
    ("POST", "/ollama/v1/chat/completions", ApiFamily.OPENAI, "/v1/chat/completions"),
    ("GET", "/ollama/v1/models", ApiFamily.OPENAI, "/v1/models"),
    ("GET", "/ollama/", ApiFamily.OLLAMA, "/"),
    ("GET", "/ollama/api/tags", ApiFamily.OLLAMA, "/api/tags"),
    ("GET", "/ollama/api/version", ApiFamily.OLLAMA, "/api/version"),
    ("GET", "/ollama/api/ps", ApiFamily.OLLAMA, "/api/ps"),
    ("POST", "/ollama/api/chat", ApiFamily.OLLAMA, "/api/chat"),
    ("POST", "/ollama/api/generate", ApiFamily.OLLAMA, "/api/generate"),
    ("POST", "/ollama/api/embed", ApiFamily.OLLAMA, "/api/embed"),
    ("POST", "/ollama/api/embeddings", ApiFamily.OLLAMA, "/api/embeddings"),
    ("POST", "/ollama/api/show", ApiFamily.OLLAMA, "/api/show"),
    ("POST", "/anthropic/v1/messages", ApiFamily.ANTHROPIC, "/v1/messages"),
]

REFUSED = [
    "/",
    "",
    "*",
    "/api/chat",
    "/v1",
    "/v1/",
    "/V1/models",
    "/v1/Models",
    "/v1/models/",
    "/v1/models/x",
    "/v1/../api/delete",
    "/ollama/api/../api/delete",
    "/ollama/api/chat/../delete",
    "/ollama/api/%2e%2e/delete",
    "/ollama/api/%64elete",
    "/ollama//api/chat",
    "//ollama/api/chat",
    "/ollama/api/chat/",
    "/ollama/api/chat;x=1",
    "/ollama/api/chat#x",
    "/ollama/api/chat%00",
    "/ollama/api/chat\x00",
    "/ollama/api/chat ",
    "/ollama/api\\chat",
    "http://127.0.0.1:11434/api/chat",
    "/ollama/api/create",
    "/ollama/api/push",
    "/ollama/api/blobs/sha256:0000",
    "/ollama/api/pull",
    "/ollama/api/copy",
    "/ollama/api/delete",
    "/anthropic/v1/messages/count_tokens",
    "/c2l/keys",
    "/c2l/conversations",
    "/c2l/exchanges/",
    "/c2l/exchanges/short",
    f"/c2l/exchanges/{ID}/",
    f"/c2l/exchanges/{'x' * 65}",
]


@pytest.mark.parametrize(("method", "target", "family", "path"), PUBLIC)
def test_public_routes_lead_to_their_engine_paths(method: str, target: str, family: ApiFamily, path: str) -> None:
    route = admit(method, target)
    assert isinstance(route, Route)
    assert (route.method, route.family, route.path) == (method, family, path)


def test_the_public_routes_are_all_there_is() -> None:
    assert {(method, target) for method, target, _, _ in PUBLIC} <= set(ROUTES)
    assert {path for method, path in ROUTES if not path.startswith("/ollama/v1")} == {
        target for _, target, _, _ in PUBLIC if not target.startswith("/ollama/v1")
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "get", ""])
@pytest.mark.parametrize("target", REFUSED)
def test_anything_else_is_refused(method: str, target: str) -> None:
    with pytest.raises(RouteRefusedError):
        admit(method, target)


@pytest.mark.parametrize(("method", "target", "family", "path"), PUBLIC)
@pytest.mark.parametrize("wrong", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str, target: str, family: ApiFamily, path: str, wrong: str) -> None:
    with pytest.raises(RouteRefusedError):
        admit(wrong, target)


def test_get_and_post_are_not_the_same() -> None:
    for method, target in ROUTES:
        with pytest.raises(RouteRefusedError):
            admit("POST" if method == "GET" else "GET", target)


def test_head_is_allowed_where_get_is() -> None:
    route = admit("HEAD", "/ollama/")
    assert isinstance(route, Route)
    assert (route.method, route.path) == ("HEAD", "/")
    with pytest.raises(RouteRefusedError):
        admit("HEAD", "/ollama/api/chat")


def test_queries_are_dropped() -> None:
    assert admit("POST", "/v1/chat/completions?api=/api/delete") == admit("POST", "/v1/chat/completions")


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [("pull", "POST", "/api/pull"), ("delete", "DELETE", "/api/delete"), ("copy", "POST", "/api/copy")],
)
def test_switched_routes_need_their_switch(name: str, method: str, path: str) -> None:
    target = "/ollama" + path
    with pytest.raises(RouteRefusedError, match=f"allow {name}"):
        admit(method, target, OPTIONAL_ROUTES - {name})
    route = admit(method, target, {name})
    assert isinstance(route, Route)
    assert route.path == path
    with pytest.raises(RouteRefusedError):
        admit("GET", target, {name})


def test_create_push_and_blobs_have_no_switch() -> None:
    allowed = OPTIONAL_ROUTES | {"create", "push", "blobs"}
    for method, target in (
        ("POST", "/ollama/api/create"),
        ("POST", "/ollama/api/push"),
        ("POST", "/ollama/api/blobs/x"),
    ):
        with pytest.raises(RouteRefusedError):
            admit(method, target, allowed)


def test_the_journal_has_routes_of_its_own() -> None:
    assert admit("GET", f"/c2l/exchanges/{ID}") == JournalRoute("GET", ID, 0)
    assert admit("HEAD", f"/c2l/exchanges/{ID}") == JournalRoute("HEAD", ID, 0)
    assert admit("GET", f"/c2l/exchanges/{ID}?offset=17") == JournalRoute("GET", ID, 17)
    assert admit("DELETE", f"/c2l/exchanges/{ID}") == JournalRoute("DELETE", ID, 0)


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=", "offset=1&x=2", "offset=1e9", "offset=٣", "offset=" + "9" * 16]
)
def test_a_malformed_offset_is_refused(query: str) -> None:
    with pytest.raises(RouteRefusedError):
        admit("GET", f"/c2l/exchanges/{ID}?{query}")


_pieces = st.sampled_from(
    [
        "/",
        "//",
        "..",
        ".",
        "%2e",
        "%2F",
        "ollama",
        "api",
        "v1",
        "chat",
        "delete",
        "pull",
        "models",
        "?",
        "#",
        "anthropic",
        "messages",
        "completions",
        "exchanges",
        "c2l",
        ID,
        "http://h",
        "\\",
        "\x00",
        "\r\n",
        " ",
        "tags",
        "offset=1",
    ]
)
_targets = st.one_of(
    st.text(max_size=60),
    st.lists(_pieces, max_size=12).map("".join),
    st.tuples(st.sampled_from([target for _, target in ROUTES]), st.text(max_size=6)).map("".join),
)


@settings(max_examples=500)
@given(
    st.sampled_from(["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"]),
    _targets,
    st.sets(st.sampled_from(sorted(OPTIONAL_ROUTES))),
)
def test_whatever_the_target_only_table_paths_are_asked_for(method: str, target: str, allow: set[str]) -> None:
    try:
        route = admit(method, target, allow)
    except RouteRefusedError:
        return
    if isinstance(route, JournalRoute):
        assert target.partition("?")[0] == f"/c2l/exchanges/{route.exchange_id}"
        return
    assert route.path in ENGINE_PATHS
    assert route.path not in ("/api/create", "/api/push")
    assert not any(route is switched and name not in allow for name, switched in SWITCHED.values())
