"""One home, asked in a way that nobody on the way can read."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.outer import Arrival, ServerLink
from cloudtolocalllm.connect.refusals import MAX_PROBLEM, refused_in_the_clear
from cloudtolocalllm.contracts.authorize import SEALED_PREFIX
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.sealed import bhttp, pairing, statement, varint
from cloudtolocalllm.sealed.bhttp import Content, End, Event, Message, RequestHead, ResponseHead
from cloudtolocalllm.sealed.device import proof_fields
from cloudtolocalllm.sealed.errors import (
    ExpiredError,
    MalformedError,
    RollbackError,
    SealedError,
    TruncatedError,
    UntrustedError,
)
from cloudtolocalllm.sealed.exchange import ResponseReader
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.key_config import KeyConfig
from cloudtolocalllm.sealed.limits import MAX_CHUNK, TAG
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RESPONSE_TYPE, RequestSealer, SharedSecret
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY, PaddingPolicy, request_size
from cloudtolocalllm.sealed.resume import Resume, resume_fields

STATEMENT_TYPE: Final = "application/c2l-keys+jwt"
AUTHORITY: Final = b"home"
MAX_SMALL: Final = 4 * 1024 * 1024
"""Bytes of an answer that is read whole, such as a list of models."""
_RENEW: Final = 60.0
"""Seconds before a statement's end at which a new one is fetched."""
_GONE: Final = "The answer broke off on its way here."
_CHANGED: Final = "What the server sent was changed on the way; it is not what the home said."


@dataclass(frozen=True, slots=True)
class InnerRequest:
    """What is asked of the home."""

    method: str
    target: str
    fields: Fields = ()
    content: bytes = b""


NoteSeq = Callable[[int], Awaitable[None]]
"""Keeps the highest number of a key statement that was accepted."""


class SealedAnswer:
    """A home's answer as it comes."""

    def __init__(
        self,
        arrival: Arrival,
        reader: ResponseReader,
        expected: str,
        key: KeyConfig,
        doubt: Callable[[KeyConfig], None],
    ) -> None:
        """Read an answer of which nothing need have come.

        Args:
            arrival: Its outside.
            reader: Opens it.
            expected: The media type of what is sealed.
            key: The home's, to which the request was sealed.
            doubt: Called with that key when the home could not open the request.
        """
        self.key = key
        self._doubt = doubt
        self._arrival = arrival
        self._reader = reader
        self._expected = expected
        self._begun = False
        self._refusal = b""
        self.closed = False

    @property
    def heard(self) -> float:
        """When something of it came last."""
        return self._arrival.heard

    async def begun(self) -> None:
        """Wait until its outside has come. May be called again after it was cancelled.

        Raises:
            HomeError: It is no sealed answer.
        """
        if self._begun:
            return
        arrival = self._arrival
        status = await arrival.head()
        if status == 200 and _media_type(arrival.headers) == self._expected:
            self._begun = True
            return
        while len(self._refusal) < MAX_PROBLEM and (data := await arrival.read()):
            self._refusal += data
        error = refused_in_the_clear(status, arrival.headers, self._refusal)
        if error.fault in (Fault.STALE_KEY, Fault.DAMAGED):
            self._doubt(self.key)
        raise error

    async def read(self) -> list[Event]:
        """Return what came next, at least one event; the last of all is End, and only then it is whole.

        May be called again after it was cancelled; nothing is lost then.

        Raises:
            HomeError: It broke off, or was changed.
        """
        await self.begun()
        try:
            while True:
                data = await self._arrival.read()
                if not data:
                    return self._reader.end()
                events = self._reader.receive_data(data)
                if events:
                    return events
        except TruncatedError:
            raise HomeError(Fault.LOST, Problem.BRIDGE_OFFLINE, _GONE) from None
        except SealedError:
            raise HomeError(Fault.DAMAGED, Problem.ENGINE_UNREACHABLE, _CHANGED) from None

    def break_off(self, why: str) -> None:
        """Take it for broken: whoever reads is told."""
        self._arrival.break_off(why)

    def close(self) -> None:
        """Let go of it; nothing that runs at home is stopped by that."""
        self.closed = True
        self._arrival.close()


class HomeClient:
    """Asks one home, through its server, as one device."""

    def __init__(
        self,
        link: ServerLink,
        bridge_id: str,
        fingerprint: bytes,
        key: ec.EllipticCurvePrivateKey,
        clock: Clock,
        *,
        seen: int = 0,
        note_seq: NoteSeq | None = None,
        policy: PaddingPolicy = DEFAULT_POLICY,
    ) -> None:
        """Make a client that has no key statement yet.

        Args:
            link: To the server.
            bridge_id: The home's.
            fingerprint: Of the home's identity, as it was pinned.
            key: The device's.
            clock: For proofs and expiry.
            seen: The highest number of a statement that was ever accepted.
            note_seq: Keeps a higher one.
            policy: How requests are padded.
        """
        self.link = link
        self.bridge_id = bridge_id
        self._target = SEALED_PREFIX + bridge_id
        self._fingerprint = fingerprint
        self._key = key
        self._clock = clock
        self._seen = seen
        self._note_seq = note_seq
        self._policy = policy
        self._statement: statement.Statement | None = None
        self._lock = asyncio.Lock()

    async def ask(self, request: InnerRequest, resume: Resume | None = None, *, fresh: bool = False) -> SealedAnswer:
        """Ask, and return the answer as soon as its outside has come. The caller closes it.

        Args:
            request: What.
            resume: Under which exchange, and from where on; None for what need not be resumed.
            fresh: Whether the connection must be a new one: after one broke, others may be dead too.

        Raises:
            HomeError: No answer.
        """
        return await _begun(await self.send(request, resume, fresh=fresh))

    async def send(self, request: InnerRequest, resume: Resume | None = None, *, fresh: bool = False) -> SealedAnswer:
        """Send a request as `ask` does, and wait for nothing of its answer.

        Raises:
            HomeError: It could not be sent.
        """
        config = await self._config(fresh=fresh)
        sealer = RequestSealer(config, secrets.token_bytes(32))
        return await self._send(sealer, config, request, REQUEST_TYPE, RESPONSE_TYPE, resume, fresh=fresh)

    async def key_now(self) -> KeyConfig:
        """Ask through the whole way for the home's key. When it is another, the home was started anew, as a rule.

        Raises:
            HomeError: It cannot be told.
        """
        found = self._statement = await self._fetch(fresh=True)
        return found.configs[0]

    async def introduce(self, introduction: pairing.Introduction, shared: SharedSecret) -> SealedAnswer:
        """Send a pairing request (sealed format §8). The caller closes the answer.

        Raises:
            HomeError: No answer; of fault STALE_KEY also when the link was used or has expired.
        """
        config = await self._config()
        sealer = RequestSealer(config, secrets.token_bytes(32), shared)
        fields = ((b"content-type", b"application/json"),)
        request = InnerRequest("POST", pairing.PATH.decode(), fields, introduction.encode())
        kinds = pairing.REQUEST_TYPE, pairing.RESPONSE_TYPE
        return await _begun(await self._send(sealer, config, request, *kinds, None))

    async def _send(
        self,
        sealer: RequestSealer,
        config: KeyConfig,
        request: InnerRequest,
        kind: str,
        expected: str,
        resume: Resume | None,
        *,
        fresh: bool = False,
    ) -> SealedAnswer:
        resuming = resume_fields(resume) if resume is not None else ()
        fields = (*request.fields, *resuming, *proof_fields(sealer, self._key, self._clock.wall()))
        try:
            head = RequestHead(request.method.encode(), request.target.encode(), fields, authority=AUTHORITY)
        except (MalformedError, UnicodeEncodeError):
            raise HomeError(Fault.REFUSED, Problem.BAD_REQUEST, "The request's fields cannot be sent on.") from None
        plain = bhttp.encode_known(Message(head, request.content))
        padded = request_size(len(plain), self._policy)
        outer: Headers = ((b"content-type", kind.encode()), (b"accept", expected.encode()))
        arrival = await self.link.open(
            "POST", self._target, outer, _pieces(sealer, plain, padded), _sealed_size(sealer, padded), fresh=fresh
        )
        return SealedAnswer(arrival, ResponseReader(sealer.response()), expected, config, self._forget)

    # --- the home's key ---

    def _forget(self, key: KeyConfig) -> None:
        """Have a new statement fetched before the next request: the home was started anew, and has another key.

        Its ids are one byte, so that one time in 256 the new key has the old one's, and the home takes what it cannot
        open for damaged.
        """
        if self._statement is not None and self._statement.configs[0] == key:
            self._statement = None

    async def _config(self, *, fresh: bool = False) -> KeyConfig:
        async with self._lock:
            found = self._statement
            if found is None or self._clock.wall() > found.expires - _RENEW:
                found = self._statement = await self._fetch(fresh=fresh)
            return found.configs[0]

    async def _fetch(self, *, fresh: bool) -> statement.Statement:
        response = await self.link.fetch("GET", self._target, ((b"accept", STATEMENT_TYPE.encode()),), fresh=fresh)
        if response.status != 200 or _media_type(response.headers) != STATEMENT_TYPE:
            raise refused_in_the_clear(response.status, response.headers, response.body)
        text = response.body.decode("latin-1").strip()
        try:
            found = statement.verify(text, self._fingerprint, self.bridge_id, self._clock.wall(), seen=self._seen)
        except SealedError as error:
            _distrust(error)
        if found.seq > self._seen:
            if self._note_seq is not None:
                try:
                    await self._note_seq(found.seq)
                except StorageError as error:  # unkept, it could be shown an older one after the next start
                    detail = f"What must be kept cannot be: {error}."
                    raise HomeError(Fault.REFUSED, Problem.INTERNAL, detail) from None
            self._seen = max(self._seen, found.seq)
        return found


async def _begun(answer: SealedAnswer) -> SealedAnswer:
    """Return an answer as soon as it is known to be one."""
    try:
        await answer.begun()
    except BaseException:
        answer.close()
        raise
    return answer


async def whole(answer: SealedAnswer, limit: int = MAX_SMALL) -> tuple[ResponseHead, bytes]:
    """Return head and content of an answer that is small.

    Raises:
        HomeError: It broke off, was changed, or is longer than `limit` bytes.
    """
    head, content = ResponseHead(200), bytearray()
    while True:
        for event in await answer.read():
            if isinstance(event, ResponseHead):
                head = event
            elif isinstance(event, Content):
                content += event.data
                if len(content) > limit:
                    raise HomeError(Fault.REFUSED, Problem.ENGINE_ERROR, "The home's answer is longer than expected.")
            elif isinstance(event, End):
                return head, bytes(content)


def _distrust(error: SealedError) -> NoReturn:
    """Raise what a statement that does not hold means to a person."""
    match error:
        case UntrustedError():
            fault, detail = Fault.REFUSED, (
                "The server shows another key than the one that was paired. Either the home has a new identity, and "
                "this computer must be paired anew with a link made at home, or somebody stands between."
            )  # fmt: skip
        case RollbackError():
            fault, detail = Fault.REFUSED, (
                "The server shows an older key of the home than it did before; somebody may be replaying it."
            )  # fmt: skip
        case ExpiredError():
            fault, detail = Fault.REFUSED, (
                "The home's key is not for this time. Set this computer's clock, or the one at home, right; if both "
                "are, the server shows an old key."
            )  # fmt: skip
        case _:
            fault, detail = Fault.DAMAGED, "The server showed something else than the home's key."
    raise HomeError(fault, Problem.ENGINE_UNREACHABLE, detail) from None


def _pieces(sealer: RequestSealer, plain: bytes, padded: int) -> Iterator[bytes]:
    """Seal a request piece by piece, so that a large one is not in memory twice."""
    yield sealer.header
    last = (padded - 1) // MAX_CHUNK * MAX_CHUNK
    for at in range(0, last, MAX_CHUNK):
        yield sealer.seal(plain[at : at + MAX_CHUNK].ljust(MAX_CHUNK, b"\0"))
    yield sealer.seal_final(plain[last:padded].ljust(padded - last, b"\0"))


def _sealed_size(sealer: RequestSealer, padded: int) -> int:
    whole, rest = divmod(padded - 1, MAX_CHUNK)
    framed = len(varint.encode(MAX_CHUNK + TAG)) + MAX_CHUNK + TAG
    return len(sealer.header) + whole * framed + 1 + rest + 1 + TAG


def _media_type(headers: Headers) -> str:
    value = next((value for name, value in headers if name == b"content-type"), b"")
    return value.partition(b";")[0].strip().lower().decode("latin-1")
