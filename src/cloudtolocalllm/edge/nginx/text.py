"""What may stand in nginx's configuration: checked here, since nginx can escape neither `$` nor a line's end."""

import re
from collections.abc import Iterable

from cloudtolocalllm.contracts.endpoint import Endpoint

_PATH = re.compile(r"/[A-Za-z0-9_./@+-]{0,200}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Fa-f:.]{2,45}")
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_LEVELS = frozenset({"debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"})
_RESOLVERS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?: (?:[A-Za-z0-9._:\[\]-]+))*")


class RenderError(ValueError):
    """Settings that nginx's configuration cannot express; the text lists all of them and never a value."""


class Checks:
    """Collects what is wrong, so that all of it is reported together."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def path(self, name: str, value: object) -> str:
        """Return a path as nginx may have it."""
        text = str(value)
        plain = _PATH.fullmatch(text) is not None and "/../" not in f"{text}/"
        return self._take(name, text, plain, "an absolute path of letters, digits and _ . / @ + -")

    def host(self, name: str, value: str) -> str:
        """Return a host's name or address, an IPv6 one in brackets."""
        text = self._take(name, value, _HOST.fullmatch(value) is not None, "a host name or an address")
        return f"[{text}]" if ":" in text and not text.startswith("[") else text

    def hosts(self, name: str, given: Iterable[str]) -> tuple[str, ...]:
        """Return several."""
        return tuple(self.host(name, value) for value in given)

    def port(self, name: str, value: int) -> int:
        """Return a TCP port."""
        return self.number(name, value, 1, 65535)

    def number(self, name: str, value: int, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        fits = type(value) is int and least <= value <= most
        self._take(name, "", fits, f"a whole number from {least} to {most}")
        return value if fits else least

    def user(self, name: str, value: str) -> str:
        """Return a user's name, or nothing."""
        return self._take(name, value, not value or _NAME.fullmatch(value) is not None, "a user's name")

    def level(self, name: str, value: str) -> str:
        """Return a log level of nginx."""
        return self._take(name, value, value in _LEVELS, f"one of {', '.join(sorted(_LEVELS))}")

    def resolver(self, name: str, value: str) -> str:
        """Return the addresses of DNS servers, or nothing."""
        plain = not value or _RESOLVERS.fullmatch(value) is not None
        return self._take(name, value, plain, "addresses separated by single spaces")

    def endpoint(self, name: str, value: Endpoint) -> str:
        """Return an endpoint as a `server` of an upstream has it."""
        if value.path is not None:
            return f"unix:{self.path(name, value.path)}"
        host = self.host(name, value.host or "")
        return f"{host}:{self.port(name, value.port or 0)}"

    def fault(self, name: str, expected: str) -> None:
        """Note a fault."""
        self._faults.append(f"{name}: expected {expected}")

    def finish(self) -> None:
        """Raise what was found.

        Raises:
            RenderError: Something was.
        """
        if self._faults:
            raise RenderError("\n".join(dict.fromkeys(self._faults)))

    def _take(self, name: str, text: str, fits: bool, expected: str) -> str:
        if not fits:
            self.fault(name, expected)
        return text


def block(head: str, lines: Iterable[str]) -> str:
    """Return a block of directives, indented."""
    inner = "\n".join(f"    {line}" if line else "" for text in lines for line in text.splitlines())
    return f"{head} {{\n{inner}\n}}"
