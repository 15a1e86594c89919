"""One request's second chance: what its client has of the answer, and how often it was asked anew. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cloudtolocalllm.connect.events import MAX_LINE, UnreadableError
from cloudtolocalllm.connect.repeatable import Repeatable, repeatable
from cloudtolocalllm.connect.retelling import Retelling, Said, read_said
from cloudtolocalllm.sealed.fields import Fields

MAX_TIMES: Final = 3
"""How often one request is asked anew: it may be what the bridge dies of."""
MAX_ASKED: Final = 16 * 1024 * 1024
"""Bytes of a request that is looked into; larger ones are mostly pictures, and would be in memory twice."""
MAX_KEPT: Final = 16 * 1024 * 1024
"""Bytes of one answer that are remembered: some 60,000 tokens."""
MAX_KEPT_TOGETHER: Final = 64 * 1024 * 1024
"""Bytes of all answers, as many as a bridge's journal holds by default."""


@dataclass(slots=True)
class Room:
    """What all requests remember together."""

    limit: int = MAX_KEPT_TOGETHER
    held: int = 0
    """Bytes."""


class Again:
    """Passes an answer on event by event, and remembers it, so that it can be gone on with if it is lost."""

    def __init__(self, request: Repeatable, room: Room, max_age: float) -> None:
        """Remember nothing yet.

        Args:
            request: Which may be asked anew.
            room: What all requests share.
            max_age: Seconds from an answer's begin after which it is not asked for anew: to get as far takes as
                long again, in which the client hears nothing.
        """
        self.times = 0
        """How often it was asked anew."""
        self._dialect = request.dialect
        self._room = room
        self._max_age = max_age
        self._began = 0.0
        self._able = False
        """Whether it can be asked anew, as far as the answer is known."""
        self._kept = bytearray()
        self._line = b""
        """The begin of an event: clients get whole ones, so that another answer's can follow."""
        self._retelling: Retelling | None = None

    @property
    def size(self) -> int:
        """Bytes that are remembered."""
        return len(self._kept)

    def headed(self, status: int, fields: Fields, now: float) -> None:
        """Take note of the head that the client gets."""
        kinds = [value.partition(b";")[0].strip().lower() for name, value in fields if name == b"content-type"]
        encoded = any(name == b"content-encoding" for name, _ in fields)
        self._able = status == 200 and kinds == [self._dialect.content_type] and not encoded
        self._began = now

    def fits(self, status: int, fields: Fields) -> bool:
        """Tell whether the head of an answer that was asked for anew is one that can follow."""
        before = self._able
        self.headed(status, fields, self._began)
        fits, self._able = self._able, before
        return fits

    def possible(self, now: float) -> bool:
        """Tell whether the answer may be asked for anew."""
        return self._able and self.times < MAX_TIMES and now - self._began <= self._max_age

    def said(self) -> Said | None:
        """Return what the client has; None when it cannot be followed. Takes long for a long answer."""
        try:
            return read_said(self._dialect, self._kept)
        except UnreadableError:
            return None

    def anew(self, said: Said) -> None:
        """Take what comes from now on for an answer from its begin on, until the client's part is over."""
        self.times += 1
        self._line = b""
        self._retelling = Retelling(self._dialect, said)

    @property
    def catching_up(self) -> bool:
        """Whether what came since it was asked anew is what the client has."""
        return self._retelling is not None and not self._retelling.going_on

    def take(self, data: bytes) -> bytes:
        """Take content from the home, and return what the client gets now.

        Raises:
            DivergedError: It is another answer than the client has a part of.
        """
        return self._pass_on(data if self._retelling is None else self._retelling.feed(data))

    def end(self) -> bytes:
        """Take the end of the content, and return what the client still gets.

        Raises:
            DivergedError: It ended too early.
        """
        rest = b"" if self._retelling is None else self._pass_on(self._retelling.end())
        line, self._line = self._line, b""
        return rest + line

    def forget(self) -> None:
        """Remember nothing any more, and pass on what comes as it comes."""
        self._able = False
        self._room.held -= len(self._kept)
        self._kept = bytearray()

    def _pass_on(self, data: bytes) -> bytes:
        if not self._able:
            if self._line:
                data, self._line = self._line + data, b""
            return data
        end = data.rfind(b"\n") + 1
        if not end:
            self._line += data
            if len(self._line) > MAX_LINE:
                self.forget()
                return self._pass_on(b"")
            return b""
        whole, self._line = self._line + data[:end], data[end:]
        self._kept += whole
        self._room.held += len(whole)
        if len(self._kept) > MAX_KEPT or self._room.held > self._room.limit:
            self.forget()
            line, self._line = self._line, b""
            return whole + line
        return whole


class Repeats:
    """Finds the requests that may be asked anew."""

    def __init__(self, max_age: float, draw: Callable[[], int] | None) -> None:
        """Remember no answer yet.

        Args:
            max_age: Seconds; see Again.
            draw: Returns a seed for a request that has none; None to leave those as they are.
        """
        self.room = Room()
        self._max_age = max_age
        self._draw = draw

    def find(self, target: str, content: bytes) -> tuple[Again | None, bytes]:
        """Return a request's second chance, None for one that has none, and the content to ask with.

        Args:
            target: Of a route that `may_be_repeated`.
            content: As the client sent it.
        """
        if len(content) > MAX_ASKED:
            return None, content
        found = repeatable(target, content, None if self._draw is None else self._draw())
        return (None, content) if found is None else (Again(found, self.room, self._max_age), found.content)
