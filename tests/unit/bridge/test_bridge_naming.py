"""Which models a request names."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.bridge.naming import ModelUnreadableError, canonical, is_cloud_model, named_models


def test_the_model_is_read() -> None:
    assert named_models(b'{"model": "llama3", "messages": [{"model": "nested"}]}') == ["llama3"]
    assert named_models(b'{"name": "old", "model": "new"}') == ["old", "new"]
    assert named_models(b'{"model": "new", "name": "old"}')[-1] == "new"
    assert named_models(b"{}") == []


def test_every_spelling_that_a_lenient_decoder_would_take_is_read() -> None:
    content = (
        b'{"model": "llama3", "MODEL": "a-cloud", "model": "b-cloud", "\\u006dodel": "c-cloud", "Name": "d-cloud"}'
    )
    assert set(named_models(content)) == {"llama3", "a-cloud", "b-cloud", "c-cloud", "d-cloud"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b'"model"',
        b'{"model": 1}',
        b'{"model": null}',
        b'{"model": {"model": "x"}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_unreadable_content_is_refused(content: bytes) -> None:
    with pytest.raises(ModelUnreadableError) as caught:
        named_models(content)
    assert "model" in str(caught.value) or "JSON" in str(caught.value)


@given(st.dictionaries(st.text(max_size=6), st.integers(), max_size=4), st.text(max_size=20))
def test_any_object_with_a_model_names_it(rest: dict[str, int], model: str) -> None:
    rest = {
        key: value for key, value in rest.items() if key.casefold() not in {"model", "name", "source", "destination"}
    }
    assert named_models(json.dumps({**rest, "model": model}).encode()) == [model]


@given(st.binary(max_size=60))
def test_garbage_gives_the_documented_error_only(content: bytes) -> None:
    with contextlib.suppress(ModelUnreadableError):
        named_models(content)


def test_names_are_compared_as_ollama_does() -> None:
    assert canonical("Llama3:latest") == canonical("llama3") == "llama3"
    assert canonical("llama3:8b") != canonical("llama3")


@pytest.mark.parametrize(
    "model", ["gpt-oss:120b-cloud", "kimi-k2:cloud", "GPT-OSS:120B-CLOUD", " x:cloud ", "x-cloud:latest"]
)
def test_cloud_models_are_recognised_by_name(model: str) -> None:
    assert is_cloud_model(model)


def test_cloud_models_are_recognised_by_what_the_engine_lists() -> None:
    assert is_cloud_model("mine:latest", ["mine"])
    assert not is_cloud_model("cloudy:8b", ["mine"])
