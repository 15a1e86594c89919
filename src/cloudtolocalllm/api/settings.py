"""The API's settings, read from variables C2L_API_*."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cloudtolocalllm.api.oidc.config import parse_issuer
from cloudtolocalllm.api.oidc.policy import SignUp, parse_admin
from cloudtolocalllm.audit.config import HELP_FOLDER, HELP_ORIGIN, HELP_SINK, HELP_SINK_TOKEN, AuditConfig
from cloudtolocalllm.audit.sinks import check_sink
from cloudtolocalllm.auth.assertion import Limits
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.settings import setting


def _public_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("expected a URL such as https://app.example.org") from None
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or not port_is_valid:
        raise ValueError("expected http://HOST or https://HOST, with a port if needed and no path")
    return f"{parts.scheme}://{parts.netloc}"


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ValueError("expected a whole number, 0 for no limit")
    return int(text)


def _sign_up(text: str) -> str:
    if text not in list(SignUp):
        raise ValueError(f"expected one of {', '.join(SignUp)}")
    return text


def _admin(text: str) -> str:
    parse_admin(text)
    return text


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What one API process needs to know."""

    listen: Endpoint = setting(
        'Where it listens, for the edge only: "unix:/path" (made with mode 0600) or "host:port".',
        parse=Endpoint.parse,
    )
    data_dir: Path = setting("Folder of the cloud's state: state.db and secrets/. Made with mode 0700.")
    manager: Endpoint = setting("Where the streaming proxy manager listens.", parse=Endpoint.parse)
    state: str = setting(
        "Where the state is kept: empty for state.db in the data directory, which serves one replica; "
        "redis://HOST:PORT/DB (or rediss://) for several.",
        default="",
    )
    replica: str = setting("Name of this replica, unlike any other's; empty for one made at each start.", default="")
    public_url: str = setting(
        "The address people use, without a path. With https, cookies are Secure and have the __Host- prefix.",
        default="http://127.0.0.1:8080",
        parse=_public_url,
    )
    manager_timeout: float = setting(
        "Seconds to wait for the manager to have a proxy ready: of a hundred users who arrive at once on two "
        "processors, the last waits about 15.",
        default=50.0,
    )
    user_streams: int = setting("Requests of one user under way at once; 0 for no limit.", default=64, parse=_limit)
    user_requests_per_minute: int = setting(
        "Requests of one user a minute; 0 for no limit.", default=1200, parse=_limit
    )
    user_bytes_per_minute: int = setting(
        "Bytes of content of one user a minute, both ways together; 0 for no limit.",
        default=2 * 1024**3,
        parse=_limit,
    )
    drain_grace: float = setting(
        "Seconds that requests under way may take once the service was told to stop.", default=5.0
    )
    drain_idle: float = setting(
        "Seconds for which the edge's idle connections stay open once the service was told to stop, while no new one "
        "is accepted: longer than the edge keeps them, so that it closes them and no request meets our close.",
        default=0.0,
    )
    oidc_issuer: str = setting(
        "Issuer of the OpenID provider that people sign in with, exactly as its discovery document has it; empty for "
        "none: then the owner signs in with a one-time link. https, or http on a loopback address.",
        default="",
        parse=parse_issuer,
    )
    oidc_client_id: str = setting("The client id that the provider gave.", default="")
    oidc_client_secret_file: Path | None = setting(
        "File with the client secret that the provider gave; none for a public client.", default=None
    )
    oidc_scopes: str = setting(
        "What to ask the provider for, separated by spaces. offline_access is left out for a provider that does not "
        "list it.",
        default="openid profile email offline_access",
    )
    oidc_name: str = setting("What the page calls the provider.", default="your account")
    sign_up: str = setting(
        "Who may have an account: open (whoever the provider lets in), allow-list (whoever one of the lists names), "
        "or closed (administrators, and who has a machine paired).",
        default="open",
        parse=_sign_up,
    )
    allow_emails: tuple[str, ...] = setting(
        "For allow-list: e-mail addresses, separated by commas; they count when the provider says they are verified.",
        default=(),
    )
    allow_domains: tuple[str, ...] = setting("For allow-list: domains of e-mail addresses, likewise.", default=())
    allow_groups: tuple[str, ...] = setting("For allow-list: groups.", default=())
    groups_claim: str = setting(
        "The claim that lists a person's groups; a path such as realm_access.roles where it is nested.",
        default="groups",
    )
    admin: str = setting(
        "Who is administrator: first (the first who signs in), or CLAIM=VALUE such as groups=admins.",
        default="first",
        parse=_admin,
    )
    service_keys: Path | None = setting(
        "Folder of the key pair with which it signs its calls to the manager: api.json, and public/api.json for the "
        "manager; empty for secrets/services in the data directory.",
        default=None,
    )
    audit_dir: Path | None = setting(
        HELP_FOLDER + " Empty for audit/api (audit/api-REPLICA) in the data directory.", default=None
    )
    audit_origin: str = setting(HELP_ORIGIN.format("api"), default="")
    audit_sink: str = setting(HELP_SINK, default="", parse=check_sink)
    audit_sink_token_file: Path | None = setting(HELP_SINK_TOKEN, default=None)
    leash_fd: int | None = setting(
        "Descriptor whose end of file stops the service; for a parent process that must leave no orphan.",
        default=None,
    )

    @property
    def secure(self) -> bool:
        """Whether browsers reach us by HTTPS."""
        return self.public_url.startswith("https://")

    @property
    def user_limits(self) -> Limits:
        """What each user may do at most."""
        return Limits(self.user_streams, self.user_requests_per_minute, self.user_bytes_per_minute)

    @property
    def service_keys_dir(self) -> Path:
        """The folder of the key pair for calls to other services."""
        return self.service_keys or self.secrets_dir / "services"

    @property
    def audit(self) -> AuditConfig:
        """Where the audit log goes."""
        name = f"api-{self.replica}" if self.replica else "api"
        folder = self.audit_dir or self.data_dir / "audit" / name
        origin = self.audit_origin or f"{urlsplit(self.public_url).hostname}/{name}"
        return AuditConfig(folder, origin, self.audit_sink, self.audit_sink_token_file)

    @property
    def database(self) -> Path:
        """The state's file."""
        return self.data_dir / "state.db"

    @property
    def secrets_dir(self) -> Path:
        """The folder of the keys that never leave this machine."""
        return self.data_dir / "secrets"
