"""The table of the home API's routes, made from the signatures of typed handlers."""

import inspect
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cloudtolocalllm.bridge.home_api.messages import Blob, Caller, Nothing
from cloudtolocalllm.bridge.home_api.schema import describe

F = TypeVar("F", bound=Callable[..., Any])

MAX_CONTENT = 6 * 1024 * 1024
"""Bytes of a request's JSON: a message of 4 MiB with some of its characters escaped."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation."""

    method: str
    path: str
    """With {names} for its parts."""
    summary: str
    handler: Callable[..., Any]
    pattern: re.Pattern[str]
    names: tuple[str, ...]
    query: dict[str, inspect.Parameter]
    hints: dict[str, Any]
    max_content: int

    @property
    def body(self) -> Any:
        """Type of the content: a dataclass, bytes, or None for none."""
        return self.hints.get("body")

    @property
    def streams(self) -> bool:
        """Whether the answer goes on."""
        return get_origin(self.hints["return"]) is AsyncGenerator

    @property
    def result(self) -> Any:
        """Type of the answer, or of one of its events."""
        kind = self.hints["return"]
        return get_args(kind)[0] if self.streams else kind


class Routes:
    """A table that handlers are added to by a decorator."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def add(self, method: str, path: str, *, max_content: int = MAX_CONTENT) -> Callable[[F], F]:
        """Make a handler a route; its first two parameters are the home and the caller.

        Of the others those named in the path come from there, `body` is the content, and the rest are query
        parameters. Its result is a dataclass, a tuple of them, Nothing, Blob, or an asynchronous generator of events.

        Args:
            method: Of HTTP.
            path: With {names}.
            max_content: Bytes of content.
        """

        def added(handler: F) -> F:
            names = tuple(re.findall(r"{(\w+)}", path))
            pattern = re.compile(re.sub(r"{\w+}", "([A-Za-z0-9_-]{1,64})", path), re.ASCII)
            hints = get_type_hints(handler)
            signature = inspect.signature(handler)
            query = {
                name: parameter
                for name, parameter in list(signature.parameters.items())[2:]
                if name not in names and name != "body"
            }
            summary = (handler.__doc__ or "").strip().split("\n")[0]
            self.all.append(Route(method, path, summary, handler, pattern, names, query, hints, max_content))
            return handler

        return added

    def find(self, method: str, path: str) -> tuple[Route | None, dict[str, str], bool]:
        """Return the route of a request, what stands in its path, and whether the path has other methods."""
        other = False
        for route in self.all:
            found = route.pattern.fullmatch(path)
            if found is not None:
                if route.method == method:
                    return route, dict(zip(route.names, found.groups(), strict=True)), False
                other = True
        return None, {}, other


def description(routes: Routes, title: str) -> dict[str, Any]:
    """Return the description of a table in the manner of OpenAPI 3.1."""
    parts: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(routes.all, key=lambda route: (route.path, route.method)):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, parts)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "paths": paths,
        "components": {"schemas": dict(sorted(parts.items()))},
    }


def _operation(route: Route, parts: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.handler.__name__, "summary": route.summary}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.names
    ]  # fmt: skip
    for name, parameter in route.query.items():
        required = parameter.default is inspect.Parameter.empty
        schema = describe(route.hints[name], parts)
        parameters.append({"name": name, "in": "query", "required": required, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body, parts)}
    operation["responses"] = {
        "204" if route.result is Nothing else "200": _response(route, parts),
        "default": {"description": "A problem document (RFC 9457).", "content": {"application/problem+json": {}}},
    }
    return operation


def _response(route: Route, parts: dict[str, Any]) -> dict[str, Any]:
    if route.result is Nothing:
        return {"description": "Done."}
    if route.streams:
        schema = describe(route.result, parts)
        content: dict[str, Any] = {"application/x-ndjson": {"schema": schema}}
        return {"description": "Events, one JSON object each.", "content": content}
    return {"description": "The answer.", "content": _content(route.result, parts)}


def _content(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    if kind in (bytes, Blob):
        return {"application/octet-stream": {}}
    return {"application/json": {"schema": describe(kind, parts)}}


__all__ = ["MAX_CONTENT", "Caller", "Route", "Routes", "description"]
