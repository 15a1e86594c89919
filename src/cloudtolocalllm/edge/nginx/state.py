"""What nginx finds on disk when it starts: the rendered files, the limits' tables, a certificate to begin with."""

import datetime
import os
import secrets
import shutil
import ssl
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudtolocalllm.edge.limits import Kind
from cloudtolocalllm.edge.nginx.checked import Found
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, CLOSING, PRIVATE_KEY, STANDING, TABLES, render
from cloudtolocalllm.edge.nginx.script import TABLE_SIZE, kind_file
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import Clock

PLACEHOLDER = "placeholder"
"""Folder in the state folder with the self-signed pair that stands in until there is a certificate."""
_KEY = "key"
_LIFETIME = datetime.timedelta(days=30)
_MARGIN = datetime.timedelta(hours=1)


def write(folder: Path, edge: EdgeSettings, nginx: NginxSettings, found: Found = STANDING) -> None:
    """Render the configuration into a folder, each file whole or not at all.

    Names the placeholder where the certificate cannot be used yet; to be called again when it can.

    Raises:
        RenderError: Some settings cannot be expressed.
    """
    key = _table_key(nginx.state_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if nginx.certificate_dir is not None and not usable(nginx.certificate_dir):
        nginx = replace(nginx, certificate_dir=nginx.state_dir / PLACEHOLDER)
    for name, text in render(edge, nginx, key=key, found=found).items():
        fresh = folder / f".{name}.new"
        fresh.write_text(text)
        fresh.chmod(0o640 if name == "settings.json" else 0o644)
        fresh.rename(folder / name)


def prepare(edge: EdgeSettings, nginx: NginxSettings, clock: Clock) -> None:
    """Make what nginx needs; to be called while it does not run.

    Args:
        edge: As rendered.
        nginx: As rendered.
        clock: For the dates of a certificate.
    """
    state = nginx.state_dir
    tables = state / TABLES
    tables.mkdir(parents=True, exist_ok=True)
    for kind in Kind:
        with (tables / kind_file(kind)).open("ab") as table:
            table.truncate(TABLE_SIZE)
            # Reserved, so that a folder that fills up later cannot stop the counting.
            os.posix_fallocate(table.fileno(), 0, TABLE_SIZE)
    (state / CLOSING).unlink(missing_ok=True)
    for socket in state.glob("*.sock"):
        socket.unlink()  # a killed nginx leaves them, and could not listen on them again
    _give(nginx.user, state, tables, *(tables / kind_file(kind) for kind in Kind))
    if nginx.user or os.geteuid() != 0:
        state.chmod(0o700)  # whoever reaches the sockets in it could say who they are
    if nginx.certificate_dir is not None:
        make_placeholder(state / PLACEHOLDER, edge.domain or "localhost", clock)


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
    _write_private(folder / PRIVATE_KEY, key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(encoding))


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _table_key(state: Path) -> str:
    path = state / TABLES / _KEY
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_private(path, secrets.token_hex(16).encode())
    return path.read_text()


def _give(user: str, *paths: Path) -> None:
    if user:
        for path in paths:
            shutil.chown(path, user=user)
