"""The provider as we use it: discovery, keys, tokens (OpenID Connect Discovery 1.0, RFC 6749, RFC 7636)."""

import base64
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from cloudtolocalllm.api.oidc.cached import Cached
from cloudtolocalllm.api.oidc.config import OFFLINE, OidcConfig, is_endpoint
from cloudtolocalllm.api.oidc.transport import ProviderUnavailableError, Transport
from cloudtolocalllm.auth.oidc import Provider, UnknownKeyError, common_algorithms
from cloudtolocalllm.auth.provider_keys import ProviderKeys
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

DISCOVERY = "/.well-known/openid-configuration"
ANSWERED = 10.0
"""Seconds for which a provider that answered counts as up."""
MAX_TOKEN = 16 * 1024
"""Characters of a token that the provider gives."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider's discovery document says, as far as we use it."""

    authorization: str
    token: str
    jwks: str
    userinfo: str | None
    end_session: str | None
    algorithms: tuple[str, ...]
    scopes: tuple[str, ...] | None
    """None when it does not say."""
    names_issuer: bool
    """Whether its answers to the browser carry `iss` (RFC 9207)."""
    secret_in_form: bool
    """Whether it takes the client's secret in the form only."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the token endpoint gave."""

    id_token: str | None
    access_token: str | None
    refresh_token: str | None

    def __repr__(self) -> str:
        return "Tokens(…)"


class ProviderClient:
    """Speaks with the provider."""

    def __init__(self, config: OidcConfig, transport: Transport, clock: Clock) -> None:
        self._config = config
        self._transport = transport
        self._metadata = Cached(self._discover, clock)
        self._keys = Cached(self._fetch_keys, clock)

    async def metadata(self) -> Metadata:
        """Return the discovery document.

        Raises:
            ProviderUnavailableError: It cannot be had.
        """
        return await self._metadata.get()

    async def authorization_url(self, *, state: str, nonce: str, verifier: str) -> str:
        """Return where to send a browser that wants to sign in.

        Args:
            state: Comes back with the browser.
            nonce: Comes back in the ID token.
            verifier: Of PKCE; its hash goes along.

        Raises:
            ProviderUnavailableError: It does not answer.
        """
        # Fresher than needed, so that whoever signs in while the provider is down is told so by us and does not end
        # on a page of the browser's that says nothing.
        metadata = await self._metadata.get(fresh=ANSWERED, stale=ANSWERED)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        return _with_query(
            metadata.authorization,
            {
                "response_type": "code",
                "client_id": self._config.client_id,
                "redirect_uri": self._config.redirect_uri,
                "scope": " ".join(_scopes(self._config.scopes, metadata.scopes)),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            },
        )

    async def end_session_url(self) -> str | None:
        """Return where to send a browser that signed out (RP-Initiated Logout 1.0); None when there is no such place.

        Raises:
            ProviderUnavailableError: It is not known.
        """
        metadata = await self.metadata()
        if metadata.end_session is None:
            return None
        query = {
            "client_id": self._config.client_id,
            "post_logout_redirect_uri": self._config.post_logout_redirect_uri,
        }
        return _with_query(metadata.end_session, query)

    async def exchange(self, code: str, verifier: str) -> Tokens:
        """Return the tokens for an authorisation code.

        Raises:
            ProviderRefusedError: The code or we are not accepted.
            ProviderUnavailableError: The provider does not answer.
        """
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        return await self._tokens({**form, "redirect_uri": self._config.redirect_uri})

    async def refresh(self, refresh_token: str) -> Tokens:
        """Return new tokens for a refresh token.

        Raises:
            ProviderRefusedError: `invalid_grant` when the person's access has ended.
            ProviderUnavailableError: The provider does not answer.
        """
        return await self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def userinfo(self, access_token: str, subject: str) -> Mapping[str, Any]:
        """Return what the provider says of a person besides the ID token (Core §5.3); nothing when it says nothing.

        Args:
            access_token: Of the same answer as the ID token.
            subject: The ID token's; what is said of another is dropped (§5.3.2).

        Raises:
            ProviderUnavailableError: The provider does not answer.
        """
        url = (await self.metadata()).userinfo
        value = {} if url is None else await self._transport.get(url, bearer=access_token)
        return value if value.get("sub") == subject else {}

    async def verified(self, verify: Callable[[ProviderKeys, Provider], T]) -> T:
        """Return what `verify` makes of a token with the provider's keys, fetched anew if they are too old for it.

        Args:
            verify: Called once or twice; raises UnknownKeyError when it would need other keys.

        Raises:
            ProviderTokenError: As `verify` raises it.
            ProviderUnavailableError: The keys cannot be had.
        """
        metadata = await self.metadata()
        provider = Provider(self._config.issuer, self._config.client_id, metadata.algorithms)
        keys = await self._keys.get()
        try:
            return verify(keys, provider)
        except UnknownKeyError:
            newer = await self._keys.newer(keys)
            if newer is None:
                raise
            return verify(newer, provider)

    async def _tokens(self, form: dict[str, str]) -> Tokens:
        metadata = await self.metadata()
        config = self._config
        basic = None
        if config.client_secret is None or metadata.secret_in_form:
            form["client_id"] = config.client_id
        if config.client_secret is not None:
            if metadata.secret_in_form:
                form["client_secret"] = config.client_secret
            else:
                basic = (config.client_id, config.client_secret)
        value = await self._transport.post(metadata.token, form, basic=basic)
        return Tokens(_token(value, "id_token"), _token(value, "access_token"), _token(value, "refresh_token"))

    async def _discover(self) -> Metadata:
        document = await self._transport.get(self._config.issuer.rstrip("/") + DISCOVERY)
        try:
            return read_metadata(document, self._config)
        except ValueError as error:
            log.warning("the provider's discovery document does not fit", extra={"cause": str(error)})
            raise ProviderUnavailableError("its discovery document does not fit") from None

    async def _fetch_keys(self) -> ProviderKeys:
        document = await self._transport.get((await self.metadata()).jwks)
        try:
            return ProviderKeys.from_jwks(document)
        except ValueError as error:
            raise ProviderUnavailableError(str(error)) from None


def read_metadata(document: Mapping[str, Any], config: OidcConfig) -> Metadata:
    """Return what a discovery document says.

    Raises:
        ValueError: It is of another issuer, or lacks what we need.
    """
    if document.get("issuer") != config.issuer:  # Discovery §4.3; one that differs may be an impostor
        raise ValueError("expected the issuer to be exactly C2L_API_OIDC_ISSUER; mind a slash at the end")
    algorithms = common_algorithms(document.get("id_token_signing_alg_values_supported"))
    if not algorithms:
        raise ValueError("expected ID tokens to be signed by RS256, PS256, ES256 or Ed25519")
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        raise ValueError("expected PKCE with S256")
    ways = document.get("token_endpoint_auth_methods_supported")
    scopes = document.get("scopes_supported")
    return Metadata(
        authorization=_endpoint(document, "authorization_endpoint", config),
        token=_endpoint(document, "token_endpoint", config),
        jwks=_endpoint(document, "jwks_uri", config),
        userinfo=_maybe_endpoint(document, "userinfo_endpoint", config),
        end_session=_maybe_endpoint(document, "end_session_endpoint", config),
        algorithms=algorithms,
        scopes=tuple(s for s in scopes if isinstance(s, str)) if isinstance(scopes, list) else None,
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        secret_in_form=isinstance(ways, list) and "client_secret_basic" not in ways and "client_secret_post" in ways,
    )


def _maybe_endpoint(document: Mapping[str, Any], name: str, config: OidcConfig) -> str | None:
    return _endpoint(document, name, config) if name in document else None


def _endpoint(document: Mapping[str, Any], name: str, config: OidcConfig) -> str:
    url = document.get(name)
    if not isinstance(url, str) or not is_endpoint(url, plain=config.plain):
        raise ValueError(f"expected {name} to be an https URL")
    return url


def _scopes(wanted: tuple[str, ...], known: tuple[str, ...] | None) -> tuple[str, ...]:
    """Leave `offline_access` out for a provider that does not list it: some refuse the whole request over it."""
    if known is None or OFFLINE in known:
        return wanted
    return tuple(scope for scope in wanted if scope != OFFLINE)


def _token(value: Mapping[str, Any], name: str) -> str | None:
    token = value.get(name)
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN or not token.isascii():
        return None
    return token


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return url + ("&" if "?" in url else "?") + urlencode(query)
