"""Whether a certificate and its key are fit to be deployed: every fault with what to do about it. No I/O."""

import datetime
import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

MAX_PEM = 262_144
"""Bytes of a file that are looked at: a chain has some kilobytes."""
MAX_CHAIN = 10
"""Certificates; nginx's default ssl_verify_depth and browsers allow no more."""
MIN_RSA_BITS = 2048
"""CA/Browser Forum Baseline Requirements 6.1.5."""
MAX_NAMES = 100
"""Names of one certificate at Let's Encrypt."""

_END_CERTIFICATE = b"-----END CERTIFICATE-----"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


class UnfitError(Exception):
    """A certificate or key cannot be deployed; the text lists every fault and how to mend it."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Pair:
    """The contents of the two files."""

    fullchain: bytes
    privkey: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a certificate that is fit."""

    names: tuple[str, ...]
    not_before: float
    """Seconds since the epoch, as `not_after`."""
    not_after: float
    serial: str
    """Hexadecimal."""
    issuer: str
    remarks: tuple[str, ...] = ()
    """What is worth a warning and no reason to refuse it."""


def check(
    pair: Pair, names: Sequence[str], now: float, *, roots: Sequence[x509.Certificate] = (), strict: bool = False
) -> Facts:
    """Return what a pair holds when it is fit.

    Args:
        pair: The two files.
        names: Every host that it must cover: DNS names, `*.` wildcards, or IP addresses.
        now: Seconds since the epoch.
        roots: Certificates of authorities that end a chain.
        strict: Refuse a chain that leads to none of `roots`.

    Raises:
        UnfitError: It is not fit.
    """
    chain, key = _chain(pair.fullchain), _key(pair.privkey)
    leaf = chain[0]
    remarks: list[str] = []
    faults = _key_faults(leaf, key) + _time_faults(leaf, now) + _use_faults(leaf)
    covered = subject_names(leaf)
    missing = [name for name in names if not any(_covers(have, name) for have in covered)]
    if missing:
        faults.append(
            f"expected a certificate for {', '.join(missing)}, got one for {', '.join(covered) or 'no host'}: "
            "have it issued for every name in C2L_CERTS_DOMAINS"
        )
    faults += _chain_faults(chain, now, roots, strict, remarks)
    if faults:
        raise UnfitError(faults)
    return Facts(
        covered,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        f"{leaf.serial_number:x}",
        leaf.issuer.rfc4514_string(),
        tuple(remarks),
    )


def _chain(data: bytes) -> list[x509.Certificate]:
    if not data.strip():
        raise UnfitError(["expected a certificate in PEM, got an empty file"])
    if len(data) > MAX_PEM:
        raise UnfitError([f"expected a certificate file of at most {MAX_PEM} bytes"])
    begins = data.count(b"-----BEGIN CERTIFICATE-----")
    if begins == 0:
        raise UnfitError(["expected a certificate in PEM (-----BEGIN CERTIFICATE-----), got something else"])
    if begins != data.count(_END_CERTIFICATE):
        raise UnfitError(["expected a whole certificate file, got one that breaks off: write it again, completely"])
    if begins > MAX_CHAIN:
        raise UnfitError([f"expected at most {MAX_CHAIN} certificates, the server's first, got {begins}"])
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise UnfitError(["expected certificates in PEM, got damaged ones: write the file again"]) from None


def _key(data: bytes) -> object:
    if not data.strip():
        raise UnfitError(["expected a private key in PEM, got an empty file"])
    if len(data) > MAX_PEM:
        raise UnfitError([f"expected a private key file of at most {MAX_PEM} bytes"])
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise UnfitError(["expected a private key without a passphrase: remove it with openssl pkey"]) from None
    except (ValueError, UnsupportedAlgorithm):
        whole = b"-----BEGIN " in data and b"-----END " in data
        got = "one that is damaged or of an unknown kind" if whole else "a file that breaks off or is none"
        raise UnfitError([f"expected a private key in PEM, got {got}: write it again, completely"]) from None


def _key_faults(leaf: x509.Certificate, key: object) -> list[str]:
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            return [f"expected an RSA key of at least {MIN_RSA_BITS} bits, got {key.key_size}: make a new one"]
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in _CURVES:
            return [f"expected an EC key on P-256, P-384 or P-521, got {key.curve.name}: make a new one"]
    elif not isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        return ["expected an RSA or EC private key, got another kind"]
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        fault = (
            "expected the private key of this certificate, got another: replace both files by those of one issuance"
        )
        return [f"{fault}, with the server's certificate first in the chain"]
    return []


def _time_faults(leaf: x509.Certificate, now: float) -> list[str]:
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if at >= leaf.not_valid_after_utc:
        return [f"the certificate expired on {_day(leaf.not_valid_after_utc)}: renew it"]
    if at < leaf.not_valid_before_utc:
        return [f"the certificate is not valid before {_day(leaf.not_valid_before_utc)}: check this machine's clock"]
    return []


def _use_faults(leaf: x509.Certificate) -> list[str]:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        uses = None
    if uses is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
        uses
    ):
        return ["expected a certificate for servers (extended key usage serverAuth), got one for another use"]
    if isinstance(leaf.signature_hash_algorithm, (hashes.MD5, hashes.SHA1)):
        return ["expected a signature by SHA-256 or better, which browsers require: have it issued anew"]
    return []


def _chain_faults(
    chain: Sequence[x509.Certificate],
    now: float,
    roots: Sequence[x509.Certificate],
    strict: bool,
    remarks: list[str],
) -> list[str]:
    for child, parent in itertools.pairwise(chain):
        if not _issued(child, parent):
            fault = f'the chain is broken: "{_name(child)}" was not issued by the next certificate, "{_name(parent)}"'
            return [f"{fault}: order it server, then intermediates, each followed by its issuer"]
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        if not parent.not_valid_before_utc <= at < parent.not_valid_after_utc:
            return [f'the intermediate "{_name(parent)}" is not valid now: fetch the current chain of its issuer']
    last = chain[-1]
    if any(last == root or _issued(last, root) for root in roots):
        return []
    if not strict and last.issuer == last.subject and _issued(last, last):
        if len(chain) == 1:
            remarks.append("it is self-signed: browsers warn of it")
        return []
    if strict or len(chain) == 1:
        issuer = last.issuer.rfc4514_string()
        fault = f'the chain is incomplete: the issuer "{issuer}" is neither in the file nor known here'
        return [f"{fault}: append the intermediate certificates (fullchain), or name its root in C2L_CERTS_ROOTS"]
    remarks.append("its chain ends at a root that this machine does not know")
    return []


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    if child.issuer != parent.subject:
        return False
    try:
        if child is not parent and not parent.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    return True


def subject_names(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the hosts of a certificate: of its subjectAltName alone, as browsers do (RFC 9525 §6.3)."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return (*hosts, *(str(address) for address in names.get_values_for_type(x509.IPAddress)))


def _covers(have: str, name: str) -> bool:
    have, name = have.lower().rstrip("."), name.lower().rstrip(".")
    if have == name:
        return True
    if is_address(name):
        return False
    # RFC 9525 §6.3: a wildcard stands for exactly one whole label, the leftmost; it does not cover a wildcard.
    return have.startswith("*.") and not name.startswith("*.") and name.partition(".")[2] == have[2:]


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or ", ".join(subject_names(certificate)) or "without a name"


def _day(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
