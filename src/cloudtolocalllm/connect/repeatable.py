"""Which requests may be asked once more when their answer was lost at home: pure.

Those to generate a streamed text, whose text is the same each time: at temperature 0, or with a seed. A request
without a seed is given one, so that it can be asked for again; that changes nothing of what an engine may say, only
that the draw is one which can be repeated. A client that wants chance by name (a negative seed) gets it.
"""

import json
import re
from dataclasses import dataclass
from json.decoder import JSONDecoder
from typing import Any, Final

from cloudtolocalllm.connect.events import Dialect

MAX_SEED: Final = 2**31
"""Seeds are below; larger ones are not taken everywhere."""
_CHANCE: Final = 2**32 - 1
"""What llama.cpp takes for no seed at all."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DIALECTS: Final = {dialect.value: dialect for dialect in Dialect}


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request that may be asked once more."""

    dialect: Dialect
    content: bytes
    """To be asked, the first time as well."""


def may_be_repeated(method: str, target: str) -> bool:
    """Tell whether a route's requests are looked at by `repeatable`.

    Args:
        method: HTTP method.
        target: As the home knows it.
    """
    return method == "POST" and target.partition("?")[0] in _DIALECTS


def repeatable(target: str, content: bytes, seed: int | None) -> Repeatable | None:
    """Return how a request is asked so that it may be asked once more; None for one that may not.

    Args:
        target: Of a route that `may_be_repeated`.
        content: JSON, as the client sent it.
        seed: For a request that has none; None to leave it as it is.
    """
    dialect = _DIALECTS[target.partition("?")[0]]
    try:
        text = content.decode()
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not value or not _is_streamed(dialect, value):
        return None
    settings = value if dialect.is_sse else value.get("options")
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        return None
    if _says_the_same(settings):
        return Repeatable(dialect, content)
    if seed is None or settings.get("seed") is not None:
        return None
    if dialect.is_sse or not settings:
        member = f'"seed":{seed}' if dialect.is_sse else f'"options":{{"seed":{seed}}}'
        if ("seed" if dialect.is_sse else "options") in value:
            return None  # as null, or empty: there is no telling which of two an engine would take
        at = text.rindex("}")
        return Repeatable(dialect, f"{text[:at]},{member}{text[at:]}".encode())
    if "seed" in settings:
        return None
    at = _value_of(text, "options") + 1
    return Repeatable(dialect, f'{text[:at]}"seed":{seed},{text[at:]}'.encode())


def _is_streamed(dialect: Dialect, value: dict[str, Any]) -> bool:
    if not dialect.is_sse:
        return value.get("stream") is not False
    return value.get("stream") is True and all(value.get(name) in (None, 1) for name in ("n", "best_of"))


def _says_the_same(settings: dict[str, Any]) -> bool:
    seed, temperature = settings.get("seed"), settings.get("temperature")
    if type(seed) is int and 0 <= seed != _CHANCE:
        return True
    return type(temperature) in (int, float) and temperature == 0


def _value_of(text: str, name: str) -> int:
    """Return where the value of a member begins, in the text of an object that has it; of several the last."""
    decoder = JSONDecoder()
    found = -1
    at = _after(text, text.index("{") + 1)
    while text[at] == '"':
        key, at = decoder.raw_decode(text, at)
        at = _after(text, _after(text, at) + 1)
        if key == name:
            found = at
        _, at = decoder.raw_decode(text, at)
        at = _after(text, at)
        if text[at] != ",":
            break
        at = _after(text, at + 1)
    return found


def _after(text: str, at: int) -> int:
    """Return where the space from a place on ends."""
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
