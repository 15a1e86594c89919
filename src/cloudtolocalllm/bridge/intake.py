"""A request's content on its way from the tunnel to an engine."""

from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.http1 import Body, BodyKind, Exchange

MAX_READ = 32 * 1024 * 1024
"""Bytes of content that are read to learn the model: some twenty pictures of a telephone."""
MAX_READ_TOGETHER = 128 * 1024 * 1024
"""Bytes of such content held for all requests of this bridge together."""


MAX_REPEATED = 1024 * 1024
"""Bytes of a request that is sent once more when the engine closed a kept-alive connection just as it was used."""


class Memory:
    """What all requests that are being read hold together."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Intake:
    """Takes content from a stream; holds it, or passes it on at the engine's pace.

    Content must be exactly as long as announced: an excess would be the engine's next request.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_credit",
        "_exchange",
        "_held",
        "_memory",
        "_reading",
        "_sent",
        "_stream",
        "_writable",
        "ended",
    )

    def __init__(self, stream: Port, body: Body, memory: Memory) -> None:
        """Begin; nothing has come yet.

        Args:
            stream: Where content comes from and credit goes to.
            body: How it is delimited.
            memory: Counts what is held.
        """
        self._stream = stream
        self._body = body
        self._memory = memory
        self._chunks: list[bytes] = []
        self._held = 0
        self._sent: list[bytes] = []
        self._credit = 0
        self._reading = False
        self._writable = True
        self._exchange: Exchange | None = None
        self.ended = False

    def read_whole(self) -> None:
        """Take all content into memory, so that it can be read before an engine is chosen."""
        self._reading = True
        self._grant()

    def content(self) -> bytes:
        """Return what is held."""
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def add(self, data: bytes, received: int) -> None:
        """Take content.

        Args:
            data: What came.
            received: Bytes that came so far, with these.

        Raises:
            RefusalError: More than announced, or more than can be held.
        """
        if self._body.kind is BodyKind.NONE:
            raise RefusalError(Problem.BAD_REQUEST, "Expected a request without content.")
        if self._body.kind is BodyKind.LENGTH and received > self._body.length:
            raise RefusalError(Problem.BAD_REQUEST, "The content is longer than announced.")
        self._credit += len(data)
        if self._exchange is not None:
            self._exchange.write(data)
            if self._writable:
                self._grant()
            return
        self._chunks.append(data)
        self._held += len(data)
        self._memory.held += len(data)
        if self._reading:
            if self._held > MAX_READ:
                raise RefusalError(Problem.TOO_LARGE, f"Expected at most {MAX_READ} bytes of content.")
            if self._memory.held > MAX_READ_TOGETHER:
                raise RefusalError(Problem.OVERLOADED, "Too many large requests at once; try again soon.")
            self._grant()

    def end(self, received: int) -> None:
        """All content came.

        Raises:
            RefusalError: Less than announced.
        """
        if self._body.kind is BodyKind.LENGTH and received < self._body.length:
            raise RefusalError(Problem.BAD_REQUEST, "The content is shorter than announced.")
        self.ended = True
        if self._exchange is not None:
            self._exchange.end()

    def pass_to(self, exchange: Exchange) -> None:
        """Send what is held to an engine, and all that comes from now on."""
        self._exchange = exchange
        chunks, self._chunks = self._chunks, []
        if self.ended and self._held <= MAX_REPEATED:
            self._sent = chunks
        self.release()
        for chunk in chunks:
            exchange.write(chunk)
        if self._writable:
            self._grant()
        if self.ended:
            exchange.end()

    def rewind(self) -> bool:
        """Take back what was sent, to send it once more; return whether all of it is still here."""
        if not self._sent:
            return False
        self._exchange = None
        self._chunks, self._sent = self._sent, []
        return True

    def accepted(self) -> None:
        """The engine answers: nothing will be sent once more."""
        self._sent = []

    def discard(self, size: int) -> None:
        """Content came that nobody wants any more; only its credit is given back."""
        self._credit += size
        self._grant()

    def writable(self, writable: bool) -> None:
        """The engine's connection is full, or not any more."""
        self._writable = writable
        if writable:
            self._grant()

    def release(self) -> None:
        """Hold nothing any more."""
        self._memory.held -= self._held
        self._held = 0
        self._chunks = []

    def _grant(self) -> None:
        if self._credit:
            credit, self._credit = self._credit, 0
            self._stream.consumed(credit)
