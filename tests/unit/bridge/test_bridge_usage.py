import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.bridge.usage import HEAD_MAX, TAIL_MAX, Usage

SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"
JSON = b"application/json"


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + (v if isinstance(v, bytes) else json.dumps(v).encode()) + b"\n\n" for v in values)


def total(kind: bytes, content: bytes, cut: int = 0) -> int:
    usage = Usage()
    usage.begin(kind)
    size = cut or max(1, len(content))
    for at in range(0, len(content), size):
        usage.feed(content[at : at + size])
    return usage.total()


TOKENS = [{"model": "m", "message": {"content": f"w{n}"}, "done": False} for n in range(20)]
LAST = {"done": True, "prompt_eval_count": 26, "eval_count": 298, "eval_duration": 5}
CHUNKS = [{"choices": [{"delta": {"content": f"w{n}"}}], "usage": None} for n in range(20)]
OPENAI = {
    "prompt_tokens": 11,
    "completion_tokens": 22,
    "total_tokens": 33,
    "prompt_tokens_details": {"cached_tokens": 4},
}

ANSWERS = {
    "ollama, streamed": (NDJSON, lines(*TOKENS, LAST), 324),
    "ollama, whole": (JSON, json.dumps({"response": "hi", **LAST}).encode(), 324),
    "ollama, with a long context": (JSON, json.dumps({"context": list(range(20_000)), **LAST}).encode(), 324),
    "ollama, prompt from its cache": (NDJSON, lines(*TOKENS, {"done": True, "eval_count": 7}), 7),
    "ollama, embeddings": (JSON, json.dumps({"embeddings": [[0.5] * 9000], "prompt_eval_count": 5}).encode(), 5),
    "ollama, cut short": (NDJSON, lines(*TOKENS), 20),
    "openai, whole": (JSON, json.dumps({"choices": [], "usage": OPENAI, "id": "x"}).encode(), 33),
    "openai, pretty": (JSON, json.dumps({"choices": [], "usage": OPENAI}, indent=2).encode(), 33),
    "openai, no total": (JSON, b'{"usage":{"prompt_tokens":5,"completion_tokens":6}}', 11),
    "openai, embeddings": (JSON, b'{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}', 5),
    "openai, streamed with usage": (SSE, events(*CHUNKS, {"choices": [], "usage": OPENAI}, b"[DONE]"), 33),
    "openai, streamed without": (SSE, events(*CHUNKS, b"[DONE]"), 21),
    "openai, usage in every chunk": (SSE, events({"usage": {"total_tokens": 1}}, {"usage": {"total_tokens": 2}}), 2),
    "openai, cut short": (SSE, events(*CHUNKS), 20),
    "responses": (SSE, events({"response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}), 7),
    "anthropic, whole": (JSON, b'{"content":[],"usage":{"input_tokens":10,"output_tokens":20}}', 30),
    "anthropic, streamed": (
        SSE,
        events(
            {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
            *({"type": "content_block_delta", "delta": {"text": "word " * 20}} for _ in range(300)),
            {"type": "message_delta", "usage": {"output_tokens": 20}},
        ),
        30,
    ),
    "nothing": (JSON, b"{}", 0),
    "empty": (SSE, b"", 0),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "content", "tokens"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("cut", [0, 1, 7, 4096])
def test_what_an_answer_cost(kind: bytes, content: bytes, tokens: int, cut: int) -> None:
    assert total(kind, content, cut) == tokens


@settings(max_examples=100)
@given(st.text(max_size=200), st.integers(1, 64))
def test_nothing_that_a_model_writes_counts(text: str, cut: int) -> None:
    forged = text + '","eval_count":0,"usage":{"total_tokens":0},"prompt_eval_count": 1, {"eval_count":3}'
    assert (
        total(NDJSON, lines({"message": {"content": forged}}, {"message": {"content": forged}, **LAST}), cut) == 324
    )
    # The text may stand behind the usage, too.
    assert total(JSON, json.dumps({"usage": OPENAI, "choices": [{"text": forged}]}).encode(), cut) == 33
    assert total(SSE, events({"choices": [{"delta": {"content": forged}}]}), cut) == 1


def test_numbers_in_another_form_are_none() -> None:
    for number in ("1e9", "-5", "1.5", '"7"', "null", "9" * 13):
        assert total(JSON, b'{"eval_count":%s}' % number.encode()) == 0


def test_it_holds_little_of_a_long_answer() -> None:
    usage = Usage()
    usage.begin(SSE)
    for _ in range(1000):
        usage.feed(b"data: " + b"x" * 3000 + b"\n\n")
    assert len(usage._head) <= HEAD_MAX
    assert len(usage._tail) <= 2 * TAIL_MAX
    assert usage.total() == 1000
