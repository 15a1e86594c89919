"""What an API key may do. Plain values and their short JSON form, as keys and the way home carry it.

Standard library only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_ROUTES = 16
MAX_ROUTES_TEXT = 512
"""Characters of all routes together, and MAX_MODELS_TEXT of all patterns: so a key, and an assertion that carries its
scope, fit into one header field (4 KiB) with everything else that they hold."""
MAX_MODELS = 16
MAX_MODELS_TEXT = 1024
MAX_COUNT = 10**12
"""Largest limit that can be asked for; more is the same as none."""
ROUTE_PREFIXES = ("/v1/", "/ollama/", "/anthropic/", "/e2e/")
"""Below which all routes lie that a key can be limited to. What is asked in a sealed request must be within the scope
as well as the sealed route itself, so a key for `/v1/` alone reaches nothing by sealing it."""

_ROUTE = re.compile(r"/(?:v1|ollama|anthropic|e2e)/[A-Za-z0-9_/-]{0,64}", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9._:/@+*?-]{1,128}", re.ASCII)
_BRIDGE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_EXCHANGES = "/c2l/exchanges/"
_LATEST = ":latest"


@dataclass(frozen=True, slots=True)
class KeyScope:
    """What a key is limited to; every empty member means no limit of that kind."""

    routes: tuple[str, ...] = ()
    """Public paths, each exact or, when it ends with "/", with all below it."""
    models: tuple[str, ...] = ()
    """Patterns of model names: `*` is any text, `?` any character, everything else itself."""
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    """Tokens of prompts and answers together, from midnight to midnight UTC."""
    bridge: str | None = None
    """Id of the only bridge it opens."""

    def __post_init__(self) -> None:
        """Refuse what no key may carry.

        Raises:
            ValueError: A member is malformed or too large; the text names it and what it takes, not what was given.
        """
        if len(self.routes) > MAX_ROUTES or not all(_is_route(route) for route in self.routes):
            known = ", ".join(ROUTE_PREFIXES)
            raise ValueError(f"expected routes to be at most {MAX_ROUTES} paths below {known}")
        if sum(map(len, self.routes)) > MAX_ROUTES_TEXT:
            raise ValueError(f"expected routes to have at most {MAX_ROUTES_TEXT} characters in all")
        if len(self.models) > MAX_MODELS or not all(_MODEL.fullmatch(model) for model in self.models):
            raise ValueError(f"expected models to be at most {MAX_MODELS} patterns such as llama3.2:* or qwen*")
        if sum(map(len, self.models)) > MAX_MODELS_TEXT:
            raise ValueError(f"expected models to have at most {MAX_MODELS_TEXT} characters in all")
        for name, value in (
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_day", self.tokens_per_day),
        ):
            if value is not None and (type(value) is not int or not 0 < value <= MAX_COUNT):
                raise ValueError(f"expected {name} to be a whole number above 0")
        if self.bridge is not None and not _BRIDGE.fullmatch(self.bridge):
            raise ValueError("expected bridge to be the id of a bridge")

    def allows_account(self, *, change: bool) -> bool:
        """Tell whether the account's own routes are within the scope.

        Args:
            change: Whether something is to be changed there: with a key that is limited in any way, somebody could
                otherwise pair a machine and so come by more than it gives.
        """
        return self == KeyScope() if change else not self.routes

    def allows_route(self, path: str) -> bool:
        """Tell whether a request for this public path, without its query, is within the scope.

        Below `/c2l/` a key reaches the exchanges, of which the bridge gives it none but its own. A path that could
        be read in two ways (an escape, an empty or a dot segment) is within no limited scope.
        """
        if not self.routes:
            return True
        if "%" in path or "\\" in path or "//" in path or "/." in path:
            return False
        if path.startswith(_EXCHANGES):
            return True
        return any(path.startswith(route) if route.endswith("/") else path == route for route in self.routes)

    def allows_model(self, model: str) -> bool:
        """Tell whether a model is within the scope, whichever way its name is spelt.

        Ollama knows a model by its name in any case and with or without the tag `:latest`.
        """
        if not self.models:
            return True
        name = model.strip().lower()
        bare = name.removesuffix(_LATEST)
        names = (bare, bare + _LATEST) if ":" not in bare else (name,)
        return any(matches(pattern.lower(), spelling) for pattern in self.models for spelling in names)

    def to_json(self) -> dict[str, Any]:
        """Return the short form: members that limit nothing are left out."""
        value: dict[str, Any] = {
            "rts": list(self.routes),
            "mdl": list(self.models),
            "rpm": self.requests_per_minute,
            "tpd": self.tokens_per_day,
            "brg": self.bridge,
        }
        return {name: member for name, member in value.items() if member}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "KeyScope":
        """Read what `to_json` wrote; other members mean nothing.

        Raises:
            ValueError: A member is malformed. Nothing is left out instead: less scope would mean more rights.
        """
        return cls(
            routes=_texts(value, "rts"),
            models=_texts(value, "mdl"),
            requests_per_minute=value.get("rpm"),
            tokens_per_day=value.get("tpd"),
            bridge=_text(value, "brg"),
        )


NO_SCOPE = KeyScope()
"""Of a key that may do everything."""


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern of `*` and `?` is the whole name.

    Takes steps in proportion to the product of both lengths at most: after a mismatch only the last `*` is tried
    again, one character later, which suffices since an earlier one could only leave less of the name.
    """
    at = begin = 0
    star = resume = -1
    while begin < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, begin
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[begin]):
            at += 1
            begin += 1
        elif star >= 0:
            resume += 1
            at, begin = star + 1, resume
        else:
            return False
    return all(character == "*" for character in pattern[at:])


def _is_route(route: object) -> bool:
    return isinstance(route, str) and _ROUTE.fullmatch(route) is not None and "//" not in route


def _texts(value: Mapping[str, Any], member: str) -> tuple[str, ...]:
    texts = value.get(member, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected member {member} to be a list of texts")
    return tuple(texts)


def _text(value: Mapping[str, Any], member: str) -> str | None:
    text = value.get(member)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"expected member {member} to be a text")
    return text
