"""Dataclasses as JSON: read, written, and described (JSON Schema 2020-12)."""

import json
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

MAX_WHOLE = 2**53
"""JavaScript's numbers are exact below it."""


class SchemaError(ValueError):
    """A value is not of its type. The text quotes names, never values."""


def read(kind: Any, value: Any, name: str = "the content") -> Any:
    """Return a JSON value as a value of a type.

    Args:
        kind: A dataclass or a simple type.
        value: What `json.loads` gave.
        name: For messages.

    Raises:
        SchemaError: It is not of the type.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_object(kind, value, name)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = [option for option in get_args(kind) if option is not type(None)]
        return read(inner, value, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise SchemaError(f"expected {name} to be a list")
        return tuple(read(get_args(kind)[0], item, name) for item in value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            raise SchemaError(f"expected {name} to be one of " + ", ".join(m.value for m in kind)) from None
    return _read_simple(kind, value, name)


def _read_object(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise SchemaError(f"expected {name} to be a JSON object")
    hints = get_type_hints(kind)
    unknown = set(value) - set(hints)
    if unknown:
        raise SchemaError(f"expected {name} to have only " + ", ".join(sorted(hints)))
    missing = [f.name for f in fields(kind) if f.name not in value and not _has_default(f)]
    if missing:
        raise SchemaError(f"expected {name} to have " + ", ".join(missing))
    return kind(**{member: read(hints[member], item, member) for member, item in value.items()})


def _read_simple(kind: Any, value: Any, name: str) -> Any:
    wanted = int if kind is float and type(value) is int else kind
    if wanted not in (str, int, float, bool) or type(value) is not wanted:
        raise SchemaError(f"expected {name} to be of type {_word(kind)}")
    if wanted is int and abs(value) >= MAX_WHOLE:
        raise SchemaError(f"expected {name} to be a smaller number")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SchemaError(f"expected {name} in valid Unicode, got half of a surrogate pair") from None
    return kind(value)


def from_text(kind: Any, text: str, name: str) -> Any:
    """Return the text of a query parameter as a value of a type.

    Raises:
        SchemaError: It is not of the type.
    """
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = [option for option in get_args(kind) if option is not type(None)]
    if kind is int:
        if not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise SchemaError(f"expected {name} to be a whole number")
        return int(text)
    return text


def write(value: Any) -> Any:
    """Return a value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: write(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [write(item) for item in value]
    return value


def encoded(value: Any) -> bytes:
    """Return a value as JSON text."""
    return json.dumps(write(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def describe(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type.

    Args:
        kind: The type.
        parts: Takes the schemas of dataclasses, by their names.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        _describe_object(kind, parts)
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        (inner,) = [option for option in get_args(kind) if option is not type(None)]
        return {"anyOf": [describe(inner, parts), {"type": "null"}]}
    if origin in (tuple, list):
        return {"type": "array", "items": describe(get_args(kind)[0], parts)}
    if origin is dict or kind is dict:
        return {"type": "object"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    return {"type": _word(kind)}


def _describe_object(kind: type, parts: dict[str, Any]) -> None:
    said = (kind.__doc__ or "").split("\n\n")[0].strip()
    if kind.__name__ in parts:
        if parts[kind.__name__]["description"] != said:
            raise SchemaError(f"expected one type of the name {kind.__name__}")
        return
    part: dict[str, Any] = {"type": "object", "description": said}
    parts[kind.__name__] = part
    hints = get_type_hints(kind)
    part["properties"] = {f.name: describe(hints[f.name], parts) for f in fields(kind)}
    part["required"] = [f.name for f in fields(kind) if not _has_default(f)]
    part["additionalProperties"] = False


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _word(kind: Any) -> str:
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(kind, "object")
