from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.demo.request import Generate, Tool
from cloudtolocalllm.demo.script import EMBEDDING_SIZE, count_tokens, embedding, lengthened, split, write
from cloudtolocalllm.demo.settings import Pace


def request(prompt: str, **members: object) -> Generate:
    return Generate(model="demo", prompt=prompt, pace=Pace(), **members)  # type: ignore[arg-type] # keyword arguments of several types


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(split(text)) == text


@given(st.text(max_size=200))
def test_the_same_prompt_gives_the_same_answer(prompt: str) -> None:
    assert write(request(prompt)) == write(request(prompt))


def test_the_answer_says_that_it_is_scripted_and_how_to_get_a_real_one() -> None:
    text = "".join(write(request("Why is the sky blue?")).tokens)
    assert "scripted demo engine**, not a language model" in text
    assert "> Why is the sky blue?" in text
    assert "ollama pull llama3.2" in text


def test_the_answer_shows_off_markdown() -> None:
    text = "".join(write(request("hi")).tokens)
    for mark in ("# ", "## ", "\n1. ", "|---|", "```python", "```sh", "**"):
        assert mark in text


def test_a_long_prompt_is_not_echoed_whole_and_cannot_leave_its_quotation() -> None:
    text = "".join(write(request("line\n# heading\n" * 100)).tokens)
    assert "\n# heading" not in text
    assert len(text) < 3000


def test_a_named_tool_is_called_with_its_required_parameters() -> None:
    tools = (Tool("get_weather", (("city", "string"), ("days", "integer"))),)
    script = write(request("Please use tool get_weather for Berlin", tools=tools))
    (call,) = script.tool_calls
    assert (call.name, call.arguments) == ("get_weather", {"city": "demo", "days": 1})
    assert script.tokens == ()


def test_a_tool_is_not_called_unless_asked_for_or_again_after_it_answered() -> None:
    tools = (Tool("get_weather", ()),)
    assert not write(request("get_weather?", tools=tools)).tool_calls
    assert not write(request("use the tool get_weather", tools=tools, after_tool=True)).tool_calls


def test_thinking_comes_only_when_asked_for() -> None:
    assert write(request("hi")).thinking == ()
    assert write(request("hi", think=True)).thinking


@given(st.integers(1, 500))
def test_lengthened_gives_exactly_so_many(count: int) -> None:
    assert len(list(lengthened(("a", "b", "c"), count))) == count


def test_lengthened_by_zero_is_the_script_itself() -> None:
    assert list(lengthened(("a", "b"), 0)) == ["a", "b"]


def test_embeddings_have_length_one_and_differ() -> None:
    one, other = embedding("one"), embedding("other")
    assert len(one) == EMBEDDING_SIZE
    assert abs(sum(value * value for value in one) - 1) < 1e-9
    assert one == embedding("one") != other


def test_token_count_of_nothing_is_zero() -> None:
    assert count_tokens("") == 0
