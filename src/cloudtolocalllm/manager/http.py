"""The manager's API, for api-backend alone."""

import json
import logging
import math
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.audit.refusals import reason_of
from cloudtolocalllm.auth.services import ServiceVerifier
from cloudtolocalllm.auth.signing import TokenRefusedError
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.manager.demands import CapacityError, LeavingError, StartFailedError, UnavailableError
from cloudtolocalllm.manager.policy import Phase
from cloudtolocalllm.manager.reconciler import Reconciler
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

UNAVAILABLE_RETRY = 5.0
"""Seconds after which a caller tries again when the container engine does not answer: it starts in about one."""


class InstanceModel(BaseModel):
    """A user's proxy."""

    id: str = Field(examples=["px-0123456789abcdef"])
    user: str | None = Field(examples=["u_4f7Qk2"])
    endpoint: str = Field(examples=["unix:/run/c2l/proxies/px-0123456789abcdef/http.sock"])
    key: str = Field(examples=["00" * 32], description="HMAC key, hex, under which assertions for it are minted.")
    state: Literal["starting", "ready", "stopping"]
    created: float = Field(examples=[1767225600.0], description="Seconds since the epoch.")


class DisconnectModel(BaseModel):
    """Which bridge is to be cut."""

    bridge: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["k2qxv7hd4m3a"])


class ListedInstance(BaseModel):
    """A proxy without its key."""

    id: str
    user: str | None
    endpoint: str | None
    state: Literal["starting", "ready", "stopping"]
    created: float
    in_flight: int = Field(description="Streams when it was last looked at.")
    bridges: int = Field(description="Bridges attached when it was last looked at.")


class InstanceList(BaseModel):
    """All proxies."""

    instances: list[ListedInstance]


class States(BaseModel):
    """Proxies by state."""

    starting: int
    ready: int
    stopping: int


class StartSeconds(BaseModel):
    """How long the last 1,000 starts took; null before the first."""

    p50: float | None
    p99: float | None


class StatsModel(BaseModel):
    """The manager's figures since its start."""

    instances: States
    warm: int = Field(description="Spares that are ready.")
    max_instances: int
    in_flight: int = Field(description="Streams in all proxies when they were last looked at.")
    waiting: int = Field(description="Users who wait for a proxy.")
    starts: int
    start_failures: int
    start_seconds: StartSeconds
    claimed: int = Field(description="Spares given to users.")
    culled: int = Field(description="Proxies ended because they were idle.")
    failures: int = Field(description="Proxies that ended by themselves or did not answer.")
    refused: int = Field(description="Users refused because all places were taken.")
    adopted: int = Field(description="Proxies of an earlier manager taken over.")


class ProblemResponse(Response):
    """A problem document as a response."""

    def __init__(self, problem: Problem, detail: str, retry_after: float | None = None) -> None:
        headers = {} if retry_after is None else {"retry-after": str(math.ceil(retry_after))}
        if problem is Problem.UNAUTHENTICATED:
            headers["www-authenticate"] = "Bearer"
        super().__init__(problem_content(problem, detail), problem.value.status, headers, CONTENT_TYPE)


class _UnauthenticatedError(Exception):
    """The caller did not present a token that holds."""


User = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The user's pseudonym.", examples=["u_4f7Qk2"])
]


def make_app(reconciler: Reconciler, verifier: ServiceVerifier, clock: Clock, auditor: Auditor) -> FastAPI:
    """Return the application.

    Args:
        reconciler: What it speaks for.
        verifier: Knows who may call.
        clock: Its wall time decides whether a token holds.
        auditor: Hears of refused callers.
    """

    async def authenticated(request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            auditor.record(Event.SERVICE_TOKEN_REFUSED, reason=Reason.NO_CREDENTIAL)
            raise _UnauthenticatedError
        try:
            verifier.verify(token, now=clock.wall())
        except TokenRefusedError as error:
            log.warning("a caller's token was refused", extra={"reason": str(error)})
            auditor.record(Event.SERVICE_TOKEN_REFUSED, reason=reason_of(error))
            raise _UnauthenticatedError from None

    app = FastAPI(
        title="CloudToLocalLLM streaming proxy manager",
        description="Lifecycle of the per-user streaming proxies. For api-backend only.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    guarded = [Depends(authenticated)]
    _add_instances(app, reconciler, guarded)
    _add_health(app, reconciler, guarded)
    _add_errors(app)
    return app


def _add_instances(app: FastAPI, reconciler: Reconciler, guarded: list[Any]) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        400: {"description": "The user's name is malformed."},
        401: {"description": "The token is missing or wrong."},
    }

    @app.put(
        "/v1/instances/{user}",
        response_model=InstanceModel,
        dependencies=guarded,
        responses={**problems, 503: {"description": "All places are taken, or it does not start; see Retry-After."}},
    )
    async def ensure(user: User, check: bool = False) -> Response:
        """Return the user's ready proxy, made if there is none; `check=true` asks it first, replaces a dead one."""
        try:
            instance = await reconciler.ensure(user, check=check)
        except CapacityError as error:
            return ProblemResponse(Problem.OVERLOADED, "All proxies are taken; try again later.", error.retry_after)
        except UnavailableError as error:
            return ProblemResponse(Problem.OVERLOADED, f"No proxy can be made now: {error}.", UNAVAILABLE_RETRY)
        except LeavingError:
            response = ProblemResponse(Problem.OVERLOADED, "This manager ends; ask the next one at once.", 0)
            response.headers["connection"] = "close"  # a further call on it would meet this one again
            return response
        except StartFailedError:
            return ProblemResponse(Problem.OVERLOADED, "The proxy could not be started; try again.", 1)
        return _json(instance.to_json())

    @app.get(
        "/v1/instances/{user}",
        response_model=InstanceModel,
        dependencies=guarded,
        responses={**problems, 404: {"description": "The user has no ready proxy."}},
    )
    async def get(user: User) -> Response:
        """Return the user's ready proxy, if there is one; makes none."""
        instance = reconciler.get(user)
        if instance is None:
            return ProblemResponse(Problem.NOT_FOUND, "This user has no ready proxy.")
        return _json(instance.to_json())

    @app.get("/v1/instances", response_model=InstanceList, dependencies=guarded, responses={401: problems[401]})
    async def instances() -> Response:
        """Return all proxies, without their keys."""
        return _json({"instances": [_listed(entry.id, reconciler) for entry in reconciler.table]})

    @app.delete("/v1/instances/{user}", status_code=204, dependencies=guarded, responses=problems)
    async def remove(user: User) -> Response:
        """End the user's proxy; its streams get a short time to finish. Without effect when there is none."""
        try:
            await reconciler.remove(user)
        except TimeoutError:
            return ProblemResponse(Problem.TIMED_OUT, "The proxy is still being removed; try again.", 5)
        return Response(status_code=204)

    @app.post("/v1/instances/{user}/disconnect", status_code=204, dependencies=guarded, responses=problems)
    async def disconnect(user: User, body: DisconnectModel) -> Response:
        """Cut a revoked bridge's tunnels to the user's proxy, at once. Without effect when there are none."""
        await reconciler.disconnect(user, body.bridge)
        return Response(status_code=204)


def _add_health(app: FastAPI, reconciler: Reconciler, guarded: list[Any]) -> None:
    @app.get("/v1/stats", response_model=StatsModel, dependencies=guarded)
    async def stats() -> Response:
        """Return the manager's figures."""
        return _json(_stats(reconciler))

    @app.get("/healthz", response_class=Response)
    async def healthz() -> Response:
        """Answer as long as the process works."""
        return Response(b"ok\n", media_type="text/plain")

    @app.get("/readyz", response_class=Response, responses={503: {"description": "No proxies can be made now."}})
    async def readyz() -> Response:
        """Answer 200 when proxies can be made."""
        if reconciler.ready:
            return Response(b"ready\n", media_type="text/plain")
        return ProblemResponse(Problem.OVERLOADED, "No proxies can be made now.", 1)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(_UnauthenticatedError)
    async def unauthenticated(_request: Request, _error: Exception) -> Response:
        return ProblemResponse(
            Problem.UNAUTHENTICATED, "Expected a service's token, for this one, as a bearer token."
        )

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, _error: Exception) -> Response:
        return ProblemResponse(Problem.BAD_REQUEST, "Expected a user name of 1 to 64 letters, digits, - and _.")

    @app.exception_handler(HTTPException)
    async def other(_request: Request, error: HTTPException) -> Response:
        if error.status_code == Problem.METHOD_NOT_ALLOWED.value.status:
            return ProblemResponse(Problem.METHOD_NOT_ALLOWED, "This route has other methods.")
        return ProblemResponse(Problem.NOT_FOUND, "Routes begin with /v1/instances or /v1/stats.")

    @app.exception_handler(Exception)
    async def internal(_request: Request, _error: Exception) -> Response:
        return ProblemResponse(Problem.INTERNAL, "The manager's log has the cause.")


def _listed(instance: str, reconciler: Reconciler) -> dict[str, Any]:
    entry = reconciler.table.get(instance)
    assert entry is not None  # noqa: S101 - taken from the table in the same turn of the loop
    return {
        "id": entry.id,
        "user": entry.user,
        "endpoint": None if entry.endpoint is None else str(entry.endpoint),
        "state": entry.state.value,
        "created": entry.created,
        "in_flight": entry.in_flight,
        "bridges": entry.bridges,
    }


def _stats(reconciler: Reconciler) -> dict[str, Any]:
    entries = list(reconciler.table)
    counters = reconciler.counters
    states = [entry.state.value for entry in entries]
    return {
        "instances": {name: states.count(name) for name in ("starting", "ready", "stopping")},
        "warm": sum(entry.phase is Phase.READY and entry.user is None for entry in entries),
        "max_instances": reconciler.max_instances,
        "in_flight": sum(entry.in_flight for entry in entries),
        "waiting": reconciler.waiting,
        "starts": counters.starts,
        "start_failures": counters.start_failures,
        "start_seconds": {"p50": counters.start_quantile(0.5), "p99": counters.start_quantile(0.99)},
        "claimed": counters.claimed,
        "culled": counters.culled,
        "failures": counters.ended_by_themselves + counters.unresponsive,
        "refused": counters.refused,
        "adopted": counters.adopted,
    }


def _json(value: dict[str, Any]) -> Response:
    # Written by hand: the values are ours, and validating them again would double the cost of the hottest call.
    return Response(json.dumps(value).encode(), media_type="application/json")
