"""Certificates for tests: an authority with an intermediate, and leaves with every fault one asks for."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudtolocalllm.certs.settings import CertsSettings
from cloudtolocalllm.certs.validate import Pair

DAY = datetime.timedelta(days=1)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Any, password: bytes | None = None) -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    data: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    return data


@dataclass
class Signer:
    """A certificate that signs others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class TestAuthority:
    """A root and an intermediate."""

    __test__ = False

    def __init__(self, now: float, label: str = "Test") -> None:
        self.now = datetime.datetime.fromtimestamp(now, datetime.UTC)
        self.root = self._signer(f"{label} Root", None)
        self.intermediate = self._signer(f"{label} Intermediate", self.root)

    def _signer(self, label: str, by: Signer | None, *, ends: datetime.timedelta = 3650 * DAY) -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
        builder = self._builder(name, by.certificate.subject if by else name, key, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return Signer(builder.sign(by.key if by else key, hashes.SHA256()), key)

    def _builder(
        self, name: x509.Name, issuer: x509.Name, key: Any, ends: datetime.timedelta, begins: datetime.timedelta = DAY
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - begins)
            .not_valid_after(self.now + ends)
        )

    def expired_intermediate(self) -> Signer:
        return self._signer("Old Intermediate", self.root, ends=-DAY / 2)

    def leaf(
        self,
        names: Sequence[str],
        *,
        key: Any = None,
        by: Signer | None = None,
        begins: datetime.timedelta = DAY,
        ends: datetime.timedelta = 89 * DAY,
        use: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> tuple[x509.Certificate, Any]:
        """Return a certificate and its key.

        Args:
            names: Hosts.
            key: None for a new one on P-256.
            by: Who signs; None for the intermediate.
            begins: How long it has been valid.
            ends: How long it still is.
            use: Its extended key usage; None for none.
        """
        by = by or self.intermediate
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), by.certificate.subject, key, ends, begins)
        if names:
            general = [_general(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=True)
        if use is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return builder.sign(by.key, hashes.SHA256()), key

    def pair(self, names: Sequence[str], **options: Any) -> Pair:
        """Return a pair whose chain holds the intermediate."""
        leaf, key = self.leaf(names, **options)
        by = options.get("by") or self.intermediate
        return Pair(pem(leaf) + pem(by.certificate), key_pem(key))


def small_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def certs_settings(folder: Path, **changes: Any) -> CertsSettings:
    """Return settings whose folders are in one of the test's."""
    given: dict[str, Any] = {
        "domains": ("example.org", "app.example.org"),
        "deploy_dir": folder / "certs",
        "state_dir": folder / "state",
        "webroot": folder / "webroot",
        "poll": 0.05,
        **changes,
    }
    return CertsSettings(**given)
