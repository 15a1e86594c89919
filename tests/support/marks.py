"""Texts that are put in at one place so that they are looked for at others, however they may be written there."""

import base64
from collections.abc import Iterable, Mapping
from urllib.parse import quote


def forms(text: str) -> set[bytes]:
    """Return a text as it may be written: plain, in base64 at any place of a longer text, in hex, in a URL."""
    plain = text.encode()
    found = {plain, quote(text, safe="").encode()}
    if len(plain) < 8:
        return found  # random text would hold the few letters that remain of it
    found |= {plain.hex().encode(), plain.hex().upper().encode()}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain)
        # without the letters that also hold bits of what stands before or behind
        sure = encoded[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]
        found |= {sure, sure.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def found_in(data: bytes, marks: Mapping[str, str]) -> list[str]:
    """Return the names of the marks that data holds."""
    return [name for name, mark in marks.items() if any(form in data for form in forms(mark))]


def beside_the_fourth(data: bytes | bytearray) -> bytes:
    """Return each byte, xor the fourth after it."""
    size = max(0, len(data) - 4)
    return (int.from_bytes(data[:size]) ^ int.from_bytes(data[4:])).to_bytes(size) if size else b""


class Search:
    """Looks for many marks in much data: all begin with one stem, so that most of it is soon passed over."""

    def __init__(self, stem: str, marks: Mapping[str, str]) -> None:
        """Look for marks.

        Args:
            stem: What all of them begin with: 9 letters or more, and a multiple of 3.
            marks: By name.
        """
        assert len(stem) >= 9
        assert len(stem) % 3 == 0, "so that its base64 does not depend on what follows"
        assert all(mark.startswith(stem) for mark in marks.values())
        self._stems = [form for form in forms(stem) if len(form) >= 9]
        self._marks = {name: forms(mark) for name, mark in marks.items()}
        self.longest = max(len(form) for each in self._marks.values() for form in each)

    def in_data(self, data: bytes | bytearray) -> set[str]:
        """Return the names of the marks that data holds."""
        if not any(stem in data for stem in self._stems):
            return set()
        return {name for name, each in self._marks.items() if any(form in data for form in each)}

    def in_masked(self, data: bytes | bytearray) -> set[str]:
        """Return the names of the marks in data that may be masked, as a WebSocket's client does (RFC 6455 §5.3).

        Four bytes are repeated over it; what is left of each byte beside the fourth after it does not depend on them.
        """
        bare = beside_the_fourth(data)
        return {name for name, each in self._marks.items() if any(beside_the_fourth(form) in bare for form in each)}

    def in_pieces(self, pieces: Iterable[bytes]) -> set[str]:
        """Return the names of the marks in data that comes in pieces, over their borders too."""
        found: set[str] = set()
        rest = b""
        for piece in pieces:
            found |= self.in_data(rest + piece)
            rest = (rest + piece)[-self.longest :]
        return found
