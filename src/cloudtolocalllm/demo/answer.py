"""One answer on its way to a client: loading, prefill, tokens, faults, and the client's going away."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cloudtolocalllm.demo.request import Generate
from cloudtolocalllm.demo.residence import Residence, Wait
from cloudtolocalllm.demo.script import ToolCall, count_tokens
from cloudtolocalllm.demo.source import Generation, TokenSource
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers, Responder
from cloudtolocalllm.runtime.http1.messages import CHUNKED

JSON = ((b"content-type", b"application/json; charset=utf-8"),)
FAULT = "the engine's scripted fault"


@dataclass(slots=True)
class Stats:
    """What the engine did since it started."""

    running: int = 0
    started: int = 0
    completed: int = 0
    cancelled: int = 0
    """Answers whose client went away."""
    failed: int = 0
    tokens: int = 0

    def to_json(self) -> dict[str, int]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Engine:
    """What all answers share."""

    source: TokenSource
    residence: Residence
    stats: Stats
    clock: Clock
    keep_alive: float
    """Seconds."""


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)  # UTF-8, as Ollama sends it
_quoted = json.encoder.encode_basestring
"""What `json.dumps` does with a string, without its 2 µs of setting up."""


def encode(value: Any) -> bytes:
    """Return compact JSON."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def encode_text(text: str) -> bytes:
    """Return a JSON string."""
    return _quoted(text).encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole answer, for its last line or for a client that does not stream."""

    text: str
    thinking: str
    calls: tuple[ToolCall, ...]
    reason: str
    """"stop" or "length"."""
    prompt_tokens: int
    tokens: int
    load: int
    """Nanoseconds, as the following."""
    prefill: int
    generation: int


class Dialect(Protocol):
    """How one API writes an answer."""

    content_type: bytes

    def opening(self) -> bytes:
        """Return what precedes the first token of a stream."""
        ...

    def thinking(self, text: str) -> bytes:
        """Return a token of thinking."""
        ...

    def call(self, call: ToolCall, index: int) -> bytes:
        """Return a call of a tool."""
        ...

    def token(self, text: str) -> bytes:
        """Return a token."""
        ...

    def closing(self, outcome: Outcome) -> bytes:
        """Return what ends a stream."""
        ...

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the answer to a client that does not stream."""
        ...

    def failed(self, message: str) -> bytes:
        """Return what ends a stream that fails."""
        ...

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return the content of an error response."""
        ...


class Answer:
    """Drives one answer; the client's HTTP exchange on one side, the token source on the other."""

    def __init__(
        self, engine: Engine, request: Generate, dialect: Dialect, responder: Responder, *, stream: bool, keep: float
    ) -> None:
        self._engine = engine
        self._request = request
        self._dialect = dialect
        self._responder = responder
        self._stream = stream
        self._keep = keep
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._count = 0
        self._begun = False
        self._over = False
        self._wait: Wait | None = None
        self._prefill: asyncio.TimerHandle | None = None
        self._generation: Generation | None = None
        self._at_loaded = self._at_first = 0
        self._fault_at = self._first_fault()

    def _first_fault(self) -> int:
        pace = self._request.pace
        faults = (pace.fail_after_tokens, pace.die_after_tokens, pace.hang_after_tokens)
        return min((count for count in faults if count >= 0), default=-1)

    def start(self) -> None:
        """Load the model and begin."""
        pace = self._request.pace
        stats = self._engine.stats
        stats.started += 1
        stats.running += 1
        if pace.http_error:
            self._finish("failed")
            content = encode(self._dialect.error(pace.http_error, FAULT))
            self._responder.respond(pace.http_error, JSON, content)
            return
        self._wait = self._engine.residence.load(self._request.model, pace.load_seconds, self._loaded)

    def _loaded(self) -> None:
        self._at_loaded = time.monotonic_ns()
        self._engine.residence.keep(self._request.model, -1)  # not unloaded while it answers
        loop = asyncio.get_running_loop()
        self._prefill = loop.call_later(self._request.pace.prefill_seconds, self._generate)

    def _generate(self) -> None:
        if self._fault_at == 0:
            self._break()
        else:
            self._generation = self._engine.source.start(self._request, self)

    # --- the client's side ----------------------------------------------------------------------------------

    def on_disconnect(self) -> None:
        """The client went away: nothing more is generated."""
        self._finish("cancelled")

    def on_writable(self, writable: bool) -> None:
        """Generate no faster than the client reads."""
        if self._generation is not None and not self._over:
            if writable:
                self._generation.resume()
            else:
                self._generation.pause()

    # --- the source's side ----------------------------------------------------------------------------------

    def on_thinking(self, text: str) -> None:
        """Pass a token of thinking on."""
        if self._stream:
            self._send(self._dialect.thinking(text))
        else:
            self._thoughts.append(text)
        self._counted()

    def on_tool_call(self, call: ToolCall) -> None:
        """Pass a call on."""
        self._calls.append(call)
        if self._stream:
            self._send(self._dialect.call(call, len(self._calls) - 1))
        self._counted()

    def on_token(self, text: str) -> None:
        """Pass a token on."""
        if self._stream:
            self._send(self._dialect.token(text))
        else:
            self._texts.append(text)
        self._counted()

    def on_done(self, reason: str) -> None:
        """Complete the response."""
        outcome = self._outcome(reason)
        if self._stream:
            self._send(self._dialect.closing(outcome))
            self._responder.end()
        else:
            self._responder.respond(200, JSON, encode(self._dialect.whole(outcome)))
        self._finish("completed")

    def on_failed(self, message: str) -> None:
        """End the response as a failure."""
        if self._begun:
            self._responder.write(self._dialect.failed(message))
            self._responder.end()
        else:
            self._responder.respond(500, JSON, encode(self._dialect.error(500, message)))
        self._finish("failed")

    # --- inside ---------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            headers: Headers = ((b"content-type", self._dialect.content_type), (b"cache-control", b"no-cache"))
            self._responder.start(200, headers, CHUNKED)
            data = self._dialect.opening() + data
        self._responder.write(data)

    def _counted(self) -> None:
        if not self._count:
            self._at_first = time.monotonic_ns()
        self._count += 1
        self._engine.stats.tokens += 1
        if self._count == self._fault_at:
            self._break()

    def _break(self) -> None:
        """Do the fault that is due; hanging is to do nothing until the client gives up."""
        pace = self._request.pace
        if self._generation is not None:
            self._generation.cancel()
        if pace.die_after_tokens == self._fault_at:
            self._finish("failed")
            self._responder.abort()
        elif pace.fail_after_tokens == self._fault_at:
            self.on_failed(FAULT)

    def _outcome(self, reason: str) -> Outcome:
        now = time.monotonic_ns()
        first = self._at_first or now
        return Outcome(
            text="".join(self._texts),
            thinking="".join(self._thoughts),
            calls=tuple(self._calls),
            reason=reason,
            prompt_tokens=self._request.prompt_tokens or count_tokens(self._request.prompt),
            tokens=self._count,
            load=self._wait.nanoseconds if self._wait else 0,
            prefill=first - self._at_loaded,
            generation=now - first,
        )

    def _finish(self, how: str) -> None:
        if self._over:
            return
        self._over = True
        if self._wait is not None:
            self._wait.cancel()
        if self._prefill is not None:
            self._prefill.cancel()
            self._engine.residence.keep(self._request.model, self._keep)
        if self._generation is not None:
            self._generation.cancel()
        stats = self._engine.stats
        stats.running -= 1
        setattr(stats, how, getattr(stats, how) + 1)
