"""Asks the API about requests on the data path."""

import re
from dataclasses import dataclass

from cloudtolocalllm.contracts import authorize as contract
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Headers, HttpError, Pool, Request, Response, fetch

_ERROR_STATUS = re.compile(rb"[45][0-9]{2}")
"""What a refusal may tell a client: no success, no redirect, no switch of protocols."""
_SECONDS = re.compile(rb"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The request may go to this proxy."""

    endpoint: str
    """As the driver wrote it: "unix:/path" or "host:port"."""
    assertion: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is answered here."""

    problem: Problem
    status: int
    detail: str
    retry_after: str | None = None
    """Seconds."""


class Authorizer:
    """The API's decisions, one question a request."""

    def __init__(self, api: Pool, timeout: float) -> None:
        """Ask this API, waiting up to `timeout` seconds."""
        self._api = api
        self._timeout = timeout

    async def ask(self, request: Request, request_id: bytes, *, fresh: bool) -> Allowed | Refused:
        """Return the decision about a request.

        Args:
            request: As the client sent it.
            request_id: Ours.
            fresh: Whether an earlier answer's endpoint accepted no connection.
        """
        try:
            answer = await fetch(
                self._api,
                "GET",
                contract.AUTHORIZE_TARGET,
                _question(request, request_id, fresh),
                timeout=self._timeout,
            )
        except (HttpError, OSError, TimeoutError):
            return Refused(Problem.OVERLOADED, 503, "The API does not answer; try again.", "1")
        return _decision(answer)


def _question(request: Request, request_id: bytes, fresh: bool) -> Headers:
    fields = [
        (contract.ORIGINAL_METHOD, request.method.encode()),
        (contract.ORIGINAL_URI, request.target.encode()),
        (contract.ORIGINAL_HOST, request.field(b"host") or b""),
        (b"x-request-id", request_id),
    ]
    if fresh:
        fields.append((contract.FRESH, b"1"))
    fields += [
        (name, value)
        for name, value in request.headers
        if name in contract.FORWARDED_FIELDS and name != b"x-request-id"
    ]
    return tuple(fields)


def _decision(answer: Response) -> Allowed | Refused:
    if answer.status == 200:
        endpoint, assertion = answer.field(contract.ENDPOINT), answer.field(contract.ASSERTION)
        if endpoint and assertion:
            try:
                return Allowed(str(Endpoint.parse(endpoint.decode())), assertion)
            except ValueError:
                pass
    elif answer.status in (401, 403):
        return _refusal(answer)
    return Refused(Problem.INTERNAL, 500, "The API's decision could not be read.")


def _refusal(answer: Response) -> Refused:
    """Read a refusal; one that cannot be read is one all the same."""
    stated = answer.field(contract.STATUS)
    try:
        problem = Problem.by_slug((answer.field(contract.PROBLEM) or b"").decode())
    except (KeyError, ValueError):
        problem = None
    if problem is None or (stated is not None and not _ERROR_STATUS.fullmatch(stated)):
        plain = Problem.UNAUTHENTICATED if answer.status == 401 else Problem.FORBIDDEN
        return Refused(plain, answer.status, "The API refused the request.")
    status = problem.value.status if stated is None else int(stated)
    detail = (answer.field(contract.DETAIL) or b"").decode("ascii", "replace")
    seconds = answer.field(contract.RETRY_AFTER) or b""
    return Refused(problem, status, detail, seconds.decode() if _SECONDS.fullmatch(seconds) else None)
