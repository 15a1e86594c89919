"""A run that goes on: its newest text in memory, and a bell for those who watch it.

Watchers pull: each has an offset of its own and nothing else here, so that a slow one costs no memory and holds
nobody up. What is not in memory any more is in the store.
"""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass

from cloudtolocalllm.bridge.store.runs import READ_SIZE, End, Piece, Run, RunState, TextKind

KEPT = 256 * 1024
"""Bytes of text kept in memory besides what is not stored yet."""
JOINED = 2048
"""Characters up to which new text of the same kind is joined to the piece before."""


@dataclass(slots=True)
class Unstored:
    """What of a run is to be written down."""

    id: str
    pieces: list[Piece]
    state: RunState | None
    """A new state; None when it is the same."""
    end: End | None
    upto: int
    """Bytes of text that are stored when this is."""


class LiveRun:
    """One run that goes on."""

    def __init__(self, id_: str, left: Run | None = None) -> None:
        """Begin.

        Args:
            id_: Its id.
            left: How it was left by a bridge that ended; None for one that is new.
        """
        self.id = id_
        self.state = RunState.QUEUED
        self.size = 0 if left is None else left.size
        """Bytes of text so far."""
        self.stored = self.size
        """Bytes of it that are in the store."""
        self.ending: End | None = None
        """How it ended, before that is stored."""
        self.ended: End | None = None
        """How it ended, once that is stored (or cannot be)."""
        self.watchers = 0
        self._told = RunState.QUEUED if left is None else left.state
        self._pieces: list[Piece] = []
        self._base = self.size
        self._rung = asyncio.Event()

    # --- writing ------------------------------------------------------------------------------------------------

    def append(self, kind: TextKind, text: str) -> None:
        """Add text."""
        last = self._pieces[-1] if self._pieces else None
        if (
            last is not None
            and last.kind is kind
            and kind is not TextKind.TOOL_CALL
            and last.at >= self.stored
            and len(last.text) + len(text) <= JOINED
        ):
            self._pieces[-1] = Piece(last.at, kind, last.text + text)
        else:
            self._pieces.append(Piece(self.size, kind, text))
        self.size += len(text.encode())
        self.ring()

    def is_now(self, state: RunState) -> None:
        """Take note of a new state."""
        if self.state is not state and self.ending is None:
            self.state = state
            self.ring()

    def ring(self) -> None:
        """Wake who watches."""
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    # --- storing ------------------------------------------------------------------------------------------------

    @property
    def unstored(self) -> int:
        """Bytes of text that are not in the store yet."""
        return self.size - self.stored

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to store."""
        return self.unstored > 0 or self.state is not self._told or self.ending is not None

    def take(self) -> Unstored:
        """Return what is to be stored; `was_stored` then tells that it is."""
        state = self.state if self.state is not self._told and self.ending is None else None
        pieces: list[Piece] = []
        for piece in self._pieces[self._index(self.stored) :]:
            last = pieces[-1] if pieces else None
            if last is not None and last.kind is piece.kind and piece.kind is not TextKind.TOOL_CALL:
                pieces[-1] = Piece(last.at, last.kind, last.text + piece.text)
            else:
                pieces.append(piece)
        if pieces and pieces[0].at < self.stored:
            pieces[0] = pieces[0].rest(self.stored)
        return Unstored(self.id, pieces, state, self.ending, self.size)

    def was_stored(self, what: Unstored) -> None:
        """Take note that something is stored; what of it is in memory beyond KEPT is forgotten."""
        self.stored = max(self.stored, what.upto)
        if what.state is not None:
            self._told = what.state
        drop = self._index(min(self.stored, self.size - KEPT))
        if drop > 0:
            del self._pieces[:drop]
            self._base = self._pieces[0].at
        if what.end is not None:
            self.over(what.end)

    def over(self, end: End) -> None:
        """It ended, and that is stored, or cannot be."""
        self.state = end.state
        self.ended = end
        self.ring()

    # --- watching -----------------------------------------------------------------------------------------------

    def since(self, offset: int) -> list[Piece] | None:
        """Return text from an offset on; None when it is in the store only.

        Raises:
            ConflictError: The offset is inside a character.
        """
        if offset < self._base:
            return None
        found: list[Piece] = []
        size = 0
        for piece in self._pieces[self._index(offset) :]:
            part = piece.rest(offset) if piece.at < offset else piece
            if part.text:
                found.append(part)
                size += part.end - part.at
            if size >= READ_SIZE:
                break
        return found

    async def wait(self) -> None:
        """Wait for the next change; whoever calls it has looked at everything since it last returned to the loop."""
        await self._rung.wait()

    def _index(self, offset: int) -> int:
        """Return the place of the piece that holds the byte at an offset."""
        return max(0, bisect_right(self._pieces, offset, key=lambda piece: piece.at) - 1)
