"""Lists of several homes as one: pure."""

import json
from collections.abc import Iterable
from typing import Any, Final

from cloudtolocalllm.connect.routing import canonical


def entries(content: bytes, member: str) -> list[dict[str, Any]] | None:
    """Return the objects of a list in a JSON answer; None when there is no such list."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    listed = value.get(member) if isinstance(value, dict) else None
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else None


def names(listed: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Return the canonical names of what a list holds."""
    return frozenset(canonical(name) for item in listed if (name := _name(item)))


AWAY: Final = "c2l_away"
"""Member of an entry whose home is away; clients pass over what they do not know."""


def joined(here: Iterable[list[dict[str, Any]]], member: str, away: Iterable[list[dict[str, Any]]] = ()) -> bytes:
    """Return one JSON answer with several lists; of entries with one name the first stays.

    Args:
        here: Lists of what can be had now.
        member: That holds the list.
        away: Lists of what cannot; their entries are marked, and come last.
    """
    merged: list[dict[str, Any]] = []
    seen: set[str] = set()
    marked = ([{**item, AWAY: True} for item in listed] for listed in away)
    for listed in (*here, *marked):
        for item in listed:
            name = canonical(_name(item))
            if name not in seen:
                seen.add(name)
                merged.append(item)
    value: dict[str, Any] = {"object": "list", "data": merged} if member == "data" else {member: merged}
    return json.dumps(value).encode()


def _name(item: dict[str, Any]) -> str:
    return next((item[key] for key in ("id", "model", "name") if isinstance(item.get(key), str)), "")
