"""A cloud between a client and a home that does what it likes with what it can see.

It sees what a real one does: who asks which machine, media types, sealed bytes and where their chunks begin (their
lengths are in the clear), key statements, and the public keys in them. It has no private key of the others.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from tests.support.sealed_client import CutError, Outer, OuterAnswer

from cloudtolocalllm.sealed import varint
from cloudtolocalllm.sealed.chunks import FINAL
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RESPONSE_NONCE_BYTES

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the cloud has it."""

    method: str
    target: str
    content_type: str
    content: bytes

    @property
    def sealed(self) -> bool:
        """Whether it is for a key statement, if not."""
        return self.content_type == REQUEST_TYPE


@dataclass(slots=True)
class Given:
    """An answer that the cloud gives; satisfies `sealed_client.OuterAnswer`."""

    status: int
    content_type: str
    content: bytes
    lost: bool = False
    """Whether the connection is cut after the content; else it seems to end well."""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the content."""
        yield self.content
        if self.lost:
            raise CutError("lost")

    async def leave(self) -> None:
        """Nothing goes on."""


async def taken(answer: OuterAnswer) -> Given:
    """Return a whole answer."""
    content = b"".join([piece async for piece in answer.pieces()])
    return Given(answer.status, answer.content_type, content)


class Misdeed:
    """What is done to each request and answer; by itself nothing."""

    def request(self, asked: Asked) -> Asked:
        """Return what goes on to the home."""
        return asked

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        """Return what the client gets."""
        return given


@dataclass(slots=True)
class Cloud:
    """Passes requests on to a home, with a misdeed or without; satisfies `sealed_client.Outer`."""

    home: Outer
    other: Outer
    """Another person's."""
    misdeed: Misdeed = field(default_factory=Misdeed)
    seen: list[Asked] = field(default_factory=list)
    """Every request, as the client sent it."""
    astray: bool = False
    """Whether requests go to the other home."""

    async def send(self, method: str, target: str, content_type: str, content: bytes) -> OuterAnswer:
        """Pass it on."""
        asked = Asked(method, target, content_type, content)
        self.seen.append(asked)
        passed = self.misdeed.request(asked)
        to = self.other if self.astray and asked.sealed else self.home
        given = await to.send(passed.method, passed.target, passed.content_type, passed.content)
        return await self.misdeed.answer(asked, given)


# --- what the cloud can tell apart in sealed bytes ---


@dataclass(frozen=True, slots=True)
class Pieces:
    """A sealed message, taken apart where its framing shows."""

    head: bytes
    """A request's header and encapsulated secret, or a response's nonce."""
    chunks: tuple[bytes, ...]
    final: bytes | None
    """None when the message ends before it."""

    def encode(self) -> bytes:
        """Put it together again."""
        framed = b"".join(varint.encode(len(chunk)) + chunk for chunk in self.chunks)
        return self.head + framed + (b"" if self.final is None else FINAL + self.final)


def take_apart(message: bytes, head: int = RESPONSE_NONCE_BYTES) -> Pieces:
    """Take a sealed message apart; `head` is the bytes before its chunks."""
    at = head
    chunks: list[bytes] = []
    while (found := varint.decode(message, at)) is not None:
        size, start = found
        if size == 0:
            return Pieces(message[:head], tuple(chunks), message[start:])
        chunks.append(message[start : start + size])
        at = start + size
    return Pieces(message[:head], tuple(chunks), None)


# --- misdeeds ---

Change = Callable[[bytes], bytes]


@dataclass(slots=True)
class OnRequests(Misdeed):
    """Changes the content of sealed requests."""

    change: Change
    times: int = 1_000
    """How many of them."""

    def request(self, asked: Asked) -> Asked:
        """Change it."""
        if not asked.sealed or self.times <= 0:
            return asked
        self.times -= 1
        return replace(asked, content=self.change(asked.content))


@dataclass(slots=True)
class OnAnswers(Misdeed):
    """Changes the content of sealed answers, once it is whole."""

    change: Change
    times: int = 1_000
    lost: bool = False
    """Whether the connection is cut after it; else the answer seems to end well."""

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        """Change it."""
        if not asked.sealed or self.times <= 0:
            return given
        self.times -= 1
        whole = await taken(given)
        return Given(whole.status, whole.content_type, self.change(whole.content), self.lost)


@dataclass(slots=True)
class OnStatements(Misdeed):
    """Gives other key statements."""

    change: Callable[[str], str]

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        """Give another."""
        if asked.method != "GET":
            return given
        whole = await taken(given)
        return Given(whole.status, whole.content_type, self.change(whole.content.decode()).encode())


@dataclass(slots=True)
class Instead(Misdeed):
    """Answers sealed requests itself."""

    status: int
    content_type: str
    content: bytes

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        """Answer."""
        if not asked.sealed:
            return given
        await taken(given)
        return Given(self.status, self.content_type, self.content)


@dataclass(slots=True)
class Swap(Misdeed):
    """Gives each client the answer to the exchange before."""

    kept: Given | None = None

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        """Keep this one, and give the last."""
        if not asked.sealed:
            return given
        last, self.kept = self.kept, await taken(given)
        return last or self.kept


@dataclass(slots=True)
class Repeat(Misdeed):
    """Cuts the first answer, and gives it, whole, to every request after that."""

    first: Given | None = None

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        """Give the first."""
        if not asked.sealed:
            return given
        whole = await taken(given)
        if self.first is not None:
            return self.first
        self.first = whole
        return replace(whole, content=whole.content[: len(whole.content) // 2], lost=True)
