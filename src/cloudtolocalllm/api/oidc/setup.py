"""Makes the sign-in that the settings describe."""

from cloudtolocalllm.api.audit import Auditor
from cloudtolocalllm.api.oidc.config import OidcConfig
from cloudtolocalllm.api.oidc.flow import SignIn
from cloudtolocalllm.api.oidc.policy import Policy, SignUp, parse_admin
from cloudtolocalllm.api.oidc.provider import ProviderClient
from cloudtolocalllm.api.oidc.transport import Transport
from cloudtolocalllm.api.revocations import Revocations
from cloudtolocalllm.api.secrets import read_token
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.state import State
from cloudtolocalllm.auth.sessions import Sealer
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.settings import SettingsError


def sign_in_of(
    settings: ApiSettings,
    *,
    sealer: Sealer,
    state: State,
    revocations: Revocations,
    pseudonym_key: bytes,
    auditor: Auditor,
    clock: Clock,
) -> tuple[SignIn, Transport] | None:
    """Return what signs people in, and what to close at the end; None when no provider is configured.

    Raises:
        SettingsError: What there is of settings does not fit together.
        SecretsError: The file of the client's secret is not usable.
    """
    if not settings.oidc_issuer:
        return None
    config = _config(settings)
    transport = Transport()
    sign_in = SignIn(
        config,
        ProviderClient(config, transport, clock),
        policy_of(settings),
        sealer=sealer,
        state=state,
        revocations=revocations,
        pseudonym_key=pseudonym_key,
        auditor=auditor,
        clock=clock,
    )
    return sign_in, transport


def policy_of(settings: ApiSettings) -> Policy:
    """Return the rules.

    Raises:
        SettingsError: An allow-list is asked for and there is none.
    """
    emails, domains, groups = settings.allow_emails, settings.allow_domains, settings.allow_groups
    if settings.sign_up == SignUp.ALLOW_LIST and not (emails or domains or groups):
        raise SettingsError(
            "C2L_API_SIGN_UP is allow-list: expected C2L_API_ALLOW_EMAILS, _DOMAINS or _GROUPS to name somebody"
        )
    return Policy(
        sign_up=SignUp(settings.sign_up),
        emails=frozenset(email.lower() for email in emails),
        domains=frozenset(domain.lower().removeprefix("@") for domain in domains),
        groups=frozenset(groups),
        groups_claim=settings.groups_claim,
        admin=parse_admin(settings.admin),
    )


def _config(settings: ApiSettings) -> OidcConfig:
    if not settings.oidc_client_id:
        raise SettingsError("C2L_API_OIDC_ISSUER is set: expected C2L_API_OIDC_CLIENT_ID as the provider gave it")
    scopes = tuple(settings.oidc_scopes.split())
    if "openid" not in scopes:
        raise SettingsError("C2L_API_OIDC_SCOPES: expected openid among them")
    file = settings.oidc_client_secret_file
    return OidcConfig(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=None if file is None else read_token(file),
        scopes=scopes,
        name=settings.oidc_name,
        public_url=settings.public_url,
    )
