"""The real home behind the scripted server: its store, its runs and its API; only the engine is scripted."""

import asyncio
import json
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, closing, suppress
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


class _Followed:
    """Events on their way to a page. They are taken, and closed, in the home's thread; never both at once."""

    def __init__(self, answer: Events) -> None:
        self._events = answer.events
        self._turn = asyncio.Lock()
        self._taking: asyncio.Task[Any] | None = None

    async def next(self) -> dict[str, Any] | None:
        async with self._turn:
            self._taking = asyncio.current_task()
            return await anext(self._events, None)

    def break_off(self) -> None:
        if self._taking is not None:
            self._taking.cancel()

    async def close(self) -> None:
        self.break_off()
        async with self._turn:
            await self._events.aclose()


class ChatHome:
    """A home in a thread of its own. Once it is closed, whoever asks finds the connection broken."""

    def __init__(self, script: EngineScript) -> None:
        self._script = script
        self._engine = _Engine(script)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._followed: set[_Followed] = set()
        self._closed = False
        self._gate = threading.Lock()
        """Between what is begun in the home's thread and the end of that."""
        self._folder = tempfile.TemporaryDirectory(prefix="c2l-test-")
        self._stack = AsyncExitStack()
        try:
            self._client = self.call(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> HomeClient:
        url = f"http://127.0.0.1:{self._engine.server_port}"
        allow = ("pull", "delete") if self._script.ollama else ()
        return await self._stack.enter_async_context(running_home(Path(self._folder.name), url, allow=allow))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the home's thread."""
        with self._gate:
            if self._closed:
                work.close()
                raise ConnectionResetError
            waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result(WAIT)
        except CancelledError:
            raise ConnectionResetError from None

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

    def has_stored(self, text: str) -> Callable[[], bool]:
        """Return what tells whether so much of the one answer that is being written is on disk."""
        (store,) = Path(self._folder.name).glob("*.home.db")

        def has() -> bool:
            with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5)) as db:
                pieces = db.execute("SELECT text FROM run_text ORDER BY run, at").fetchall()
            return "".join(piece for (piece,) in pieces) == text

        return has

    def get(self, method: str, path: str, value: Any = None) -> Any:
        """Ask the home as another client would."""
        return self.call(self._client.get(method, path, value))

    def ask(self, method: str, path: str, query: dict[str, str], content: bytes) -> Reply | Generator[bytes]:
        """Answer a request of the page; events come one by one, and whoever takes them closes them."""
        api = self._client.bridge.home_api
        assert api is not None
        answer = self.call(api.handle(Caller(None), Request(method, path, query, content)))
        return self._lines(answer) if isinstance(answer, Events) else answer

    def _lines(self, answer: Events) -> Generator[bytes]:
        followed = _Followed(answer)
        self._followed.add(followed)
        try:
            while (event := self.call(followed.next())) is not None:
                yield json.dumps(event, ensure_ascii=False).encode() + b"\n"
        finally:
            with suppress(ConnectionResetError):  # the home is closed, and closes it itself
                self.call(followed.close())
                self._followed.discard(followed)

    def break_streams(self) -> None:
        """Break off what is followed just now."""
        for followed in list(self._followed):
            self._loop.call_soon_threadsafe(followed.break_off)

    def close(self) -> None:
        """End it, and with it what was begun and not waited for."""
        with self._gate:
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(WAIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self._engine.close()
        self._folder.cleanup()

    async def _end(self) -> None:
        for followed in list(self._followed):
            await followed.close()
        await self._stack.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
