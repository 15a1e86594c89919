"""Reading an engine's streamed answer: the same in any chunking, and garbage gives an error's text only."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.bridge.runs import answer
from cloudtolocalllm.bridge.runs.answer import AnswerReader, error_text
from cloudtolocalllm.bridge.store.runs import TextKind

MEMBERS = ["choices", "delta", "content", "tool_calls", "function", "index", "error", "message", "usage",
           "prompt_tokens", "arguments"]  # fmt: skip


def event(delta: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta, **more}]}).encode() + b"\n\n"


ANSWER = b"".join(
    [
        b": comment\n\n",
        event({"role": "assistant", "content": ""}),
        event({"reasoning": "hm\ud83d"}),
        event({"reasoning": "\ude00"}),
        event({"content": "Hel"}),
        event({"content": "lo \ud83d"}),
        event({"content": "\udc4b\n\nworld \ud83d"}),
        event({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
        event({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x'}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": '":1}'}}]}),
        event({}, finish_reason="tool_calls"),
        b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\r\n\r\n',
        b"data: [DONE]\n\n",
    ]
)


def whole(reader: AnswerReader, parts: list[bytes]) -> list[tuple[TextKind, str]]:
    texts = [text for part in parts for text in reader.feed(part)] + reader.end()
    joined: list[tuple[TextKind, str]] = []
    for text in texts:
        if joined and joined[-1][0] is text.kind is not TextKind.TOOL_CALL:
            joined[-1] = (text.kind, joined[-1][1] + text.text)
        else:
            joined.append((text.kind, text.text))
    return joined


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(ANSWER)), max_size=30).map(sorted))
def test_any_chunking_gives_the_same(cuts: list[int]) -> None:
    reader = AnswerReader()
    parts = [ANSWER[a:b] for a, b in zip([0, *cuts], [*cuts, len(ANSWER)], strict=True)]
    assert whole(reader, parts) == [
        (TextKind.THINKING, "hm\U0001f600"),
        (TextKind.CONTENT, "Hello \U0001f44b\n\nworld \ufffd"),
        (TextKind.TOOL_CALL, '{"id": "a", "name": "f", "arguments": "{\\"x\\":1}"}\n'),
        (TextKind.TOOL_CALL, '{"id": "b", "name": "g", "arguments": "{}"}\n'),
    ]
    assert (reader.complete, reader.error) == (True, "")
    assert (reader.prompt_tokens, reader.answer_tokens) == (7, 9)


def test_an_answer_that_does_not_say_that_it_is_all_is_not() -> None:
    for cut in range(ANSWER.index(b'"finish_reason"')):
        reader = AnswerReader()
        reader.feed(ANSWER[:cut])
        reader.end()
        assert not reader.complete


@settings(max_examples=200, deadline=None)
@given(st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner), max_leaves=10)
    .map(lambda value: b"data: " + json.dumps(value).encode() + b"\n"),
))  # fmt: skip
def test_garbage_is_never_an_exception(data: bytes) -> None:
    reader = AnswerReader()
    for text in reader.feed(data) + reader.end():
        text.text.encode()


@pytest.mark.parametrize(
    "data", [b"data: {", b"data: [1]\n", b'data: {"error":{"message":"no"}}\n', b"data: " + b"[" * 9999]
)
def test_after_an_error_nothing_is_read(data: bytes) -> None:
    reader = AnswerReader()
    before = reader.feed(event({"content": "a"}) + data + b"\n" + event({"content": "b"}))
    assert [text.text for text in before] == ["a"]
    assert reader.error
    assert reader.feed(ANSWER) == reader.end() == []
    assert not reader.complete


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, data in (
        ("MAX_LINE", 100, b"data: " + b"x" * 200),
        ("MAX_CALLS", 3, event({"tool_calls": [{"index": n} for n in range(9)]})),
        ("MAX_CALL", 10, event({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 11}}]})),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(answer, name, value)
            reader = AnswerReader()
            reader.feed(data)
            assert "too" in reader.error


def test_an_engines_words_are_cut() -> None:
    assert error_text({"error": "x" * 10_000}) == "x" * answer.MAX_DETAIL
    assert error_text({"error": {"message": "\ud800"}}) == "?"
    assert error_text({"error": None}) == "The engine reports an error without a text."
