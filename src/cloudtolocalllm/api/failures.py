"""Every failure of the HTTP API as a problem document (RFC 9457)."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloudtolocalllm.api.browser import AmbiguousError
from cloudtolocalllm.api.models import ProblemDocument
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content

log = logging.getLogger(__name__)

_BY_STATUS = {
    401: Problem.UNAUTHENTICATED,
    403: Problem.FORBIDDEN,
    404: Problem.NOT_FOUND,
    405: Problem.METHOD_NOT_ALLOWED,
    413: Problem.TOO_LARGE,
}


class ProblemError(Exception):
    """What a route raises to answer with a problem."""

    def __init__(self, problem: Problem, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.headers = headers


def problem_response(problem: Problem, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that shows a problem."""
    fields = {"cache-control": "no-store", **(headers or {})}
    if problem is Problem.UNAUTHENTICATED:
        fields.setdefault("www-authenticate", "Bearer")  # RFC 9110 §11.6.1: a 401 names the scheme
    return Response(problem_content(problem, detail), problem.value.status, fields, CONTENT_TYPE)


def described(*problems: Problem) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can fail in these ways, for OpenAPI."""
    found: dict[int | str, dict[str, Any]] = {}
    for problem in problems:
        value = problem.value
        titles = [found[value.status]["description"]] if value.status in found else []
        found[value.status] = {
            "description": "; or ".join([*titles, f"{value.title} (`{value.uri}`)"]),
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
    return found


def install(app: FastAPI) -> None:
    """Make an application answer every failure with a problem document."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(AmbiguousError, _on_ambiguous)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(StateUnavailableError, _on_no_state)
    app.add_exception_handler(Exception, _on_crash)


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - narrows the type; registered for it only
    return problem_response(error.problem, error.detail, error.headers)


async def _on_ambiguous(_: Request, error: Exception) -> Response:
    return problem_response(Problem.BAD_REQUEST, f"{error}.")


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - narrows the type; registered for it only
    faults = []
    for fault in error.errors()[:5]:
        # The path and our own words; pydantic's `input` and `ctx` would echo what was sent.
        where = ".".join(str(part) for part in fault["loc"] if isinstance(part, str))
        faults.append(f"{where[:80]}: {fault['type']}")
    return problem_response(Problem.BAD_REQUEST, f"The request does not fit: {'; '.join(faults)}.")


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows the type; registered for it only
    problem = _BY_STATUS.get(error.status_code, Problem.BAD_REQUEST if error.status_code < 500 else Problem.INTERNAL)
    headers = error.headers
    if problem is Problem.METHOD_NOT_ALLOWED:
        # The framework names the methods of one route; a resource may have several (RFC 9110 §10.2.1).
        headers = {"allow": ", ".join(sorted(request.app.state.methods_of(request.url.path)))}
    return problem_response(problem, f"{problem.value.title}.", headers)


async def _on_no_state(_: Request, error: Exception) -> Response:
    log.warning("the state does not answer", extra={"cause": str(error)})
    return problem_response(
        Problem.OVERLOADED, "The server cannot look this up now; try again.", {"retry-after": "1"}
    )


async def _on_crash(_: Request, error: Exception) -> Response:
    return problem_response(Problem.INTERNAL, "The failure was logged here; try again.")


PROBLEM_SCHEMA = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
