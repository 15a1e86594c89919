"""The tests' own real parts do what the tests rely on."""

import json
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse

import ollama
import openai
import pytest
from tests.support.engines import (
    EngineProcess,
    busy_slots,
    demo_stats,
    llama_server,
    ollama_standin,
    slots_idle,
)
from tests.support.gguf_model import SLOW, TEXT

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def real() -> Iterator[EngineProcess]:
    with llama_server() as engine:
        yield engine


@pytest.fixture(scope="module")
def slow() -> Iterator[EngineProcess]:
    with llama_server(SLOW) as engine:
        yield engine


def test_the_real_engine_says_its_text(real: EngineProcess) -> None:
    with openai.OpenAI(base_url=real.url + "/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True, temperature=0
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == real.text == " " + TEXT
        assert len(client.embeddings.create(model="tiny", input="hi").data[0].embedding) == 256


def test_the_standin_speaks_ollamas_api_with_the_real_engines_tokens(real: EngineProcess) -> None:
    with ollama_standin(real, load_seconds=0, prefill_seconds=0) as standin:
        with ollama.Client(host=standin.url) as client:
            assert client.generate(model="tiny", prompt="hi").response == real.text
            parts = list(client.chat(model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True))
        assert "".join(part.message.content or "" for part in parts) == real.text


@pytest.mark.timeout(120)
def test_closing_a_stream_frees_the_slot_of_the_real_engine(slow: EngineProcess) -> None:
    content = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    with _post(slow.url + "/v1/chat/completions", content) as response:
        assert response.readline()
        assert busy_slots(slow.url) == 1
    assert slots_idle(slow.url, within=5) is not None


@pytest.mark.timeout(120)
def test_closing_a_stream_of_the_standin_frees_the_slot_behind_it(slow: EngineProcess) -> None:
    with ollama_standin(slow, load_seconds=0, prefill_seconds=0) as standin:
        with _post(standin.url + "/api/generate", b'{"model":"tiny","prompt":"hi"}') as response:
            assert response.readline()
            assert busy_slots(slow.url) == 1
        assert slots_idle(slow.url, within=5) is not None
        assert demo_stats(standin.url)["cancelled"] == 1


def _post(url: str, content: bytes) -> HTTPResponse:
    request = urllib.request.Request(url, data=content, headers={"content-type": "application/json"})
    response: HTTPResponse = urllib.request.urlopen(request, timeout=10)
    return response
