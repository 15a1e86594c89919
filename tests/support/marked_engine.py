"""An engine in a thread of its own that says a word of the test's, and says it when the test lets it."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.scripted_engine import Asked, ScriptedEngine, scripted_engine

DEADLINE = 20.0
TOKENS = 40
"""Before and after the pause in the middle of an answer, each."""


@dataclass
class MarkedEngine:
    """Answers chats, in Ollama's way and OpenAI's, and pulls.

    An answer, and a pull, waits for the test twice: at its beginning and in its middle.
    """

    word: str
    """Said in every token."""
    model: str
    url: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    begin: threading.Event = field(default_factory=threading.Event)
    half: threading.Event = field(default_factory=threading.Event)
    finish: threading.Event = field(default_factory=threading.Event)
    got: list[bytes] = field(default_factory=list)
    """Contents of all requests."""
    pulled: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(f"{self.word} {number}\n" for number in range(2 * TOKENS))

    def again(self) -> None:
        """Wait in the next answer too."""
        for event in (self.asked, self.begin, self.half, self.finish):
            event.clear()

    async def answer(self, asked: Asked) -> None:
        """Answer a request."""
        self.got.append(asked.body)
        if asked.target == "/api/pull":
            await self._pull(asked)
        elif asked.target == "/api/chat":
            await self._chat(asked, self._line)
        elif asked.target == "/v1/chat/completions":
            await self._chat(asked, self._event)
        else:
            asked.json({"error": "expected a chat or a pull"}, 404)

    async def _chat(self, asked: Asked, framed: Callable[[str], bytes]) -> None:
        self.asked.set()
        await _passed(self.begin)
        kind = "application/x-ndjson" if framed == self._line else "text/event-stream"
        asked.head(200, f"content-type: {kind}", chunked=True)
        for number in range(2 * TOKENS):
            if number == TOKENS:
                self.half.set()
                await _passed(self.finish)
            asked.chunk(framed(f"{self.word} {number}\n"))
            await asked.writer.drain()
        asked.chunk(framed(""))
        asked.last_chunk()

    def _line(self, token: str) -> bytes:
        """Return a token, "" for the end, as Ollama's API has it."""
        value = {"model": self.model, "message": {"role": "assistant", "content": token}, "done": not token}
        return json.dumps(value).encode() + b"\n"

    def _event(self, token: str) -> bytes:
        """Return a token, "" for the end, as OpenAI's API has it."""
        choice = {"index": 0, "delta": {"content": token}, "finish_reason": None if token else "stop"}
        event = json.dumps({"model": self.model, "choices": [choice]}).encode()
        return b"data: " + event + b"\n\n" + (b"" if token else b"data: [DONE]\n\n")

    async def _pull(self, asked: Asked) -> None:
        wanted = json.loads(asked.body).get("model") or json.loads(asked.body).get("name")
        self.asked.set()
        await _passed(self.begin)
        asked.head(200, "content-type: application/x-ndjson", chunked=True)
        for done in (0, 500, 1000):
            if done == 1000:
                self.half.set()
                await _passed(self.finish)
            line = {"status": f"pulling {wanted}", "digest": "sha256:0", "total": 1000, "completed": done}
            asked.chunk(json.dumps(line).encode() + b"\n")
            await asked.writer.drain()
        self.pulled.append(str(wanted))
        asked.chunk(json.dumps({"status": "success"}).encode() + b"\n")
        asked.last_chunk()


async def _passed(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, DEADLINE), "expected the test to go on"


@contextlib.contextmanager
def marked_engine(word: str, model: str) -> Iterator[MarkedEngine]:
    """Run one until the block ends."""
    made = MarkedEngine(word, model)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with scripted_engine(kind="ollama", models=[model]) as engine:
            _use(engine, made)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(DEADLINE)
    try:
        yield made
    finally:
        made.begin.set()
        made.finish.set()
        loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE)
        loop.close()


def _use(engine: ScriptedEngine, made: MarkedEngine) -> None:
    engine.answer = made.answer
    made.url = engine.url
