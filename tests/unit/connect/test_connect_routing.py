"""Which home a request goes to."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.connect.routing import (
    MAX_REMEMBERED,
    REMEMBERED_FOR,
    Asked,
    HomeView,
    Stickiness,
    canonical,
    choose,
    read_request,
)


def home(name: str, *models: str, **more: Any) -> HomeView:
    return HomeView(name, models=frozenset(models), **more)


def test_the_home_that_has_the_model() -> None:
    assert choose([home("a", "x"), home("b", "y")], "y") == ["b"]
    assert choose([home("a", "x"), home("b", "x", priority=-1)], "x:latest") == ["b", "a"]


def test_one_whose_models_are_not_known_comes_after_one_that_has_it() -> None:
    unknown = HomeView("u", priority=-5)
    assert choose([unknown, home("a", "x")], "x") == ["a", "u"]
    assert choose([unknown, home("a", "x")], "y") == ["u"]


def test_a_model_that_nobody_has_is_asked_for_so_that_the_engine_says_so() -> None:
    assert choose([home("a", "x"), home("b", "y")], "z") == ["a", "b"]


def test_up_comes_before_everything_that_has_it() -> None:
    down = home("a", "x", up=False, priority=-1, loaded=frozenset({"x"}))
    assert choose([down, home("b", "x")], "x", sticky="a") == ["b", "a"]
    assert choose([down, home("b", "y")], "x") == ["a"]  # the only one that can answer


def test_where_the_conversation_was_counts_more_than_priority() -> None:
    assert choose([home("a", "x", priority=0), home("b", "x", priority=9)], "x", sticky="b") == ["b", "a"]


def test_then_priority_then_loaded_then_load() -> None:
    assert choose([home("a", "x", priority=1, loaded=frozenset({"x"})), home("b", "x")], "x") == ["b", "a"]
    assert choose([home("a", "x"), home("b", "x", loaded=frozenset({"x"}))], "x") == ["b", "a"]
    assert choose([home("a", "x", running=2), home("b", "x", running=1)], "x") == ["b", "a"]


def test_without_a_model_every_home_may_answer() -> None:
    assert choose([home("a", priority=2), home("b", "x")], None) == ["b", "a"]
    assert choose([], "x") == []


@given(
    st.lists(
        st.builds(
            HomeView,
            id=st.sampled_from("abcdef"),
            priority=st.integers(-2, 2),
            up=st.booleans(),
            models=st.none() | st.frozensets(st.sampled_from("xyz")),
            running=st.integers(0, 3),
        ),
        unique_by=lambda view: view.id,
    ),
    st.none() | st.sampled_from("xyzw"),
    st.none() | st.sampled_from("abcdef"),
)
@settings(max_examples=200)
def test_some_home_is_asked_and_a_better_one_first(
    homes: list[HomeView], model: str | None, sticky: str | None
) -> None:
    order = choose(homes, model, sticky)
    by_id = {view.id: view for view in homes}
    assert bool(order) == bool(homes)
    assert len(set(order)) == len(order)
    able = [by_id[each] for each in order]
    if model is not None and any(view.models is None or model in view.models for view in homes):
        assert all(view.models is None or model in view.models for view in able)
    ups = [view.up for view in able]
    assert ups == sorted(ups, reverse=True)
    assert choose(list(reversed(homes)), model, sticky) == order  # of no account how they are listed


def chat(*messages: tuple[str, str], model: str = "m", **more: Any) -> bytes:
    value = {"model": model, "messages": [{"role": role, "content": text} for role, text in messages], **more}
    return json.dumps(value).encode()


def test_all_turns_of_a_conversation_are_one() -> None:
    first = read_request(chat(("system", "s"), ("user", "one")))
    second = read_request(chat(("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two")))
    assert first == second
    assert first.conversation is not None
    assert "one" not in first.conversation


@pytest.mark.parametrize(
    "other",
    [
        chat(("system", "s"), ("user", "another")),
        chat(("system", "another"), ("user", "one")),
        chat(("system", "s"), ("user", "one"), model="other"),
    ],
)
def test_other_conversations_are_others(other: bytes) -> None:
    assert read_request(other).conversation != read_request(chat(("system", "s"), ("user", "one"))).conversation


@pytest.mark.parametrize(
    ("content", "model"),
    [
        (b'{"model":"a","prompt":"p"}', "a"),
        (b'{"name":"a"}', "a"),
        (b'{"source":"a","destination":"b"}', "a"),
        (b'{"model":"a","input":"text"}', "a"),
        (b'{"model":"a","input":[{"role":"user","content":"x"}],"instructions":"i"}', "a"),
        (b'{"model":5}', None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_models_are_read_out_of_every_api(content: bytes, model: str | None) -> None:
    assert read_request(content).model == model


def test_what_has_no_beginning_sticks_nowhere() -> None:
    assert read_request(b'{"model":"a"}') == Asked("a", None)
    assert read_request(b'{"model":"a","messages":[]}') == Asked("a", None)


def test_stickiness_is_bounded_and_ends() -> None:
    known = Stickiness()
    known.note(None, "a", 0)
    assert len(known) == 0
    for number in range(MAX_REMEMBERED + 5):
        known.note(str(number), "a", 0.0)
    assert len(known) == MAX_REMEMBERED
    assert known.home("0", 1.0) is None
    assert known.home(str(MAX_REMEMBERED), 1.0) == "a"
    assert known.home(str(MAX_REMEMBERED), REMEMBERED_FOR + 1) is None


def test_names_are_compared_as_ollama_does() -> None:
    assert canonical(" Llama3:Latest ") == "llama3"
    assert canonical("llama3:8b") == "llama3:8b"
