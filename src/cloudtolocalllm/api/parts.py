"""The parts of one API process, made once and handed to whoever needs them."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request

from cloudtolocalllm.api.audit import Auditor, Event, Reason, request_id
from cloudtolocalllm.api.authorize import Authorizer
from cloudtolocalllm.api.bridge_verifier import DpopVerifier
from cloudtolocalllm.api.browser import Fields, cross_site_fault, fields_of, session_fault
from cloudtolocalllm.api.bus import Bus
from cloudtolocalllm.api.failures import ProblemError
from cloudtolocalllm.api.identity import Identifier, Identity, Via
from cloudtolocalllm.api.manager_client import ManagerClient
from cloudtolocalllm.api.models import AuditEvent
from cloudtolocalllm.api.oidc.flow import SignIn
from cloudtolocalllm.api.pairing import PairingDesk
from cloudtolocalllm.api.registry import Registry
from cloudtolocalllm.api.revocations import Revocations
from cloudtolocalllm.api.state import State
from cloudtolocalllm.api.status import StatusReader
from cloudtolocalllm.audit.recent import Recent, recent
from cloudtolocalllm.auth.sessions import Sealer
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock

SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(slots=True)
class Parts:
    """What routes are made of."""

    state: State
    registry: Registry
    revocations: Revocations
    ring: KeyRing
    """Signs API keys and bridge credentials."""
    pseudonym_key: bytes
    sealer: Sealer
    identifier: Identifier
    authorizer: Authorizer
    bus: Bus
    manager: ManagerClient
    status: StatusReader
    clock: Clock
    secure: bool
    """Whether browsers reach us by HTTPS."""
    auditor: Auditor
    bridges: DpopVerifier
    pairing: PairingDesk
    public_url: str
    """The address that people use."""
    sign_in: SignIn | None = None
    """Signs people in with a provider; None when there is none."""
    audit_folder: Path | None = None
    """The parent of the audit logs; None when there are none."""
    event_streams: dict[str, int] = field(default_factory=dict)
    """Open event streams by user."""

    @property
    def scheme(self) -> str:
        """The scheme of the address that browsers use."""
        return "https" if self.secure else "http"

    async def recent_events(self, limit: int) -> list[AuditEvent]:
        """Return the newest events of this machine's audit logs, newest first."""
        if self.audit_folder is None:
            return []
        return [_shown(one) for one in await asyncio.to_thread(recent, self.audit_folder, limit)]


# All of these are coroutines, for FastAPI runs plain functions in threads, where the state may not be used.


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
        (await parts_of(request)).auditor.record(
            Event.FORBIDDEN, reason=Reason.CROSS_SITE, request_id=request_id(fields)
        )
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
    change = request.method not in SAFE_METHODS
    if identity.key is not None and not identity.key.scope.allows_account(change=change):
        _forbidden(parts, identity, Reason.KEY_SCOPE, fields)
        raise ProblemError(Problem.KEY_SCOPE, "It is limited to other routes; use one without limits, or sign in.")
    if identity.via is Via.SESSION and change:
        fault = session_fault(fields, host=fields.get(b"host", b""), scheme=parts.scheme)
        if fault is not None:
            _forbidden(parts, identity, Reason.CROSS_SITE, fields)
            raise ProblemError(Problem.FORBIDDEN, fault)
    return identity


async def signed_in(request: Request) -> Identity:
    """Return who asks, by session only: what an API key must not do, since a lost key could then make more of them.

    Raises:
        ProblemError: As `user`, or an API key.
    """
    identity = await user(request)
    if identity.via is not Via.SESSION:
        _forbidden(await parts_of(request), identity, Reason.WRONG_CREDENTIAL, fields_of(request.headers.raw))
        raise ProblemError(Problem.FORBIDDEN, "An API key may not do this; sign in.")
    return identity


def _forbidden(parts: Parts, identity: Identity, reason: Reason, fields: Fields) -> None:
    parts.auditor.record(Event.FORBIDDEN, user=identity.user, reason=reason, request_id=request_id(fields))


def _shown(one: Recent) -> AuditEvent:
    return AuditEvent(
        time=one.time,
        event=one.event,
        outcome="success" if one.success else "failure",
        user=one.user,
        reason=one.reason,
        request_id=one.request_id,
    )
