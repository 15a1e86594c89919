"""An authority made here, for tests and a laptop. Its certificates are trusted where somebody installs its root."""

import asyncio
import datetime
import ipaddress
import logging
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudtolocalllm.certs.policy import Life
from cloudtolocalllm.certs.source import Outlook, SourceError
from cloudtolocalllm.certs.validate import Pair, is_address
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

ROOT_LIFE = datetime.timedelta(days=3650)
LEAF_LIFE = datetime.timedelta(days=90)
"""Apple's systems refuse more than 825 days also of authorities that their owner added."""
BACKDATED = datetime.timedelta(hours=1)
"""For machines whose clock is a little behind."""

Key = ec.EllipticCurvePrivateKey


class LocalCa:
    """Makes certificates with a key that is kept here."""

    identity = "local-ca"

    def __init__(self, folder: Path, names: Sequence[str], clock: Clock) -> None:
        """Name an authority.

        Args:
            folder: Where its root and key are, or are made.
            names: What certificates are made for; the root is constrained to them.
            clock: The time.
        """
        self._folder = folder
        self._names = tuple(names)
        self._clock = clock
        self._life: Life | None = None

    @property
    def root_path(self) -> Path:
        """The file to install where it is to be trusted."""
        return self._folder / "ca.pem"

    def outlook(self) -> Outlook:
        """Return when the next certificate is made, and how to trust them."""
        at = self._life.due if self._life is not None else None
        return Outlook(at, f"trust {self.root_path} on each machine that opens the page")

    def roots(self) -> list[x509.Certificate]:
        """Return its root, or nothing while there is none that can be read."""
        try:
            return [x509.load_pem_x509_certificate(self.root_path.read_bytes())]
        except (OSError, ValueError):
            return []

    async def bring(self, life: Life | None, deployed: Pair | None) -> Pair | None:
        """Return a new certificate when the deployed one is due, unfit, or not of this authority.

        Raises:
            SourceError: The authority's files cannot be read or written.
        """
        self._life = life
        if life is not None and self._clock.wall() < life.due:
            return None
        try:
            return await asyncio.to_thread(self._make)
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(
                f"the local authority in {self._folder} cannot be used ({error}): give this process's user the "
                "folder, or remove it to have a new authority made, which must then be trusted anew"
            ) from error

    def _make(self) -> Pair:
        now = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC)
        key, root = self._authority(now)
        leaf_key = ec.generate_private_key(ec.SECP256R1())
        # A certificate that outlives its root is broken.
        end = min(now + LEAF_LIFE, root.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(root.subject)
            .public_key(leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(end)
            # RFC 5280 §4.1.2.6: "If the subject field is empty, this extension MUST be marked as critical."
            .add_extension(x509.SubjectAlternativeName(_general(self._names)), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        )
        leaf = builder.sign(key, hashes.SHA256())
        form = serialization.Encoding.PEM
        return Pair(leaf.public_bytes(form) + root.public_bytes(form), _private(leaf_key))

    def _authority(self, now: datetime.datetime) -> tuple[Key, x509.Certificate]:
        """Return the authority, made when there is none or when it may not sign for these names."""
        key_path = self._folder / "ca-key.pem"
        if self.root_path.exists() and key_path.exists():
            root = x509.load_pem_x509_certificate(self.root_path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
                raise ValueError("its key does not belong to its root")
            if now + LEAF_LIFE < root.not_valid_after_utc and _permits(root, self._names):
                return key, root
        key, root = _new_authority(self._names, now)
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.replace(key_path, _private(key))
        files.replace(self.root_path, root.public_bytes(serialization.Encoding.PEM), mode=files.PUBLIC)
        log.warning(
            "made a local authority; browsers warn until its root is trusted", extra={"root": str(self.root_path)}
        )
        return key, root


def _new_authority(names: Sequence[str], now: datetime.datetime) -> tuple[Key, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP384R1())
    label = f"CloudToLocalLLM local authority, {now:%Y-%m-%d %H:%M}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # Whoever steals this key can speak for these names only, not for somebody's bank (RFC 5280 §4.2.1.10).
        .add_extension(x509.NameConstraints(_permitted(names), None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, builder.sign(key, hashes.SHA384())


def _permitted(names: Sequence[str]) -> list[x509.GeneralName]:
    permitted: dict[str, x509.GeneralName] = {}
    for name in names:
        if is_address(name):
            # a network, as the constraint demands: of this one address
            permitted[name] = x509.IPAddress(ipaddress.ip_network(name))
        else:
            bare = name.removeprefix("*.")
            permitted[bare] = x509.DNSName(bare)
    return list(permitted.values())


def _permits(root: x509.Certificate, names: Sequence[str]) -> bool:
    permitted = root.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return all(wanted in permitted for wanted in _permitted(names))


def _general(names: Sequence[str]) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name) for name in names]


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
