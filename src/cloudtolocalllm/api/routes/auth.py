"""Signing in and out, and API keys."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from cloudtolocalllm.api.bus import user_topic
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.models import Key, NewKey, NewName, SessionStatus, SignIn
from cloudtolocalllm.api.parts import Parts, maybe_session, parts_of, same_site, signed_in
from cloudtolocalllm.api.store import StoreError
from cloudtolocalllm.auth.links import parse_link_token
from cloudtolocalllm.auth.sessions import LIFETIME, new_session
from cloudtolocalllm.contracts.problems import Problem

router = APIRouter(prefix="/api/auth", tags=["auth"])

PartsOf = Annotated[Parts, Depends(parts_of)]
MaybeSession = Annotated[Identity | None, Depends(maybe_session)]
SignedIn = Annotated[Identity, Depends(signed_in)]


@router.post(
    "/sign-in",
    status_code=204,
    dependencies=[Depends(same_site)],
    responses=described(Problem.BAD_REQUEST, Problem.UNAUTHENTICATED, Problem.FORBIDDEN),
)
async def sign_in(body: SignIn, parts: PartsOf) -> Response:
    """Use a one-time link up and set the session cookie."""
    hash_ = parse_link_token(body.token)
    user = parts.store.use_sign_in_link(hash_) if hash_ is not None else None
    if user is None:
        detail = "The link was used or is too old; make a new one with `cloudtolocalllm sign-in-link`."
        raise ProblemError(Problem.UNAUTHENTICATED, detail)
    session = new_session(user, now=parts.clock.wall())
    response = Response(status_code=204)
    _set_cookie(response, parts, parts.sealer.seal(session), LIFETIME)
    return response


@router.get("/session")
async def session(identity: MaybeSession) -> SessionStatus:
    """Tell whether somebody is signed in; nobody is no error."""
    if identity is None:
        return SessionStatus(signed_in=False, user=None, expires=None)
    return SessionStatus(signed_in=True, user=identity.user, expires=identity.expires)


@router.post("/sign-out", status_code=204, responses=described(Problem.UNAUTHENTICATED, Problem.FORBIDDEN))
async def sign_out(identity: SignedIn, parts: PartsOf) -> Response:
    """End the session, on every copy of the cookie, and remove the cookie."""
    parts.store.revoke_session(identity.subject, identity.expires or 0.0)
    parts.bus.publish(user_topic(identity.user), {"changed": "session"})
    response = Response(status_code=204)
    _set_cookie(response, parts, "", 0)
    return response


@router.get("/keys", responses=described(Problem.UNAUTHENTICATED, Problem.FORBIDDEN))
async def list_keys(identity: SignedIn, parts: PartsOf) -> list[Key]:
    """List your API keys, without their secrets."""
    return [
        Key(id=k.id, name=k.name, created=k.created, expires=k.expires, last_used=k.last_used)
        for k in parts.store.list_keys(identity.user)
    ]


@router.post(
    "/keys", status_code=201, responses=described(Problem.BAD_REQUEST, Problem.UNAUTHENTICATED, Problem.FORBIDDEN)
)
async def create_key(body: NewName, identity: SignedIn, parts: PartsOf, response: Response) -> NewKey:
    """Make an API key. It is shown this once."""
    try:
        record, text = parts.store.create_key(identity.user, body.name)
    except StoreError as error:
        raise ProblemError(Problem.BAD_REQUEST, f"No more API keys: {error}.") from None
    response.headers["cache-control"] = "no-store"
    return NewKey(id=record.id, name=record.name, key=text)


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    responses=described(Problem.UNAUTHENTICATED, Problem.FORBIDDEN, Problem.NOT_FOUND),
)
async def delete_key(key_id: str, identity: SignedIn, parts: PartsOf) -> Response:
    """Delete an API key; it is refused from now on."""
    if not parts.store.delete_key(identity.user, key_id):
        raise ProblemError(Problem.NOT_FOUND, "You have no API key with this id.")
    parts.bus.publish(user_topic(identity.user), {"changed": "key"})
    return Response(status_code=204)


def _set_cookie(response: Response, parts: Parts, value: str, max_age: int) -> None:
    # Domain is left out on purpose: without it no other host gets the cookie, and __Host- forbids it.
    response.set_cookie(
        parts.identifier.cookie,
        value,
        max_age=max_age,
        path="/",
        secure=parts.secure,
        httponly=True,
        samesite="strict",
    )
    response.headers["cache-control"] = "no-store"
