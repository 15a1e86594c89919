"""Two real bridges behind one cloud that misbehaves, a client of the first, and ways to rearrange what is sealed."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.support.bridge_parts import Home
from tests.support.gateway_parts import paired
from tests.support.hostile_cloud import Change, Cloud, Misdeed, Pieces, take_apart
from tests.support.scripted_engine import Asked, ScriptedEngine, scripted_engine
from tests.support.sealed_client import ClearProblemError, CutError, SealedClient

from cloudtolocalllm.sealed.errors import ForgedError, MalformedError, SealedError, TruncatedError
from cloudtolocalllm.sealed.ohttp import RESPONSE_NONCE_BYTES

T = TypeVar("T")

PATH = "/v1/chat/completions"
QUESTION = b'{"model": "tiny", "messages": [{"role": "user", "content": "%b"}]}' % (b"Who goes there? " * 3_000)
"""Of several chunks."""
REQUEST_HEAD = 7 + 32
ENGINE_DEADLINE = 10.0


def answer_to(content: bytes) -> bytes:
    """Return what the engine says to a request: text that depends on all of it, of several chunks."""
    said = sha256(content).hexdigest().encode()
    return b"".join(b"token %d of the answer to %b\n" % (number, said) for number in range(500))


TRUTH = answer_to(QUESTION)


async def answer(asked: Asked) -> None:
    """Answer a request as the engine does."""
    said = answer_to(asked.body)
    asked.head(200, "content-type: text/plain", f"content-length: {len(said)}")
    asked.send(said)


class RefusedInsideError(Exception):
    """The home itself refused, in a sealed problem document."""

    def __init__(self, status: int, slug: str) -> None:
        super().__init__(f"{status} {slug}")
        self.status = status
        self.slug = slug


NOTICED = (SealedError, ClearProblemError, CutError, RefusedInsideError)
"""All by which a client notices that something is wrong."""


@dataclass
class Setting:
    """One client's view of a cloud; what it was shown, and what the engine was asked, since it began."""

    place: "Place"
    cloud: Cloud
    client: SealedClient
    attempts: int = 1
    """How often an answer is taken up at most."""
    shown: bytearray = field(default_factory=bytearray)

    async def ask(self, content: bytes = QUESTION) -> bytes:
        """Ask, and return the whole answer; taken up after breaks, where it was."""
        self.shown.clear()
        exchange = secrets.token_bytes(16)
        left = self.attempts
        while True:
            left -= 1
            try:
                await self._once(content, exchange)
            except (CutError, SealedError):
                if left <= 0:
                    raise
            except ClearProblemError as error:
                if left <= 0 or error.slug != "bad-request":
                    raise
            else:
                return bytes(self.shown)

    async def noticed(self, *errors: type[Exception]) -> Exception:
        """Ask, and return the error, of one of these kinds, by which the client noticed."""
        with pytest.raises(errors or NOTICED) as caught:
            await self.ask()
        self.check_shown()
        return caught.value

    def check_shown(self) -> None:
        """Nothing but a true beginning was shown."""
        assert TRUTH.startswith(self.shown)

    @property
    def engine(self) -> list[bytes]:
        """What the engine was asked."""
        return [asked.body for asked in self.place.engine.asked]

    @property
    def sealed(self) -> bytes:
        """The last sealed request as the cloud saw it."""
        return [asked.content for asked in self.cloud.seen if asked.sealed][-1]

    async def _once(self, content: bytes, exchange: bytes) -> None:
        got = await self.client.open("POST", PATH, content=content, exchange=exchange, offset=len(self.shown))
        if got.status != 200:
            raise RefusedInsideError(got.status, await got.problem())
        if got.offset != len(self.shown):
            raise MalformedError("expected the answer to go on where it was left")
        while data := await got.some():
            self.shown += data


@dataclass
class Place:
    """Two homes of two people, which all tests of a module use, and the loop that they run in."""

    runner: asyncio.Runner
    engine: ScriptedEngine
    homes: list[Home]
    home: SealedClient
    other: SealedClient

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to its end."""
        return self.runner.run(asyncio.wait_for(coroutine, 30))

    def setting(self, misdeed: Misdeed | None = None, *, attempts: int = 1) -> Setting:
        """Begin anew, with a client that knows nothing but what it was paired with."""
        self.engine.asked.clear()
        cloud = Cloud(self.home.outer, self.other.outer, misdeed or Misdeed())
        return Setting(self, cloud, replace(self.home, outer=cloud, statement=None, seq=0), attempts)


@contextmanager
def running_place(folder: Path) -> Iterator[Place]:
    """Run the homes until the block ends."""

    async def enter(stack: AsyncExitStack) -> Place:
        engine = await stack.enter_async_context(scripted_engine(answer=answer))
        homes, clients = [], []
        for name in ("home", "other"):
            (folder / name).mkdir()
            home, client = await stack.enter_async_context(paired(folder / name, engine))
            homes.append(home)
            clients.append(client)
        return Place(runner, engine, homes, *clients)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(enter(stack))
        finally:
            runner.run(stack.aclose())


# --- changes of what is sealed ---


def on_chunks(change: Callable[[Pieces], Pieces], head: int = RESPONSE_NONCE_BYTES) -> Change:
    """Return a change of bytes from one of chunks."""
    return lambda content: change(take_apart(content, head)).encode()


def flipped(at: int) -> Change:
    """Return the change of one bit."""

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[at % len(changed)] ^= 1
        return bytes(changed)

    return flip


def cut_to(size: int) -> Change:
    """Return the change to a beginning."""
    return lambda content: content[:size]


def _moved(pieces: Pieces) -> Pieces:
    first, second, *rest = pieces.chunks
    return replace(pieces, chunks=(second, first, *rest))


def _doubled(pieces: Pieces) -> Pieces:
    return replace(pieces, chunks=(pieces.chunks[0], *pieces.chunks))


def _without_first(pieces: Pieces) -> Pieces:
    return replace(pieces, chunks=pieces.chunks[1:])


def _without_last(pieces: Pieces) -> Pieces:
    return replace(pieces, chunks=pieces.chunks[:-1])


def _without_final(pieces: Pieces) -> Pieces:
    return replace(pieces, final=None)


def _last_as_final(pieces: Pieces) -> Pieces:
    return replace(pieces, chunks=pieces.chunks[:-1], final=pieces.chunks[-1])


def _final_as_more(pieces: Pieces) -> Pieces:
    assert pieces.final is not None
    return replace(pieces, chunks=(*pieces.chunks, pieces.final))


def _injected(pieces: Pieces) -> Pieces:
    return replace(pieces, chunks=(pieces.chunks[0], secrets.token_bytes(528), *pieces.chunks[1:]))


def _trailing(pieces: Pieces) -> Pieces:
    assert pieces.final is not None
    return replace(pieces, final=pieces.final + b"more")


def _emptied(pieces: Pieces) -> Pieces:
    return replace(pieces, chunks=(), final=b"")


CHANGES: dict[str, tuple[Callable[[Pieces], Pieces], type[SealedError]]] = {
    "chunks moved": (_moved, ForgedError),
    "a chunk repeated": (_doubled, ForgedError),
    "the first chunk dropped": (_without_first, ForgedError),
    "the last chunk dropped": (_without_last, ForgedError),
    "the end dropped": (_without_final, TruncatedError),
    "a chunk given as the end": (_last_as_final, ForgedError),
    "the end given as one more chunk": (_final_as_more, ForgedError),
    "a chunk put in": (_injected, ForgedError),
    "something behind the end": (_trailing, ForgedError),
    "nothing but an end": (_emptied, TruncatedError),
}
"""With the error by which a client notices each in an answer."""
