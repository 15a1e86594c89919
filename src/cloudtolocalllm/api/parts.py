"""The parts of one API process, made once and handed to whoever needs them."""

from dataclasses import dataclass, field

from fastapi import Request

from cloudtolocalllm.api.authorize import Authorizer
from cloudtolocalllm.api.browser import cross_site_fault, fields_of, session_fault
from cloudtolocalllm.api.bus import Bus
from cloudtolocalllm.api.failures import ProblemError
from cloudtolocalllm.api.identity import Identifier, Identity, Via
from cloudtolocalllm.api.manager_client import ManagerClient
from cloudtolocalllm.api.status import StatusReader
from cloudtolocalllm.api.store import Store
from cloudtolocalllm.auth.sessions import Sealer
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock

SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(slots=True)
class Parts:
    """What routes are made of."""

    store: Store
    sealer: Sealer
    identifier: Identifier
    authorizer: Authorizer
    bus: Bus
    manager: ManagerClient
    status: StatusReader
    clock: Clock
    secure: bool
    """Whether browsers reach us by HTTPS."""
    event_streams: dict[str, int] = field(default_factory=dict)
    """Open event streams by user."""

    @property
    def scheme(self) -> str:
        """The scheme of the address that browsers use."""
        return "https" if self.secure else "http"


# All of these are coroutines, for FastAPI runs plain functions in threads, where the store may not be used.


async def parts_of(request: Request) -> Parts:
    """Return the parts of the application that serves a request."""
    parts: Parts = request.app.state.parts
    return parts


async def same_site(request: Request) -> None:
    """Refuse a request that a page of another origin made.

    Raises:
        ProblemError: It seems so.
    """
    fields = fields_of(request.headers.raw)
    fault = cross_site_fault(fields, host=fields.get(b"host", b""), scheme=(await parts_of(request)).scheme)
    if fault is not None:
        raise ProblemError(Problem.FORBIDDEN, fault)


async def maybe_session(request: Request) -> Identity | None:
    """Return who is signed in by a session cookie, None for nobody."""
    identity = (await parts_of(request)).identifier.identify(fields_of(request.headers.raw))
    return identity if identity is not None and identity.via is Via.SESSION else None


async def user(request: Request) -> Identity:
    """Return who asks, by API key or session. With a session, a request that changes something must be our page's.

    Raises:
        ProblemError: Nobody known, a bridge, or another page's request.
    """
    parts = await parts_of(request)
    fields = fields_of(request.headers.raw)
    identity = parts.identifier.identify(fields)
    if identity is None:
        raise ProblemError(Problem.UNAUTHENTICATED, "Sign in, or send Authorization: Bearer KEY.")
    if identity.via is Via.BRIDGE:
        raise ProblemError(Problem.FORBIDDEN, "A bridge's credential opens its own connections only.")
    if identity.via is Via.SESSION and request.method not in SAFE_METHODS:
        fault = session_fault(fields, host=fields.get(b"host", b""), scheme=parts.scheme)
        if fault is not None:
            raise ProblemError(Problem.FORBIDDEN, fault)
    return identity


async def signed_in(request: Request) -> Identity:
    """Return who asks, by session only: what an API key must not do, since a lost key could then make more of them.

    Raises:
        ProblemError: As `user`, or an API key.
    """
    identity = await user(request)
    if identity.via is not Via.SESSION:
        raise ProblemError(Problem.FORBIDDEN, "An API key may not do this; sign in.")
    return identity
