"""Keys, requests and hex for the tests of the sealed envelope; nothing here is random."""

import json
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudtolocalllm.sealed.bhttp import Message, RequestHead
from cloudtolocalllm.sealed.bhttp_decoder import BinaryHttpDecoder
from cloudtolocalllm.sealed.exchange import RequestReader, ResponseReader
from cloudtolocalllm.sealed.fingerprint import fingerprint
from cloudtolocalllm.sealed.key_ring import GatewayKey, KeyRing
from cloudtolocalllm.sealed.ohttp import RequestOpener, RequestSealer, ResponseOpener, SharedSecret

VECTORS = Path(__file__).parents[1] / "vectors"
NOW = 1_790_000_000
"""Seconds since the epoch; in September 2026."""


def seeded(label: str, size: int = 32) -> bytes:
    """Return bytes that look random and are always the same."""
    return b"".join(sha256(f"{label} {index}".encode()).digest() for index in range(-(-size // 32)))[:size]


@cache
def vectors(name: str) -> Any:
    """Return the contents of a vector file."""
    return json.loads((VECTORS / name).read_text())


BRIDGE = GatewayKey(7, seeded("bridge"), NOW)
IDENTITY = Ed25519PrivateKey.from_private_bytes(seeded("identity"))
PINNED = fingerprint(IDENTITY.public_key().public_bytes_raw())
DEVICE = ec.derive_private_key(int.from_bytes(seeded("device"), "big"), ec.SECP256R1())
OTHER_DEVICE = ec.derive_private_key(int.from_bytes(seeded("other device"), "big"), ec.SECP256R1())
RING = KeyRing(BRIDGE, NOW)
SECRET = seeded("pairing")
CHAT = Message(RequestHead(b"POST", b"/v1/chat/completions", ((b"content-type", b"application/json"),)), b'{"a":1}')


def sealer(label: str = "ephemeral", shared: SharedSecret | None = None) -> RequestSealer:
    """Return the client's side of a request to BRIDGE."""
    return RequestSealer(BRIDGE.config, seeded(label), shared)


def opener(**secrets: Any) -> RequestOpener:
    """Return BRIDGE's side of a request."""
    return RequestOpener(lambda key_id: RING.private_key(key_id, NOW), **secrets)


Reader = RequestOpener | ResponseOpener | RequestReader | ResponseReader | BinaryHttpDecoder


def read(reader: Reader, pieces: Iterable[bytes]) -> list[Any]:
    """Return all that a reader gives for pieces of bytes and their end."""
    found: list[Any] = []
    for piece in pieces:
        found += reader.receive_data(piece)
    last = reader.end()
    return [*found, *(last if isinstance(last, list) else [last])]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return bytes cut at places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
