"""The HTTP API as one ASGI application."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from cloudtolocalllm import __version__
from cloudtolocalllm.api import failures
from cloudtolocalllm.api.parts import Parts, signed_in, user
from cloudtolocalllm.api.routes import admin, auth, bridge, health, keys, pairing, sign_in, streaming
from cloudtolocalllm.auth.sessions import COOKIE

OPENAPI_TARGET = "/api/openapi.json"

_SECURITY = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, as a bearer token or in x-api-key."},
    "bridge": {
        "type": "http",
        "scheme": "DPoP",
        "description": "A bridge's credential with a proof of its key in the field DPoP (RFC 9449).",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Set by sign-in. On HTTPS the name has the prefix __Host-. Requests that change something "
        "also need the field c2l-request with any value.",
    },
}
_ROOMS = (auth, sign_in, keys, pairing, bridge, streaming, admin, health)
_GUARDS: dict[Any, list[dict[str, list[str]]]] = {
    signed_in: [{"session": []}],
    user: [{"session": []}, {"apiKey": []}],
    bridge.proven: [{"bridge": []}],
}
"""What each of the functions that let somebody in asks for."""


def build_app(parts: Parts | None) -> FastAPI:
    """Return the application.

    Args:
        parts: What its routes work with; None to only describe it.
    """
    app = FastAPI(
        title="CloudToLocalLLM",
        version=__version__,
        summary="Sign-in, keys, bridges and streaming status. The data routes (/v1, /ollama) are not here: they "
        "lead to your own engine.",
        docs_url=None,  # its pages load scripts from a CDN
        redoc_url=None,
        openapi_url=OPENAPI_TARGET,
        generate_unique_id_function=_operation_id,
    )
    app.state.parts = parts
    app.state.methods_of = methods_of
    failures.install(app)
    for room in _ROOMS:
        app.include_router(room.router)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        return _amended(describe(), _security_by_operation()) if app.openapi_schema is None else app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way FastAPI documents to extend its document
    return app


def methods_of(path: str) -> set[str]:
    """Return the methods of whatever routes a path has."""
    routes = [
        route
        for room in _ROOMS
        for route in room.router.routes
        if isinstance(route, APIRoute) and route.include_in_schema and route.path_regex.fullmatch(path)
    ]
    literal = [route for route in routes if route.path == path]
    return {method for route in literal or routes for method in route.methods or ()}


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name


def _security_by_operation() -> dict[str, list[dict[str, list[str]]]]:
    """Return what each operation asks for, by operation id: what its guard does, so that no list can go stale."""
    found = {}
    for route in (route for room in _ROOMS for route in room.router.routes):
        if isinstance(route, APIRoute):
            calls = set(_calls(route.dependant))
            found[_operation_id(route)] = next((asked for guard, asked in _GUARDS.items() if guard in calls), [])
    return found


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls(inner)


def _amended(document: dict[str, Any], security: dict[str, list[dict[str, list[str]]]]) -> dict[str, Any]:
    """Describe failures as they are: problem documents, and 400 where FastAPI says 422; and who may call what."""
    components = document["components"]
    components["schemas"]["ProblemDocument"] = failures.PROBLEM_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = _SECURITY
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
            asked = security[operation["operationId"]]
            if asked:
                operation["security"] = asked
    return document
