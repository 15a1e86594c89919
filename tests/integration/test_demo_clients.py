"""The official clients of Ollama and OpenAI, unmodified, against the demo engine."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import ollama
import openai
import pytest
from openai.types.chat import ChatCompletionToolParam
from tests.support.engines import EngineProcess, demo_engine, demo_stats

FAST = {"demo_tokens_per_second": 0}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with demo_engine(tokens_per_second=0, load_seconds=0, prefill_seconds=0) as process:
        yield process


@pytest.fixture
def native(engine: EngineProcess) -> Iterator[ollama.Client]:
    with ollama.Client(host=engine.url) as client:
        yield client


@pytest.fixture
def foreign(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=engine.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def hello() -> list[dict[str, str]]:
    return [{"role": "user", "content": "Hello there"}]


def test_ollama_chat_streamed_and_whole_agree(native: ollama.Client) -> None:
    parts = list(native.chat(model="demo", messages=hello(), stream=True))
    whole = native.chat(model="demo", messages=hello())
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert len(parts) > 100
    assert parts[-1].done
    assert parts[-1].eval_count == len(parts) - 1


def test_ollama_generate_embed_list_show_ps(native: ollama.Client) -> None:
    assert "scripted demo engine" in str(native.generate(model="demo", prompt="hi").response)
    assert len(native.embed(model="demo", input=["a", "b"]).embeddings) == 2
    assert [model.model for model in native.list().models] == ["demo:latest"]
    assert native.show("demo").details is not None
    assert [model.model for model in native.ps().models] == ["demo:latest"]


def test_ollama_tools_thinking_and_images(native: ollama.Client) -> None:
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    asked = [{"role": "user", "content": "use tool weather"}]
    (call,) = native.chat(model="demo", messages=asked, tools=[weather]).message.tool_calls or []
    assert (call.function.name, dict(call.function.arguments)) == ("weather", {"city": "demo"})
    assert native.chat(model="demo", messages=hello(), think=True).message.thinking
    seen = [{"role": "user", "content": "look", "images": [b"not really a picture"]}]
    assert "1 image" in str(native.chat(model="demo", messages=seen).message.content)


def test_ollama_pull_and_delete(native: ollama.Client) -> None:
    states = [progress.status for progress in native.pull("demo:copy", stream=True)]
    assert states[0] == "pulling manifest"
    assert states[-1] == "success"
    assert native.delete("demo:copy").status == "success"


def test_ollama_errors(native: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'missing' not found") as caught:
        native.chat(model="missing", messages=hello())
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="scripted fault"):
        list(native.chat(model="demo", messages=hello(), stream=True, options={"demo_fail_after_tokens": 2}))


def test_openai_chat_streamed_and_whole_agree(foreign: openai.OpenAI) -> None:
    ask = foreign.chat.completions
    stream = ask.create(
        model="demo",
        messages=[{"role": "user", "content": "Hello there"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    whole = ask.create(model="demo", messages=[{"role": "user", "content": "Hello there"}])
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[0].choices[0].delta.role == "assistant"


def test_openai_tools(foreign: openai.OpenAI) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool: ChatCompletionToolParam = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    answer = foreign.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "use tool weather"}], tools=[tool]
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "demo"}


def test_openai_completions_embeddings_models(foreign: openai.OpenAI) -> None:
    assert "scripted" in foreign.completions.create(model="demo", prompt="hi").choices[0].text
    packed = foreign.embeddings.create(model="demo", input="a").data[0].embedding  # the client asks for base64
    plain = foreign.embeddings.create(model="demo", input="a", encoding_format="float").data[0].embedding
    assert packed == pytest.approx(plain, abs=1e-6)
    assert [model.id for model in foreign.models.list()] == ["demo:latest"]


def test_openai_responses(foreign: openai.OpenAI) -> None:
    whole = foreign.responses.create(model="demo", input="Hello there")
    with foreign.responses.create(model="demo", input="Hello there", stream=True) as stream:
        events = list(stream)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.completed"


def test_openai_errors(foreign: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'missing' not found"):
        foreign.chat.completions.create(model="missing", messages=[{"role": "user", "content": "x"}])


def test_tokens_come_at_their_pace(native: ollama.Client) -> None:
    options = {"demo_tokens_per_second": 50, "demo_tokens": 20}
    began = time.monotonic()
    times = [time.monotonic() for _ in native.chat(model="demo", messages=hello(), stream=True, options=options)]
    assert len(times) == 21
    assert times[-1] - began > 0.3  # 20 tokens of 20 ms; sent at once, they would take a few


def test_a_closed_connection_stops_the_answer(engine: EngineProcess) -> None:
    before = demo_stats(engine.url)
    content = json.dumps({"model": "demo", "prompt": "x", "options": {"demo_tokens": 10**7}}).encode()
    with socket.create_connection(("127.0.0.1", int(engine.url.rpartition(":")[2]))) as client:
        head = f"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        assert client.recv(1000)
        assert demo_stats(engine.url)["running"] == 1
    deadline = time.monotonic() + 5
    while demo_stats(engine.url)["running"]:
        assert time.monotonic() < deadline
    after = demo_stats(engine.url)
    assert after["cancelled"] == before["cancelled"] + 1
    time.sleep(0.05)
    assert demo_stats(engine.url)["tokens"] == after["tokens"]


def test_a_reader_that_stalls_holds_the_answer_up(engine: EngineProcess) -> None:
    content = json.dumps({"model": "demo", "prompt": "x", "options": {"demo_tokens": 10**7}}).encode()
    with socket.create_connection(("127.0.0.1", int(engine.url.rpartition(":")[2]))) as client:
        head = f"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        before = -1
        deadline = time.monotonic() + 20
        while (now := demo_stats(engine.url)["tokens"]) != before:  # until every buffer on the way is full
            assert time.monotonic() < deadline
            before = now
            time.sleep(0.2)
        assert now < 10**6


def test_head_of_the_root_has_no_content(engine: EngineProcess) -> None:
    request = urllib.request.Request(engine.url + "/", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as response:
        assert (response.status, response.read()) == (200, b"")


def test_a_foreign_page_is_refused(engine: EngineProcess) -> None:
    request = urllib.request.Request(engine.url + "/api/tags", headers={"origin": "https://example.com"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert caught.value.code == 403
    caught.value.close()
