"""Pairing without a person's help, renewing, listing, renaming and removing bridges."""

import logging
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from cloudtolocalllm.api.audit import Event, Reason
from cloudtolocalllm.api.browser import fields_of
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import BridgeRefusedError, Identity
from cloudtolocalllm.api.manager_client import ManagerError
from cloudtolocalllm.api.models import Bridge, NewName
from cloudtolocalllm.api.pairing import LimitedError
from cloudtolocalllm.api.pairing_models import NewBridgeAsk, NewCredential
from cloudtolocalllm.api.parts import Parts, parts_of, user
from cloudtolocalllm.api.registry import TooManyBridgesError
from cloudtolocalllm.api.revocations import bridge_member
from cloudtolocalllm.api.routes.pairing import credential_of, limited, thumbprint, unproven
from cloudtolocalllm.auth.credentials import BridgeCredential
from cloudtolocalllm.contracts.problems import Problem

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/bridge", tags=["bridge"])

CUT_ATTEMPTS = 3
"""How often the manager is asked to cut a revoked bridge's tunnels."""

PartsOf = Annotated[Parts, Depends(parts_of)]
User = Annotated[Identity, Depends(user)]
_NOT_IN = (Problem.UNAUTHENTICATED, Problem.FORBIDDEN)


async def proven(request: Request) -> BridgeCredential:
    """Return what the credential of the bridge says that asks, which has proven to be that bridge.

    Raises:
        ProblemError: None has.
    """
    parts = await parts_of(request)
    fields = fields_of(request.headers.raw)
    try:
        return await parts.bridges.prove(fields, method=request.method, path=request.url.path)
    except BridgeRefusedError as error:
        raise unproven(parts.bridges, error) from None


Proven = Annotated[BridgeCredential, Depends(proven)]


@router.get("", responses=described(*_NOT_IN))
async def list_bridges(identity: User, parts: PartsOf) -> list[Bridge]:
    """List your bridges and what they say of their engines."""
    return await parts.status.bridges(identity.user)


@router.post("", status_code=201, responses=described(Problem.BAD_REQUEST, *_NOT_IN, Problem.RATE_LIMITED))
async def create_bridge(body: NewBridgeAsk, identity: User, parts: PartsOf, response: Response) -> NewCredential:
    """Pair a machine that shows its public key, without a person there. The credential is shown this once."""
    try:
        paired = await parts.pairing.enrol(identity.user, body.name, thumbprint(body.jwk))
    except TooManyBridgesError as error:
        raise ProblemError(Problem.BAD_REQUEST, f"No more bridges: {error}.") from None
    except LimitedError as error:
        raise limited(error, parts, identity.user) from None
    parts.auditor.record(Event.PAIRING_COMPLETED, user=identity.user, about=paired.bridge_id)
    response.headers["cache-control"] = "no-store"
    response.headers["dpop-nonce"] = parts.bridges.nonce()
    return credential_of(paired)


_BRIDGE_ONLY = described(Problem.UNAUTHENTICATED, Problem.RATE_LIMITED)


@router.post("/credential", responses=_BRIDGE_ONLY)
async def renew_credential(credential: Proven, parts: PartsOf, response: Response) -> NewCredential:
    """Renew a bridge's credential for the same key. For the bridge alone: `Authorization: DPoP` and a proof."""
    try:
        paired = await parts.pairing.renew(credential)
    except LimitedError as error:
        raise limited(error, parts, credential.user) from None
    parts.auditor.record(Event.CREDENTIAL_RENEWED, user=credential.user, about=credential.bridge)
    response.headers["cache-control"] = "no-store"
    response.headers["dpop-nonce"] = parts.bridges.nonce()
    return credential_of(paired)


@router.delete("/credential", status_code=204, responses=described(Problem.UNAUTHENTICATED))
async def return_credential(credential: Proven, parts: PartsOf) -> Response:
    """Give a bridge's credential back: the bridge removes itself. For the bridge alone."""
    if not await _revoke(parts, credential.user, credential.bridge):
        await parts.revocations.add(bridge_member(credential.bridge), credential.expires)  # the state was lost
    parts.auditor.record(Event.BRIDGE_REVOKED, user=credential.user, about=credential.bridge, reason=Reason.BY_USER)
    return Response(status_code=204)


@router.patch("/credential", include_in_schema=False)
async def no_such_method() -> None:
    """Keep "credential" from being taken for a bridge's id.

    Raises:
        HTTPException: Always: 405.
    """
    raise HTTPException(Problem.METHOD_NOT_ALLOWED.value.status)


BridgeId = Annotated[str, Path(pattern=r"^[a-z2-7]{12}$", examples=["k2qxv7hd4m3a"])]


@router.patch("/{bridge_id}", responses=described(Problem.BAD_REQUEST, *_NOT_IN, Problem.NOT_FOUND))
async def rename_bridge(bridge_id: BridgeId, body: NewName, identity: User, parts: PartsOf) -> Bridge:
    """Rename a bridge."""
    if not await parts.registry.rename(identity.user, bridge_id, body.name):
        parts.auditor.record(Event.FORBIDDEN, user=identity.user, reason=Reason.NOT_OWNER)
        raise ProblemError(Problem.NOT_FOUND, "You have no bridge with this id.")
    parts.auditor.record(Event.BRIDGE_RENAMED, user=identity.user, about=bridge_id)
    return next(bridge for bridge in await parts.status.bridges(identity.user) if bridge.id == bridge_id)


@router.delete("/{bridge_id}", status_code=204, responses=described(Problem.BAD_REQUEST, *_NOT_IN, Problem.NOT_FOUND))
async def delete_bridge(bridge_id: BridgeId, identity: User, parts: PartsOf) -> Response:
    """Remove a bridge: it is cut at once and its credential is refused from now on."""
    if not await _revoke(parts, identity.user, bridge_id):
        parts.auditor.record(Event.FORBIDDEN, user=identity.user, reason=Reason.NOT_OWNER)
        raise ProblemError(Problem.NOT_FOUND, "You have no bridge with this id.")
    parts.auditor.record(Event.BRIDGE_REVOKED, user=identity.user, about=bridge_id, reason=Reason.BY_USER)
    return Response(status_code=204)


async def _revoke(parts: Parts, user: str, bridge: str) -> bool:
    """Void a bridge's credential, cut its control connection and its tunnels; False when the user has none such."""
    if not await parts.registry.revoke(user, bridge):
        return False
    for _ in range(CUT_ATTEMPTS):
        try:
            await parts.manager.disconnect(user, bridge)
        except ManagerError as error:
            log.warning("a revoked bridge's tunnel was not cut", extra={"bridge": bridge, "cause": str(error)})
        else:
            break
    else:
        log.error("a revoked bridge's tunnel may live on until its proxy goes", extra={"bridge": bridge})
    return True
