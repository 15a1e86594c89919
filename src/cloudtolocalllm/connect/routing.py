"""Which home a request goes to: pure."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_REMEMBERED: Final = 4096
"""Conversations whose home is remembered: some 400 kB."""
REMEMBERED_FOR: Final = 3600.0
"""Seconds; engines keep their caches for minutes (Ollama: 5)."""
_NAMES: Final = ("model", "name", "source")
"""Members of a request that name its model; "name" is Ollama's older spelling, "source" that of a copy."""


@dataclass(frozen=True, slots=True)
class HomeView:
    """What is known of a home when a request comes."""

    id: str
    priority: int = 0
    """The lowest comes first."""
    up: bool = True
    """Whether the last question to it was answered."""
    models: frozenset[str] | None = None
    """Canonical names; None while they were never listed."""
    loaded: frozenset[str] = frozenset()
    """Those in its engine's memory."""
    running: int = 0
    """Requests of ours under way there."""


def canonical(model: str) -> str:
    """Return a model's name as Ollama compares it: without the default tag, in lower case."""
    return model.strip().lower().removesuffix(":latest")


def choose(homes: Sequence[HomeView], model: str | None, sticky: str | None = None) -> list[str]:
    """Return the homes to ask, the best first.

    A home that has the model comes before one whose models are not known; one that is known not to have it is asked
    only when no other can be, and says so then. Among equals: up before down, then where the conversation was, then
    by priority, then where the model is loaded, then where less runs.

    Args:
        homes: All of them.
        model: Which the request names; None for none.
        sticky: The home that has the conversation in its cache.
    """
    name = canonical(model) if model is not None else None

    def has(home: HomeView) -> int:
        if name is None or home.models is None:
            return 1
        return 0 if name in home.models else 2

    def rank(home: HomeView) -> tuple[Any, ...]:
        loaded = name is not None and name in home.loaded
        return (not home.up, has(home), home.id != sticky, home.priority, not loaded, home.running, home.id)

    best = min((has(home) for home in homes), default=1)
    able = [home for home in homes if has(home) < 2 or best == 2]
    return [home.id for home in sorted(able, key=rank)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of where it belongs."""

    model: str | None
    conversation: str | None
    """What stays the same in all requests of a conversation; None when there is none."""


NOTHING_ASKED: Final = Asked(None, None)


def read_request(content: bytes) -> Asked:
    """Read the model and the conversation out of a request's JSON; nothing when it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return NOTHING_ASKED
    if not isinstance(value, dict):
        return NOTHING_ASKED
    model = next((value[name] for name in _NAMES if isinstance(value.get(name), str)), None)
    start = _start(value)
    if model is None or start is None:
        return Asked(model, None)
    text = json.dumps([canonical(model), start], sort_keys=True)
    return Asked(model, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())


def _start(value: dict[str, Any]) -> Any:
    """Return the beginning that all turns of a conversation share: up to the first thing that the user said."""
    system = value.get("system") or value.get("instructions")
    messages = value.get("messages", value.get("input"))
    if isinstance(messages, list):
        first = next((i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "user"), 0)
        return [system, messages[: first + 1]] if messages else None
    prompt = messages if isinstance(messages, str) else value.get("prompt")
    return [system, prompt] if isinstance(prompt, str) and prompt else None


class Stickiness:
    """Which home a conversation was at. What is kept of a conversation is a hash, for an hour, in memory."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._homes: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._homes)

    def home(self, conversation: str | None, now: float) -> str | None:
        """Return the home of a conversation, or None."""
        found = self._homes.get(conversation or "")
        return found[0] if found is not None and now - found[1] < REMEMBERED_FOR else None

    def note(self, conversation: str | None, home: str, now: float) -> None:
        """Remember where a conversation is."""
        if conversation is None:
            return
        self._homes[conversation] = (home, now)
        self._homes.move_to_end(conversation)
        if len(self._homes) > MAX_REMEMBERED:
            self._homes.popitem(last=False)
