"""What can be set of the certificates."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.certs.validate import MAX_NAMES, is_address
from cloudtolocalllm.runtime.settings import SettingsError, setting

PREFIX = "C2L_CERTS_"
PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
_EMAIL = re.compile(r"[^\s@,;<>\"-][^\s@,;<>\"]{0,63}@[A-Za-z0-9.-]{1,190}", re.ASCII)
_URL = re.compile(r"https://[^\s\"']{1,300}", re.ASCII)
_PROBE_URL = re.compile(r"http://[A-Za-z0-9.:\[\]-]{1,200}/?", re.ASCII)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return parse


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text and not pattern.fullmatch(text):
            raise ValueError(f"expected {expected}")
        return text

    return parse


def _domains(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip().lower().rstrip(".") for part in text.split(",") if part.strip()))
    if not 1 <= len(names) <= MAX_NAMES:
        raise ValueError(f"expected 1 to {MAX_NAMES} names, separated by commas")
    if not all(len(name) <= 253 and (is_address(name) or _HOST.fullmatch(name)) for name in names):
        raise ValueError("expected names such as example.org or *.example.org (others than ASCII as xn--…)")
    return names


@dataclass(frozen=True, slots=True)
class CertsSettings:
    """Settings of the certificates' supervisor."""

    domains: tuple[str, ...] = setting(
        "Names that the certificate covers, separated by commas, such as `example.org,app.example.org` or "
        "`example.org,*.example.org` (a wildcard needs dns-01).",
        parse=_domains,
    )
    mode: str = setting(
        "Where the certificate comes from: `acme` (Let's Encrypt or another authority), `own` (files that you bring) "
        "or `local-ca` (an authority made here, for tests and a laptop).",
        default="acme",
        parse=_one_of("acme", "own", "local-ca"),
    )
    name: str = setting(
        "Name of its folder in the deploy directory; empty for the first of the names, without `*.`.",
        default="",
        parse=_matching(_NAME, "lower-case letters, digits, dots and dashes"),
    )
    deploy_dir: Path = setting(
        "Folder that nginx reads: `NAME/fullchain.pem`, `NAME/privkey.pem`, and `NAME/stamp`, which changes last.",
        default=Path("/etc/c2l/certs"),
    )
    state_dir: Path = setting(
        "Folder of the accounts, the history of attempts and the local authority; keep it over restarts.",
        default=Path("/var/lib/c2l-certs"),
    )
    group: int = setting("Group id that may read the key, which nginx has; -1 for the owner alone.", default=-1)
    email: str = setting(
        "Address that the authority may write to; empty for none.", default="", parse=_matching(_EMAIL, "an address")
    )
    staging: bool = setting(
        "Ask Let's Encrypt's staging authority, whose certificates browsers refuse and whose limits are high.",
        default=False,
    )
    server: str = setting(
        "ACME directory of another authority; empty for Let's Encrypt.",
        default="",
        parse=_matching(_URL, "an https:// URL"),
    )
    ca_bundle: Path | None = setting(
        "PEM file of the authorities that the ACME server's own HTTPS is checked with; empty for the system's.",
        default=None,
    )
    roots: Path | None = setting(
        "PEM file of roots: a chain that leads to none of them is refused. Empty to take the system's and only warn.",
        default=None,
    )
    challenge: str = setting(
        "How control is proven: `http-01` (a file on port 80) or `dns-01` (a DNS record).",
        default="http-01",
        parse=_one_of("http-01", "dns-01"),
    )
    webroot: Path = setting(
        "Folder that nginx serves on port 80; certbot writes `.well-known/acme-challenge` into it.",
        default=Path("/var/www/acme"),
    )
    webroot_url: str = setting(
        "When set, such as `http://ports:8080`, no attempt is made before a file of the webroot is seen there.",
        default="",
        parse=_matching(_PROBE_URL, "an http:// URL of a host"),
    )
    dns_provider: str = setting(
        "Certbot's DNS plugin, as in `certbot-dns-PROVIDER`: rfc2136, cloudflare, route53, …",
        default="rfc2136",
        parse=_matching(_PROVIDER, "a plugin's name such as rfc2136 or cloudflare"),
    )
    dns_credentials: Path | None = setting(
        "The plugin's credentials file, mode 0600; empty for plugins that take them otherwise (route53).",
        default=None,
    )
    dns_propagation: int = setting(
        "Seconds from writing the DNS record until the authority looks; 0 for the plugin's own, which is right for a "
        "plugin without that option. Not used with route53, which waits until it is told.",
        default=60,
    )
    key_type: str = setting(
        "Kind of private key: `ecdsa` (P-256) or `rsa` (2048 bits).",
        default="ecdsa",
        parse=_one_of("ecdsa", "rsa"),
    )
    preferred_chain: str = setting(
        "Common name of the root whose chain is preferred where the authority offers several; empty for its first.",
        default="",
        parse=_matching(re.compile(r"[A-Za-z0-9][A-Za-z0-9 .()'_-]{0,99}", re.ASCII), "a common name"),
    )
    eab_kid: str = setting(
        "Key id of an external account binding, which some authorities require.",
        default="",
        parse=_matching(re.compile(r"[A-Za-z0-9_=.:-]{1,200}", re.ASCII), "a key id"),
    )
    eab_key_file: Path | None = setting("File with the HMAC key of the external account binding.", default=None)
    certbot: str = setting("Certbot's command.", default="certbot")
    timeout: float = setting("Seconds after which a run of certbot is ended.", default=900.0)
    pass_env: tuple[str, ...] = setting(
        "Environment variables that certbot is given beside its own, such as AWS_PROFILE for route53.",
        default=("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    )
    own_certificate: Path | None = setting("Mode own: the certificate with its chain, in PEM.", default=None)
    own_key: Path | None = setting("Mode own: its private key, in PEM, without a passphrase.", default=None)
    metrics_file: Path | None = setting(
        "Where metrics are written in Prometheus' text format; empty for `metrics.prom` in the state directory.",
        default=None,
    )
    nginx_pid_file: Path | None = setting(
        "nginx's pid file, where no watcher of the stamp reloads nginx: it is sent SIGHUP after a change.",
        default=None,
    )
    poll: float = setting(
        "Seconds between looks at own files, at a request to retry, and at an nginx that is awaited.", default=15.0
    )
    leash_fd: int = setting(
        "A descriptor that the starting process holds; when it closes the service stops; -1 for none.", default=-1
    )

    def __post_init__(self) -> None:
        """Check what no setting shows alone.

        Raises:
            SettingsError: Settings contradict each other.
        """
        faults = {"acme": self._acme_faults, "own": self._own_faults, "local-ca": tuple}[self.mode]()
        if self.poll <= 0 or self.timeout < 1:
            faults = (*faults, f"expected {PREFIX}POLL over 0 and {PREFIX}TIMEOUT of at least 1")
        if faults:
            raise SettingsError("\n".join(faults))

    def _acme_faults(self) -> tuple[str, ...]:
        wild = any(name.startswith("*.") for name in self.domains)
        found = {
            f"{PREFIX}DOMAINS: a wildcard needs {PREFIX}CHALLENGE=dns-01": wild and self.challenge != "dns-01",
            f"{PREFIX}DOMAINS: expected names with a dot and no IP addresses in mode acme": any(
                is_address(name) or "." not in name.removeprefix("*.") for name in self.domains
            ),
            f"{PREFIX}STAGING is Let's Encrypt's: set it or {PREFIX}SERVER, not both": self.staging
            and bool(self.server),
            f"{PREFIX}EAB_KID and {PREFIX}EAB_KEY_FILE belong together": bool(self.eab_kid)
            != (self.eab_key_file is not None),
        }
        return tuple(text for text, wrong in found.items() if wrong)

    def _own_faults(self) -> tuple[str, ...]:
        if self.own_certificate is None or self.own_key is None:
            return (f"expected {PREFIX}OWN_CERTIFICATE and {PREFIX}OWN_KEY in mode own",)
        return ()

    @property
    def folder_name(self) -> str:
        """The certificate's name."""
        return self.name or self.domains[0].removeprefix("*.").replace(":", "-")

    @property
    def acme_server(self) -> str:
        """The ACME directory that is asked."""
        return self.server or (STAGING if self.staging else PRODUCTION)

    @property
    def metrics(self) -> Path:
        """Where metrics are written."""
        return self.metrics_file or self.state_dir / "metrics.prom"
