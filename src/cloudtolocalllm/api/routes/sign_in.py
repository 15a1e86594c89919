"""Signing in with a provider, who is signed in, and signing out."""

from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from cloudtolocalllm.api.addresses import address_of, counted
from cloudtolocalllm.api.audit import Event, Reason
from cloudtolocalllm.api.browser import cookie_of, fields_of
from cloudtolocalllm.api.bus import user_topic
from cloudtolocalllm.api.cookies import login_cookie, set_login, set_session
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.models import OfferedProvider, SessionStatus, SignedOut
from cloudtolocalllm.api.oidc import pending
from cloudtolocalllm.api.oidc.config import ID
from cloudtolocalllm.api.oidc.flow import Code, SessionEndedError, SignIn, SignInError
from cloudtolocalllm.api.oidc.pending import local_path
from cloudtolocalllm.api.oidc.transport import ProviderUnavailableError
from cloudtolocalllm.api.parts import Parts, maybe_session, parts_of, signed_in
from cloudtolocalllm.api.rates import rate_limited
from cloudtolocalllm.api.revocations import session_member
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.auth.oidc import ProviderTokenError
from cloudtolocalllm.auth.sessions import Session
from cloudtolocalllm.contracts.problems import Problem

router = APIRouter(prefix="/api/auth", tags=["auth"])

PartsOf = Annotated[Parts, Depends(parts_of)]
MaybeSession = Annotated[Identity | None, Depends(maybe_session)]
SignedIn = Annotated[Identity, Depends(signed_in)]

FAILED_TARGET = "/sign-in"
"""The page that explains why a sign-in failed."""
MAX_PARAMETERS = 20
STARTS = 20
"""Sign-ins that one address may begin in WINDOW: a household has one address."""
ALL_STARTS = 1_000
"""Sign-ins that may begin in WINDOW on the whole."""
LOGOUTS = 600
"""Logout tokens that are looked at in WINDOW."""
WINDOW = 300.0
"""Seconds."""

_LOGOUT_FORM = {
    "required": True,
    "content": {
        "application/x-www-form-urlencoded": {
            "schema": {
                "type": "object",
                "required": ["logout_token"],
                "properties": {"logout_token": {"type": "string", "examples": ["eyJhbGciOiJSUzI1NiJ9.e30.AA"]}},
            }
        }
    },
}
_REDIRECT: dict[int | str, dict[str, Any]] = {
    302: {"description": "To the provider, to the page that was asked for, or to /sign-in?error=CODE"}
}


async def with_provider(parts: PartsOf) -> SignIn:
    """Return what signs people in.

    Raises:
        ProblemError: There is no provider.
    """
    if parts.sign_in is None:
        raise ProblemError(Problem.NOT_FOUND, "No identity provider is configured; sign in with a one-time link.")
    return parts.sign_in


Provider = Annotated[SignIn, Depends(with_provider)]


@router.get(
    "/oidc/start",
    status_code=302,
    response_class=Response,
    responses={**_REDIRECT, **described(Problem.NOT_FOUND)},
)
async def oidc_start(
    request: Request,
    provider: Provider,
    parts: PartsOf,
    return_to: Annotated[str, Query(description="Path of the page to come back to", examples=["/"])] = pending.HOME,
) -> Response:
    """Begin to sign in: on to the provider."""
    fields = fields_of(request.headers.raw)
    address = address_of(fields)
    try:
        await _limit_starts(parts, address, local_path(return_to))
        started = await provider.start(return_to)
    except SignInError as error:
        return _refused(request, parts, error, address)
    response = _redirect(started.location)
    set_login(response, parts, started.cookie, pending.LIFETIME)
    return response


@router.get(
    "/oidc/callback",
    status_code=302,
    response_class=Response,
    responses={**_REDIRECT, **described(Problem.NOT_FOUND)},
)
async def oidc_callback(request: Request, provider: Provider, parts: PartsOf) -> Response:
    """Complete a sign-in: the provider sends the browser here."""
    fields = fields_of(request.headers.raw)
    try:
        query = _parameters(request.url.query)
        done = await provider.callback(query, cookie_of(fields, login_cookie(parts)))
    except SignInError as error:
        return _refused(request, parts, error, address_of(fields))
    response = _redirect(done.return_to)
    set_session(response, parts, done.cookie, _age(parts, done.session))
    set_login(response, parts, "", 0)
    return response


@router.get("/session")
async def session(identity: MaybeSession, parts: PartsOf, response: Response) -> SessionStatus:
    """Tell whether somebody is signed in, and how to; nobody is no error."""
    response.headers["cache-control"] = "no-store"
    held = None if identity is None else identity.session
    if held is None:
        return _status(parts, None)
    if parts.sign_in is None:
        return _status(parts, held)
    try:
        renewed = await parts.sign_in.refresh(held)
    except SessionEndedError:
        parts.bus.publish(user_topic(held.user), {"changed": "session"})
        set_session(response, parts, "", 0)
        return _status(parts, None)
    except StateUnavailableError:
        return _status(parts, held)
    if renewed is not held:
        set_session(response, parts, parts.sealer.seal(renewed), _age(parts, renewed))
    return _status(parts, renewed)


@router.post("/sign-out", responses=described(Problem.UNAUTHENTICATED, Problem.FORBIDDEN))
async def sign_out(identity: SignedIn, parts: PartsOf, response: Response, request: Request) -> SignedOut:
    """End the session, on every copy of the cookie, and remove the cookie."""
    await parts.revocations.add(session_member(identity.subject), identity.expires or 0.0)
    parts.bus.publish(user_topic(identity.user), {"changed": "session"})
    parts.auditor.record(Event.SIGN_OUT, user=identity.user, reason=Reason.BY_USER, request_id=_id_of(request))
    set_session(response, parts, "", 0)
    if parts.sign_in is None or identity.session is None:
        return SignedOut(redirect_to=None)
    return SignedOut(redirect_to=await parts.sign_in.sign_out_url(identity.session))


@router.post(
    "/oidc/back-channel-logout",
    response_class=Response,
    responses={
        200: {"description": "The sessions are ended"},
        **described(Problem.BAD_REQUEST, Problem.NOT_FOUND, Problem.RATE_LIMITED, Problem.OVERLOADED),
    },
    openapi_extra={"requestBody": _LOGOUT_FORM},
)
async def oidc_back_channel_logout(request: Request, provider: Provider, parts: PartsOf) -> Response:
    """End sessions on the provider's word (OpenID Connect Back-Channel Logout 1.0 §2.8)."""
    hit = await parts.state.hit("logout/all", limit=LOGOUTS, window=WINDOW)
    if not hit.allowed:
        raise rate_limited("logout", hit, WINDOW, "Too many logout tokens.")
    form = _form(await request.body())
    try:
        token = await provider.back_channel_logout(form.get("logout_token", ""))
    except ProviderTokenError:
        raise ProblemError(
            Problem.BAD_REQUEST, "The logout token does not hold.", headers={"cache-control": "no-store"}
        ) from None
    except (ProviderUnavailableError, StateUnavailableError):
        raise ProblemError(
            Problem.OVERLOADED, "The logout token cannot be checked now; try again.", headers={"retry-after": "10"}
        ) from None
    if token.subject is not None:
        parts.bus.publish(user_topic(provider.user_of(token.subject)), {"changed": "session"})
    return Response(status_code=200, headers={"cache-control": "no-store"})  # §2.8


async def _limit_starts(parts: Parts, address: str, return_to: str) -> None:
    try:
        name = f"sign-in/{counted(parts.pseudonym_key, address)}"
        own = await parts.state.hit(name, limit=STARTS, window=WINDOW)
        allowed = own.allowed and (await parts.state.hit("sign-in/all", limit=ALL_STARTS, window=WINDOW)).allowed
    except StateUnavailableError:
        raise SignInError(Code.FAILED, Reason.UNSPECIFIED, return_to=return_to) from None
    if not allowed:
        raise SignInError(Code.RATE_LIMITED, Reason.UNSPECIFIED, return_to=return_to)


def _refused(request: Request, parts: Parts, error: SignInError, address: str) -> Response:
    if error.code is Code.RATE_LIMITED:
        parts.auditor.record(
            Event.LIMIT_HIT, reason=Reason.LIMIT_SIGN_IN, address=address or None, request_id=_id_of(request)
        )
    else:
        parts.auditor.record(
            Event.SIGN_IN_REFUSED,
            user=error.user,
            reason=error.reason,
            address=address or None,
            request_id=_id_of(request),
        )
    query = {"error": error.code.value}
    if error.return_to != pending.HOME:
        query["return_to"] = error.return_to
    response = _redirect(f"{FAILED_TARGET}?{urlencode(query)}")
    if error.code is not Code.EXPIRED:  # a callback that is not of this browser's sign-in must not end that one
        set_login(response, parts, "", 0)
    return response


def _redirect(location: str) -> Response:
    # The body is empty and the address is not rewritten: it is ours, or the provider's by its discovery document.
    return Response(status_code=302, headers={"location": location, "cache-control": "no-store"})


def _status(parts: Parts, held: Session | None) -> SessionStatus:
    provider = parts.sign_in
    offered = [] if provider is None else [OfferedProvider(id=ID, name=provider.config.name)]
    way: Literal["link", "oidc"] = "link" if provider is None else "oidc"
    if held is None:
        return SessionStatus(signed_in=False, providers=offered, sign_in=way)
    return SessionStatus(
        signed_in=True,
        user=held.user,
        expires=held.expires,
        name=held.name or None,
        email=held.email or None,
        admin=held.admin,
        providers=offered,
        sign_in=way,
    )


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters of a callback; a repeated one is refused (RFC 6749 §3.1)."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        pairs = []
    found = dict(pairs)
    if not found or len(found) != len(pairs):
        raise SignInError(Code.FAILED, Reason.MALFORMED)
    return found


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=MAX_PARAMETERS))
    except ValueError:
        return {}


def _age(parts: Parts, held: Session) -> int:
    return max(0, held.expires - int(parts.clock.wall()))


def _id_of(request: Request) -> str | None:
    return request.headers.get("x-request-id")
