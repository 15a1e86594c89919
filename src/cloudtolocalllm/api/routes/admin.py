"""What administrators see and do. They see counts and the audit log, never what anybody asks or answers."""

import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from cloudtolocalllm import __version__
from cloudtolocalllm.api.audit import Event, Reason
from cloudtolocalllm.api.bus import user_topic
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.manager_client import ManagerError
from cloudtolocalllm.api.models import AuditEvents, Overview
from cloudtolocalllm.api.parts import Parts, parts_of, signed_in
from cloudtolocalllm.api.revocations import BLOCK_LIFETIME, blocked_member
from cloudtolocalllm.auth.sessions import LIFETIME
from cloudtolocalllm.contracts.problems import Problem

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/admin", tags=["admin"])

PartsOf = Annotated[Parts, Depends(parts_of)]
UserId = Annotated[str, Path(pattern=r"^u_[a-z2-7]{20}$", examples=["u_guq5pi4vzry6glg2sssi"])]
_NOT_IN = (Problem.UNAUTHENTICATED, Problem.FORBIDDEN)


async def admin(request: Request, identity: Annotated[Identity, Depends(signed_in)]) -> Identity:
    """Return the administrator who asks, by session only.

    Raises:
        ProblemError: Nobody known, or no administrator.
    """
    if identity.session is None or not identity.session.admin:
        (await parts_of(request)).auditor.record(Event.FORBIDDEN, user=identity.user, reason=Reason.NOT_ADMIN)
        raise ProblemError(Problem.FORBIDDEN, "Only administrators may do this.")
    return identity


Admin = Annotated[Identity, Depends(admin)]


@router.get("/overview", responses=described(*_NOT_IN))
async def overview(identity: Admin, parts: PartsOf, response: Response) -> Overview:
    """Tell how much is going on."""
    response.headers["cache-control"] = "no-store"
    try:
        instances = await parts.manager.list_instances()
    except ManagerError:
        instances = None
    return Overview(
        bridges_connected=await parts.registry.connected(),
        instances=None if instances is None else len(instances),
        users_active=None if instances is None else len({i.user for i in instances if i.user}),
        version=__version__,
        # Without a provider there is one owner, and nobody can sign up.
        sign_up="closed" if parts.sign_in is None else parts.sign_in.sign_up.value,
        provider=None if parts.sign_in is None else parts.sign_in.config.name,
    )


@router.get("/audit", responses=described(Problem.BAD_REQUEST, *_NOT_IN))
async def audit(
    identity: Admin, parts: PartsOf, response: Response, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> AuditEvents:
    """List the latest security events, newest first."""
    response.headers["cache-control"] = "no-store"
    return AuditEvents(events=await parts.recent_events(limit))


@router.post("/users/{user}/sign-out", status_code=204, responses=described(*_NOT_IN, Problem.BAD_REQUEST))
async def sign_out_user(user: UserId, identity: Admin, parts: PartsOf) -> Response:
    """End all of a user's sessions; their API keys and bridges go on."""
    await parts.revocations.revoke_user(user, before=parts.clock.wall(), lifetime=LIFETIME)
    parts.auditor.record(Event.SESSIONS_REVOKED, user=identity.user, target=user, reason=Reason.BY_OPERATOR)
    _tell(parts, identity, user, "admin-sign-out")
    return Response(status_code=204)


@router.post("/users/{user}/block", status_code=204, responses=described(*_NOT_IN, Problem.BAD_REQUEST))
async def block_user(user: UserId, identity: Admin, parts: PartsOf) -> Response:
    """Keep a user out: sessions, API keys and bridges are refused at once, and signing in again."""
    if user == identity.user:
        raise ProblemError(Problem.BAD_REQUEST, "Expected another user: an administrator cannot block themselves.")
    await parts.revocations.add(blocked_member(user), parts.clock.wall() + BLOCK_LIFETIME)
    try:
        await parts.manager.remove(user)  # its tunnels and what streams through them
    except ManagerError as error:
        log.warning("a blocked user's proxy was not removed", extra={"user": user, "cause": str(error)})
    parts.auditor.record(Event.USER_DISABLED, user=identity.user, target=user, reason=Reason.BY_OPERATOR)
    _tell(parts, identity, user, "admin-block")
    return Response(status_code=204)


@router.post("/users/{user}/unblock", status_code=204, responses=described(*_NOT_IN, Problem.BAD_REQUEST))
async def unblock_user(user: UserId, identity: Admin, parts: PartsOf) -> Response:
    """Let a blocked user in again."""
    await parts.revocations.lift(blocked_member(user))
    parts.auditor.record(Event.USER_ENABLED, user=identity.user, target=user)
    _tell(parts, identity, user, "admin-unblock")
    return Response(status_code=204)


def _tell(parts: Parts, identity: Identity, user: str, what: str) -> None:
    """Note that an administrator acted, and have the user's pages look again."""
    parts.auditor.record(Event.ADMIN_ACTION, user=identity.user, target=user, about=what)
    parts.bus.publish(user_topic(user), {"changed": "session"})
