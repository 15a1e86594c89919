"""Full-text search over titles and messages. Any text is a query: nothing in it is an operator."""

import unicodedata
from dataclasses import dataclass

from cloudtolocalllm.bridge.store.tx import Tx

MAX_QUERY = 256
"""Characters of a query that are looked at."""
MAX_TERMS = 16
PAGE = 50
"""Hits in one answer at most."""
SEARCH_TIME = 3.0
"""Seconds that a search may take."""
SNIPPET_WORDS = 24
TITLE_WEIGHT = 2.0
"""How much more a hit in a title counts than one in a message."""

_BEGIN, _END = "\x02", "\x03"
_SNIPPET_REACH = 60
"""Characters around a hit that was found by scanning."""
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO")
"""Scripts written without spaces, beginnings of their characters' Unicode names: the index has whole runs of them as
one word, so that texts with them are scanned instead."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a snippet."""

    text: str
    hit: bool
    """Whether it is what was looked for."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Where something was found."""

    conversation: str
    title: str
    message: str | None
    """null for a hit in the title."""
    snippet: tuple[Part, ...]
    score: float
    """The higher the better; only good to compare hits of one search."""


def search(tx: Tx, query: str, limit: int = PAGE) -> list[Hit]:
    """Return what fits all words of a query best, the last word taken as a beginning."""
    limit = max(1, min(limit, PAGE))
    words = terms(query)
    if not words:
        return []
    if any(_is_unspaced(character) for word in words for character in word):
        return _scan(tx, words, limit)
    expression = match_expression(words)
    titles = tx.all(
        "SELECT c.id, c.title, NULL, highlight(title_text, 0, ?, ?), bm25(title_text) FROM title_text "
        "JOIN conversations c ON c.seq = title_text.rowid WHERE title_text MATCH ? ORDER BY rank LIMIT ?",
        _BEGIN, _END, expression, limit,
    )  # fmt: skip
    found = tx.all(
        "SELECT c.id, c.title, m.id, snippet(message_text, 0, ?, ?, '…', ?), bm25(message_text) FROM message_text "
        "JOIN messages m ON m.seq = message_text.rowid JOIN conversations c ON c.seq = m.conversation "
        "WHERE message_text MATCH ? ORDER BY rank LIMIT ?",
        _BEGIN, _END, SNIPPET_WORDS, expression, limit,
    )  # fmt: skip
    hits = [_hit(row, TITLE_WEIGHT) for row in titles] + [_hit(row, 1.0) for row in found]
    return sorted(hits, key=lambda hit: -hit.score)[:limit]


def terms(query: str) -> list[str]:
    """Return the words of a query that have a letter or digit."""
    cleaned = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in query[:MAX_QUERY])
    return [word for word in cleaned.split() if any(c.isalnum() for c in word)][:MAX_TERMS]


def match_expression(words: list[str]) -> str:
    """Return an FTS5 expression: each word a string, in which only " is special (sqlite.org/fts5.html §3.1)."""
    return " ".join('"' + word.replace('"', '""') + '"' for word in words) + "*"


def _is_unspaced(character: str) -> bool:
    return ord(character) > 0x0E00 and unicodedata.name(character, "").startswith(_UNSPACED)


def _hit(row: tuple[str, str, str | None, str, float], weight: float) -> Hit:
    conversation, title, message, marked, rank = row
    return Hit(conversation, title, message, _parts(marked), -rank * weight)


def _parts(marked: str) -> tuple[Part, ...]:
    parts = []
    for index, piece in enumerate(marked.split(_BEGIN)):
        hit, _, rest = piece.partition(_END) if index else ("", "", piece)
        if hit:
            parts.append(Part(hit, True))
        if rest:
            parts.append(Part(rest, False))
    return tuple(parts)


def _scan(tx: Tx, words: list[str], limit: int) -> list[Hit]:
    patterns = ["%" + "".join("\\" + c if c in "\\%_" else c for c in word) + "%" for word in words]
    in_title = " AND ".join(["c.title LIKE ? ESCAPE '\\'"] * len(patterns))
    in_message = in_title.replace("c.title", "m.content")
    titles = tx.all(
        f"SELECT c.id, c.title, NULL, c.title FROM conversations c WHERE {in_title} ORDER BY c.updated DESC LIMIT ?",  # noqa: S608 - marks only
        *patterns, limit,
    )  # fmt: skip
    found = tx.all(
        "SELECT c.id, c.title, m.id, m.content FROM messages m JOIN conversations c ON c.seq = m.conversation "  # noqa: S608 - marks only
        f"WHERE {in_message} ORDER BY m.seq DESC LIMIT ?",
        *patterns, limit,
    )  # fmt: skip
    rows = (titles + found)[:limit]
    return [
        Hit(conversation, title, message, _around(text, words[0]), float(len(rows) - place))
        for place, (conversation, title, message, text) in enumerate(rows)
    ]


def _around(text: str, word: str) -> tuple[Part, ...]:
    at = text.lower().find(word.lower())
    if at < 0:
        return (Part(text[: 2 * _SNIPPET_REACH], False),)
    end = at + len(word)
    before, after = text[max(0, at - _SNIPPET_REACH) : at], text[end : end + _SNIPPET_REACH]
    parts = (Part(before, False), Part(text[at:end], True), Part(after, False))
    return tuple(part for part in parts if part.text)
