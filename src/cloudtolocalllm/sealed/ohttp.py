"""Chunked Oblivious HTTP: requests and responses sealed chunk by chunk.

    request    key id (1)  KEM (2)  KDF (2)  AEAD (2)  [pairing id (16)]  encapsulated secret (32)  chunks
    response   nonce (16)  chunks

draft-ietf-ohai-chunked-ohttp-08, over RFC 9458 and RFC 9180. A request's chunks are sealed by HPKE; a response's key
comes of a secret that only the two ends of this request can export. Each chunk is bound to its number by its nonce,
and the final one is marked by "final" as associated data, so nothing can be left out, moved, repeated or cut off
without notice. A pairing is the same with two other labels and a pre-shared secret (`pairing`).

A sealer takes plaintext and returns the bytes to send; an opener takes received bytes in any pieces and returns
plaintext. After an error an opener is closed: what it would say next means nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyhpke import OpenError

from cloudtolocalllm.sealed import hpke, varint
from cloudtolocalllm.sealed.chunks import FINAL, ChunkSplitter
from cloudtolocalllm.sealed.errors import ForgedError, MalformedError, MisuseError, TruncatedError, UnknownKeyError
from cloudtolocalllm.sealed.key_config import KeyConfig
from cloudtolocalllm.sealed.limits import MAX_CHUNK, MAX_SEALED

REQUEST_TYPE: Final = "message/ohttp-chunked-req"
RESPONSE_TYPE: Final = "message/ohttp-chunked-res"
RESPONSE_NONCE_BYTES: Final = 16
"""max(Nn, Nk) of AES-128-GCM."""
PAIRING_ID_BYTES: Final = 16

_HEADER: Final = 7
_FINAL_AAD: Final = b"final"


@dataclass(frozen=True, slots=True)
class Labels:
    """What keeps keys for one purpose from being good for another."""

    request: bytes
    response: bytes


EXCHANGE: Final = Labels(b"message/bhttp chunked request", b"message/bhttp chunked response")
PAIRING: Final = Labels(b"c2l pairing request v1", b"c2l pairing response v1")


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """The one-time secret of a pairing."""

    id: bytes
    """PAIRING_ID_BYTES that name it in the open."""
    secret: bytes


class _Budget:
    """Counts the bytes under one key; a chunk of none counts as one, so that chunks are counted too."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_SEALED

    def spend(self, size: int) -> None:
        if size > MAX_CHUNK:
            raise MisuseError(f"expected a chunk of at most {MAX_CHUNK} bytes, got {size}")
        if size > self._left or not self._left:
            raise MisuseError(f"expected at most {MAX_SEALED} bytes in one message")
        self._left -= size or 1


class _Sealer:
    """Plaintext in, the bytes to send out, until the final chunk."""

    def __init__(self, header: bytes, encrypt: Callable[[bytes, bytes], bytes]) -> None:
        """Begin a message.

        Args:
            header: What it begins with.
            encrypt: Seals the next chunk under associated data.
        """
        self.header = header
        """What the message begins with; the chunks follow."""
        self._encrypt = encrypt
        self._budget = _Budget()
        self._open = True

    def seal(self, chunk: bytes) -> bytes:
        """Return a chunk that is not the final one, with its length.

        Raises:
            MisuseError: It is too long, or the final one was sealed.
        """
        self._spend(chunk)
        sealed = self._encrypt(chunk, b"")
        return varint.encode(len(sealed)) + sealed

    def seal_final(self, chunk: bytes = b"") -> bytes:
        """Return the final chunk.

        Raises:
            MisuseError: It is too long, or the final one was sealed.
        """
        self._spend(chunk)
        self._open = False
        return FINAL + self._encrypt(chunk, _FINAL_AAD)

    def seal_all(self, plaintext: bytes) -> bytes:
        """Return a whole message."""
        pieces = split(plaintext)
        return self.header + b"".join([self.seal(piece) for piece in pieces[:-1]]) + self.seal_final(pieces[-1])

    def _spend(self, chunk: bytes) -> None:
        if not self._open:
            raise MisuseError("expected no chunk after the final one")
        self._budget.spend(len(chunk))


class _Opener(ABC):
    """Received bytes in, plaintext out, until the end."""

    def __init__(self, head_size: int) -> None:
        """Expect a message.

        Args:
            head_size: Bytes before the chunks.
        """
        self._head = bytearray()
        self._head_size = head_size
        self._splitter = ChunkSplitter()
        self._budget = _Budget()
        self._open = True

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take bytes, and return the chunks' plaintext that they complete; the final one comes from end.

        Raises:
            MalformedError: They are not such a message.
            UnknownKeyError: It is for a key or a pairing that is not held.
            ForgedError: A chunk does not open.
            MisuseError: The message ended, or failed before.
        """
        self._close()
        if missing := self._head_size - len(self._head):
            self._head += data[:missing]
            data = data[missing:]
            if len(self._head) == self._head_size:
                self._begin(bytes(self._head))
        chunks = [self._unseal(chunk, b"") for chunk in self._splitter.receive_data(data)]
        self._open = True
        return chunks

    def end(self) -> bytes:
        """Take the end of the bytes, and return the final chunk's plaintext: the message is whole.

        Raises:
            TruncatedError: The final chunk is missing.
            ForgedError: It does not open.
            MisuseError: The message ended, or failed before.
        """
        self._close()
        if len(self._head) < self._head_size:
            raise TruncatedError("expected a sealed message, got the end")
        return self._unseal(self._splitter.end(), _FINAL_AAD)

    @abstractmethod
    def _begin(self, head: bytes) -> None:
        """Set up what opens the chunks."""

    @abstractmethod
    def _decrypt(self, chunk: bytes, aad: bytes) -> bytes:
        """Open the next chunk, or raise ForgedError."""

    def _unseal(self, chunk: bytes, aad: bytes) -> bytes:
        plain = self._decrypt(chunk, aad)
        try:
            self._budget.spend(len(plain))
        except MisuseError:
            raise MalformedError(f"expected at most {MAX_SEALED} bytes in one message") from None
        return plain

    def _close(self) -> None:
        """Close it until what was begun has worked."""
        if not self._open:
            raise MisuseError("expected no more calls after the end or an error")
        self._open = False


class RequestSealer(_Sealer):
    """The client's side of one request."""

    def __init__(self, config: KeyConfig, ephemeral: bytes, shared: SharedSecret | None = None) -> None:
        """Set the request up.

        Args:
            config: Whom to seal to; from a signed statement that was verified.
            ephemeral: 32 random bytes that are used for nothing else, ever.
            shared: The secret of a pairing; None for an exchange.

        Raises:
            MalformedError: The configuration's key is none.
            MisuseError: `ephemeral` or the secret is of a wrong size.
        """
        self._labels = PAIRING if shared else EXCHANGE
        named = config.header + _named(shared)
        psk = (shared.secret, shared.id) if shared else (b"", b"")
        info = self._labels.request + b"\0" + named
        self.enc, self._context = hpke.sender(config.public, info, ephemeral, psk=psk[0], psk_id=psk[1])
        super().__init__(named + self.enc, self._context.seal)

    def export(self, label: bytes, size: int) -> bytes:
        """Return a secret that only the two ends of this request know."""
        return self._context.export(label, size)

    def response(self) -> "ResponseOpener":
        """Return what opens the response."""
        return ResponseOpener(self.enc, self.export(self._labels.response, RESPONSE_NONCE_BYTES))


class RequestOpener(_Opener):
    """The bridge's side of one request."""

    def __init__(
        self,
        keys: Callable[[int], bytes | None],
        secrets: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        """Expect a request.

        Args:
            keys: Returns the private key with an id, or None.
            secrets: Returns the secret of an open pairing by its id, or None; None to expect an exchange.
        """
        self._keys = keys
        self._secrets = secrets
        self._labels = PAIRING if secrets else EXCHANGE
        self._named = _HEADER + (PAIRING_ID_BYTES if secrets else 0)
        self._context: hpke.Context | None = None
        self.enc = b""
        """The encapsulated secret, once it came: what tells this request from every other."""
        self.key_id: int | None = None
        super().__init__(self._named + hpke.KEY_BYTES)

    def export(self, label: bytes, size: int) -> bytes:
        """Return a secret that only the two ends of this request know.

        Raises:
            MisuseError: The header is not there yet.
        """
        return self._begun().export(label, size)

    def response(self, nonce: bytes) -> "ResponseSealer":
        """Return what seals the response.

        Args:
            nonce: RESPONSE_NONCE_BYTES random bytes that are used for nothing else, ever.
        """
        return ResponseSealer(self.enc, self.export(self._labels.response, RESPONSE_NONCE_BYTES), nonce)

    def _begin(self, head: bytes) -> None:
        named, enc = head[: self._named], head[self._named :]
        if hpke.SUITE_IDS.unpack_from(named, 1) != (hpke.KEM_ID, hpke.KDF_ID, hpke.AEAD_ID):
            raise MalformedError("expected X25519, HKDF-SHA256 and AES-128-GCM")
        private = self._keys(named[0])
        if private is None:
            raise UnknownKeyError("expected a request for a key that is held")
        psk, psk_id = b"", named[_HEADER:]
        if self._secrets is not None:
            psk = self._secrets(psk_id) or b""
            if not psk:
                raise UnknownKeyError("expected a request for a pairing that is open")
        self.enc, self.key_id = enc, named[0]
        self._context = hpke.recipient(enc, private, self._labels.request + b"\0" + named, psk=psk, psk_id=psk_id)

    def _decrypt(self, chunk: bytes, aad: bytes) -> bytes:
        try:
            return self._begun().open(chunk, aad)
        except OpenError:
            raise ForgedError("expected a chunk sealed for its place in this request") from None

    def _begun(self) -> hpke.Context:
        if self._context is None:
            raise MisuseError("expected the request's header first")
        return self._context


class _ResponseKey:
    """The AEAD of one response: nonces count up from one that both sides derive."""

    __slots__ = ("_aead", "_count", "_nonce")

    def __init__(self, enc: bytes, secret: bytes, nonce: bytes) -> None:
        key = hpke.extract(enc + nonce, secret)
        self._aead = AESGCM(hpke.expand(key, b"key", hpke.AEAD_KEY_BYTES))
        self._nonce = int.from_bytes(hpke.expand(key, b"nonce", hpke.NONCE_BYTES), "big")
        self._count = 0

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        return self._aead.encrypt(self._next(), plain, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._next(), sealed, aad)
        except InvalidTag:
            raise ForgedError("expected a chunk sealed for its place in this response") from None

    def _next(self) -> bytes:
        nonce = (self._nonce ^ self._count).to_bytes(hpke.NONCE_BYTES, "big")
        self._count += 1
        return nonce


class ResponseSealer(_Sealer):
    """The bridge's side of one response."""

    def __init__(self, enc: bytes, secret: bytes, nonce: bytes) -> None:
        """Derive the keys; RequestOpener.response does it.

        Raises:
            MisuseError: The nonce is of a wrong size.
        """
        if len(nonce) != RESPONSE_NONCE_BYTES:
            raise MisuseError(f"expected a nonce of {RESPONSE_NONCE_BYTES} bytes, got {len(nonce)}")
        super().__init__(nonce, _ResponseKey(enc, secret, nonce).seal)


class ResponseOpener(_Opener):
    """The client's side of one response."""

    def __init__(self, enc: bytes, secret: bytes) -> None:
        """Expect a response; RequestSealer.response does it."""
        self._enc = enc
        self._secret = secret
        self._key: _ResponseKey | None = None
        super().__init__(RESPONSE_NONCE_BYTES)

    def _begin(self, head: bytes) -> None:
        self._key = _ResponseKey(self._enc, self._secret, head)

    def _decrypt(self, chunk: bytes, aad: bytes) -> bytes:
        if self._key is None:
            raise MisuseError("expected the response's nonce first")
        return self._key.open(chunk, aad)


def split(plaintext: bytes) -> list[bytes]:
    """Return bytes in chunks of at most MAX_CHUNK; one empty chunk for none."""
    return [plaintext[at : at + MAX_CHUNK] for at in range(0, len(plaintext), MAX_CHUNK)] or [b""]


def _named(shared: SharedSecret | None) -> bytes:
    if shared is None:
        return b""
    if len(shared.id) != PAIRING_ID_BYTES:
        raise MisuseError(f"expected a pairing id of {PAIRING_ID_BYTES} bytes, got {len(shared.id)}")
    return shared.id
