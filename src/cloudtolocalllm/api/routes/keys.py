"""API keys: made and revoked here, listed at home (the home API)."""

import math
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from cloudtolocalllm.api import key_news
from cloudtolocalllm.api.audit import Event, Reason
from cloudtolocalllm.api.bus import CONTROL
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.models import KeyRequest, NewKey
from cloudtolocalllm.api.parts import Parts, parts_of, signed_in
from cloudtolocalllm.api.registry import clean_name
from cloudtolocalllm.api.revocations import key_member
from cloudtolocalllm.auth.keys import DAY, MAX_LIFETIME, KeyScope, mint_key
from cloudtolocalllm.contracts.problems import Problem

router = APIRouter(prefix="/api/auth/keys", tags=["keys"])

MADE_PER_HOUR = 30
"""Keys that a user may make: each is an entry in the list at home for as long as it lives."""
REVOKED_PER_HOUR = 120
"""Keys that a user may revoke: each is kept here until the key would have expired."""
HOUR = 3600.0

PartsOf = Annotated[Parts, Depends(parts_of)]
SignedIn = Annotated[Identity, Depends(signed_in)]
KeyId = Annotated[str, Path(pattern=r"^[a-z2-7]{12}$", examples=["3fomfi6a5lvd"])]


@router.post(
    "",
    status_code=201,
    responses=described(Problem.BAD_REQUEST, Problem.UNAUTHENTICATED, Problem.FORBIDDEN, Problem.RATE_LIMITED),
)
async def create(body: KeyRequest, identity: SignedIn, parts: PartsOf, response: Response) -> NewKey:
    """Make a key. Its text is in this answer and nowhere else."""
    try:
        scope = KeyScope(
            tuple(body.routes or ()),
            tuple(body.models or ()),
            body.requests_per_minute,
            body.tokens_per_day,
            body.bridge,
        )
    except ValueError as error:
        raise ProblemError(Problem.BAD_REQUEST, f"{str(error).capitalize()}.") from None
    bridges = [known.record.id for known in await parts.registry.bridges(identity.user)]
    if scope.bridge is not None and scope.bridge not in bridges:
        raise ProblemError(Problem.BAD_REQUEST, "Expected bridge to be the id of one of your machines.")
    await _limited(parts, identity, f"keys-made/{identity.user}", MADE_PER_HOUR)
    now = parts.clock.wall()
    claims, text = mint_key(parts.ring, user=identity.user, scope=scope, lifetime=body.days * DAY, now=now)
    name = clean_name(body.name)
    for bridge in bridges:
        parts.bus.publish(CONTROL, key_news.added(bridge, claims, name))
    parts.auditor.record(Event.KEY_MADE, user=identity.user, about=claims.id)
    response.headers["cache-control"] = "no-store"
    return NewKey(
        id=claims.id,
        name=name,
        key=text,
        created=claims.issued,
        expires=claims.expires,
        routes=list(scope.routes) or None,
        models=list(scope.models) or None,
        requests_per_minute=scope.requests_per_minute,
        tokens_per_day=scope.tokens_per_day,
        bridge=scope.bridge,
    )


@router.delete(
    "/{id}",
    status_code=204,
    responses=described(Problem.BAD_REQUEST, Problem.UNAUTHENTICATED, Problem.FORBIDDEN, Problem.RATE_LIMITED),
)
async def revoke(id: KeyId, identity: SignedIn, parts: PartsOf) -> Response:
    """Revoke a key. It is refused from now on, here and at home; which ids there are is known at home only."""
    await _limited(parts, identity, f"keys-revoked/{identity.user}", REVOKED_PER_HOUR)
    # When it would have expired is not known here; no key lives longer than this.
    await parts.revocations.add(key_member(identity.user, id), parts.clock.wall() + MAX_LIFETIME)
    parts.auditor.record(Event.KEY_REVOKED, user=identity.user, reason=Reason.BY_USER, about=id)
    return Response(status_code=204)


async def _limited(parts: Parts, identity: Identity, key: str, limit: int) -> None:
    hit = await parts.state.hit(key, limit=limit, window=HOUR)
    if not hit.allowed:
        parts.auditor.record(Event.LIMIT_HIT, user=identity.user, reason=Reason.LIMIT_KEYS)
        wait = str(max(1, math.ceil(hit.retry_after)))
        detail = f"Expected at most {limit} an hour; try again later."
        raise ProblemError(Problem.RATE_LIMITED, detail, headers={"retry-after": wait})
