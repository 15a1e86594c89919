"""Versions of Ollama with known holes, in one table, so that an old engine can be warned about."""

from dataclasses import dataclass

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Hole:
    """One published vulnerability."""

    cve: str
    fixed: Version
    """The first version without it."""
    what: str


HOLES: tuple[Hole, ...] = (
    Hole("CVE-2024-28224", (0, 1, 29), "DNS rebinding gives web pages the whole API"),
    Hole("CVE-2024-37032", (0, 1, 34), "a model's digest can name any path: files are overwritten, code is run"),
    Hole("CVE-2024-45436", (0, 1, 47), "an archive's members are written outside the folder"),
    Hole("CVE-2025-51471", (0, 14, 3), "the registry token is sent to a host that a registry names"),
    Hole("CVE-2026-7482", (0, 17, 1), "a crafted model file makes the engine disclose its memory"),
)
OLDEST_SOUND: Version = max(hole.fixed for hole in HOLES)


def parse_version(text: str) -> Version | None:
    """Return a version's three numbers ("0.6.2", "0.14.0-rc1"); None for a text that has none."""
    parts = text.removeprefix("v").partition("-")[0].partition("+")[0].split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    # A development build calls itself 0.0.0: nothing is known of it.
    version = (int(parts[0]), int(parts[1]), int(parts[2]))
    return version if any(version) else None


def holes_in(text: str) -> list[Hole]:
    """Return the holes of the version with this text; none for an unknown version."""
    version = parse_version(text)
    return [] if version is None else [hole for hole in HOLES if version < hole.fixed]
