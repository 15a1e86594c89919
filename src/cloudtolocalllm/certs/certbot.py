"""Runs certbot: its command line (pure), and the child process, bounded in time and in what is kept of its words."""

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.certs.settings import CertsSettings
from cloudtolocalllm.runtime import files

OUTPUT_KEPT = 16_384
"""Bytes of certbot's words, the last ones."""
STOP_GRACE = 5.0
"""Seconds for certbot to remove its challenges before it is killed."""
NO_PROPAGATION = frozenset({"route53"})
"""Plugins that ask their provider when a record is everywhere, and know no option that says how long to wait:
certbot 3.0 and later end with `unrecognized arguments` at it."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    status: int | None
    """None when it was ended for taking too long."""
    output: str


@dataclass(frozen=True, slots=True)
class Places:
    """certbot's folders: one set an authority, for accounts and certificates are its own."""

    base: Path
    name: str

    @classmethod
    def of(cls, settings: CertsSettings) -> "Places":
        """Return those of the authority that is set."""
        tag = hashlib.sha256(settings.acme_server.encode()).hexdigest()[:12]
        return cls(settings.state_dir / "acme" / tag, settings.folder_name)

    @property
    def config(self) -> Path:
        """Accounts and certificates."""
        return self.base / "config"

    @property
    def live(self) -> Path:
        """What certbot got last."""
        return self.config / "live" / self.name

    @property
    def options(self) -> Path:
        """The file of certbot's own settings, so that none of /etc/letsencrypt counts."""
        return self.base / "cli.ini"


def command(settings: CertsSettings, places: Places) -> list[str]:
    """Return the command that has a certificate issued."""
    line = [
        settings.certbot, "certonly", "--non-interactive", "--agree-tos", "--force-renewal",
        "--renew-with-new-domains", "--no-directory-hooks", "--max-log-backups", "5",
        "--config", str(places.options), "--config-dir", str(places.config),
        "--work-dir", str(places.base / "work"), "--logs-dir", str(places.base / "logs"),
        "--server", settings.acme_server, "--cert-name", places.name, "--key-type", settings.key_type,
    ]  # fmt: skip
    line += ["--elliptic-curve", "secp256r1"] if settings.key_type == "ecdsa" else ["--rsa-key-size", "2048"]
    line += ["--email", settings.email, "--no-eff-email"] if settings.email else ["--register-unsafely-without-email"]
    if settings.preferred_chain:
        line += ["--preferred-chain", settings.preferred_chain]
    line += _challenge(settings)
    for name in settings.domains:
        line += ["-d", name]
    return line


def _challenge(settings: CertsSettings) -> list[str]:
    if settings.challenge == "http-01":
        return ["--webroot", "--webroot-path", str(settings.webroot)]
    plugin = f"dns-{settings.dns_provider}"
    line = ["--authenticator", plugin, "--preferred-challenges", "dns-01"]
    if settings.dns_credentials is not None:
        line += [f"--{plugin}-credentials", str(settings.dns_credentials)]
    if settings.dns_propagation > 0 and settings.dns_provider not in NO_PROPAGATION:
        line += [f"--{plugin}-propagation-seconds", str(settings.dns_propagation)]
    return line


def prepare(settings: CertsSettings, places: Places) -> None:
    """Make certbot's folders and the file of its settings.

    Raises:
        OSError: They cannot be made, or the key of the account binding cannot be read.
    """
    places.base.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = ["# Written by cloudtolocalllm certs at each run."]
    if settings.eab_key_file is not None:
        # In a file, for a command line can be read by every process of the machine.
        key = settings.eab_key_file.read_text(encoding="ascii", errors="replace").strip()
        lines += [f"eab-kid = {settings.eab_kid}", f"eab-hmac-key = {key.splitlines()[0] if key else ''}"]
    files.replace(places.options, ("\n".join(lines) + "\n").encode())


def child_environment(settings: CertsSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what certbot sees: none of the service's own variables but those that are named."""
    passed = {name: environ[name] for name in settings.pass_env if name in environ}
    own = {"PATH": environ.get("PATH", os.defpath), "HOME": str(settings.state_dir), "LANG": "C.UTF-8"}
    if settings.ca_bundle is not None:
        own["REQUESTS_CA_BUNDLE"] = str(settings.ca_bundle)
    return {**passed, **own, "PYTHONUNBUFFERED": "1"}


async def run(line: list[str], environ: Mapping[str, str], *, timeout: float) -> Result:
    """Run it to its end.

    Args:
        line: The command.
        environ: The whole environment.
        timeout: Seconds.

    Raises:
        OSError: It could not be started.
    """
    process = await _started(line, environ)
    kept = bytearray()
    status: int | None = None
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await _read(process, kept)
                status = await process.wait()
    finally:
        if process.returncode is None:
            await asyncio.shield(_end(process))
    return Result(status, kept.decode(errors="replace"))


async def _started(line: list[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    starting = asyncio.get_running_loop().create_task(
        asyncio.create_subprocess_exec(
            *line,
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # The child may run already, and nobody else knows it.
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


async def _read(process: asyncio.subprocess.Process, kept: bytearray) -> None:
    assert process.stdout is not None  # noqa: S101 - it was asked for as a pipe
    while piece := await process.stdout.read(4096):
        kept += piece
        del kept[:-OUTPUT_KEPT]


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE):
                await process.wait()
                return
