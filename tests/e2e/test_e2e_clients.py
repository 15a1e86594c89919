"""The official clients, unmodified, through edge, proxy, tunnel and bridge to the real engine."""

import base64
import contextlib
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest
from tests.support.engines import MODEL, EngineProcess, busy_slots, slots_idle
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]
QUESTION: Any = [{"role": "user", "content": "go"}]


class Clients:
    """Official clients that are closed at the end of a test."""

    def __init__(self, closing: contextlib.ExitStack) -> None:
        self._closing = closing

    def to_openai(self, url: str, key: str = "none") -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)
        self._closing.callback(client.close)
        return client

    def to_ollama(self, url: str, headers: dict[str, str] | None = None) -> ollama.Client:
        client = ollama.Client(host=url, headers=headers or {}, timeout=60)
        self._closing.callback(client._client.close)  # it has no close of its own
        return client

    def openai_of(self, stack: Stack) -> openai.OpenAI:
        return self.to_openai(stack.url, stack.api_key)

    def ollama_of(self, stack: Stack) -> ollama.Client:
        return self.to_ollama(f"{stack.url}/ollama", stack.headers)


PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Makes the official clients, and closes them."""
    with contextlib.ExitStack() as stack:
        yield Clients(stack)


def test_openai_streams_what_the_engine_says(
    clients: Clients, openai_stack: Stack, real_engine: EngineProcess
) -> None:
    direct = clients.to_openai(real_engine.url)
    chunks = {}
    for name, client in {"direct": direct, "through": clients.openai_of(openai_stack)}.items():
        stream = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True, temperature=0)
        chunks[name] = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert len(chunks["direct"]) > 10
    assert chunks["through"] == chunks["direct"]
    assert "".join(filter(None, chunks["through"])).strip() == real_engine.text.strip()


def test_openai_answers_without_streaming(clients: Clients, openai_stack: Stack, real_engine: EngineProcess) -> None:
    answer = clients.openai_of(openai_stack).chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert (answer.choices[0].message.content or "").strip() == real_engine.text.strip()
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 10


def test_openai_lists_models(clients: Clients, openai_stack: Stack) -> None:
    assert [model.id for model in clients.openai_of(openai_stack).models.list()]


def test_openai_completions(clients: Clients, openai_stack: Stack) -> None:
    stream = clients.openai_of(openai_stack).completions.create(model=MODEL, prompt="go", stream=True, temperature=0)
    assert "one two three" in "".join(chunk.choices[0].text for chunk in stream)


def test_the_engines_error_reaches_the_client(clients: Clients, openai_stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        clients.openai_of(openai_stack).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 5000}]
        )
    assert "context" in str(caught.value).lower()


def test_ollama_streams_what_the_engine_says(clients: Clients, ollama_stack: Stack, standin: EngineProcess) -> None:
    chunks = {}
    for name, client in {
        "direct": clients.to_ollama(standin.url),
        "through": clients.ollama_of(ollama_stack),
    }.items():
        answer = client.chat(model=f"{MODEL}:latest", messages=QUESTION, stream=True)
        chunks[name] = [part.message.content for part in answer]
    assert len(chunks["direct"]) > 10
    assert chunks["through"] == chunks["direct"]
    assert "".join(filter(None, chunks["through"])).strip() == standin.text.strip()


def test_ollama_generates_without_streaming(clients: Clients, ollama_stack: Stack, standin: EngineProcess) -> None:
    answer = clients.ollama_of(ollama_stack).generate(model=f"{MODEL}:latest", prompt="go")
    assert (answer.response or "").strip() == standin.text.strip()
    assert answer.done


def test_ollama_lists_shows_and_embeds(clients: Clients, ollama_stack: Stack) -> None:
    client = clients.ollama_of(ollama_stack)
    assert [model.model for model in client.list().models] == [f"{MODEL}:latest"]
    assert client.show(f"{MODEL}:latest").details is not None
    assert len(client.embed(model=f"{MODEL}:latest", input=["a", "b"]).embeddings) == 2


def test_ollama_takes_images_and_tools(clients: Clients, ollama_stack: Stack) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "d",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    answer = clients.ollama_of(ollama_stack).chat(
        model=f"{MODEL}:latest", messages=[{"role": "user", "content": "what", "images": [PIXEL]}], tools=[tool]
    )
    assert answer.message.content


def test_tool_calls_come_through(clients: Clients, paced_stack: Stack) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    answer = clients.ollama_of(paced_stack).chat(
        model="demo:latest", messages=[{"role": "user", "content": "use tool weather"}], tools=[tool]
    )
    assert answer.message.tool_calls
    assert answer.message.tool_calls[0].function.name == "weather"


def test_a_model_that_is_not_there(clients: Clients, ollama_stack: Stack) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        clients.ollama_of(ollama_stack).chat(model="nobody:latest", messages=QUESTION)
    assert caught.value.status_code == 404


def test_curl_streams(openai_stack: Stack) -> None:
    body = json.dumps({"model": MODEL, "messages": QUESTION, "stream": True})
    command = ["curl", "-sN", "--fail", "-H", f"x-api-key: {openai_stack.api_key}", "-H"]
    command += ["content-type: application/json", "-d", body, f"{openai_stack.url}/v1/chat/completions"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_ten_chunks_arrive_as_they_are_sent(clients: Clients, paced_stack: Stack) -> None:
    """Ten chunks 200 ms apart arrive 200 ms apart: nothing on the way gathers them."""
    options = {"demo_tokens_per_second": 5, "demo_tokens": 10}
    answer = clients.ollama_of(paced_stack).chat(model="demo:latest", messages=QUESTION, stream=True, options=options)
    arrived = [time.monotonic() for part in answer if part.message.content]
    gaps = [after - before for before, after in itertools.pairwise(arrived)]
    assert len(arrived) == 10
    assert all(0.1 < gap < 0.4 for gap in gaps), gaps


@pytest.mark.parametrize("how", ["close", "stop"])
def test_a_client_that_leaves_frees_the_engine(how: str, slow_stack: tuple[Stack, EngineProcess]) -> None:
    stack, engine = slow_stack
    with httpx.stream(
        "POST",
        f"{stack.url}/v1/chat/completions",
        json={"model": MODEL, "messages": QUESTION, "stream": True, "max_tokens": 2000},
        headers=stack.headers,
        timeout=30,
    ) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        for _ in range(8):
            next(lines)
        assert busy_slots(engine.url) == 1
        if how == "stop":
            exchange = response.headers["c2l-exchange-id"]
            stopped = httpx.delete(f"{stack.url}/c2l/exchanges/{exchange}", headers=stack.headers)
            assert stopped.status_code == 204
            assert slots_idle(engine.url, within=1.0) is not None
    assert slots_idle(engine.url, within=1.0) is not None
