"""Search: any text is a query, what fits best comes first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.home_store import KINDS, DirectStore, store_path

from cloudtolocalllm.bridge.store import conversations, messages, runs
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.runs import End, NewRun, Piece, RunState, TextKind
from cloudtolocalllm.bridge.store.search import MAX_QUERY, Hit, search


@pytest.fixture(scope="module", params=KINDS)
def store(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[DirectStore]:
    store = DirectStore(store_path(tmp_path_factory.mktemp("search") / "data" / "a.home.db", request.param))
    for title, content in {
        "Cooking": "How long do I boil an egg, and why?",
        "Zürich trip": "Trains from Zürich to Genève",
        "Code": 'print("hello") AND NOT (foo OR bar*) NEAR col:val ^x -y {z}',
        "Japanese": "東京都の天気はどうですか。明日も晴れますか",
        "Percent": "100% of 東京% and _under_",
        "": "an empty title",
    }.items():
        talk = store(conversations.create, title).id
        store(messages.add, talk, NewMessage("user", content))
    yield store
    store.close()


def found(store: DirectStore, query: str) -> list[str]:
    return [hit.title for hit in store(search, query)]


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("egg", ["Cooking"]),
        ("EGG boil", ["Cooking"]),
        ("coo", ["Cooking"]),
        ("zurich", ["Zürich trip", "Zürich trip"]),
        ("geneve", ["Zürich trip"]),
        ("egg zurich", []),
        ("天気", ["Japanese"]),
        ("東京", ["Percent", "Japanese"]),
        ("東京%", ["Percent"]),
        ("", []),
        ("\x00", []),
        ("🎈", []),
        ('"', []),
        ("hello AND", ["Code"]),
        ("NOT", ["Code"]),
        ("col:val", ["Code"]),
        ("title:Cooking", []),
        ("foo*", ["Code"]),
        ("egg\x00boil", ["Cooking"]),
    ],
)
def test_finds(store: DirectStore, query: str, titles: list[str]) -> None:
    assert found(store, query) == titles


HOSTILE = ['"', "*", "(", ")", "^", "-", "+", ":", "{", "}", "AND", "OR", "NOT", "NEAR(", "NEAR", ",", "\\", "'", ";",
           "%", "_", "\x00", "\x1a", "\ud800", "egg", "title", "rowid", "--", "/*", "東", "\U0001d518"]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.lists(st.sampled_from(HOSTILE), max_size=30).map(" ".join),
                 st.lists(st.sampled_from(HOSTILE), max_size=30).map("".join),
                 st.text(st.characters(), max_size=60)))  # fmt: skip
def test_any_text_is_a_query(store: DirectStore, query: str) -> None:
    for hit in store(search, query):
        assert "".join(part.text for part in hit.snippet)


def test_a_long_query_is_cut(store: DirectStore) -> None:
    assert found(store, "egg " + "x" * MAX_QUERY * 100) == []
    assert found(store, " " * (MAX_QUERY - 3) + "egg and what is behind is not looked at")


def test_a_title_counts_more_and_the_hit_is_marked(store: DirectStore, tmp_path: Path) -> None:
    own = DirectStore(tmp_path / "b.home.db")
    said = own(conversations.create, "first").id
    own(messages.add, said, NewMessage("user", "a word about penguins"))
    named = own(conversations.create, "penguins").id
    own(messages.add, named, NewMessage("user", "nothing"))
    hits: list[Hit] = own(search, "penguins")
    assert [hit.conversation for hit in hits] == [named, said]
    assert [hit.message is None for hit in hits] == [True, False]
    assert [part.text for part in hits[1].snippet if part.hit] == ["penguins"]
    own.close()


def test_what_was_edited_deleted_or_answered_is_found_as_it_is_now(tmp_path: Path) -> None:
    store = DirectStore(tmp_path / "b.home.db")
    talk = store(conversations.create, "before").id
    note = store(messages.add, talk, NewMessage("user", "unicorn"))
    run = store(runs.begin, NewRun(talk, note.id, "m"))
    store(runs.append, run.id, [Piece(0, TextKind.CONTENT, "dragon")])
    assert not store(search, "dragon")
    store(runs.finish, run.id, End(RunState.DONE))
    assert [hit.message for hit in store(search, "dragon")] == [run.message]
    store(conversations.edit, talk, title="after")
    assert found(store, "after")
    assert not found(store, "before")
    store(messages.delete, talk, note.id)
    assert not store(search, "dragon")
    assert not store(search, "unicorn")
    store.close()
