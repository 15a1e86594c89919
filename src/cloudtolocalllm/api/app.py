"""The HTTP API as one ASGI application."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from cloudtolocalllm import __version__
from cloudtolocalllm.api import failures
from cloudtolocalllm.api.parts import Parts
from cloudtolocalllm.api.routes import auth, bridge, health, streaming
from cloudtolocalllm.auth.sessions import COOKIE

OPENAPI_TARGET = "/api/openapi.json"

_SECURITY = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, as a bearer token or in x-api-key."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Set by sign-in. On HTTPS the name has the prefix __Host-. Requests that change something "
        "also need the field c2l-request with any value.",
    },
}
_SESSION_ONLY = ("/api/auth/keys", "/api/auth/sign-out")
_OPEN = ("/api/auth/sign-in",)


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
    failures.install(app)
    for router in (auth.router, bridge.router, streaming.router, health.router):
        app.include_router(router)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        return _amended(describe()) if app.openapi_schema is None else app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way FastAPI documents to extend its document
    return app


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name


def _amended(document: dict[str, Any]) -> dict[str, Any]:
    """Describe failures as they are: problem documents, and 400 where FastAPI says 422."""
    components = document["components"]
    components["schemas"]["ProblemDocument"] = failures.PROBLEM_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = _SECURITY
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["responses"].pop("422", None)
            if "401" in operation["responses"] and not path.startswith(_OPEN):
                session_only = path.startswith(_SESSION_ONLY)
                operation["security"] = [{"session": []}] if session_only else [{"session": []}, {"apiKey": []}]
    return document
