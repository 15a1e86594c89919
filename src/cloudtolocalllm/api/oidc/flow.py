"""Signing in, going on and signing out with a provider: what is decided, without HTTP of our own."""

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from cloudtolocalllm.api.audit import Auditor, Event, Reason
from cloudtolocalllm.api.oidc import pending as pendings
from cloudtolocalllm.api.oidc.admins import Admins
from cloudtolocalllm.api.oidc.config import OidcConfig
from cloudtolocalllm.api.oidc.pending import Pending
from cloudtolocalllm.api.oidc.policy import Person, Policy, Refused, SignUp, claim_of, person_of, refusal
from cloudtolocalllm.api.oidc.provider import ProviderClient, Tokens
from cloudtolocalllm.api.oidc.transport import ProviderRefusedError, ProviderUnavailableError
from cloudtolocalllm.api.revocations import Revocations, blocked_member, provider_session_member, session_member
from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.auth import pseudonyms
from cloudtolocalllm.auth.oidc import (
    IdToken,
    LogoutToken,
    NonceMismatchError,
    ProviderTokenError,
    verify_id_token,
    verify_logout_token,
)
from cloudtolocalllm.auth.sessions import LIFETIME, MAX_LENGTH, Sealer, Session, new_session
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

UNREFRESHED_LIFETIME = 24 * 3600
"""Seconds of a session for which the provider gave no refresh token, so that it is not asked again meanwhile."""
REFRESH_AFTER = 900
"""Seconds after which the provider is asked whether the person still may."""
REFRESH_PAUSE = 60.0
"""Seconds in which one session is refreshed once, however many requests and replicas come upon it."""
MAX_REFRESH_TOKEN = 2400
"""Characters; a longer one does not fit into a cookie."""


class Code(StrEnum):
    """What the page is told of a sign-in that failed."""

    PROVIDER_UNAVAILABLE = "provider-unavailable"
    NOT_ALLOWED = "not-allowed"
    EXPIRED = "expired"
    REFUSED = "refused"
    FAILED = "failed"
    RATE_LIMITED = "rate-limited"


class SignInError(Exception):
    """A sign-in failed. The text is the code for the page."""

    def __init__(
        self, code: Code, reason: Reason, *, return_to: str = pendings.HOME, user: str | None = None
    ) -> None:
        super().__init__(code.value)
        self.code = code
        self.reason = reason
        self.return_to = return_to
        self.user = user


class SessionEndedError(Exception):
    """The provider or the policy says that a session is over."""


@dataclass(frozen=True, slots=True)
class Started:
    """A sign-in that began."""

    location: str
    """The provider's page."""
    cookie: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A sign-in that came about."""

    session: Session
    cookie: str
    """The session, sealed."""
    return_to: str


_REASONS = {
    Refused.NOT_LISTED: Reason.NOT_ALLOWED,
    Refused.UNVERIFIED: Reason.EMAIL_UNVERIFIED,
    Refused.CLOSED: Reason.SIGN_UP_CLOSED,
}


class SignIn:
    """Signs people in."""

    def __init__(
        self,
        config: OidcConfig,
        provider: ProviderClient,
        policy: Policy,
        *,
        sealer: Sealer,
        state: State,
        revocations: Revocations,
        pseudonym_key: bytes,
        auditor: Auditor,
        clock: Clock,
    ) -> None:
        self.config = config
        self._provider = provider
        self._policy = policy
        self._admins = Admins(state, policy)
        self._wanted = ["name", "email", "email_verified"]
        self._wanted += [policy.groups_claim] * policy.by_group + [policy.admin.claim] * (not policy.admin.first)
        self._sealer = sealer
        self._state = state
        self._revocations = revocations
        self._key = pseudonym_key
        self._auditor = auditor
        self._clock = clock

    @property
    def sign_up(self) -> SignUp:
        """Who may have an account."""
        return self._policy.sign_up

    async def start(self, return_to: str) -> Started:
        """Begin a sign-in.

        Raises:
            SignInError: The provider does not answer.
        """
        begun = pendings.begin(return_to, now=self._clock.wall())
        try:
            location = await self._provider.authorization_url(
                state=begun.state, nonce=begun.nonce, verifier=begun.verifier
            )
        except ProviderUnavailableError as error:
            raise self._unavailable(error, begun.return_to) from None
        return Started(location, pendings.seal(self._sealer, begun))

    async def callback(self, query: Mapping[str, str], cookie: str | None) -> SignedIn:
        """Complete a sign-in.

        Args:
            query: What the provider sent along (RFC 6749 §4.1.2), each parameter once.
            cookie: What `start` gave this browser; None when it sent none.

        Raises:
            SignInError: It did not come about.
        """
        begun = None if cookie is None else pendings.unseal(self._sealer, cookie, now=self._clock.wall())
        if begun is None:
            raise SignInError(Code.EXPIRED, Reason.EXPIRED)
        back = begun.return_to
        if not hmac.compare_digest(query.get("state", "").encode(), begun.state.encode()):
            raise SignInError(Code.EXPIRED, Reason.STATE_MISMATCH, return_to=back)
        try:
            used = pseudonyms.hidden(self._key, "state", begun.state)
            if not await self._state.put(f"sign-in/{used}", b"", float(pendings.LIFETIME), only_new=True):
                raise SignInError(Code.EXPIRED, Reason.REPLAYED, return_to=back)
            return await self._complete(query, begun)
        except ProviderUnavailableError as error:
            raise self._unavailable(error, back) from None
        except ProviderRefusedError as error:
            log.warning("the provider refused our request for tokens", extra={"error": str(error)})
            raise SignInError(Code.FAILED, Reason.PROVIDER_REFUSED, return_to=back) from None
        except NonceMismatchError:
            raise SignInError(Code.FAILED, Reason.NONCE_MISMATCH, return_to=back) from None
        except ProviderTokenError as error:
            log.warning("the provider's ID token does not hold", extra={"cause": str(error)})
            raise SignInError(Code.FAILED, Reason.PROVIDER_TOKEN_REFUSED, return_to=back) from None
        except StateUnavailableError:
            log.warning("no sign-in, for the state does not answer")
            raise SignInError(Code.FAILED, Reason.UNSPECIFIED, return_to=back) from None

    async def refresh(self, session: Session) -> Session:
        """Return a session that the provider vouched for again, or the same one while that is not due or possible.

        Raises:
            SessionEndedError: The person may no longer; the session is revoked.
            StateUnavailableError: The state does not answer.
        """
        now = self._clock.wall()
        if not session.refresh_token or now - session.refreshed < REFRESH_AFTER:
            return session
        if not await self._state.put(f"refresh/{session.id}", b"", REFRESH_PAUSE, only_new=True):
            return session
        try:
            tokens = await self._provider.refresh(session.refresh_token)
            # The old token may be void from here on, whatever becomes of the rest.
            session = self._with_refresh_token(session, tokens.refresh_token)
            return await self._renewed(session, tokens)
        except ProviderRefusedError as error:
            if str(error) == "invalid_grant":
                await self._end(session)
                raise SessionEndedError from None
            log.warning("the provider refused our request for new tokens", extra={"error": str(error)})
        except (ProviderUnavailableError, ProviderTokenError) as error:
            log.warning("a session was not refreshed; it goes on", extra={"cause": str(error)})
        return session

    async def sign_out_url(self, session: Session) -> str | None:
        """Return where a browser should go to end its session with the provider too; None for nowhere.

        Args:
            session: The one that ended.
        """
        if not session.refreshed:  # it was not the provider who began it
            return None
        try:
            return await self._provider.end_session_url()
        except ProviderUnavailableError:
            return None

    async def back_channel_logout(self, text: str) -> LogoutToken:
        """End what a logout token says.

        Returns:
            The token, for whoever wants to tell about it.

        Raises:
            ProviderTokenError: It does not hold.
            ProviderUnavailableError: The keys to check it with cannot be had.
            StateUnavailableError: The state does not answer.
        """
        now = self._clock.wall()
        token = await self._provider.verified(
            lambda keys, provider: verify_logout_token(text, keys, provider, now=now)
        )
        user = None if token.subject is None else self.user_of(token.subject)
        if token.session is not None:
            await self._revocations.add(provider_session_member(self._hidden(token.session)), now + LIFETIME)
            self._auditor.record(Event.SIGN_OUT, user=user, reason=Reason.BY_PROVIDER)
        elif user is not None:
            # Up to when it was issued and not until now, so that the same token ends no later session. The next whole
            # second, for sessions begin at whole seconds.
            await self._revocations.revoke_user(user, before=int(min(token.issued, now)) + 1, lifetime=LIFETIME)
            self._auditor.record(Event.SESSIONS_REVOKED, user=user, reason=Reason.BY_PROVIDER)
        return token

    def user_of(self, subject: str) -> str:
        """Return the id of the person whom the provider calls `subject`."""
        return pseudonyms.user_of(self._key, self.config.issuer, subject)

    async def _complete(self, query: Mapping[str, str], begun: Pending) -> SignedIn:
        await self._check_answer(query, begun)
        tokens = await self._provider.exchange(query["code"], begun.verifier)
        if tokens.id_token is None:
            raise ProviderTokenError("expected an ID token")
        id_token = await self._verified(tokens.id_token, begun.nonce)
        user = self.user_of(id_token.subject)
        person = await self._person(id_token, tokens)
        admin = await self._admitted(user, person, begun.return_to)
        now = self._clock.wall()
        session = replace(
            new_session(user, now=now),
            name=person.name,
            email=person.email,
            admin=admin,
            provider_session="" if id_token.session is None else self._hidden(id_token.session),
            refreshed=int(now),
        )
        session = self._with_refresh_token(session, tokens.refresh_token)
        if not session.refresh_token:
            session = replace(session, expires=session.issued + UNREFRESHED_LIFETIME)
        self._auditor.record(Event.SIGN_IN, user=user)
        if admin:
            self._auditor.record(Event.ADMIN_SESSION, user=user)
        return SignedIn(session, self._sealer.seal(session), begun.return_to)

    async def _check_answer(self, query: Mapping[str, str], begun: Pending) -> None:
        """See to it that the answer is the provider's, and yes (RFC 6749 §4.1.2.1, RFC 9207 §2.4)."""
        back = begun.return_to
        issuer = query.get("iss")
        names_issuer = (await self._provider.metadata()).names_issuer
        if (issuer is None and names_issuer) or issuer not in (None, self.config.issuer):
            raise SignInError(Code.FAILED, Reason.PROVIDER_REFUSED, return_to=back)
        match query.get("error"):
            case None if query.get("code"):
                return
            case None:
                raise SignInError(Code.FAILED, Reason.MALFORMED, return_to=back)
            case "server_error" | "temporarily_unavailable":
                raise SignInError(Code.PROVIDER_UNAVAILABLE, Reason.PROVIDER_UNREACHABLE, return_to=back)
            case "access_denied" | "login_required" | "interaction_required" | "consent_required":
                raise SignInError(Code.REFUSED, Reason.PROVIDER_REFUSED, return_to=back)
            case _:
                log.warning(
                    "the provider refused the authorisation request; is the client registered as it should be?"
                )
                raise SignInError(Code.FAILED, Reason.PROVIDER_REFUSED, return_to=back)

    async def _admitted(self, user: str, person: Person, return_to: str) -> bool:
        """Return whether somebody who may sign in is an administrator.

        Raises:
            SignInError: They may not.
        """
        if self._revocations.holds(blocked_member(user)):
            raise SignInError(Code.NOT_ALLOWED, Reason.REVOKED, return_to=return_to, user=user)
        admin = await self._admins.is_one(user, person)
        refused = refusal(self._policy, person, admin=admin, known=await self._known(user))
        if not admin and refused in (None, Refused.CLOSED):
            # A list keeps strangers from being the first, too; "closed" must let the first in, or nobody ever is.
            admin = await self._became_admin(user)
        if refused is not None and not admin:
            raise SignInError(Code.NOT_ALLOWED, _REASONS[refused], return_to=return_to, user=user)
        return admin

    async def _became_admin(self, user: str) -> bool:
        became = await self._admins.become(user)
        if became:
            self._auditor.record(Event.ADMIN_GRANTED, user=user)
        return became

    async def _known(self, user: str) -> bool:
        (bridges,) = await self._state.members(f"bridges/{user}")
        return bool(bridges)

    async def _renewed(self, session: Session, tokens: Tokens) -> Session:
        renewed = replace(session, refreshed=int(self._clock.wall()))
        if tokens.id_token is None:  # a refresh need not give one (Core §12.2)
            return renewed
        id_token = await self._verified(tokens.id_token, None)
        if self.user_of(id_token.subject) != session.user:  # Core §12.2: it must be the same
            log.warning("a refresh gave tokens of another person; the session is ended")
            await self._end(session)
            raise SessionEndedError
        person = await self._person(id_token, tokens)
        try:
            admin = await self._admitted(session.user, person, pendings.HOME)
        except SignInError as error:
            self._auditor.record(Event.SIGN_IN_REFUSED, user=session.user, reason=error.reason)
            await self._end(session)
            raise SessionEndedError from None
        return replace(renewed, name=person.name or session.name, email=person.email or session.email, admin=admin)

    async def _verified(self, text: str, nonce: str | None) -> IdToken:
        now = self._clock.wall()
        return await self._provider.verified(
            lambda keys, provider: verify_id_token(text, keys, provider, nonce=nonce, now=now)
        )

    async def _person(self, id_token: IdToken, tokens: Tokens) -> Person:
        """Return what the provider says: in the ID token, and where that is silent at its userinfo endpoint."""
        claims: dict[str, Any] = dict(id_token.claims)
        if tokens.access_token is not None and any(claim_of(claims, name) is None for name in self._wanted):
            said = await self._provider.userinfo(tokens.access_token, id_token.subject)
            # An e-mail and its verification belong together: never one from here and the other from there.
            if "email" in said and "email_verified" in said:
                claims.pop("email", None)
                claims.pop("email_verified", None)
            claims = {**said, **claims}
        return person_of(claims, self._policy)

    def _with_refresh_token(self, session: Session, token: str | None) -> Session:
        if token is None:
            return session
        full = replace(session, refresh_token=token)
        if len(token) > MAX_REFRESH_TOKEN or len(self._sealer.seal(full)) > MAX_LENGTH:
            log.warning("the provider's refresh token does not fit into a cookie", extra={"length": len(token)})
            return replace(session, refresh_token="")
        return full

    async def _end(self, session: Session) -> None:
        await self._revocations.add(session_member(session.id), session.expires)
        self._auditor.record(Event.SIGN_OUT, user=session.user, reason=Reason.BY_PROVIDER)

    def _hidden(self, provider_session: str) -> str:
        return pseudonyms.hidden(self._key, "provider session", provider_session)

    def _unavailable(self, error: Exception, return_to: str) -> SignInError:
        log.warning("the provider is not available", extra={"cause": str(error)})
        return SignInError(Code.PROVIDER_UNAVAILABLE, Reason.PROVIDER_UNREACHABLE, return_to=return_to)
