"""What an engine says once more is recognised, in whatever pieces it comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.bridge.runs.answer import Text
from cloudtolocalllm.bridge.runs.echo import DivergedError, Echo
from cloudtolocalllm.bridge.store.runs import Piece, TextKind

TEXT = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12)
SAID = st.lists(st.tuples(st.sampled_from(TextKind), TEXT), min_size=1, max_size=8)


def pieces(said: list[tuple[TextKind, str]]) -> list[Piece]:
    found: list[Piece] = []
    for kind, text in said:
        found.append(Piece(found[-1].end if found else 0, kind, text))
    return found


def by_character(said: list[tuple[TextKind, str]]) -> list[tuple[TextKind, str]]:
    return [(kind, character) for kind, text in said for character in text]


@given(SAID, st.data())
def test_only_what_is_new_is_left(said: list[tuple[TextKind, str]], data: st.DataObject) -> None:
    characters = by_character(said)
    stored = data.draw(st.integers(0, len(characters)))
    echo = Echo(pieces(characters[:stored]))
    new: list[tuple[TextKind, str]] = []
    for kind, text in said:
        cut = data.draw(st.integers(0, len(text)))
        for part in (text[:cut], text[cut:]):
            rest = echo.rest(Text(kind, part)) if part else None
            if rest is not None:
                new += by_character([(rest.kind, rest.text)])
    assert echo.over
    assert new == characters[stored:]


@given(SAID, st.data())
def test_another_text_is_told(said: list[tuple[TextKind, str]], data: st.DataObject) -> None:
    characters = by_character(said)
    place = data.draw(st.integers(0, len(characters) - 1))
    kind, character = characters[place]
    other = data.draw(st.characters(codec="utf-8").filter(lambda found: found != character))
    echo = Echo(pieces(said))
    for one, text in characters[:place]:
        assert echo.rest(Text(one, text)) is None
    with pytest.raises(DivergedError):
        echo.rest(Text(kind, other))


def test_another_kind_and_half_a_character_are_told() -> None:
    with pytest.raises(DivergedError):
        Echo([Piece(0, TextKind.THINKING, "a")]).rest(Text(TextKind.CONTENT, "a"))
    echo = Echo([Piece(0, TextKind.CONTENT, "a")])
    assert not echo.over
    assert echo.rest(Text(TextKind.CONTENT, "aé")) == Text(TextKind.CONTENT, "é")
    assert echo.over
