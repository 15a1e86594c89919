"""What engines are, say and list."""

import json
from typing import Any

import pytest

from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.bridge.engines.answers import (
    Model,
    is_loading,
    is_ours,
    joined,
    ollama_models,
    ollama_version,
    openai_models,
)
from cloudtolocalllm.bridge.engines.catalog import Catalog, rank
from cloudtolocalllm.bridge.engines.engine import Engine
from cloudtolocalllm.bridge.engines.known_holes import holes_in, parse_version
from cloudtolocalllm.bridge.guard import ROUTES, ApiFamily
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.control import EngineKind, EngineState
from cloudtolocalllm.contracts.problems import Problem, problem_content
from cloudtolocalllm.runtime.http1 import Response

CHAT = ROUTES["POST", "/v1/chat/completions"]
OLLAMA_CHAT = ROUTES["POST", "/ollama/api/chat"]


def response(value: Any, status: int = 200, **fields: str) -> Response:
    headers = tuple((name.replace("_", "-").encode(), text.encode()) for name, text in fields.items())
    return Response(status, headers, value if isinstance(value, bytes) else json.dumps(value).encode())


def engine(port: int, kind: EngineKind, *models: str, up: bool = True, remote: tuple[str, ...] = ()) -> Engine:
    made = Engine(f"engine-{port}", EngineAddress("127.0.0.1", port), lambda: None, kind=kind)
    made.models = (*(Model(name) for name in models), *(Model(name, remote=True) for name in remote))
    made.up = up
    return made


def catalog(*engines: Engine, allow_cloud_models: bool = False) -> Catalog:
    made = Catalog(allow_cloud_models=allow_cloud_models, monotonic=lambda: 0.0)
    for each in engines:
        made.add(each)
    return made


# --- addresses ----------------------------------------------------------------------------------------------------


def test_an_address_is_taken_apart() -> None:
    address = EngineAddress.parse("http://127.0.0.1:11434/base/")
    assert (address.authority, address.prefix, address.tls, address.authorization) == (
        "127.0.0.1:11434",
        "/base",
        False,
        None,
    )
    assert EngineAddress.parse("https://gpu.lan").authority == "gpu.lan:443"
    assert EngineAddress.parse("http://[::1]:1").authority == "[::1]:1"


def test_keys_come_from_the_url_or_from_the_list() -> None:
    assert EngineAddress.parse("http://:s%2Bt@h:1").authorization == b"Bearer s+t"
    assert EngineAddress.parse("http://key@h:1").authorization == b"Bearer key"
    assert EngineAddress.parse("http://u:p@h:1").authorization == b"Basic dTpw"
    assert EngineAddress.parse("http://h:1", ("x:1=no", "h:1=a=b")).authorization == b"Bearer a=b"
    assert EngineAddress.parse("http://h:2", ("h:1=a",)).authorization is None


def test_a_url_that_is_none_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="expected an engine's URL") as caught:
        EngineAddress.parse("ftp://user:secret@host")
    assert "secret" not in str(caught.value)


# --- answers ------------------------------------------------------------------------------------------------------


def test_models_are_read() -> None:
    tags = {
        "models": [{"name": "Llama3:latest"}, {"name": "x", "model": "gpt:cloud", "remote_host": "https://o"}, 7, {}]
    }
    assert ollama_models(response(tags)) == (Model("llama3"), Model("gpt:cloud", remote=True))
    assert openai_models(response({"data": [{"id": "Tiny"}, {"id": 3}]})) == (Model("Tiny"),)
    assert ollama_version(response({"version": "0.6.2"})) == "0.6.2"


@pytest.mark.parametrize("value", [b"", b"<html>", [], {"models": 1, "data": {}}, b"[" * 100_000])
def test_other_answers_are_none(value: Any) -> None:
    assert ollama_models(response(value)) is None
    assert openai_models(response(value)) is None
    assert ollama_version(response(value)) is None
    assert not is_loading(response(value, 503))


def test_errors_are_no_lists() -> None:
    assert openai_models(response({"data": []}, 500)) is None


def test_llama_cpp_says_that_it_loads() -> None:
    body = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    assert is_loading(response(body, 503))
    assert not is_loading(response(body, 200))


def test_our_own_parts_are_no_engines() -> None:
    assert is_ours(response({}, server="CloudToLocalLLM"))
    assert is_ours(
        response(problem_content(Problem.UNAUTHENTICATED, "x"), 401, content_type="application/problem+json")
    )
    assert is_ours(response({}, c2l_status="401"))
    assert not is_ours(response({"version": "0.6.2"}, content_type="application/json", server="llama.cpp"))


def test_lists_are_joined() -> None:
    first, second = (
        response({"data": [{"id": "a"}, {"id": "b"}]}),
        response({"data": [{"id": "b", "x": 1}, {"id": "c"}]}),
    )
    assert json.loads(joined([first, second], "data")) == {
        "object": "list",
        "data": [{"id": "a"}, {"id": "b"}, {"id": "c"}],
    }
    tags = [response({"models": [{"name": "a"}]}), response(b"broken"), response({"models": [{"name": "b"}]})]
    assert json.loads(joined(tags, "models")) == {"models": [{"name": "a"}, {"name": "b"}]}


# --- holes --------------------------------------------------------------------------------------------------------


def test_old_versions_have_known_holes() -> None:
    assert {hole.cve for hole in holes_in("0.1.28")} >= {"CVE-2024-28224", "CVE-2024-37032"}
    assert holes_in("0.6.9")
    assert not holes_in("0.17.1")
    assert not holes_in("0.0.0")
    assert not holes_in("unknown")


def test_versions_are_read() -> None:
    assert parse_version("0.14.0-rc1") == (0, 14, 0)
    assert parse_version("v1.2.3+x") == (1, 2, 3)
    assert parse_version("1.2") is None
    assert parse_version("1.2.³") is None


# --- which engine answers -----------------------------------------------------------------------------------------


def test_the_engine_that_has_the_model_answers() -> None:
    first, second = engine(1, EngineKind.OLLAMA, "llama3"), engine(2, EngineKind.OPENAI, "Tiny")
    assert rank([first, second], "Tiny") == [second]
    assert rank([first, second], "llama3:latest") == [first]


def test_engines_that_are_up_come_first() -> None:
    down, up = engine(1, EngineKind.OLLAMA, "a", up=False), engine(2, EngineKind.OLLAMA, "a")
    assert rank([down, up], "a") == [up, down]
    assert rank([down, up], None) == [up, down]


def test_an_engine_that_is_down_is_tried_for_a_model_that_only_it_has() -> None:
    down, up = engine(1, EngineKind.OLLAMA, "a", up=False), engine(2, EngineKind.OLLAMA, "b")
    assert rank([down, up], "a") == [down]


def test_one_engine_alone_takes_any_name_and_several_do_not() -> None:
    alone = engine(1, EngineKind.OPENAI, "tiny")
    assert rank([alone], "anything") == [alone]
    with pytest.raises(RefusalError) as caught:
        rank([alone, engine(2, EngineKind.OPENAI, "other")], "anything")
    assert caught.value.problem is Problem.MODEL_NOT_FOUND


def test_families_are_told_apart() -> None:
    ollama, openai = engine(1, EngineKind.OLLAMA), engine(2, EngineKind.OPENAI)
    both = catalog(ollama, openai)
    assert both.serving(ApiFamily.OLLAMA) == [ollama]
    assert both.serving(ApiFamily.OPENAI) == [ollama, openai]
    with pytest.raises(RefusalError) as caught:
        catalog(openai).serving(ApiFamily.OLLAMA)
    assert caught.value.problem is Problem.NOT_FOUND
    with pytest.raises(RefusalError) as caught:
        catalog().serving(ApiFamily.OLLAMA)
    assert caught.value.problem is Problem.ENGINE_UNREACHABLE


def test_content_is_read_only_where_it_decides_something() -> None:
    ollama, openai = engine(1, EngineKind.OLLAMA), engine(2, EngineKind.OPENAI)
    assert not catalog(openai).needs_model(CHAT)
    assert catalog(ollama).needs_model(CHAT)
    assert catalog(openai, engine(3, EngineKind.OPENAI)).needs_model(CHAT)
    assert not catalog(ollama, openai).needs_model(ROUTES["GET", "/v1/models"])


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "kimi:cloud", "mine", "MINE:latest"])
async def test_cloud_models_are_refused_unless_allowed(model: str) -> None:
    ollama = engine(1, EngineKind.OLLAMA, "llama3", remote=("mine",))
    ollama.up = False  # so that nothing is asked
    with pytest.raises(RefusalError) as caught:
        await catalog(ollama).choose(OLLAMA_CHAT, [model])
    assert caught.value.problem is Problem.ROUTE_REFUSED
    assert await catalog(ollama, allow_cloud_models=True).choose(OLLAMA_CHAT, [model]) == [ollama]
    with pytest.raises(RefusalError):
        await catalog(ollama).choose(CHAT, [model, "llama3"])


async def test_names_that_sound_like_clouds_are_fine_elsewhere() -> None:
    assert await catalog(engine(1, EngineKind.OPENAI, "x-cloud")).choose(CHAT, ["x-cloud"])


# --- state --------------------------------------------------------------------------------------------------------


def test_state_changes_are_told_once() -> None:
    changes: list[EngineState] = []
    made = Engine("e", EngineAddress("127.0.0.1", 1), lambda: changes.append(made.state), kind=EngineKind.OLLAMA)
    assert made.state is EngineState.DOWN
    made.answered()
    made.answered()
    made.wait_began()
    made.wait_began()
    made.wait_ended()
    made.wait_ended()
    made.failed()
    made.failed()
    assert changes == [EngineState.UP, EngineState.LOADING, EngineState.UP, EngineState.DOWN]
    assert made.status.kind is EngineKind.OLLAMA


def test_the_kind_is_guessed_from_the_port_until_it_is_known() -> None:
    def made(port: int) -> Engine:
        return Engine("e", EngineAddress("127.0.0.1", port), lambda: None)

    assert made(11434).kind is EngineKind.OLLAMA
    assert made(8080).kind is EngineKind.OPENAI
