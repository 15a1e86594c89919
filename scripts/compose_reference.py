"""The page docs/reference/compose.md: what an operator can set in deploy/compose/.env, and ask of deploy/install.

The variables, their defaults and what they set are read from docker-compose.yml and the options from the programs'
own `--help`, so that the page can name nothing that does not exist; what a variable means is said here. One that this
table lacks, or that only this table has, is an error.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
COMPOSE_FILE = DEPLOY / "compose" / "docker-compose.yml"
PROGRAMS = ("install", "uninstall")

MEANINGS = {
    "The address": {
        "C2L_DOMAIN": "The domain. The pages are on it, the app on `app.` below it.",
        "C2L_HTTP": "`[ADDRESS:]PORT` of this machine that is listened on in clear.",
        "C2L_HTTPS": "`[ADDRESS:]PORT` of this machine that is listened on for TLS.",
        "C2L_HTTPS_PORT": "The port in the address that people use; requests in clear are led to it.",
        "C2L_PORT_SUFFIX": "The same as it stands in an address: `:8443`, and nothing for 443.",
        "C2L_PORTS_LISTEN": "What the container `ports` binds inside, separated by blanks; `[::]` too for IPv6.",
        "C2L_ALLOWED_HOSTS": "Further hosts that are answered, separated by commas.",
        "C2L_TRUSTED_PROXIES": "Ranges of proxies in front, whose word on the client's address is taken.",
        "C2L_CORS_ORIGINS": "Origins of other pages that may use the model routes.",
    },
    "The certificate": {
        "C2L_CERT_MODE": "`acme`, `own` or `local-ca`.",
        "C2L_CERT_NAMES": "The names that it covers, separated by commas.",
        "C2L_EMAIL": "Where the authority may write to.",
        "C2L_CERT_STAGING": "`true` asks Let's Encrypt's staging authority.",
        "C2L_CERT_SERVER": "ACME directory of another authority.",
        "C2L_CERT_CA_BUNDLE": "PEM file by which that authority's own HTTPS is checked, such as `/run/own/ca.pem`.",
        "C2L_CERT_CHALLENGE": "`http-01` or `dns-01`.",
        "C2L_CERT_WEBROOT_URL": "Where certbot looks whether the challenges are served before it asks.",
        "C2L_CERT_DNS_PROVIDER": "certbot's DNS plugin.",
        "C2L_CERT_DNS_CREDENTIALS": "The plugin's credentials file, such as `/run/own/dns.ini`.",
        "C2L_CERT_DNS_PROPAGATION": "Seconds until every name server has a new record; 0 for the plugin's own.",
        "C2L_CERT_OWN_CERTIFICATE": "Mode own: the chain, `/run/own/fullchain.pem`, which is `deploy/compose/own`.",
        "C2L_CERT_OWN_KEY": "Mode own: the key, `/run/own/privkey.pem`.",
        "C2L_CERTBOT_PLUGINS": "Packages of DNS plugins, separated by blanks, for certbot's image when it is built.",
    },
    "Who may come in": {
        "C2L_OIDC_ISSUER": "The OpenID provider's issuer; empty for an owner alone, who signs in by links.",
        "C2L_OIDC_CLIENT_ID": "As the provider gave it. The secret is the file `secrets/oidc-client-secret`.",
        "C2L_OIDC_NAME": "What the page calls the provider.",
        "C2L_OIDC_SCOPES": "What the provider is asked for.",
        "C2L_SIGN_UP": "`open`, `allow-list` or `closed`.",
        "C2L_ALLOW_EMAILS": "For allow-list: verified addresses.",
        "C2L_ALLOW_DOMAINS": "For allow-list: domains of verified addresses.",
        "C2L_ALLOW_GROUPS": "For allow-list: groups.",
        "C2L_GROUPS_CLAIM": "The claim that lists a person's groups.",
        "C2L_ADMIN": "`first`, or `CLAIM=VALUE`.",
    },
    "The machine": {
        "COMPOSE_PROJECT_NAME": "Compose's name of the platform; part of the names of its containers and volumes.",
        "C2L_SUBNET": "First two numbers of the /16 that its networks lie in; private and used by nobody else.",
        "C2L_DOCKER_GID": "Group of `/var/run/docker.sock`, for the manager alone.",
        "C2L_API_REPLICAS": "Containers of the API.",
        "C2L_ISOLATION": "How a user's proxy is reached: `socket` (it has no network) or `network` (one of its own).",
        "C2L_WARM": "Proxies that are kept ready for users who come.",
        "C2L_MAX_USERS": "Proxies at once; who comes later is asked to try again.",
        "C2L_LOG_LEVEL": "`DEBUG`, `INFO`, `WARNING` or `ERROR`, in every service.",
    },
    "The images": {
        "C2L_TAG": "Tag of the images.",
        "C2L_PORTS_TAG": "Tag of the image that holds the ports, which is replaced only when it must be: that cuts.",
        "C2L_VERSION": "Version in the labels of images that are built.",
        "C2L_REVISION": "Commit in those labels.",
        "SOURCE_DATE_EPOCH": "Time of the files in them, in seconds since 1970; fixed, so that they stay the same.",
        "PROMETHEUS_IMAGE": "Of the profile `monitoring`.",
        "NODE_EXPORTER_IMAGE": "Of the profile `monitoring`.",
    },
}
_USE = re.compile(r"\$\{([A-Z0-9_]+)(?::?([-?])([^}]*))?\}")
_SETTING = re.compile(r"^ +(C2L_[A-Z0-9_]+): (.*)$", re.MULTILINE)
_OPTION = re.compile(r"^  (--[a-z-]+)(?:, (--[a-z-]+))?(?: (\S+))? {2,}(.*)$")


class UndescribedError(Exception):
    """The table and what it describes differ."""


@dataclass
class Variable:
    """One variable of .env."""

    name: str
    default: str | None
    """None where it must be set."""
    sets: tuple[str, ...]
    """The services' settings that are made of it."""


def variables(text: str) -> dict[str, Variable]:
    """Return the variables that a Compose file takes, by name."""
    found: dict[str, Variable] = {}
    for name, kind, word in _USE.findall(text):
        one = found.setdefault(name, Variable(name, None, ()))
        if kind == "-":
            one.default = word
    for setting, value in _SETTING.findall(text):
        for name, _, _ in _USE.findall(value):
            if setting not in found[name].sets:
                found[name].sets = (*found[name].sets, setting)
    return found


def options(program: str) -> list[tuple[str, str]]:
    """Return the options of one of deploy's programs as it tells them, with what they do."""
    told = subprocess.run([DEPLOY / program, "--help"], capture_output=True, text=True, timeout=20, check=True).stdout
    found: list[tuple[str, str]] = []
    for line in told.splitlines()[2:]:
        match = _OPTION.match(line)
        if match:
            names = [" ".join(filter(None, (match[1], match[3])))] + ([match[2]] if match[2] else [])
            found.append((", ".join(f"`{name}`" for name in names), match[4]))
        elif line.strip():
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def compose_page() -> str:
    """Return the page.

    Raises:
        UndescribedError: A variable is not described, or one that does not exist is.
    """
    known = variables(COMPOSE_FILE.read_text())
    described = [name for table in MEANINGS.values() for name in table]
    if set(described) != set(known) or len(described) != len(set(described)):
        raise UndescribedError(f"described once and taken differ in: {sorted(set(described) ^ set(known))}")
    lines = [
        "# Containers: settings and programs",
        "<!-- Written by scripts/reference.py; run it after a change. -->",
        "",
        "`deploy/install` writes `deploy/compose/.env`. Your own lines go below the mark at its end, where they stay",
        "and count instead of those above. What is not here can be set in a file of yours beside it,",
        "`docker-compose.override.yml`, which Compose reads too: any [setting of a service](settings.md), another",
        "limit, another image.",
    ]
    for title, table in MEANINGS.items():
        lines += ["", f"## {title}", "", "| variable | default | meaning | sets |", "|---|---|---|---|"]
        for name, meaning in table.items():
            one = known[name]
            default = "required" if one.default is None else f"`{one.default}`" if one.default else ""
            lines.append(f"| `{name}` | {default} | {meaning} | {', '.join(f'`{n}`' for n in one.sets)} |")
    for program in PROGRAMS:
        lines += ["", f"## `deploy/{program}`", "", "| option | meaning |", "|---|---|"]
        lines += [f"| {names} | {meaning} |" for names, meaning in options(program)]
    lines += [
        "",
        "Exit status of both: 0 when done, 1 when something is not as it must be (`install` has then changed",
        "nothing, or says which service is not healthy), 2 for a wrong command line.",
    ]
    return "\n".join(lines) + "\n"
