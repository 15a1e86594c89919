"""Goes on with a streamed answer that is lost at home, by asking for the same once more: pure.

With the same request and the same seed an engine says the same, as a rule. What the client has is compared with what
is said now, in 16-bit units of text and by kind (content, thinking, calls of tools, how it ended); the first event
that says more than the client has is where it goes on. Where an event holds both, it is cut. When it is not the same,
nothing is passed on any more: no answer is ever put together from two.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from cloudtolocalllm.connect import events
from cloudtolocalllm.connect.events import MAX_LINE, Dialect, Line, Part, UnreadableError

_KEPT_MEMBERS: Final = ("id", "created")
"""Of OpenAI's events: what makes them parts of one completion."""
_UTF16: Final = "utf-16-le"
"""JSON's own units: two events may hold the halves of one character."""
_FINISHING: Final = ("finish", "end")


class DivergedError(Exception):
    """What is said now is not what was said before."""


@dataclass(slots=True)
class Said:
    """What a client has of an answer."""

    texts: dict[str, bytearray] = field(default_factory=dict)
    """By kind, in 16-bit units."""
    members: dict[str, Any] = field(default_factory=dict)
    call_ids: dict[int, Any] = field(default_factory=dict)
    """Ids of the calls of tools, by their place in the answer."""
    has_events: bool = False
    tail: bytes = b""
    """What the last event lacks to be complete."""

    @property
    def complete(self) -> bool:
        """Whether that is all of it."""
        return "end" in self.texts


def read_said(dialect: Dialect, kept: bytes | bytearray) -> Said:
    """Read what a client has.

    Args:
        dialect: Of the events.
        kept: All its bytes, up to the end of a line.

    Raises:
        UnreadableError: It holds something that cannot be followed.
    """
    said = Said()
    for data in kept.split(b"\n"):
        found = events.line(dialect, bytes(data))
        if found is None:
            continue
        said.has_events = True
        if found.value is not None:
            for name in _KEPT_MEMBERS:
                if name in found.value:
                    said.members[name] = found.value[name]
        for part in events.parts(dialect, found):
            said.texts.setdefault(part.kind, bytearray()).extend(_units(part.text))
        if dialect is Dialect.CHAT and found.value is not None:
            for index, call in events.tool_calls(found.value):
                if call.get("id"):
                    said.call_ids.setdefault(index, call["id"])
    if dialect.is_sse and said.has_events and not kept.endswith((b"\n\n", b"\n\r\n")):
        said.tail = b"\n"
    return said


class Retelling:
    """Takes an answer that is asked for once more, and gives what of it is new."""

    def __init__(self, dialect: Dialect, said: Said) -> None:
        """Expect an answer from its first byte on.

        Args:
            dialect: Of its events.
            said: What the client has; it must not be complete.
        """
        self._dialect = dialect
        self._members = said.members
        self._call_ids = said.call_ids
        self._expected = {kind: bytes(text) for kind, text in said.texts.items()}
        """What must be said again, by kind; without what was."""
        self._at = dict.fromkeys(self._expected, 0)
        self._finished = any(kind in said.texts for kind in _FINISHING)
        self._opened = said.has_events
        self._tail = said.tail
        self._rest = b""
        self.going_on = False
        """Whether something new was said."""

    def feed(self, data: bytes) -> bytes:
        """Take content, and return what of it the client does not have: whole events.

        Raises:
            DivergedError: It is not the answer that the client has a part of.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise DivergedError
        return b"".join([self._line(data) for data in lines])

    def end(self) -> bytes:
        """Take the end of the content, and return the rest.

        Raises:
            DivergedError: It ended before the client's part did, or without saying that it is complete.
        """
        rest = self.feed(b"\n")
        if self._expected or not self._finished:
            raise DivergedError
        return rest

    def _line(self, data: bytes) -> bytes:
        try:
            found = events.line(self._dialect, data)
            if found is None:
                return b""
            parts = events.parts(self._dialect, found)
        except UnreadableError:
            if not self.going_on:
                raise DivergedError from None
            self._finished = True  # an engine's error, most likely: it is the client's to read
            return data + (b"\n\n" if self._dialect.is_sse and data.strip() else b"\n")
        if not self._is_new(found, parts):
            return b""
        self.going_on = True
        self._finished = self._finished or any(part.kind in _FINISHING for part in parts)
        tail, self._tail = self._tail, b""
        return tail + events.write(self._dialect, self._as_before(found))

    def _is_new(self, found: Line, parts: list[Part]) -> bool:
        """Compare an event with what the client has; tell whether it says more, cut to that."""
        if not parts:  # such as the one that opens an answer
            return self.going_on or not self._opened
        rests = [self._rest_of(part) for part in parts]
        if not any(rests):
            return False
        if self._expected:
            raise DivergedError
        cut = [(part, rest) for part, rest in zip(parts, rests, strict=True) if rest != part.text]
        if cut and not events.can_be_cut(found.value):
            raise DivergedError
        for part, rest in cut:
            part.keep(rest)
        return True

    def _rest_of(self, part: Part) -> str:
        wanted = self._expected.get(part.kind)
        if wanted is None:
            return part.text
        units, at = _units(part.text), self._at[part.kind]
        ahead = wanted[at : at + len(units)]
        if not units.startswith(ahead) or (part.whole and ahead != units):
            raise DivergedError
        self._at[part.kind] = at + len(ahead)
        if at + len(ahead) == len(wanted):
            del self._expected[part.kind], self._at[part.kind]
        return units[len(ahead) :].decode(_UTF16, "surrogatepass")

    def _as_before(self, found: Line) -> Line:
        """Give an event the names that the first answer had."""
        value = found.value
        if value is not None and self._dialect.is_sse:
            for name, member in self._members.items():
                if name in value:
                    value[name] = member
            for index, call in events.tool_calls(value):
                if "id" in call and index in self._call_ids:
                    call["id"] = self._call_ids[index]
        return found


def _units(text: str) -> bytes:
    return text.encode(_UTF16, "surrogatepass")
