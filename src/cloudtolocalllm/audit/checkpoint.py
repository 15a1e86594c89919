"""Signed tree heads: C2SP tlog-checkpoint, which is a C2SP signed-note of three lines, signed with Ed25519.

https://c2sp.org/tlog-checkpoint and https://c2sp.org/signed-note; no extension lines.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
"""The signature type of signed-note."""
MAX_NOTE = 16_384
"""Bytes of a note that is looked at: room for more than the 16 signatures that a verifier must accept."""
MAX_SIZE = 2**63

_NAME = re.compile(r"[!-*,-~]{1,200}", re.ASCII)
"""Printable ASCII without space and plus: stricter than signed-note, which allows Unicode."""
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_DASH = "\u2014"


class CheckpointError(ValueError):
    """A note is no checkpoint of this log; the text says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class Verifier:
    """Knows a log by its public key ("vkey" of signed-note)."""

    def __init__(self, name: str, key: Ed25519PublicKey) -> None:
        """Make a verifier.

        Raises:
            ValueError: The name cannot be one.
        """
        if not _NAME.fullmatch(name):
            raise ValueError("expected a log's name of printable ASCII without space and plus")
        self.name = name
        self._key = key
        self._raw = key.public_bytes_raw()
        self.id = hashlib.sha256(name.encode() + b"\n" + ED25519 + self._raw).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self._raw).decode()}"

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read `NAME+ID+KEY`.

        Raises:
            ValueError: It is none, or not of Ed25519.
        """
        try:
            name, id_, key = vkey.strip().split("+", 2)
            material = base64.b64decode(key, validate=True)
            made = cls(name, Ed25519PublicKey.from_public_bytes(material[1:]))
        except (ValueError, binascii.Error):
            raise ValueError("expected a verifier key NAME+ID+KEY of Ed25519") from None
        if made.id.hex() != id_ or material[:1] != ED25519:
            raise ValueError("expected a verifier key of Ed25519 whose id fits its name and key")
        return made

    def open(self, note: str) -> Checkpoint:
        """Return the checkpoint in a note that this key signed.

        Raises:
            CheckpointError: It is malformed, not signed by this key, or of another log.
        """
        text, signatures = _parts(note)
        checkpoint = _parsed(text)
        ours = [s[4:] for name, s in signatures if name == self.name and s[:4] == self.id]
        if not ours:
            raise CheckpointError("not signed by the log's key")
        for signature in ours:
            try:
                self._key.verify(signature, text.encode())
            except InvalidSignature:
                raise CheckpointError("the signature does not hold") from None
        if checkpoint.origin != self.name:
            raise CheckpointError("of another log")
        return checkpoint


class Signer:
    """Signs a log's checkpoints."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """Make a signer.

        Args:
            name: The log's origin and the key's name, such as "example.org/api".
            key: Its private key.
        """
        self._key = key
        self.verifier = Verifier(name, key.public_key())

    def sign(self, size: int, root: bytes) -> str:
        """Return the note of a tree head."""
        text = Checkpoint(self.verifier.name, size, root).text()
        signature = base64.b64encode(self.verifier.id + self._key.sign(text.encode())).decode()
        return f"{text}\n{_DASH} {self.verifier.name} {signature}\n"


def _parts(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > MAX_NOTE or any(ord(c) < 0x20 and c != "\n" for c in note):
        raise CheckpointError("no signed note")
    # "the text is separated from the signatures by the last empty line in the note"
    text, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise CheckpointError("no signed note")
    signatures: list[tuple[str, bytes]] = []
    for line in tail[:-1].split("\n"):
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH or not parts[1]:
            raise CheckpointError("no signed note")
        try:
            signature = base64.b64decode(parts[2], validate=True)
        except (ValueError, binascii.Error):
            raise CheckpointError("no signed note") from None
        signatures.append((parts[1], signature))
    return text + "\n", signatures


def _parsed(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not all(lines[:-1]):
        raise CheckpointError("expected origin, size and root")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size) or int(size) >= MAX_SIZE:
        raise CheckpointError("expected a decimal size")
    try:
        digest = base64.b64decode(root, validate=True)
    except (ValueError, binascii.Error):
        digest = b""
    if len(digest) != 32 or base64.b64encode(digest).decode() != root:
        raise CheckpointError("expected a root of 32 bytes in base64")
    return Checkpoint(origin, int(size), digest)
