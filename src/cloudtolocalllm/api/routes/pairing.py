"""Pairing with a person's help: by a short code (RFC 8628) or by the machine's own browser (RFC 8252)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from cloudtolocalllm.api.addresses import address_of, counted
from cloudtolocalllm.api.audit import Event, Reason, short
from cloudtolocalllm.api.bridge_verifier import DpopVerifier
from cloudtolocalllm.api.browser import fields_of
from cloudtolocalllm.api.failures import ProblemError, described
from cloudtolocalllm.api.identity import BridgeRefusedError, Identity
from cloudtolocalllm.api.pairing import (
    INTERVAL,
    LIFETIME,
    Ask,
    LimitedError,
    NoSuchRequestError,
    NotRedeemedError,
    Paired,
    is_loopback,
)
from cloudtolocalllm.api.pairing_models import (
    DEVICE_GRANT,
    Decided,
    DeviceAnswer,
    DeviceAsk,
    LoopbackAnswer,
    LoopbackAsk,
    NewCredential,
    PairingRequest,
    PublicKey,
    TokenAsk,
)
from cloudtolocalllm.api.parts import Parts, parts_of, signed_in
from cloudtolocalllm.api.rates import rate_limited
from cloudtolocalllm.api.registry import TooManyBridgesError
from cloudtolocalllm.auth import dpop
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content

router = APIRouter(prefix="/api/bridge/pairing", tags=["pairing"])

PAGE = "/pair"
"""Of the web app, where a person confirms."""

PartsOf = Annotated[Parts, Depends(parts_of)]
SignedIn = Annotated[Identity, Depends(signed_in)]
_REFUSED = {
    "access_denied": Reason.DENIED,
    "expired_token": Reason.EXPIRED,
    "invalid_grant": Reason.WRONG_CODE,
}
"""Codes of RFC 8628 §3.5 after which nothing comes any more."""
_GONE = "The code is wrong, or the request was answered or has expired. Start again on the machine."


@router.post("/device", responses=described(Problem.BAD_REQUEST, Problem.RATE_LIMITED))
async def begin_device(body: DeviceAsk, request: Request, parts: PartsOf, response: Response) -> DeviceAnswer:
    """Ask for a short code that a person confirms elsewhere. No sign-in: it grants nothing by itself."""
    try:
        found, device_code = await parts.pairing.begin_device(_ask(body, request, parts))
    except LimitedError as error:
        raise limited(error, parts) from None
    parts.auditor.record(Event.PAIRING_REQUESTED, about=short(found.id), address=found.address or None)
    uri = _page(parts, request)
    _not_stored(response, parts.bridges)
    return DeviceAnswer(
        device_code=device_code,
        user_code=found.user_code,
        verification_uri=uri,
        verification_uri_complete=f"{uri}?code={found.user_code}",
        expires_in=LIFETIME,
        interval=INTERVAL,
    )


@router.post("/loopback", responses=described(Problem.BAD_REQUEST, Problem.RATE_LIMITED))
async def begin_loopback(body: LoopbackAsk, request: Request, parts: PartsOf, response: Response) -> LoopbackAnswer:
    """Ask for a page that this machine's browser confirms the pairing on. No sign-in: it grants nothing by itself."""
    if not is_loopback(body.redirect_uri):
        detail = "Expected redirect_uri to be http://127.0.0.1:PORT/PATH, or the same with [::1] or localhost."
        raise ProblemError(Problem.BAD_REQUEST, detail)
    try:
        found = await parts.pairing.begin_loopback(
            _ask(body, request, parts),
            redirect_uri=body.redirect_uri,
            challenge=body.code_challenge,
            state=body.state,
        )
    except LimitedError as error:
        raise limited(error, parts) from None
    parts.auditor.record(Event.PAIRING_REQUESTED, about=short(found.id), address=found.address or None)
    _not_stored(response, parts.bridges)
    uri = f"{_page(parts, request)}?request={found.id}"
    return LoopbackAnswer(request=found.id, authorization_uri=uri, expires_in=LIFETIME)


_DECIDING = (Problem.UNAUTHENTICATED, Problem.FORBIDDEN, Problem.NOT_FOUND, Problem.RATE_LIMITED)


@router.get("/requests/{reference}", responses=described(*_DECIDING))
async def look(reference: str, identity: SignedIn, parts: PartsOf, response: Response) -> PairingRequest:
    """Show who asks, by short code or request id. It decides nothing."""
    try:
        found = await parts.pairing.look(identity.user, reference)
    except NoSuchRequestError:
        parts.auditor.record(Event.PAIRING_REFUSED, user=identity.user, reason=Reason.WRONG_CODE)
        raise ProblemError(Problem.NOT_FOUND, _GONE) from None
    except LimitedError as error:
        raise limited(error, parts, identity.user) from None
    response.headers["cache-control"] = "no-store"
    return PairingRequest(
        name=found.name,
        address=found.address,
        requested=found.requested,
        version=found.version,
        expires=found.expires,
        kind="device" if found.kind == "device" else "loopback",
        user_code=found.user_code or None,
    )


@router.post("/requests/{reference}/approve", responses=described(Problem.BAD_REQUEST, *_DECIDING))
async def approve(reference: str, identity: SignedIn, parts: PartsOf, response: Response) -> Decided:
    """Make the machine a bridge of yours."""
    return await _decide(reference, identity, parts, response, grant=True)


@router.post("/requests/{reference}/deny", responses=described(*_DECIDING))
async def deny(reference: str, identity: SignedIn, parts: PartsOf, response: Response) -> Decided:
    """Refuse the machine."""
    return await _decide(reference, identity, parts, response, grant=False)


@router.post(
    "/token",
    responses={
        **described(Problem.BAD_REQUEST, Problem.UNAUTHENTICATED, Problem.RATE_LIMITED),
        400: {
            "description": "Not now, or never. The member `error` is one of RFC 8628 §3.5: authorization_pending, "
            "slow_down, access_denied, expired_token; or of RFC 6749 §5.2: invalid_grant, invalid_request.",
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        },
    },
    response_model=NewCredential,
)
async def token(body: TokenAsk, request: Request, parts: PartsOf) -> Response:
    """Collect the credential, once, with a proof of the key that asked."""
    fields = fields_of(request.headers.raw)

    async def take() -> None:
        await parts.bridges.take(proof, fields)

    try:
        proof = parts.bridges.check(fields, method="POST", path=request.url.path)
        if body.grant_type == DEVICE_GRANT:
            paired = await parts.pairing.redeem_device(body.device_code, proof.thumbprint, take)
        else:
            paired = await parts.pairing.redeem_code(body.code, body.code_verifier, proof.thumbprint, take)
    except BridgeRefusedError as error:
        raise unproven(parts.bridges, error) from None
    except NotRedeemedError as error:
        if error.error in _REFUSED:
            parts.auditor.record(Event.PAIRING_REFUSED, reason=_REFUSED[error.error])
        content = problem_content(Problem.BAD_REQUEST, error.detail, error=error.error)
        return _answer(400, content, CONTENT_TYPE, parts.bridges)
    except LimitedError as error:
        raise limited(error, parts) from None
    parts.auditor.record(Event.PAIRING_COMPLETED, about=paired.bridge_id)
    return _answer(200, credential_of(paired).model_dump_json().encode(), "application/json", parts.bridges)


async def _decide(reference: str, identity: Identity, parts: Parts, response: Response, *, grant: bool) -> Decided:
    try:
        target = await parts.pairing.decide(identity.user, reference, grant=grant)
    except NoSuchRequestError:
        parts.auditor.record(Event.PAIRING_REFUSED, user=identity.user, reason=Reason.WRONG_CODE)
        raise ProblemError(Problem.NOT_FOUND, _GONE) from None
    except LimitedError as error:
        raise limited(error, parts, identity.user) from None
    except TooManyBridgesError as error:
        parts.auditor.record(Event.PAIRING_REFUSED, user=identity.user, reason=Reason.TOO_MANY_BRIDGES)
        raise ProblemError(Problem.BAD_REQUEST, f"No more bridges: {error}.") from None
    event = Event.PAIRING_APPROVED if grant else Event.PAIRING_DENIED
    parts.auditor.record(event, user=identity.user, about=short(reference))
    response.headers["cache-control"] = "no-store"
    return Decided(redirect_to=target)


def credential_of(paired: Paired) -> NewCredential:
    """Return a credential as it is handed out."""
    return NewCredential(bridge_id=paired.bridge_id, credential=paired.credential, expires=paired.expires)


def limited(error: LimitedError, parts: Parts, user: str | None = None) -> ProblemError:
    """Return the problem of somebody who asks too often."""
    parts.auditor.record(Event.LIMIT_HIT, user=user, reason=Reason.LIMIT_PAIRING)
    detail = "Too many pairings in too short a time; wait a while."
    return rate_limited(error.policy, error.hit, error.window, detail)


def unproven(verifier: DpopVerifier, error: BridgeRefusedError) -> ProblemError:
    """Return the problem of somebody who did not prove to hold a key."""
    return ProblemError(Problem.UNAUTHENTICATED, error.detail, headers=verifier.refusal_fields(error.error))


def thumbprint(jwk: PublicKey) -> str:
    """Return the thumbprint of a machine's key.

    Raises:
        ProblemError: It is no key.
    """
    try:
        return dpop.public_key(jwk.model_dump()).thumbprint()
    except dpop.ProofRefusedError as error:
        raise ProblemError(Problem.BAD_REQUEST, f"The key does not fit: {error}.") from None


def _ask(body: DeviceAsk | LoopbackAsk, request: Request, parts: Parts) -> Ask:
    address = address_of(fields_of(request.headers.raw))
    return Ask(body.name, body.version, address, counted(parts.pseudonym_key, address), thumbprint(body.jwk))


def _page(parts: Parts, request: Request) -> str:
    # Without TLS the server is reached by whatever name of this machine or network the bridge was given.
    base = parts.public_url if parts.secure else f"http://{request.headers.get('host', '')}"
    return base + PAGE


def _not_stored(response: Response, verifier: DpopVerifier) -> None:
    response.headers["cache-control"] = "no-store"
    response.headers["dpop-nonce"] = verifier.nonce()


def _answer(status: int, content: bytes, kind: str, verifier: DpopVerifier) -> Response:
    response = Response(content, status, media_type=kind)
    _not_stored(response, verifier)
    return response
