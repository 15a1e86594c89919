import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudtolocalllm.auth.scopes import (
    MAX_COUNT,
    MAX_MODELS,
    MAX_MODELS_TEXT,
    MAX_ROUTES,
    NO_SCOPE,
    KeyScope,
    matches,
)


@pytest.mark.parametrize(
    ("routes", "path", "allowed"),
    [
        ((), "/v1/chat/completions", True),
        (("/v1/",), "/v1/chat/completions", True),
        (("/v1/",), "/v1/", True),
        (("/v1/",), "/v1", False),
        (("/v1/",), "/ollama/v1/chat/completions", False),
        (("/v1/",), "/ollama/api/chat", False),
        (("/v1/",), "/v10/models", False),
        (("/v1/models",), "/v1/models", True),
        (("/v1/models",), "/v1/models/", False),
        (("/v1/models",), "/v1/modelsx", False),
        (("/ollama/api/", "/v1/models"), "/ollama/api/chat", True),
        (("/v1/",), "/V1/models", False),
        (("/v1/",), "/v1/../ollama/api/chat", False),
        (("/v1/",), "/v1/./models", False),
        (("/v1/",), "/v1/%2e%2e/ollama/api/chat", False),
        (("/v1/",), "/v1//models", False),
        (("/v1/",), "//v1/models", False),
        (("/v1/",), "/v1/\\..\\ollama", False),
        (("/v1/",), "", False),
        (("/v1/",), "*", False),
        (("/v1/",), "/c2l/exchanges/exchange-0123456789", True),
        (("/v1/",), "/c2l/conversations", False),
        (("/v1/",), "/c2l/exchanges", False),
        (("/v1/",), "/c2l/exchanges/../keys", False),
        (("/v1/",), "/c2l/exchanges/%2e%2e/keys", False),
        (("/v1/", "/ollama/", "/anthropic/"), "/e2e/k2qxv7hd4m3a", False),
        (("/e2e/",), "/e2e/k2qxv7hd4m3a", True),
        (("/e2e/k2qxv7hd4m3a",), "/e2e/k2qxv7hd4m3a", True),
        (("/e2e/k2qxv7hd4m3a",), "/e2e/another", False),
        (("/e2e/",), "/v1/models", False),
    ],
)
def test_routes(routes: tuple[str, ...], path: str, allowed: bool) -> None:
    assert KeyScope(routes=routes).allows_route(path) is allowed


@pytest.mark.parametrize(
    ("models", "name", "allowed"),
    [
        ((), "anything", True),
        (("llama3.2",), "llama3.2", True),
        (("llama3.2",), "llama3.2:latest", True),
        (("llama3.2:latest",), "llama3.2", True),
        (("llama3.2",), "LLaMA3.2:LATEST", True),
        (("Llama3.2",), "llama3.2", True),
        (("llama3.2",), " llama3.2 ", True),
        (("llama3.2",), "llama3x2", False),
        (("llama3.2",), "llama3.2:1b", False),
        (("llama3.2",), "llama3.2-vision", False),
        (("llama3.2",), "evil/llama3.2", False),
        (("llama3.2:*",), "llama3.2:1b", True),
        (("llama3.2:*",), "llama3.2", True),
        (("llama3.2:*",), "llama3.2-vision:11b", False),
        (("llama*",), "llama3.2:1b", True),
        (("llama*",), "codellama", False),
        (("qwen?",), "qwen3", True),
        (("qwen?",), "qwen", False),
        (("qwen?",), "qwen2.5", False),
        (("qwen*", "phi4"), "phi4", True),
        (("qwen*",), "", False),
        (("*",), "", True),
        (("*",), "x\ny", True),
        (("a*",), "a\nb", True),
        (("tiny",), "tiny\nbig", False),
        (("tiny",), "tiny:latest:latest", False),
        (("a.b",), "a.b", True),
        (("hf.co/x/*",), "hf.co/x/y:q4", True),
        (("gpt-oss:20b",), "gpt-oss:20b:latest", False),
        (("*:1b",), "llama:1b", True),
        (("*:1b",), "llama:1b0", False),
    ],
)
def test_models(models: tuple[str, ...], name: str, allowed: bool) -> None:
    assert KeyScope(models=models).allows_model(name) is allowed


@pytest.mark.parametrize("pattern", ["[a-z]*", "a{1}", "a b", "", "a" * 129, "ä", "a\n", "^a$", "a|b", "(a)", "a\\*"])
def test_a_pattern_is_nothing_but_stars_question_marks_and_plain_characters(pattern: str) -> None:
    with pytest.raises(ValueError, match="expected models"):
        KeyScope(models=(pattern,))


@pytest.mark.parametrize(
    "route",
    [
        "/",
        "/c2l/",
        "/e2e",
        "/api/",
        "/ws/",
        "v1/",
        "/v1",
        "/v1/../ollama/",
        "/v1//",
        "/v1/*",
        "/v1/%2e",
        "",
        "/V1/",
        "/v1/ ",
    ],
)
def test_a_route_lies_below_one_of_the_known_ones(route: str) -> None:
    with pytest.raises(ValueError, match="expected routes"):
        KeyScope(routes=(route,))


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "1", MAX_COUNT + 1])
@pytest.mark.parametrize("member", ["requests_per_minute", "tokens_per_day"])
def test_a_count_is_a_whole_number_above_zero(member: str, count: object) -> None:
    with pytest.raises(ValueError, match=f"expected {member}"):
        KeyScope(**{member: count})  # type: ignore[arg-type] # what is tested


def test_sizes_are_bounded() -> None:
    KeyScope(routes=("/v1/",) * MAX_ROUTES, models=("m",) * MAX_MODELS)
    with pytest.raises(ValueError, match="at most 16"):
        KeyScope(routes=("/v1/",) * (MAX_ROUTES + 1))
    with pytest.raises(ValueError, match="at most 16"):
        KeyScope(models=("m",) * (MAX_MODELS + 1))
    with pytest.raises(ValueError, match="in all"):
        KeyScope(routes=("/v1/" + "r" * 60,) * 9)
    with pytest.raises(ValueError, match="in all"):
        KeyScope(models=("m" * 128,) * (MAX_MODELS_TEXT // 128 + 1))


def test_only_a_key_without_any_limit_changes_the_account() -> None:
    assert NO_SCOPE.allows_account(change=True)
    for scope in (
        KeyScope(routes=("/v1/",)),
        KeyScope(models=("a",)),
        KeyScope(requests_per_minute=1),
        KeyScope(tokens_per_day=1),
        KeyScope(bridge="b"),
    ):
        assert not scope.allows_account(change=True)
        assert scope.allows_account(change=False) is not bool(scope.routes)


SCOPES = st.builds(
    KeyScope,
    routes=st.lists(st.sampled_from(["/v1/", "/ollama/api/", "/v1/models"]), max_size=3).map(tuple),
    models=st.lists(st.text("ab*?:.", min_size=1, max_size=8), max_size=3).map(tuple),
    requests_per_minute=st.none() | st.integers(1, 1000),
    tokens_per_day=st.none() | st.integers(1, 10**9),
    bridge=st.none() | st.just("k2qxv7hd4m3a"),
)


@settings(max_examples=100)
@given(SCOPES)
def test_the_short_form_comes_back_as_it_was(scope: KeyScope) -> None:
    assert KeyScope.from_json({"iat": 1, "other": 2, **scope.to_json()}) == scope


@pytest.mark.parametrize(
    "value",
    [
        {"rts": "/v1/"},
        {"rts": [1]},
        {"rts": None},
        {"mdl": {"a": 1}},
        {"mdl": [None]},
        {"mdl": ""},
        {"rpm": "5"},
        {"rpm": 0},
        {"tpd": True},
        {"tpd": []},
        {"brg": 5},
        {"brg": "a b"},
        {"brg": ""},
    ],
)
def test_a_malformed_member_never_means_no_limit(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        KeyScope.from_json(value)


@settings(max_examples=300)
@given(st.text("ab*?", max_size=10), st.text("ab\n", max_size=12))
@example("*a*b", "aXb")
def test_matching_is_what_the_regular_expression_says(pattern: str, name: str) -> None:
    wanted = re.escape(pattern).replace(r"\*", "(?s:.*)").replace(r"\?", "(?s:.)")
    assert matches(pattern, name) is (re.fullmatch(wanted, name) is not None)


def test_a_hostile_pattern_takes_few_steps() -> None:
    assert not matches("*a" * 64, "a" * 63 + "b" * 400)  # exponential for a matcher that tries every star again
