"""Asks the API about requests on the data path."""

import asyncio
import re
from dataclasses import dataclass, replace

from cloudtolocalllm.contracts import authorize as contract
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge.answers import retry_after
from cloudtolocalllm.edge.headers import DPOP_NONCE
from cloudtolocalllm.edge.replicas import Replicas
from cloudtolocalllm.runtime.http1 import BadResponseError, Headers, HttpError, Request, Response, fetch

_ERROR_STATUS = re.compile(rb"[45][0-9]{2}")
"""What a refusal may tell a client: no success, no redirect, no switch of protocols."""
_NONCE = re.compile(rb"[A-Za-z0-9_-]{1,256}")
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
    nonce: bytes | None = None
    """For a bridge's next proof (RFC 9449 §8)."""
    challenge: bytes = b'DPoP error="use_dpop_nonce"'
    """With a nonce: what was wrong with this one (RFC 9449 §7.1)."""

    @property
    def fields(self) -> Headers:
        """What the answer bears beside the problem document."""
        if self.nonce is None:
            return retry_after(self.retry_after)
        challenge = (contract.CHALLENGE, self.challenge)
        return (*retry_after(self.retry_after), challenge, (DPOP_NONCE, self.nonce))


class Authorizer:
    """The API's decisions, one question a request."""

    def __init__(self, api: Replicas, timeout: float) -> None:
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
            answer = await self._fetch(_question(request, request_id, fresh))
        except (HttpError, OSError, TimeoutError):
            return Refused(Problem.OVERLOADED, 503, "The API does not answer; try again.", "1")
        return _decision(answer)

    async def _fetch(self, question: Headers) -> Response:
        async with asyncio.timeout(self._timeout):
            try:
                return await self._fetch_once(question)
            except BadResponseError:  # that replica died over it: another one may know
                return await self._fetch_once(question)

    async def _fetch_once(self, question: Headers) -> Response:
        return await fetch(self._api, "GET", contract.AUTHORIZE_TARGET, question, timeout=self._timeout)


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
    nonce = answer.field(contract.DPOP_NONCE) if status == 401 else None
    refused = Refused(problem, status, detail, seconds.decode() if _SECONDS.fullmatch(seconds) else None)
    if nonce is None or not _NONCE.fullmatch(nonce):
        return refused
    challenge = answer.field(contract.CHALLENGE) or b""
    return replace(refused, nonce=nonce, challenge=challenge if challenge.startswith(b"DPoP ") else refused.challenge)
