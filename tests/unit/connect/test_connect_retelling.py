"""An answer that is asked for once more: the client ends up with exactly one, or sees that it broke off."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.connect import again as again_module
from cloudtolocalllm.connect.again import MAX_TIMES, Again, Repeats, Room
from cloudtolocalllm.connect.events import Dialect, UnreadableError
from cloudtolocalllm.connect.repeatable import Repeatable
from cloudtolocalllm.connect.retelling import DivergedError, Retelling, read_said

Event = dict[str, Any]


def chat_event(name: str, **choice: Any) -> Event:
    return {"id": f"chatcmpl-{name}", "created": len(name), "choices": [{"index": 0, **choice}]}


def tell(dialect: Dialect, name: str, pieces: list[tuple[str, str]], *, finish: str = "stop") -> list[bytes]:
    """Return the events of an answer as an engine sends them.

    Args:
        dialect: The route.
        name: What this answer's ids are made of.
        pieces: Kind ("thinking" or "content") and text.
        finish: Why it ends.
    """
    events: list[Event]
    if dialect is Dialect.CHAT:
        members = {"thinking": "reasoning_content", "content": "content"}
        events = [chat_event(name, delta={"role": "assistant", "content": None}, finish_reason=None)]
        events += [chat_event(name, delta={members[kind]: text}, finish_reason=None) for kind, text in pieces]
        events += [chat_event(name, delta={}, finish_reason=finish)]
        events += [{"id": f"chatcmpl-{name}", "created": 1, "choices": [], "usage": {"total_tokens": 5}}]
    elif dialect is Dialect.COMPLETION:
        events = [chat_event(name, text=text, finish_reason=None) for _, text in pieces]
        events += [chat_event(name, text="", finish_reason=finish)]
    elif dialect is Dialect.OLLAMA_CHAT:
        events = [{"created_at": name, "message": {"role": "assistant", "content": "", kind: text}, "done": False}
                  for kind, text in pieces]  # fmt: skip
        events += [{"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": finish}]
    else:
        names = {"thinking": "thinking", "content": "response"}
        events = [{"created_at": name, "response": "", names[kind]: text, "done": False} for kind, text in pieces]
        events += [{"response": "", "done": True, "done_reason": finish, "context": [1, 2]}]
    if not dialect.is_sse:
        return [json.dumps(event).encode() + b"\n" for event in events]
    return [*(b"data: " + as_engines_do(event) + b"\n\n" for event in events), b"data: [DONE]\n\n"]


def as_engines_do(event: Event) -> bytes:
    try:
        return json.dumps(event, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a pair
        return json.dumps(event).encode()


def joined(text: str) -> str:
    """Join the halves of pairs."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def heard(dialect: Dialect, data: bytes) -> dict[str, Any]:
    """Return what a client makes of an answer."""
    texts = {"thinking": "", "content": ""}
    ids, opened, finishes, ends = set(), 0, [], 0
    for line in data.split(b"\n"):
        text = line.removeprefix(b"data: ").strip()
        if not text:
            continue
        if text == b"[DONE]":
            ends += 1
            continue
        event = json.loads(text)
        ids.add(event.get("id"))
        if dialect.is_sse:
            for choice in event["choices"]:
                delta = choice.get("delta", choice)
                opened += "role" in delta
                texts["thinking"] += delta.get("reasoning_content") or ""
                texts["content"] += delta.get("content") or delta.get("text") or ""
                finishes += [choice["finish_reason"]] if choice["finish_reason"] else []
        else:
            place = event.get("message", event)
            texts["thinking"] += place.get("thinking") or ""
            texts["content"] += place.get("content") or place.get("response") or ""
            if event["done"]:
                ends += 1
                finishes.append(event["done_reason"])
    texts = {kind: joined(text) for kind, text in texts.items()}
    return {"texts": texts, "ids": ids, "opened": opened, "finishes": finishes, "ends": ends}


def go_on(dialect: Dialect, kept: bytes, second: bytes, cuts: list[int] | None = None) -> bytes:
    """Return what a client gets of a second answer, in pieces that end at `cuts`."""
    retelling = Retelling(dialect, read_said(dialect, kept))
    places = sorted({0, len(second), *(cut % (len(second) + 1) for cut in cuts or ())})
    pieces = [second[a:b] for a, b in itertools.pairwise(places)]
    return b"".join([retelling.feed(piece) for piece in pieces]) + retelling.end()


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), max_size=8)
DIALECTS = st.sampled_from(list(Dialect))


def pieces_of(text: str, sizes: list[int], kind: str) -> list[tuple[str, str]]:
    """Cut a text into pieces of these sizes, in 16-bit units: JSON's escapes may tear pairs apart."""
    units, found = text.encode("utf-16-le"), []
    for size in [*sizes, len(units)]:
        if units:
            found.append((kind, units[: 2 * size].decode("utf-16-le", "surrogatepass")))
            units = units[2 * size :]
    return found


@settings(max_examples=150, deadline=None)
@given(DIALECTS, TEXTS, TEXTS, st.lists(st.integers(1, 5)), st.lists(st.integers(0, 4000)), st.data())
def test_any_break_and_any_pieces_give_the_client_one_answer(
    dialect: Dialect, thoughts: list[str], words: list[str], sizes: list[int], cuts: list[int], data: st.DataObject
) -> None:
    thinking = "" if dialect is Dialect.COMPLETION else "".join(thoughts)
    content = "".join(words)
    first = tell(dialect, "first", pieces_of(thinking, sizes, "thinking") + pieces_of(content, sizes[1:], "content"))
    other = data.draw(st.lists(st.integers(1, 5)))
    again = tell(dialect, "second", pieces_of(thinking, other, "thinking") + pieces_of(content, other, "content"))
    kept = b"".join(first[: data.draw(st.integers(0, len(first)))])
    if read_said(dialect, kept).complete:
        assert kept == b"".join(first)
        return
    got = heard(dialect, kept + go_on(dialect, kept, b"".join(again), cuts))
    whole = heard(dialect, b"".join(first))
    assert got["texts"] == {"thinking": thinking, "content": content}
    assert got["finishes"] == ["stop"]
    assert got["ends"] == 1
    assert got["opened"] == whole["opened"]
    if dialect.is_sse and kept:
        assert got["ids"] == {"chatcmpl-first"}


@settings(max_examples=80, deadline=None)
@given(DIALECTS, st.text("ab", min_size=1, max_size=8), st.text("ab", max_size=8), st.integers(0, 20))
def test_another_answer_is_never_joined_to_the_first(dialect: Dialect, one: str, other: str, count: int) -> None:
    first = tell(dialect, "first", [("content", letter) for letter in one])
    kept = b"".join(first[:count])
    had = heard(dialect, kept)
    if had["ends"]:
        return
    second = b"".join(tell(dialect, "second", [("content", letter) for letter in other]))
    if other.startswith(had["texts"]["content"]) and not (had["finishes"] and other != one):
        assert heard(dialect, kept + go_on(dialect, kept, second))["texts"]["content"] == other
    else:
        with pytest.raises(DivergedError):
            go_on(dialect, kept, second)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_second_break_is_followed_too(dialect: Dialect) -> None:
    pieces = [("content", f"word {n} ") for n in range(30)]
    kept = b"".join(tell(dialect, "first", pieces)[:7])
    for name, count in (("second", 12), ("third", 20), ("fourth", 99)):
        told = tell(dialect, name, pieces)
        retelling = Retelling(dialect, read_said(dialect, kept))
        kept += retelling.feed(b"".join(told[:count]))
    got = heard(dialect, kept)
    assert got["texts"]["content"] == "".join(text for _, text in pieces)
    assert (got["ends"], got["finishes"]) == (1, ["stop"])


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_answer_that_ends_without_saying_so_is_not_passed_on_as_whole(dialect: Dialect) -> None:
    told = tell(dialect, "first", [("content", "a"), ("content", "b"), ("content", "c")])
    with pytest.raises(DivergedError):
        go_on(dialect, b"".join(told[:2]), b"".join(told[:3]))


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.OLLAMA_CHAT])
def test_it_may_not_end_for_another_reason(dialect: Dialect) -> None:
    first, second = (tell(dialect, "x", [("content", "a")], finish=why) for why in ("stop", "length"))
    kept = b"".join(first[:-2] if dialect is Dialect.CHAT else first[:-1])
    if dialect is Dialect.CHAT:  # the reason came, the end did not
        with pytest.raises(DivergedError):
            go_on(dialect, kept, b"".join(second))
    else:
        assert heard(dialect, kept + go_on(dialect, kept, b"".join(second)))["finishes"] == ["length"]


def sse(*events: Event) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def called(name: str, id_: str, *arguments: str) -> bytes:
    begun = {"index": 0, "id": id_, "type": "function", "function": {"name": "look", "arguments": ""}}
    deltas = [begun, *({"index": 0, "function": {"arguments": text}} for text in arguments)]
    events = [chat_event(name, delta={"tool_calls": [delta]}, finish_reason=None) for delta in deltas]
    return sse(*events, chat_event(name, delta={}, finish_reason="tool_calls"))


def test_a_call_of_a_tool_is_told_once_with_the_id_it_had() -> None:
    first, second = called("a", "call_1", '{"at"', ":1}"), called("b", "call_2", '{"a', 't":', "1}")
    for cut in range(4):
        kept = b"\n\n".join(first.split(b"\n\n")[:cut]) + (b"\n\n" if cut else b"")
        got = kept + go_on(Dialect.CHAT, kept, second)
        events = [json.loads(line[6:]) for line in got.split(b"\n") if line.startswith(b"data: {")]
        calls = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls", ())]
        assert "".join(call["function"].get("arguments", "") for call in calls) == '{"at":1}'
        assert [call["id"] for call in calls if "id" in call] == ["call_1" if kept else "call_2"]
        assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["look"]


def test_a_call_with_other_arguments_is_another_answer() -> None:
    kept = b"\n\n".join(called("a", "call_1", '{"at"', ":1}").split(b"\n\n")[:3]) + b"\n\n"
    with pytest.raises(DivergedError):
        go_on(Dialect.CHAT, kept, called("b", "call_2", '{"at"', ":2}"))


def test_ollamas_calls_are_told_once() -> None:
    def call(id_: str, at: int) -> Event:
        function = {"name": "look", "arguments": {"at": at}}
        return {"message": {"role": "assistant", "content": "", "tool_calls": [{"id": id_, "function": function}]},
                "done": False}  # fmt: skip

    def told(name: str) -> list[bytes]:
        end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
        return [json.dumps(event).encode() + b"\n" for event in (call(name, 1), call(name, 2), end)]

    kept = told("a")[0]
    got = kept + go_on(Dialect.OLLAMA_CHAT, kept, b"".join(told("b")))
    lines = [json.loads(line) for line in got.splitlines()]
    assert [c["function"]["arguments"]["at"] for e in lines for c in e["message"].get("tool_calls", ())] == [1, 2]
    assert [event["done"] for event in lines] == [False, False, True]


def test_an_event_with_something_for_each_token_is_not_cut() -> None:
    def event(text: str) -> Event:
        tokens = {"content": [{"token": text, "logprob": -0.1}]}
        return chat_event("x", delta={"content": text}, logprobs=tokens, finish_reason=None)

    end = chat_event("x", delta={}, finish_reason="stop")
    kept = sse(event("a"), event("b")).removesuffix(b"data: [DONE]\n\n")
    assert b'"c"' in go_on(Dialect.CHAT, kept, sse(event("a"), event("b"), event("c"), end))
    with pytest.raises(DivergedError):
        go_on(Dialect.CHAT, kept, sse(event("a"), event("bc"), end))


def test_a_break_inside_an_event_that_had_its_line_is_closed() -> None:
    told = tell(Dialect.CHAT, "x", [("content", "a"), ("content", "b")])
    kept = b"".join(told[:2])[:-1]
    got = kept + go_on(Dialect.CHAT, kept, b"".join(told))
    assert got.startswith(b"".join(told[:2]))
    assert heard(Dialect.CHAT, got)["texts"]["content"] == "ab"


@pytest.mark.parametrize(
    ("dialect", "kept"),
    [
        (Dialect.CHAT, b'data: {"error": {"message": "no"}}\n\n'),
        (Dialect.CHAT, b"event: other\n"),
        (Dialect.CHAT, b"data: {\n"),
        (Dialect.CHAT, b"data: 5\n"),
        (Dialect.CHAT, b"data: " + b"[" * 100_000 + b"\n"),
        (Dialect.CHAT, sse({"choices": [{"index": 0, "delta": {"audio": {"data": "x"}}}]})),
        (Dialect.CHAT, sse({"choices": [{"index": 0, "delta": {"content": ["x"]}}]})),
        (Dialect.CHAT, sse({"choices": [{"index": 1, "delta": {"content": "x"}}]})),
        (Dialect.CHAT, sse({"choices": [{"index": 0}, {"index": 1}]})),
        (Dialect.OLLAMA_CHAT, b'{"error": "no"}\n'),
        (Dialect.OLLAMA_CHAT, b'{"message": {"images": ["x"]}}\n'),
        (Dialect.OLLAMA_GENERATE, b'{"image": "x"}\n'),
    ],
)
def test_what_cannot_be_followed(dialect: Dialect, kept: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_said(dialect, kept)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_engines_failure(dialect: Dialect) -> None:
    """It is the client's to read once the answer goes on, and no answer before."""
    told = tell(dialect, "x", [("content", "a"), ("content", "b"), ("content", "c")])
    failure = b'data: {"error": "out of memory"}\n\n' if dialect.is_sse else b'{"error": "out of memory"}\n'
    kept = b"".join(told[:2])
    with pytest.raises(DivergedError):
        go_on(dialect, kept, b"".join(told[:1]) + failure)
    assert go_on(dialect, kept, b"".join(told[:4]) + failure).endswith(failure)


@settings(max_examples=60, deadline=None)
@given(DIALECTS, st.binary(max_size=60), st.integers(0, 8))
def test_garbage_gives_documented_errors_only(dialect: Dialect, garbage: bytes, count: int) -> None:
    kept = b"".join(tell(dialect, "x", [("content", "abc")])[:count])
    said = read_said(dialect, kept)
    if not said.complete:
        retelling = Retelling(dialect, said)
        try:
            retelling.feed(garbage)
            retelling.end()
        except DivergedError:
            pass


def test_a_line_without_an_end_is_bounded() -> None:
    retelling = Retelling(Dialect.CHAT, read_said(Dialect.CHAT, b""))
    with pytest.raises(DivergedError):
        retelling.feed(b"x" * (2 * 1024 * 1024))


# --- what is remembered ---

HEAD = ((b"content-type", b"text/event-stream; charset=utf-8"),)


def remembering(room: Room | None = None) -> Again:
    again = Again(Repeatable(Dialect.CHAT, b"{}"), room or Room(), 600.0)
    again.headed(200, HEAD, 0.0)
    return again


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\r", b"\n")), max_size=12))
def test_undisturbed_an_answer_passes_byte_for_byte_in_whole_lines(pieces: list[bytes]) -> None:
    again = remembering()
    passed = [again.take(piece) for piece in pieces]
    assert all(data[-1:] in (b"", b"\n") for data in passed)
    assert b"".join(passed) + again.end() == b"".join(pieces)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again_module, "MAX_KEPT", 1000)
    room = Room(limit=1500)
    one, other, third = remembering(room), remembering(room), remembering(room)
    assert one.take(b"x" * 899 + b"\n") + one.take(b"y\nz") == b"x" * 899 + b"\ny\n"
    assert other.take(b"x" * 499 + b"\nrest") == b"x" * 499 + b"\n"
    assert third.take(b"x" * 199 + b"\nrest") == b"x" * 199 + b"\nrest"  # no room
    assert not third.possible(0.0)
    assert (one.possible(0.0), room.held) == (True, 1402)
    assert one.take(b"x" * 200 + b"\n!") == b"z" + b"x" * 200 + b"\n!"  # too long for one
    assert not one.possible(0.0)
    other.forget()
    other.forget()
    assert room.held == 0


def test_a_line_that_does_not_end_passes_as_it_comes() -> None:
    again = remembering()
    assert again.take(b"x" * 2_000_000) == b"x" * 2_000_000
    assert again.take(b"y") == b"y"
    assert not again.possible(0.0)


def test_the_number_of_times_and_the_age_are_bounded() -> None:
    again = remembering()
    assert again.possible(600.0)
    assert not again.possible(601.0)
    for _ in range(MAX_TIMES):
        assert again.possible(0.0)
        again.anew(read_said(Dialect.CHAT, b""))
    assert not again.possible(0.0)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (500, HEAD),
        (200, ()),
        (200, ((b"content-type", b"application/json"),)),
        (200, (*HEAD, (b"content-encoding", b"br"))),
    ],
)
def test_only_a_stream_of_events_is_remembered(status: int, fields: tuple[tuple[bytes, bytes], ...]) -> None:
    again = remembering()
    assert again.fits(200, HEAD)
    assert not again.fits(status, fields)
    assert again.possible(0.0)
    again.headed(status, fields, 0.0)
    assert not again.possible(0.0)
    assert again.take(b"half a line") == b"half a line"


def test_an_event_that_was_held_back_is_not_told_twice() -> None:
    told = b"".join(tell(Dialect.CHAT, "x", [("content", "abc"), ("content", "def")]))
    for cut in range(len(told)):
        again = remembering()
        got = again.take(told[:cut])
        said = again.said()
        assert said is not None
        if not said.complete:
            again.anew(said)
            got += again.take(told) + again.end()
        assert heard(Dialect.CHAT, got)["texts"]["content"] == "abcdef"


# --- which requests ---


def asked(target: str, content: str, draw: Callable[[], int] | None = lambda: 7) -> tuple[bool, str]:
    again, said = Repeats(600.0, draw).find(target, content.encode())
    return again is not None, said.decode()


OPENAI, OLLAMA = "/v1/chat/completions", "/ollama/api/chat?x=1"


@pytest.mark.parametrize(
    ("target", "content", "expected"),
    [
        (OPENAI, '{"model":"m","stream":true}\n', '{"model":"m","stream":true,"seed":7}\n'),
        (OPENAI, '{"stream":true,"temperature":0.7}', '{"stream":true,"temperature":0.7,"seed":7}'),
        (OPENAI, '{"stream":true,"temperature":0}', None),
        (OPENAI, '{"stream":true,"seed":0}', None),
        (OPENAI, '{"stream":true,"n":1,"seed":5}', None),
        (OLLAMA, '{"model":"m"}', '{"model":"m","options":{"seed":7}}'),
        (OLLAMA, '{"model":"m","stream":null}', '{"model":"m","stream":null,"options":{"seed":7}}'),
        (OLLAMA, '{"a":["options",{"options":1}], "options" : {"top_k":1e400},"b":1}',
         '{"a":["options",{"options":1}], "options" : {"seed":7,"top_k":1e400},"b":1}'),
        (OLLAMA, '{"options":{"temperature":0.0}}', None),
        (OLLAMA, '{"options":{"seed":3}}', None),
        (OLLAMA, '{"stream":true,"temperature":0,"ü":"\\ud800"}',
         '{"stream":true,"temperature":0,"ü":"\\ud800","options":{"seed":7}}'),
    ],
)  # fmt: skip
def test_what_may_be_asked_once_more(target: str, content: str, expected: str | None) -> None:
    assert asked(target, content) == (True, expected or content)
    assert asked(target, content, None) == (expected is None, content)  # nobody draws


@pytest.mark.parametrize(
    ("target", "content"),
    [
        (OPENAI, ""),
        (OPENAI, "{}"),
        (OPENAI, "[1]"),
        (OPENAI, "[" * 100_000),
        (OPENAI, '{"model":"m"}'),  # not streamed
        (OPENAI, '{"stream":true,"n":2,"seed":1}'),
        (OPENAI, '{"stream":true,"best_of":2,"seed":1}'),
        (OPENAI, '{"stream":true,"seed":-1}'),  # chance, by name
        (OPENAI, '{"stream":true,"seed":4294967295}'),
        (OPENAI, '{"stream":true,"seed":null}'),
        (OPENAI, '{"stream":true,"seed":"x"}'),
        (OLLAMA, '{"stream":false,"options":{"seed":1}}'),
        (OLLAMA, '{"options":null}'),
        (OLLAMA, '{"options":{}}'),
        (OLLAMA, '{"options":5}'),
        (OLLAMA, '{"options":{"seed":null,"top_k":1}}'),
    ],
)
def test_what_may_not(target: str, content: str) -> None:
    assert asked(target, content) == (False, content)


def test_what_is_very_large_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    content = '{"model":"m","stream":true}'
    monkeypatch.setattr(again_module, "MAX_ASKED", len(content))
    assert asked(OPENAI, content)[0]
    assert asked(OPENAI, content + " ") == (False, content + " ")


def test_what_is_not_text_may_not() -> None:
    again, content = Repeats(600.0, lambda: 1).find(OPENAI, b'{"stream":true,"x":"\xff"}')
    assert again is None
    assert content == b'{"stream":true,"x":"\xff"}'
