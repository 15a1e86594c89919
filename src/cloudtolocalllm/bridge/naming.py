"""Which models a request names."""

import json
from collections.abc import Iterable
from typing import Any

MODEL_MEMBERS = frozenset({"model", "name", "source", "destination"})


class ModelUnreadableError(ValueError):
    """The request's content is no JSON object with a model. The text never quotes it."""


def _pairs(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return pairs


def named_models(content: bytes | bytearray) -> list[str]:
    """Return every model that a request's JSON names at its top level, the one that counts last.

    Ollama is written in Go, whose JSON decoder takes member names without regard to case and the last of several,
    while others take the first; so all spellings are returned and each must be allowed.

    Raises:
        ModelUnreadableError: It is not JSON, not an object, or a model's name is not a text.
    """
    try:
        value = json.loads(content, object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        raise ModelUnreadableError("Expected the content to be JSON.") from None
    if not isinstance(value, list) or not all(isinstance(pair, tuple) for pair in value):
        raise ModelUnreadableError("Expected the content to be a JSON object.")
    named = [(key.casefold(), model) for key, model in value if key.casefold() in MODEL_MEMBERS]
    # "name" is the older spelling of "model"; "source" and "destination" are those of a copy.
    models = [model for key, model in sorted(named, key=lambda pair: pair[0] == "model")]
    if any(not isinstance(model, str) for model in models):
        raise ModelUnreadableError("Expected the model's name to be a text.")
    return models


def canonical(model: str) -> str:
    """Return a model's name as Ollama compares it: without the default tag, in lower case."""
    return model.strip().lower().removesuffix(":latest")


def is_cloud_model(model: str, remote: Iterable[str] = ()) -> bool:
    """Whether a model is one of Ollama's that run in its cloud.

    Args:
        model: As the request names it.
        remote: Canonical names of the models that the engine itself lists as remote.
    """
    name = canonical(model)
    return name.endswith(("-cloud", ":cloud")) or name in set(remote)
