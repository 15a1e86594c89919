"""A scripted home behind the page: states and faults that are hard to bring about with the real parts."""

import json
import mimetypes
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.browser.home_accounts import Accounts, Reply
from tests.browser.home_accounts import problem as problem

DIST = Path(__file__).resolve().parents[2] / "web" / "dist"
TOKEN = "one-time-token"
WAIT = 20.0
"""Seconds that a held answer waits for its test at most."""
KEEP_ALIVE = 1.0

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]
)
"""At least as strict as what the edge sends."""


def engine(kind: str = "ollama", state: str = "up") -> dict[str, Any]:
    return {"id": kind, "kind": kind, "state": state}


def status(state: str, *engines: dict[str, Any], connected: bool = True) -> dict[str, Any]:
    """Return a status document; without a bridge if `state` says so."""
    bridge = {
        "id": "b1",
        "name": "tower",
        "connected": connected,
        "since": 1_767_323_045.0,
        "last_seen": 1_767_323_045.0,
        "version": "0.1.0",
        "engines": list(engines or (engine(),)) if connected else [],
    }
    return {"state": state, "bridges": [] if state == "no-bridge" else [bridge], "proxy": None}


LOST = problem("not-found", 404, "There is nothing here", "This answer is not kept.")


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def tokens(pieces: Iterable[str], *, done: bool = True, thought: str = "") -> list[bytes]:
    """Return the events of an answer of these pieces."""
    events = [event({"choices": [{"delta": {"reasoning": thought}}]})] if thought else []
    events += [event({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    return [*events, b"data: [DONE]\n\n"] if done else events


@dataclass
class Answer:
    """What one question is answered with."""

    chunks: list[bytes] = field(default_factory=list)
    """Written one by one."""
    hold_after: int | None = None
    """Chunks after which to wait for `go`."""
    breaks_at: list[int] = field(default_factory=list)
    """Offsets in the body at which one connection after another is cut."""
    refusal: dict[str, Any] | None = None
    """Answered instead."""
    attach_refusal: dict[str, Any] | None = None
    """Answered to whoever attaches."""
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the client closed the connection before the end."""


class Home:
    """The state of the scripted home, and what was asked of it."""

    def __init__(self) -> None:
        self.signed_in = False
        self.models = ["llama3.2:3b", "qwen3:8b"]
        self.answers: list[Answer] = []
        self.asked: list[dict[str, Any]] = []
        """The bodies of the questions."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.exchanges: dict[str, Answer] = {}
        self.events_up = True
        self.accounts = Accounts()
        self.session_may_be_told = threading.Event()
        """Cleared, it holds back who is signed in."""
        self.session_may_be_told.set()
        self._status = status("ready")
        self._version = 0
        self._changed = threading.Condition()

    def show(self, document: dict[str, Any]) -> None:
        """Tell the page another status."""
        with self._changed:
            self._status = document
            self._version += 1
            self._changed.notify_all()

    def events(self, *, up: bool) -> None:
        """Cut the status streams and refuse them, or serve them again."""
        with self._changed:
            self.events_up = up
            self._version += 1
            self._changed.notify_all()

    def next_status(self, seen: int) -> tuple[int, dict[str, Any] | None]:
        """Wait for a status after the one seen; None when there is no news."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > seen, KEEP_ALIVE)
            return self._version, self._status if self._version > seen else None


class Handler(BaseHTTPRequestHandler):
    """Serves the page, its API, and the scripted answers."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    @property
    def home(self) -> Home:
        return self.server.home

    def do_GET(self) -> None:
        path = self._note()
        if path == "/api/auth/session":
            self.home.session_may_be_told.wait(WAIT)
            self._json(200, self.home.accounts.session(signed_in=self.home.signed_in))
        elif path == "/api/auth/oidc/start":
            self._provider()
        elif path == "/api/streaming/events":
            self._events()
        elif path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": model} for model in self.home.models]})
        elif path.startswith("/c2l/exchanges/"):
            self._attach(path.rpartition("/")[2])
        elif path.startswith(("/api/", "/c2l/")):
            self._account(path, None)
        else:
            self._file(path)

    def do_POST(self) -> None:
        path = self._note()
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"null")
        if self.headers.get("c2l-request") is None:
            self._json(403, problem("forbidden", 403, "Not allowed", "The field is missing."))
        elif path == "/api/auth/sign-in":
            self.home.signed_in = self.home.signed_in or body == {"token": TOKEN}
            accepted = body == {"token": TOKEN}
            self._empty() if accepted else self._json(401, problem("unauthenticated", 401, "Sign in", "Used."))
        elif path == "/api/auth/sign-out":
            self.home.signed_in = False
            self._reply(self.home.accounts.signed_out)
        elif path == "/v1/chat/completions":
            self.home.asked.append(body)
            answer = self.home.answers.pop(0)
            self.home.exchanges[self.headers["c2l-exchange-id"]] = answer
            self._answer(answer, 0)
        else:
            self._account(path, body)

    def do_PATCH(self) -> None:
        path = self._note()
        self._account(path, json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def do_DELETE(self) -> None:
        path = self._note()
        if path.startswith("/c2l/exchanges/"):
            self.home.exchanges[path.rpartition("/")[2]].left.set()
            self._empty()
        else:
            self._account(path, None)

    def _account(self, path: str, body: Any) -> None:
        if self.headers.get("c2l-request") is None:
            self._json(403, problem("forbidden", 403, "Not allowed", "The field is missing."))
        elif not self.home.signed_in:
            self._json(401, problem("unauthenticated", 401, "Sign in", "Nobody is signed in."))
        else:
            self._reply(self.home.accounts.reply(self.command, path, body))

    def _provider(self) -> None:
        """Stand for the provider and the way back from it: in, or back with an error."""
        return_to = parse_qs(urlsplit(self.path).query)["return_to"][0]
        error = self.home.accounts.provider_error
        self.home.signed_in = self.home.signed_in or error is None
        failed = "/sign-in?" + urlencode({"error": error or "", "return_to": return_to})
        self._head(302, "text/plain", ("location", return_to if error is None else failed), ("content-length", "0"))

    def _reply(self, reply: Reply) -> None:
        if reply.document is None:
            self._empty()
        else:
            self._json(reply.code, reply.document, *reply.fields)

    def _note(self) -> str:
        self.home.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        return urlsplit(self.path).path

    def _head(self, code: int, kind: str, *fields: tuple[str, str]) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-security-policy", POLICY)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def _empty(self) -> None:
        self.send_response(204)
        self.end_headers()

    def _json(self, code: int, document: dict[str, Any], *fields: tuple[str, str]) -> None:
        content = json.dumps(document).encode()
        kind = "application/problem+json" if code >= 400 else "application/json"
        self._head(code, kind, ("content-length", str(len(content))), *fields)
        self.wfile.write(content)

    def _file(self, path: str) -> None:
        file = DIST / path.lstrip("/")
        if not file.is_file():
            file = DIST / "index.html"
        content = file.read_bytes()
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._head(200, kind, ("content-length", str(len(content))))
        self.wfile.write(content)

    def _events(self) -> None:
        if not self._may_follow():
            self._json(503 if self.home.signed_in else 401, problem("overloaded", 503, "Too much", "Later."))
            return
        self._head(200, "text/event-stream", ("transfer-encoding", "chunked"))
        seen = -1
        try:
            while self._may_follow():
                seen, document = self.home.next_status(seen)
                self._chunk(b": keep-alive\n\n" if document is None else event(document))
        except OSError:
            pass  # the page went away
        self.close_connection = True

    def _may_follow(self) -> bool:
        return self.home.signed_in and self.home.events_up and not self.server.closing

    def _attach(self, exchange_id: str) -> None:
        answer = self.home.exchanges.get(exchange_id)
        refusal = LOST if answer is None else answer.attach_refusal
        if answer is None or refusal is not None:
            self._json((refusal or LOST)["status"], refusal or LOST)
            return
        self._answer(answer, int(parse_qs(urlsplit(self.path).query)["offset"][0]))

    def _answer(self, answer: Answer, offset: int) -> None:
        if answer.refusal is not None:
            self._json(answer.refusal["status"], answer.refusal)
            return
        cut = answer.breaks_at.pop(0) if answer.breaks_at else None
        self._head(200, "text/event-stream", ("transfer-encoding", "chunked"))
        try:
            whole = self._write_answer(answer, offset, cut)
        except OSError:
            answer.left.set()
            whole = False
        self.close_connection = True
        if whole:
            self.wfile.write(b"0\r\n\r\n")

    def _write_answer(self, answer: Answer, offset: int, cut: int | None) -> bool:
        """Write the body from an offset; return False if it was cut."""
        at = 0
        for index, chunk in enumerate(answer.chunks):
            if index == answer.hold_after:
                self._hold(answer)
            end = at + len(chunk) if cut is None else min(at + len(chunk), cut)
            if end > max(at, offset):
                self._chunk(chunk[max(at, offset) - at : end - at])
            if cut is not None and end == cut:
                return False
            at += len(chunk)
        return True

    def _hold(self, answer: Answer) -> None:
        """Wait for the test, looking meanwhile whether the client goes."""
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


class Server(ThreadingHTTPServer):
    """The scripted home on a port of its own."""

    daemon_threads = True
    closing = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.home = Home()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        """Stop serving; streams end within a keep-alive."""
        self.closing = True
        self.home.events(up=False)
        self.shutdown()
        self.server_close()
        self._thread.join(5)
