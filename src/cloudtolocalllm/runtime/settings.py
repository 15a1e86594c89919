"""Settings as data: one frozen dataclass a service, read once from the environment, all faults reported together."""

import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class SettingsError(Exception):
    """One or more settings are missing or malformed; the text lists all of them and never a value."""


def setting(help_text: str, *, default: Any = MISSING, parse: Callable[[str], Any] | None = None) -> Any:
    """Declare a dataclass field as a setting.

    Args:
        help_text: What it does, with its unit; shown in docs/reference/settings.md.
        default: MISSING when it must be given.
        parse: How to read it from text; raises ValueError whose text says what was expected. None to read it by
            the field's type: str, int, float, bool, Path, or tuple[str, ...] (separated by commas). Empty text never
            gets here where None may be: it leaves the field at its default.
    """
    metadata = {"help": help_text, "parse": parse}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Described:
    """A setting as documentation shows it."""

    variable: str
    help: str
    default: str | None


def describe(cls: type, prefix: str) -> list[Described]:
    """Return the settings of a class in order, for the reference page."""
    return [
        Described(
            prefix + f.name.upper(),
            f.metadata["help"],
            None if f.default is MISSING else _shown(f.default),
        )
        for f in fields(cls)
    ]


def environment() -> Mapping[str, str]:
    """Return the process's environment: the one place that reads it."""
    return os.environ  # noqa: TID251 - the one place that reads it


def load(cls: type[T], prefix: str, environ: Mapping[str, str]) -> T:
    """Read a settings class from variables named prefix + field name in capitals.

    Raises:
        SettingsError: A required one is missing, one is malformed, or a variable with this prefix is unknown.
    """
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    faults: list[str] = []
    known: set[str] = set()
    for f in fields(cls):  # type: ignore[arg-type] # every caller passes a dataclass; there is no bound for it
        variable = prefix + f.name.upper()
        known.add(variable)
        text = environ.get(variable)
        # Empty is how Compose passes on a variable that nobody set.
        if text is None or (not text and _optional(hints[f.name])):
            if f.default is MISSING:
                faults.append(f"{variable} is not set: {f.metadata['help']}")
            continue
        try:
            values[f.name] = _parse(f, hints[f.name], text)
        except ValueError as error:
            faults.append(f"{variable}: {error}")
    faults.extend(f"{name} is not a setting" for name in environ if name.startswith(prefix) and name not in known)
    if faults:
        raise SettingsError("\n".join(faults))
    return cls(**values)


def _parse(f: Field[Any], hint: Any, text: str) -> Any:
    parse = f.metadata["parse"]
    if parse is not None:
        return parse(text)
    kinds = [k for k in typing.get_args(hint) if k is not type(None)] if _optional(hint) else [hint]
    kind = kinds[0]
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise ValueError("expected true or false")
    if kind is int:
        return _number(int, text, "a whole number")
    if kind is float:
        return _number(float, text, "a number")
    if kind is Path:
        return Path(text)
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _number(kind: Callable[[str], T], text: str, expected: str) -> T:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"expected {expected}") from None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, Enum):
        return str(value.value)
    return "" if value is None else str(value)
