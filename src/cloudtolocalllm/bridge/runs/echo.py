"""Recognises what an engine says once more, when a run that broke off with the bridge is asked for again; pure.

With the same request and seed an engine says the same, as a rule; this finds out, byte for byte, whether it did.
"""

from collections.abc import Iterable

from cloudtolocalllm.bridge.runs.answer import Text
from cloudtolocalllm.bridge.store.runs import Piece, TextKind


class DivergedError(Exception):
    """The engine says something else than before."""


class Echo:
    """What the engine said before, as far as it is stored."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """Expect this text.

        Args:
            pieces: All that is stored, in order.
        """
        self._expected: list[tuple[TextKind, bytearray]] = []
        for piece in pieces:
            if self._expected and self._expected[-1][0] is piece.kind:
                self._expected[-1][1].extend(piece.text.encode())
            else:
                self._expected.append((piece.kind, bytearray(piece.text.encode())))
        self._expected.reverse()
        self._at = 0
        """Bytes of the last one above that came again."""

    @property
    def over(self) -> bool:
        """Whether all of it came again."""
        return not self._expected

    def rest(self, text: Text) -> Text | None:
        """Take what the engine says, and return what of it is new.

        Raises:
            DivergedError: It is not what it said before.
        """
        said = text.text.encode()
        while said and self._expected:
            kind, wanted = self._expected[-1]
            part = bytes(wanted[self._at : self._at + len(said)])
            if text.kind is not kind or not said.startswith(part):
                raise DivergedError
            said = said[len(part) :]
            self._at += len(part)
            if self._at == len(wanted):
                self._expected.pop()
                self._at = 0
        try:
            return Text(text.kind, said.decode()) if said else None
        except UnicodeDecodeError:  # what is stored ends between two characters, so the characters differ
            raise DivergedError from None
