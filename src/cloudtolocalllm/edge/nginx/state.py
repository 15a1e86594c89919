"""What nginx finds on disk when it starts: the rendered files, the limits' tables, a certificate to begin with."""

import datetime
import os
import secrets
import shutil
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudtolocalllm.edge.limits import Kind
from cloudtolocalllm.edge.nginx.checked import Found
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, CLOSING, IN_USE, PRIVATE_KEY, STANDING, TABLES, render
from cloudtolocalllm.edge.nginx.script import TABLE_SIZE, kind_file
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.text import RenderError
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import Clock

_KEY = "key"
_LIFETIME = datetime.timedelta(days=30)
_MARGIN = datetime.timedelta(hours=1)


def write(folder: Path, edge: EdgeSettings, nginx: NginxSettings, found: Found = STANDING) -> None:
    """Render the configuration into a folder, each file whole or not at all.

    Raises:
        RenderError: Some settings cannot be expressed.
    """
    key = _table_key(nginx.state_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render(edge, nginx, key=key, found=found).items():
        files.replace(folder / name, text.encode(), mode=0o640 if name == "settings.json" else files.PUBLIC)


def prepare(edge: EdgeSettings, nginx: NginxSettings, clock: Clock) -> None:
    """Make what nginx needs and what is not there yet; one that runs is not disturbed.

    Args:
        edge: As rendered.
        nginx: As rendered.
        clock: For the dates of a certificate.

    Raises:
        RenderError: The workers have no user, or one that this machine does not know.
    """
    if os.geteuid() == 0 and not nginx.user:
        # nginx would take one of its own, who could neither count in the tables nor be the only one at the sockets.
        raise RenderError("C2L_NGINX_USER: expected a user when nginx is started by root")
    state = nginx.state_dir
    tables = state / TABLES
    tables.mkdir(parents=True, exist_ok=True)
    for kind in Kind:
        with (tables / kind_file(kind)).open("ab") as table:
            table.truncate(TABLE_SIZE)
            # Reserved, so that a folder that fills up later cannot stop the counting.
            os.posix_fallocate(table.fileno(), 0, TABLE_SIZE)
    _give(nginx.user, state, tables, *(tables / kind_file(kind) for kind in Kind))
    state.chmod(0o700)  # whoever reaches the sockets in it could say who they are
    if nginx.certificate_dir is None or take_certificate(nginx.certificate_dir, state):
        return
    if not usable(state / IN_USE):
        make_placeholder(state / IN_USE, edge.domain or "localhost", clock)


def clear(state: Path) -> None:
    """Remove what an nginx that was killed has left in the state folder; to be called while none runs."""
    (state / CLOSING).unlink(missing_ok=True)
    for socket in state.glob("*.sock"):
        socket.unlink()  # or the next one could not listen on them


def take_certificate(folder: Path, state: Path) -> bool:
    """Copy a pair into the state folder, where nginx reads it.

    Args:
        folder: Where it was deployed.
        state: The state folder.

    Returns:
        False when nginx could not start with it; what it has had so far stays.
    """
    draft, place = state / f"{IN_USE}.new", state / IN_USE
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    try:
        for name in (CERTIFICATE, PRIVATE_KEY):
            try:
                content = (folder / name).read_bytes()
            except OSError:
                return False
            files.replace(draft / name, content)
        if not usable(draft):  # the copy, for the pair itself may change meanwhile
            return False
        place.mkdir(mode=0o700, exist_ok=True)
        for name in (CERTIFICATE, PRIVATE_KEY):
            (draft / name).replace(place / name)
    finally:
        shutil.rmtree(draft)
    return True


def usable(folder: Path) -> bool:
    """Tell whether nginx could start with the pair in a folder: it is there, whole, and its halves match."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / CERTIFICATE, folder / PRIVATE_KEY)
    except (OSError, ssl.SSLError):
        return False
    return True


def make_placeholder(folder: Path, domain: str, clock: Clock) -> None:
    """Put a self-signed pair into a folder; nobody trusts it, it only lets nginx start and answer challenges."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "placeholder")])
    now = datetime.datetime.fromtimestamp(clock.wall(), datetime.UTC)
    names = [x509.DNSName(domain), x509.DNSName(f"app.{domain}")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _MARGIN)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files.replace(folder / PRIVATE_KEY, key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    files.replace(folder / CERTIFICATE, certificate.public_bytes(encoding), mode=files.PUBLIC)


def _table_key(state: Path) -> str:
    path = state / TABLES / _KEY
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.create(path, secrets.token_hex(16).encode())
    return path.read_text()


def _give(user: str, *paths: Path) -> None:
    try:
        for path in paths if user else ():
            shutil.chown(path, user=user)
    except LookupError:
        raise RenderError("C2L_NGINX_USER: expected a user of this machine") from None
