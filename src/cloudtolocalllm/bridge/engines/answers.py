"""What engines answer to the small questions of health and listing; pure."""

import json
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.auth.scopes import NO_SCOPE, KeyScope
from cloudtolocalllm.bridge.naming import canonical
from cloudtolocalllm.contracts.problems import CONTENT_TYPE
from cloudtolocalllm.runtime.http1 import Response


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an engine lists."""

    name: str
    remote: bool = False
    """Whether the engine only passes it on to somebody else's machines."""


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object that a response holds; an empty one when it holds none."""
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def members(response: Response, member: str) -> list[dict[str, Any]] | None:
    """Return the objects of a list in a JSON answer; None when there is no such list."""
    value = json_object(response).get(member)
    if response.status != 200 or not isinstance(value, list):
        return None
    return [item for item in value if isinstance(item, dict)]


def ollama_models(response: Response) -> tuple[Model, ...] | None:
    """Read an answer of /api/tags or /api/ps; None when it is none."""
    listed = members(response, "models")
    if listed is None:
        return None
    result = []
    for item in listed:
        name = item.get("model") or item.get("name")
        if isinstance(name, str):
            result.append(Model(canonical(name), bool(item.get("remote_host") or item.get("remote_model"))))
    return tuple(result)


def openai_models(response: Response) -> tuple[Model, ...] | None:
    """Read an answer of /v1/models; None when it is none."""
    listed = members(response, "data")
    if listed is None:
        return None
    return tuple(Model(item["id"]) for item in listed if isinstance(item.get("id"), str))


def ollama_version(response: Response) -> str | None:
    """Read an answer of /api/version; None when it is none."""
    version = json_object(response).get("version")
    return version if response.status == 200 and isinstance(version, str) else None


def is_loading(response: Response) -> bool:
    """Whether llama.cpp says that it is still loading its model (503 "Loading model")."""
    if response.status != 503:
        return False
    error = json_object(response).get("error")
    return isinstance(error, dict) and "loading model" in str(error.get("message", "")).lower()


def is_ours(response: Response) -> bool:
    """Whether it is a part of this platform that answers, not an engine: its own edge uses a well-known port, too."""
    if "cloudtolocalllm" in (response.field(b"server") or b"").decode("latin-1").lower():
        return True
    if (response.field(b"content-type") or b"").startswith(CONTENT_TYPE.encode()):
        return True
    return any(name.startswith(b"c2l-") for name, _ in response.headers)


def joined(responses: list[Response], member: str, scope: KeyScope = NO_SCOPE) -> bytes:
    """Return one JSON answer with the lists of several; of entries with the same name the first stays.

    Args:
        responses: The engines'.
        member: Which holds the list.
        scope: An entry with any name out of it is left out.
    """
    merged: list[dict[str, Any]] = []
    seen: set[str] = set()
    for response in responses:
        for item in members(response, member) or []:
            name = str(item.get("id") or item.get("model") or item.get("name") or "")
            names = [item[key] for key in ("id", "model", "name") if isinstance(item.get(key), str)]
            if name not in seen and all(scope.allows_model(spelling) for spelling in names or [""]):
                seen.add(name)
                merged.append(item)
    value: dict[str, Any] = {"object": "list", "data": merged} if member == "data" else {member: merged}
    return json.dumps(value).encode()
