"""The decision about each request on the data path (contracts/authorize.py): who it is, and where it goes.

`read` and `decide` are pure; `Authorizer` gathers the facts before and does what follows after. This is the hot route
of the API, so it is plain ASGI without a framework.
"""

import asyncio
import json
import logging
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudtolocalllm.api.audit import Auditor, Event, Reason
from cloudtolocalllm.api.browser import AmbiguousError, Fields, fields_of, session_fault
from cloudtolocalllm.api.identity import (
    BridgeRefusedError,
    BridgeVerifier,
    Identifier,
    Identity,
    Via,
    challenge,
    explicit_credential,
    is_bridge,
)
from cloudtolocalllm.api.manager_client import RETRY_AFTER, ManagerBusyError, ManagerClient, ManagerError
from cloudtolocalllm.api.registry import Known, Registry
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.api.waker import Waker
from cloudtolocalllm.auth import assertion
from cloudtolocalllm.auth.assertion import NO_LIMITS, Assertion, Limits
from cloudtolocalllm.auth.keys import KeyClaims
from cloudtolocalllm.auth.scopes import NO_SCOPE, KeyScope
from cloudtolocalllm.contracts import authorize as contract
from cloudtolocalllm.contracts.instances import Instance
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]
PATIENCE = 6.0
"""Seconds that a request waits for what may pass: Redis is back from a restart in two to four, a machine whose
connection broke off is back in less than one."""
PAUSES = (0.1, 0.8)
"""The longest first and the longest later pause between two looks, in seconds: a thousand who wait must not keep what
comes back from coming back."""
MAX_BRIDGES = 16
"""Bridges named in one assertion, best first; keeps it far below its 4 KiB."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Question:
    """What the edge asks, as far as the decision needs it."""

    method: str
    path: str
    """Of the original request, without its query: nothing in a query decides anything."""
    fresh: bool
    request_id: str
    presented: bool
    """Whether a key or credential was sent, right or wrong."""

    @property
    def tunnel(self) -> bool:
        """Whether a bridge dials its tunnel."""
        return self.path == contract.TUNNEL_TARGET


@dataclass(frozen=True, slots=True)
class BridgeFact:
    """One bridge that is paired with the asking user."""

    id: str
    name: str
    connected: float | None
    """Seconds since the epoch since when; None when it is not."""
    last_seen: float | None
    returning: bool = False
    """Whether it was connected a moment ago, and may be back at once."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision rests on."""

    identity: Identity | None
    session_fault: str | None = None
    """Why the request may not be our own page's, if a session made it."""
    bridges: tuple[BridgeFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may go to the user's proxy."""

    kind: str
    """assertion.CLIENT or assertion.BRIDGE."""
    identity: Identity
    bridges: tuple[BridgeFact, ...] = ()
    """CLIENT: the connected ones, best first."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The request is answered by the edge."""

    problem: Problem
    detail: str
    retry_after: int | None = None
    """Seconds."""
    nonce: str | None = None
    """For a bridge's next proof."""
    challenge: str | None = None
    """What a bridge is told of its proof; the value of WWW-Authenticate."""
    passing: bool = False
    """Whether it may be otherwise in a moment."""


def read(fields: Fields) -> Question:
    """Read the question.

    Raises:
        AmbiguousError: Different keys were sent.
    """
    target = fields.get(contract.ORIGINAL_URI, b"").decode("latin-1")
    request_id = fields.get(b"x-request-id", b"")
    return Question(
        method=fields.get(contract.ORIGINAL_METHOD, b"").decode("latin-1"),
        path=target.partition("?")[0],
        fresh=fields.get(contract.FRESH) == b"1",
        request_id=request_id.decode() if _REQUEST_ID.fullmatch(request_id) else "",
        presented=explicit_credential(fields) is not None and not is_bridge(fields),
    )


def decide(question: Question, facts: Facts) -> Allow | Deny:
    """Return whether a request may go to its user's proxy. The rules, in order, are the lines."""
    identity = facts.identity
    if question.method == "OPTIONS":
        return Deny(Problem.FORBIDDEN, "Pages of other origins may not use this server.")
    if not question.tunnel and not question.path.startswith(contract.DATA_PREFIXES):
        return Deny(Problem.NOT_FOUND, "This server has no such route.")
    if identity is None:
        known = "The API key is not valid." if question.presented else "Send Authorization: Bearer KEY or x-api-key."
        return Deny(Problem.UNAUTHENTICATED, known)
    if question.tunnel:
        return _decide_tunnel(question, identity)
    if identity.via is Via.BRIDGE:
        return Deny(Problem.FORBIDDEN, "A bridge's credential opens its tunnel only; use an API key.")
    if identity.via is Via.SESSION and facts.session_fault is not None:
        return Deny(Problem.FORBIDDEN, facts.session_fault)
    scope = NO_SCOPE if identity.key is None else identity.key.scope
    if not scope.allows_route(question.path):
        return Deny(Problem.KEY_SCOPE, "It is limited to other routes; make a key for this one.")
    sealed = question.path.startswith(contract.SEALED_PREFIX)
    bridges = _named(question, facts.bridges, scope) if sealed else _any(facts.bridges, scope)
    if isinstance(bridges, Deny):
        return bridges
    connected = [bridge for bridge in bridges if bridge.connected is not None]
    if not connected:
        passing = any(bridge.returning for bridge in bridges)
        return Deny(Problem.BRIDGE_OFFLINE, _offline(bridges), passing=passing)
    # The most recently connected first: of two, it is the one that somebody just started.
    connected.sort(key=lambda bridge: bridge.connected or 0.0, reverse=True)
    return Allow(assertion.CLIENT, identity, tuple(connected[:MAX_BRIDGES]))


def _any(paired: tuple[BridgeFact, ...], scope: KeyScope) -> tuple[BridgeFact, ...] | Deny:
    """Return the bridges that may serve a request to whichever has the model."""
    if not paired:
        return Deny(Problem.NO_BRIDGE_PAIRED, "Pair the machine that runs your models first.")
    bridges = tuple(bridge for bridge in paired if scope.bridge in (None, bridge.id))
    return bridges or Deny(
        Problem.KEY_SCOPE, "It is limited to a machine that is not paired any more; make a new key."
    )


def _named(question: Question, paired: tuple[BridgeFact, ...], scope: KeyScope) -> tuple[BridgeFact, ...] | Deny:
    """Return the one bridge that a sealed request names: nobody else could open it.

    Others' bridges, and what is no id at all, are not told apart from what is not there.
    """
    wanted = question.path.removeprefix(contract.SEALED_PREFIX)
    if scope.bridge not in (None, wanted):
        return Deny(Problem.KEY_SCOPE, "It is limited to another machine; make a key for this one.")
    bridges = tuple(bridge for bridge in paired if bridge.id == wanted)
    return bridges or Deny(Problem.NOT_FOUND, "No machine of this account has that id; pair this client anew.")


def _decide_tunnel(question: Question, identity: Identity) -> Allow | Deny:
    if identity.via is not Via.BRIDGE:
        return Deny(Problem.FORBIDDEN, "Only a bridge's own credential opens a tunnel.")
    if question.method != "GET":
        return Deny(Problem.METHOD_NOT_ALLOWED, "A tunnel is opened by a WebSocket upgrade (GET).")
    return Allow(assertion.BRIDGE, identity)


def _offline(bridges: tuple[BridgeFact, ...]) -> str:
    last = max(bridges, key=lambda bridge: bridge.last_seen or 0.0)
    name = last.name.encode("ascii", "replace").decode().replace('"', "'")
    if last.last_seen is None:
        return f'"{name}" has not connected yet.'
    return f'"{name}" is offline since {datetime.fromtimestamp(last.last_seen, UTC):%Y-%m-%d %H:%M:%S} UTC.'


class Authorizer:
    """Answers the edge's questions."""

    def __init__(
        self,
        identifier: Identifier,
        bridges: BridgeVerifier,
        registry: Registry,
        manager: ManagerClient,
        waker: Waker,
        clock: Clock,
        *,
        scheme: str,
        limits: Limits = NO_LIMITS,
        auditor: Auditor | None = None,
    ) -> None:
        self._identifier = identifier
        self._verifier = bridges
        self._registry = registry
        self._manager = manager
        self._waker = waker
        self._clock = clock
        self._scheme = scheme
        self._limits = limits
        self._auditor = auditor or Auditor(None, service="api", clock=clock)

    async def answer(self, headers: Headers) -> tuple[int, Headers]:
        """Return the status and the fields of the answer to a question with these fields."""
        try:
            fields = fields_of(headers)
            question = read(fields)
            facts, decision = await self._patiently(question, fields)
        except AmbiguousError as error:
            decision = Deny(Problem.BAD_REQUEST, f"{error}.")
            return _denied(decision, None)
        except StateUnavailableError as error:
            log.warning("the state does not answer", extra={"cause": str(error)})
            return _denied(Deny(Problem.OVERLOADED, "The server cannot look this up now; try again.", 1), None)
        except BridgeRefusedError as error:
            nonce = self._verifier.nonce()
            deny = Deny(Problem.UNAUTHENTICATED, error.detail, nonce=nonce, challenge=challenge(error.error))
            return _denied(deny, question)
        if isinstance(decision, Deny):
            self._note(decision, facts, question)
            return _denied(decision, question)
        try:
            instance = await self._manager.ensure(decision.identity.user, fresh=question.fresh)
        except ManagerBusyError as error:
            self._auditor.record(
                Event.LIMIT_HIT,
                user=decision.identity.user,
                reason=Reason.CAPACITY,
                request_id=question.request_id or None,
            )
            detail = error.reason or "No streaming proxy can be started now; try again."
            full = Deny(Problem.OVERLOADED, detail, error.retry_after)
            return _denied(full, question)
        except ManagerError as error:
            log.warning("no proxy", extra={"cause": str(error), "request_id": question.request_id})
            mute = Deny(Problem.OVERLOADED, "The streaming proxy did not start in time.", RETRY_AFTER)
            return _denied(mute, question)
        await self._wake(decision, instance, question)
        return 200, self._allowed(decision, instance, question)

    def _note(self, deny: Deny, facts: Facts, question: Question) -> None:
        """Tell the audit log of somebody known who asked for what they may not."""
        if facts.identity is None or deny.problem not in (Problem.FORBIDDEN, Problem.KEY_SCOPE):
            return
        reason = Reason.KEY_SCOPE if deny.problem is Problem.KEY_SCOPE else Reason.WRONG_CREDENTIAL
        if deny.problem is Problem.FORBIDDEN and facts.session_fault is not None and not question.tunnel:
            reason = Reason.CROSS_SITE
        about = question.request_id or None
        self._auditor.record(Event.FORBIDDEN, user=facts.identity.user, reason=reason, request_id=about)

    async def _patiently(self, question: Question, fields: Fields) -> tuple[Facts, Allow | Deny]:
        """Decide; what may pass in a moment (the state is away, the machine connects anew) is waited out."""
        loop = asyncio.get_running_loop()
        attempt = secrets.token_urlsafe(16)
        give_up = loop.time() + PATIENCE
        backoff = Backoff(first=PAUSES[0], maximum=PAUSES[1])
        while True:
            try:
                facts = await self._facts(question, fields, attempt)
                decision = decide(question, facts)
                if loop.time() >= give_up or not (isinstance(decision, Deny) and decision.passing):
                    return facts, decision
            except StateUnavailableError:
                if loop.time() >= give_up:
                    raise
            await asyncio.sleep(min(backoff.next(), max(0.0, give_up - loop.time())))

    async def _facts(self, question: Question, fields: Fields, attempt: str) -> Facts:
        if is_bridge(fields):
            verify = self._verifier.verify
            method, path, again = question.method, question.path, question.fresh
            return Facts(await verify(fields, method=method, path=path, again=again, attempt=attempt))
        identity = self._identifier.identify(fields)
        if identity is None:
            return Facts(None)
        fault = None
        if identity.via is Via.SESSION:
            host = fields.get(contract.ORIGINAL_HOST, b"")
            fault = session_fault(fields, host=host, scheme=self._scheme)
        if question.tunnel:
            return Facts(identity, fault)
        return Facts(identity, fault, tuple(_fact(known) for known in await self._registry.bridges(identity.user)))

    async def _wake(self, decision: Allow, instance: Instance, question: Question) -> None:
        if decision.kind == assertion.CLIENT:
            bridges = tuple((bridge.id, bridge.connected or 0.0) for bridge in decision.bridges)
            await self._waker.wake(decision.identity.user, instance.id, bridges, fresh=question.fresh)

    def _allowed(self, decision: Allow, instance: Instance, question: Question) -> Headers:
        now = int(self._clock.wall())
        claims = Assertion(
            instance=instance.id,
            user=decision.identity.user,
            kind=decision.kind,
            subject=decision.identity.subject,
            issued=now,
            expires=now + int(assertion.LIFETIME),
            bridges=tuple(bridge.id for bridge in decision.bridges),
            request_id=question.request_id,
            until=int(decision.identity.expires or 0) if decision.kind == assertion.BRIDGE else 0,
            **self._client_claims(decision),
        )
        minted = assertion.mint(claims, bytes.fromhex(instance.key))
        return [
            (contract.ENDPOINT, str(instance.endpoint).encode()),
            (contract.ASSERTION, minted.encode()),
            (b"content-length", b"0"),
        ]

    def _client_claims(self, decision: Allow) -> dict[str, Any]:
        """Return what the proxy and the home need to know of a client's request."""
        if decision.kind != assertion.CLIENT:
            return {}
        key = decision.identity.key
        if key is None:
            return {"via": decision.identity.via.value, "limits": self._limits}
        return {
            "via": assertion.KEY,
            "key_requests_per_minute": key.scope.requests_per_minute or 0,
            "scope": home_scope(key),
            "limits": self._limits,
        }


def home_scope(key: KeyClaims) -> str:
    """Return what the home is told of a key: its scope, and when it was made and expires."""
    return json.dumps({**key.scope.to_json(), "iat": key.issued, "exp": key.expires}, separators=(",", ":"))


def _fact(known: Known) -> BridgeFact:
    record, connection = known.record, known.connection
    since = None if connection is None else connection.since
    return BridgeFact(record.id, record.name, since, record.last_seen, known.returning)


def _denied(deny: Deny, question: Question | None) -> tuple[int, Headers]:
    problem = deny.problem.value
    log.info(
        "refused",
        extra={
            "problem": problem.slug,
            "method": question.method[:16] if question else None,
            "request_id": question.request_id if question else None,
        },
    )
    fields = [
        (contract.STATUS, str(problem.status).encode()),
        (contract.PROBLEM, problem.slug.encode()),
        (contract.DETAIL, deny.detail.encode("ascii", "replace")),
        (b"content-length", b"0"),
    ]
    if deny.retry_after is not None:
        fields.append((contract.RETRY_AFTER, str(deny.retry_after).encode()))
    if deny.nonce is not None:
        fields.append((contract.DPOP_NONCE, deny.nonce.encode()))
    if deny.challenge is not None:
        fields.append((contract.CHALLENGE, deny.challenge.encode()))
    return (401 if problem.status == 401 else 403), fields
