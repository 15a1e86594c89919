"""A client of the gateway in Python: pairs, pins, seals, proves, reads, resumes. Nothing in it is the bridge's code.

What carries its messages is an `Outer`: a tunnel to a bridge (`TunnelOuter`), or HTTP to a platform (`HttpOuter`).
"""

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.bridge_parts import Home

from cloudtolocalllm.link import Stream
from cloudtolocalllm.sealed import pairing, statement
from cloudtolocalllm.sealed.bhttp import Content, End, Message, RequestHead, ResponseHead
from cloudtolocalllm.sealed.device import device_id, proof_fields, public_point
from cloudtolocalllm.sealed.errors import SealedError
from cloudtolocalllm.sealed.exchange import ResponseReader, seal_request
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RESPONSE_TYPE, RequestSealer, SharedSecret
from cloudtolocalllm.sealed.pairing import Introduction, PairingLink
from cloudtolocalllm.sealed.resume import Resume, read_offset, resume_fields
from cloudtolocalllm.sealed.statement import Statement
from cloudtolocalllm.tunnel import Headers, ResetReason
from cloudtolocalllm.tunnel import RequestHead as TunnelRequest
from cloudtolocalllm.tunnel import ResponseHead as TunnelResponse

DEADLINE = 20.0
"""Seconds for anything that is waited for."""
JSON: Fields = ((b"content-type", b"application/json"),)


class CutError(Exception):
    """The outer answer broke off."""


class ClearProblemError(Exception):
    """Something on the way, or the gateway itself, refused in the clear."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(f"{status} {content[:300]!r}")
        self.status = status
        try:
            self.document: dict[str, Any] = json.loads(content)
        except ValueError:
            self.document = {}

    @property
    def slug(self) -> str:
        return slug_of(self.document)


def slug_of(document: Mapping[str, Any]) -> str:
    """Return the last part of a problem's type."""
    return str(document.get("type", "")).replace("#", ":").rpartition(":")[2]


# --- what carries the messages ---


class OuterAnswer(Protocol):
    """An answer as the relay sees it."""

    @property
    def status(self) -> int: ...

    @property
    def content_type(self) -> str: ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield its content as it comes; raises CutError where it breaks off."""
        ...

    async def leave(self) -> None:
        """Go away in the middle of it."""


class Outer(Protocol):
    """A way to a gateway."""

    async def send(self, method: str, target: str, content_type: str, content: bytes) -> OuterAnswer:
        """Send a request; return its answer once its head came."""
        ...


class TunnelAnswer:
    """An answer out of a tunnel; credit is given as it is read."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.head: TunnelResponse | None = None
        self.reset: tuple[ResetReason, str] | None = None
        self.ended = False
        self.held: deque[bytes] = deque()
        self.largest = 0
        """Bytes that waited to be read at most."""
        self.taken = 0
        """Bytes that came."""
        self._news = asyncio.Event()

    @property
    def status(self) -> int:
        return 0 if self.head is None else self.head.status

    @property
    def content_type(self) -> str:
        return "" if self.head is None else dict(self.head.headers).get(b"content-type", b"").decode()

    def on_head(self, head: TunnelResponse) -> None:
        self.head = head
        self._news.set()

    def on_data(self, data: bytes) -> None:
        self.held.append(data)
        self.taken += len(data)
        self.largest = max(self.largest, sum(map(len, self.held)))
        self._news.set()

    def on_end(self, trailers: Headers) -> None:
        self.ended = True
        self._news.set()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        self.reset = (reason, detail)
        self._news.set()

    def on_writable(self) -> None:
        pass

    async def headed(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.head is None:
                if self.reset is not None:
                    raise CutError(*self.reset)
                await self._wait()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        assert self.stream is not None
        while True:
            if self.held:
                data = self.held.popleft()
                self.stream.consumed(len(data))
                yield data
            elif self.ended:
                return
            elif self.reset is not None:
                raise CutError(*self.reset)
            else:
                async with asyncio.timeout(DEADLINE):
                    await self._wait()

    async def leave(self) -> None:
        assert self.stream is not None
        self.stream.reset(ResetReason.CANCELLED)

    def break_off(self) -> None:
        """Lose it, for both sides; no effect on one that is complete."""
        if self.stream is not None and not self.ended and self.reset is None:
            self.stream.reset(ResetReason.CANCELLED)
            self.on_reset(ResetReason.CANCELLED, "")

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


@dataclass
class TunnelOuter:
    """Straight through the tunnel of `bridge_parts.home`, as the user's proxy."""

    home: Home
    fields: Headers = ((b"c2l-via", b"session"),)
    """What the proxy says of who asks."""

    async def send(self, method: str, target: str, content_type: str, content: bytes) -> TunnelAnswer:
        answer = self.begin(method, target, content_type, content)
        await answer.headed()
        return answer

    def begin(self, method: str, target: str, content_type: str, content: bytes, *, end: bool = True) -> TunnelAnswer:
        answer = TunnelAnswer()
        headers = (*self.fields, *([(b"content-type", content_type.encode())] if content_type else ()))
        answer.stream = self.home.tunnel.open(TunnelRequest(method, target, headers), answer)
        Feeder(answer, content, end=end)
        return answer


class Feeder:
    """Sends content at the pace of the tunnel's credit."""

    def __init__(self, answer: TunnelAnswer, content: bytes, *, end: bool = True) -> None:
        self._answer = answer
        self._left = memoryview(content)
        self._end = end
        answer.on_writable = self.pump  # type: ignore[method-assign] # this one request's
        self.pump()

    def pump(self) -> None:
        stream = self._answer.stream
        assert stream is not None
        while self._left:
            size = min(stream.window, len(self._left))
            if not size:
                return
            stream.send_data(bytes(self._left[:size]))
            self._left = self._left[size:]
        if self._end:
            self._end = False
            stream.end()


class HttpAnswer:
    """An answer over HTTP."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.content_type = response.headers.get("content-type", "")

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            async for data in self._response.aiter_raw():
                yield data
        except httpx.HTTPError as error:
            raise CutError(type(error).__name__) from error
        finally:
            await self._response.aclose()

    async def leave(self) -> None:
        await self._response.aclose()


@dataclass
class HttpOuter:
    """Through a whole platform."""

    http: httpx.AsyncClient
    url: str
    headers: Mapping[str, str]
    """What the cloud wants to see, such as an API key."""

    async def send(self, method: str, target: str, content_type: str, content: bytes) -> HttpAnswer:
        headers = dict(self.headers) | ({"content-type": content_type} if content_type else {})
        request = self.http.build_request(method, self.url + target, headers=headers, content=content)
        try:
            return HttpAnswer(await self.http.send(request, stream=True))
        except httpx.HTTPError as error:
            raise CutError(type(error).__name__) from error


# --- answers ---


class SealedAnswer:
    """An answer as the client reads it: genuine from the first byte, whole only at its end."""

    def __init__(self, outer: OuterAnswer, reader: ResponseReader) -> None:
        self._outer = outer
        self._reader = reader
        self._pieces = outer.pieces()
        self._ready: deque[bytes] = deque()
        self.head: ResponseHead | None = None
        self.trailers: Fields | None = None
        """None until it is whole."""
        self.received = 0
        """Bytes of content read."""

    @property
    def status(self) -> int:
        assert self.head is not None
        return self.head.status

    def field(self, name: bytes) -> bytes | None:
        assert self.head is not None
        return next((value for key, value in self.head.fields if key == name), None)

    @property
    def offset(self) -> int:
        """Where its content begins."""
        assert self.head is not None
        return read_offset(self.head.fields) or 0

    async def headed(self) -> "SealedAnswer":
        while self.head is None:
            await self._more()
        return self

    async def some(self) -> bytes:
        """Return the next content; b"" when the answer is whole.

        Raises:
            CutError: The connection broke.
            SealedError: It was tampered with, or ended before its end.
        """
        while not self._ready:
            if self.trailers is not None:
                return b""
            await self._more()
        data = self._ready.popleft()
        self.received += len(data)
        return data

    async def read(self) -> bytes:
        """Return all content from here on."""
        content = b""
        while data := await self.some():
            content += data
        return content

    async def json(self) -> Any:
        return json.loads(await self.read())

    async def problem(self) -> str:
        """Return the slug of a problem document."""
        assert self.field(b"content-type") == b"application/problem+json", self.head
        return slug_of(await self.json())

    async def lines(self) -> AsyncGenerator[Any, None]:
        """Yield the events of a stream."""
        rest = b""
        while data := await self.some():
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield json.loads(line)
        assert rest == b""

    async def leave(self) -> None:
        await self._outer.leave()

    async def _more(self) -> None:
        try:
            data = await anext(self._pieces)
        except StopAsyncIteration:
            events = self._reader.end()
        else:
            events = self._reader.receive_data(data)
        for event in events:
            if isinstance(event, ResponseHead):
                self.head = event
            elif isinstance(event, Content):
                self._ready.append(event.data)
            elif isinstance(event, End):
                self.trailers = event.trailers


# --- the client ---


@dataclass
class SealedClient:
    """One device of one home."""

    outer: Outer
    bridge_id: str
    pinned: bytes
    """Fingerprint of the home's identity."""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    now: Callable[[], float] = time.time
    seq: int = 0
    statement: Statement | None = None

    @property
    def device(self) -> str:
        return device_id(public_point(self.key))

    @property
    def target(self) -> str:
        return f"/e2e/{self.bridge_id}"

    @classmethod
    async def paired(cls, outer: Outer, link: PairingLink, name: str = "laptop", **settings: Any) -> "SealedClient":
        """Return a device that was paired by a link."""
        client = cls(outer, link.bridge_id, link.fingerprint, **settings)
        answer = await client.introduce(name, link.shared)
        assert answer.status == 201, await answer.read()
        await answer.read()
        return client

    async def refresh(self) -> Statement:
        """Fetch the key statement and verify it."""
        answer = await self.outer.send("GET", self.target, "", b"")
        text = b"".join([data async for data in answer.pieces()])
        if answer.status != 200:
            raise ClearProblemError(answer.status, text)
        assert answer.content_type == "application/c2l-keys+jwt"
        said = statement.verify(text.decode(), self.pinned, self.bridge_id, self.now(), seen=self.seq)
        self.seq, self.statement = said.seq, said
        return said

    def seal(
        self, head: RequestHead, content: bytes = b"", shared: SharedSecret | None = None
    ) -> tuple[bytes, RequestSealer]:
        """Return a sealed request with its proof, and what opens the answer."""
        assert self.statement is not None
        sealer = RequestSealer(self.statement.configs[0], secrets.token_bytes(32), shared)
        fields = (*proof_fields(sealer, self.key, self.now()), *head.fields)
        proved = RequestHead(head.method, head.path, fields, head.scheme, head.authority)
        return seal_request(sealer, Message(proved, content)), sealer

    async def introduce(self, name: str, shared: SharedSecret | None = None) -> SealedAnswer:
        """Ask to be let in: with a link's secret, or without, to wait for an approval."""
        content = Introduction(public_point(self.key), name).encode()
        kinds = (pairing.REQUEST_TYPE, pairing.RESPONSE_TYPE) if shared else (REQUEST_TYPE, RESPONSE_TYPE)
        head = RequestHead(b"POST", pairing.PATH, JSON, b"https", b"home")
        return await self._exchange(head, content, kinds, shared)

    async def open(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        content: bytes | None = None,
        fields: Fields = (),
        exchange: bytes | None = None,
        offset: int = 0,
    ) -> SealedAnswer:
        """Ask; return the answer once its head came. An unknown key is fetched anew, once.

        Args:
            method: Of the inner request.
            path: Of the inner request.
            value: Sent as JSON.
            content: Sent as it is, instead.
            fields: More of the inner head.
            exchange: Names the answer, to take it up again.
            offset: Bytes of it that are there already.
        """
        if content is None:
            content = b"" if value is None else json.dumps(value).encode()
        named = resume_fields(Resume(exchange, offset)) if exchange is not None else ()
        head = RequestHead(method.encode(), path.encode(), (*JSON, *named, *fields), b"https", b"home")
        return await self._exchange(head, content, (REQUEST_TYPE, RESPONSE_TYPE))

    async def ask(self, method: str, path: str, value: Any = None, status: int = 200, **more: Any) -> Any:
        """Ask, and return the whole answer's JSON."""
        answer = await self.open(method, path, value, **more)
        content = await answer.read()
        assert answer.status == status, content
        return json.loads(content) if content else None

    async def refused(self, method: str, path: str, value: Any = None, **more: Any) -> tuple[int, str]:
        """Ask, and return status and slug of the problem that comes."""
        answer = await self.open(method, path, value, **more)
        return answer.status, await answer.problem()

    async def whole(self, method: str, path: str, value: Any, exchange: bytes, seconds: float = DEADLINE) -> bytes:
        """Ask, and take the answer up again after every break until it is whole."""
        content = b""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    answer = await self.open(
                        method, path, None if content else value, exchange=exchange, offset=len(content)
                    )
                    assert answer.status == 200, await answer.read()
                    assert answer.offset == len(content)
                    while data := await answer.some():
                        content += data
                except (CutError, ClearProblemError, SealedError):
                    await asyncio.sleep(0.05)
                else:
                    return content

    async def _exchange(
        self, head: RequestHead, content: bytes, kinds: tuple[str, str], shared: SharedSecret | None = None
    ) -> SealedAnswer:
        if self.statement is None:
            await self.refresh()
        try:
            return await self._attempt(head, content, kinds, shared)
        except ClearProblemError as error:
            if error.slug != "ohttp-key" or shared is not None:
                raise
        await self.refresh()
        return await self._attempt(head, content, kinds, shared)

    async def _attempt(
        self, head: RequestHead, content: bytes, kinds: tuple[str, str], shared: SharedSecret | None
    ) -> SealedAnswer:
        sealed, sealer = self.seal(head, content, shared)
        return await self.sent(sealed, sealer, kinds)

    async def sent(
        self, sealed: bytes, sealer: RequestSealer, kinds: tuple[str, str] = (REQUEST_TYPE, RESPONSE_TYPE)
    ) -> SealedAnswer:
        """Send what was sealed; return the answer once its head came."""
        answer = await self.outer.send("POST", self.target, kinds[0], sealed)
        if answer.content_type != kinds[1]:
            async with aclosing(answer.pieces()) as pieces:
                raise ClearProblemError(answer.status, b"".join([data async for data in pieces]))
        assert answer.status == 200
        return await SealedAnswer(answer, ResponseReader(sealer.response())).headed()


def link_of(home: Home) -> PairingLink:
    """Return a pairing link of a bridge that runs here."""
    assert home.bridge.home is not None
    return home.bridge.home.offers.make()
