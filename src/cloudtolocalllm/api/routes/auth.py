"""Signing in by a one-time link."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from cloudtolocalllm.api.audit import Event, Reason
from cloudtolocalllm.api.cookies import set_session
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.models import SignIn
from cloudtolocalllm.api.parts import Parts, parts_of, same_site
from cloudtolocalllm.auth.links import link_key, parse_link_token
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.auth.sessions import LIFETIME, new_session
from cloudtolocalllm.contracts.problems import Problem

router = APIRouter(prefix="/api/auth", tags=["auth"])

PartsOf = Annotated[Parts, Depends(parts_of)]


@router.post(
    "/sign-in",
    status_code=204,
    dependencies=[Depends(same_site)],
    responses=described(Problem.BAD_REQUEST, Problem.UNAUTHENTICATED, Problem.FORBIDDEN),
)
async def sign_in(body: SignIn, parts: PartsOf) -> Response:
    """Use a one-time link up and set the session cookie."""
    hash_ = parse_link_token(body.token)
    user = await parts.state.take(link_key(hash_)) if hash_ is not None else None
    if user is None:
        parts.auditor.record(Event.SIGN_IN_REFUSED, reason=Reason.LINK_USED)
        detail = "The link was used or is too old; make a new one with `cloudtolocalllm sign-in-link`."
        raise ProblemError(Problem.UNAUTHENTICATED, detail)
    name = user.decode()
    # Whoever can make links can read every key of this installation: its owner is its administrator.
    admin = name == owner_of(parts.pseudonym_key)
    session = replace(new_session(name, now=parts.clock.wall()), admin=admin)
    parts.auditor.record(Event.LINK_SIGN_IN, user=name)
    response = Response(status_code=204)
    set_session(response, parts, parts.sealer.seal(session), LIFETIME)
    return response
