"""The supervisor's process."""

import asyncio
import contextlib
import logging
import random
import re
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from cloudtolocalllm.certs.acme import Acme
from cloudtolocalllm.certs.local_ca import LocalCa
from cloudtolocalllm.certs.own import Own
from cloudtolocalllm.certs.settings import STAGING, CertsSettings
from cloudtolocalllm.certs.source import Source
from cloudtolocalllm.certs.supervisor import Checker, Supervisor
from cloudtolocalllm.runtime import locks
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.settings import environment

log = logging.getLogger(__name__)

LOCAL_CA = "local-ca"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class StartError(Exception):
    """The service cannot start; the text says why and how to mend it."""


async def serve(settings: CertsSettings, stop: asyncio.Event) -> None:
    """Keep the certificate until `stop` is set.

    Raises:
        StartError: Another process uses the state directory, or a file that was set cannot be read.
    """
    with only_one(settings.state_dir):
        log.info("keeping a certificate", extra={"mode": settings.mode, "names": ",".join(settings.domains)})
        await build(settings, SystemClock()).run(stop)


def build(settings: CertsSettings, clock: Clock) -> Supervisor:
    """Make the supervisor.

    Raises:
        StartError: A file that was set cannot be read.
    """
    check = checker(settings, clock)
    source: Source
    if settings.mode == "local-ca":
        source = LocalCa(settings.state_dir / LOCAL_CA, settings.domains, clock)
    elif settings.mode == "acme":
        if settings.acme_server == STAGING:
            log.warning("browsers refuse certificates of the staging authority; unset C2L_CERTS_STAGING soon")
        source = Acme(settings, environment(), check, clock=clock, random=random.SystemRandom().random)
    elif settings.own_certificate is not None and settings.own_key is not None:
        source = Own(settings.own_certificate, settings.own_key)
    else:
        raise StartError("expected the files of mode own")
    return Supervisor(settings, source, check, clock=clock)


def checker(settings: CertsSettings, clock: Clock) -> Checker:
    """Return what decides whether a pair is fit.

    Raises:
        StartError: The roots cannot be read.
    """
    if settings.mode == "local-ca":
        authority = LocalCa(settings.state_dir / LOCAL_CA, settings.domains, clock)
        # read at each check, for the authority may be made or replaced meanwhile
        return Checker(settings, clock, authority.roots, strict=True)
    if settings.roots is not None:
        try:
            own = _read_roots(settings.roots)
        except (OSError, ValueError) as error:
            raise StartError(
                f"C2L_CERTS_ROOTS: expected certificates in PEM in {settings.roots} ({error})"
            ) from error
        return Checker(settings, clock, lambda: own, strict=True)
    known = _system_roots()
    return Checker(settings, clock, lambda: known, strict=False)


def _read_roots(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def _system_roots() -> list[x509.Certificate]:
    file = ssl.get_default_verify_paths().cafile
    try:
        blocks = _BLOCK.findall(Path(file).read_bytes()) if file else []
    except OSError:
        log.warning("the system's root certificates cannot be read", extra={"path": file})
        return []
    roots = []
    with warnings.catch_warnings():
        # Some old roots break RFC 5280 (a serial number of 0); they are not to keep the others from being known.
        warnings.simplefilter("ignore")
        for block in blocks:
            with contextlib.suppress(ValueError):
                roots.append(x509.load_pem_x509_certificate(block))
    return roots


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the state directory's lock, which the system drops with the process.

    Raises:
        StartError: Another process has it, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(locks.held(folder / "lock"))
        except locks.HeldError:
            raise StartError(f"another supervisor uses {folder}: let one run, or set C2L_CERTS_STATE_DIR") from None
        except OSError as error:
            raise StartError(
                f"could not write to {folder} ({error.strerror}): give this process's user the folder"
            ) from error
        yield
