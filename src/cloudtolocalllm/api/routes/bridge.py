"""Pairing, listing, renaming and removing bridges."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from cloudtolocalllm.api.bus import CONTROL, user_topic
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.models import Bridge, NewBridge, NewName
from cloudtolocalllm.api.parts import Parts, parts_of, user
from cloudtolocalllm.api.store import StoreError
from cloudtolocalllm.contracts.problems import Problem

router = APIRouter(prefix="/api/bridge", tags=["bridge"])

PartsOf = Annotated[Parts, Depends(parts_of)]
User = Annotated[Identity, Depends(user)]
_NOT_IN = (Problem.UNAUTHENTICATED, Problem.FORBIDDEN)


@router.get("", responses=described(*_NOT_IN))
async def list_bridges(identity: User, parts: PartsOf) -> list[Bridge]:
    """List your bridges and what they say of their engines."""
    return parts.status.bridges(identity.user)


@router.post("", status_code=201, responses=described(Problem.BAD_REQUEST, *_NOT_IN))
async def create_bridge(body: NewName, identity: User, parts: PartsOf, response: Response) -> NewBridge:
    """Pair a bridge. Its credential is shown this once."""
    try:
        record, text = parts.store.create_bridge(identity.user, body.name)
    except StoreError as error:
        raise ProblemError(Problem.BAD_REQUEST, f"No more bridges: {error}.") from None
    _tell(parts, identity)
    response.headers["cache-control"] = "no-store"
    return NewBridge(bridge_id=record.id, credential=text)


@router.patch("/{bridge_id}", responses=described(Problem.BAD_REQUEST, *_NOT_IN, Problem.NOT_FOUND))
async def rename_bridge(bridge_id: str, body: NewName, identity: User, parts: PartsOf) -> Bridge:
    """Rename a bridge."""
    if not parts.store.rename_bridge(identity.user, bridge_id, body.name):
        raise ProblemError(Problem.NOT_FOUND, "You have no bridge with this id.")
    _tell(parts, identity)
    return next(bridge for bridge in parts.status.bridges(identity.user) if bridge.id == bridge_id)


@router.delete("/{bridge_id}", status_code=204, responses=described(*_NOT_IN, Problem.NOT_FOUND))
async def delete_bridge(bridge_id: str, identity: User, parts: PartsOf) -> Response:
    """Remove a bridge: it is cut at once and its credential is refused from now on."""
    if not parts.store.delete_bridge(identity.user, bridge_id):
        raise ProblemError(Problem.NOT_FOUND, "You have no bridge with this id.")
    parts.bus.publish(CONTROL, {"do": "revoke", "bridge": bridge_id})
    _tell(parts, identity)
    return Response(status_code=204)


def _tell(parts: Parts, identity: Identity) -> None:
    parts.bus.publish(user_topic(identity.user), {"changed": "bridge"})
