"""The real home behind the scripted server: its store, its runs and its API; only the engine is scripted."""

import asyncio
import json
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from tests.support.home_parts import HomeClient
from tests.support.home_parts import home as running_home

from cloudtolocalllm.bridge.home_api.messages import Caller, Events, Reply, Request

T = TypeVar("T")
WAIT = 20.0
"""Seconds that a held answer waits for its test at most."""


@dataclass
class Answer:
    """What the engine answers one question with."""

    chunks: list[bytes] = field(default_factory=list)
    """Written one by one."""
    hold_after: int | None = None
    """Chunks after which to wait for `go`."""
    refusal: dict[str, Any] | None = None
    """Answered instead."""
    breaks: bool = False
    """Ends without the mark that it is whole."""
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the home closed the connection before the end."""


@dataclass
class EngineScript:
    """What the engine has, and was asked."""

    models: list[str] = field(default_factory=lambda: ["llama3.2:3b", "qwen3:8b"])
    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of the questions."""
    ollama: bool = False
    """Whether it speaks Ollama's API too."""
    pulls: list[Answer] = field(default_factory=list)


class _EngineHandler(BaseHTTPRequestHandler):
    """An engine that speaks OpenAI's API."""

    protocol_version = "HTTP/1.1"
    server: "_Engine"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        script = self.server.script
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": model} for model in script.models]})
        elif script.ollama and self.path == "/api/version":
            self._json(200, {"version": "0.20.0"})
        elif script.ollama and self.path in {"/api/tags", "/api/ps"}:
            names = script.models if self.path == "/api/tags" else []
            self._json(200, {"models": [{"name": name, "model": name} for name in names]})
        else:
            self._json(404, {})

    def do_DELETE(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.script.models.remove(body["model"])
        self._json(200, {})

    def do_POST(self) -> None:
        script = self.server.script
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/api/pull":
            self._stream(script.pulls.pop(0), "application/x-ndjson")
            return
        script.asked.append(body)
        answer = script.answers.pop(0)
        if answer.refusal is not None:
            self._json(answer.refusal["status"], answer.refusal)
            return
        self._stream(answer, "text/event-stream")

    def _stream(self, answer: Answer, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for index, chunk in enumerate(answer.chunks):
                if index == answer.hold_after:
                    self._hold(answer)
                self._chunk(chunk)
            if len(answer.chunks) == answer.hold_after:
                self._hold(answer)
            if not answer.breaks:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            answer.left.set()
        self.close_connection = True

    def _json(self, code: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hold(self, answer: Answer) -> None:
        """Wait for the test, looking meanwhile whether the home goes."""
        self.connection.settimeout(0.02)
        for _ in range(int(WAIT / 0.02)):
            if answer.go.is_set():
                break
            try:
                if not self.connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                continue
        self.connection.settimeout(WAIT)

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.flush()


class _Engine(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: EngineScript) -> None:
        super().__init__(("127.0.0.1", 0), _EngineHandler)
        self.script = script
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)


class ChatHome:
    """A home in a thread of its own."""

    def __init__(self, script: EngineScript) -> None:
        self._script = script
        self._engine = _Engine(script)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._waiting: set[Future[Any]] = set()
        self._closing = False
        self._folder = tempfile.TemporaryDirectory(prefix="c2l-test-")
        self._stack = AsyncExitStack()
        self._client = self.call(self._open())

    async def _open(self) -> HomeClient:
        url = f"http://127.0.0.1:{self._engine.server_port}"
        allow = ("pull", "delete") if self._script.ollama else ()
        return await self._stack.enter_async_context(running_home(Path(self._folder.name), url, allow=allow))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the home's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

    def restart(self) -> None:
        """End the bridge and start it again, with the same store."""
        self.break_streams()
        self.call(self._stack.aclose())
        self._stack = AsyncExitStack()
        self._client = self.call(self._open())

    def refresh_models(self) -> None:
        """Have the home look which models the engine has."""
        for engine in self._client.home.catalog.engines:
            self.call(engine.refresh_models())

    def get(self, method: str, path: str, value: Any = None) -> Any:
        """Ask the home as another client would."""
        return self.call(self._client.get(method, path, value))

    def ask(self, method: str, path: str, query: dict[str, str], content: bytes) -> Reply | Iterator[bytes]:
        """Answer a request of the page; events come one by one."""
        api = self._client.bridge.home_api
        assert api is not None
        answer = self.call(api.handle(Caller(None), Request(method, path, query, content)))
        return self._lines(answer) if isinstance(answer, Events) else answer

    def _lines(self, answer: Events) -> Iterator[bytes]:
        async def following() -> dict[str, Any] | None:
            return await anext(answer.events, None)

        try:
            while (event := self._next(following())) is not None:
                yield json.dumps(event, ensure_ascii=False).encode() + b"\n"
        finally:
            if not self._closing:
                self.call(answer.events.aclose())

    def _next(self, work: Coroutine[Any, Any, T]) -> T:
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(waiting)
        try:
            return waiting.result(WAIT)
        except CancelledError:
            raise ConnectionResetError from None
        finally:
            self._waiting.discard(waiting)

    def break_streams(self) -> None:
        """Break off what is followed just now."""
        for waiting in list(self._waiting):
            waiting.cancel()

    def close(self) -> None:
        """End it."""
        self._closing = True
        self.break_streams()
        self.call(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self._engine.close()
        self._folder.cleanup()
