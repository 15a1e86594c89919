"""A scripted home behind the page: states and faults that are hard to bring about with the real parts."""

import json
import mimetypes
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from tests.browser.chat_home import Answer as Answer
from tests.browser.chat_home import ChatHome, EngineScript
from tests.browser.home_accounts import Accounts, Reply
from tests.browser.home_accounts import problem as problem
from tests.browser.sealed_home import SealedHome

from cloudtolocalllm.bridge.home_api.messages import Reply as HomeReply

DIST = Path(__file__).resolve().parents[2] / "web" / "dist"
TOKEN = "one-time-token"
WAIT = 20.0
"""Seconds that something waits for its test at most."""
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


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def tokens(pieces: Iterable[str], *, done: bool = True, thought: str = "") -> list[bytes]:
    """Return the events of an answer of these pieces."""
    events = [event({"choices": [{"delta": {"reasoning": thought}}]})] if thought else []
    events += [event({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(events)}})
    return [*events, usage, b"data: [DONE]\n\n"] if done else events


class Home:
    """The state of the scripted home, and what was asked of it."""

    def __init__(self) -> None:
        self.signed_in = False
        self.script = EngineScript()
        self.chat: ChatHome | None = None
        """The home of somebody who chats; the page is then served as by that home itself."""
        self.offline = False
        """The home cannot be reached."""
        self.cuts: list[int] = []
        """Lines after which one stream of an answer after another is cut."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.events_up = True
        self.accounts = Accounts()
        self.sealed = SealedHome("b1")
        """The home of somebody who comes by the server, as far as the settings ask it."""
        self.second = SealedHome("b2")
        """Another one of that person."""
        self.sealed.documents["GET", "/c2l/keys"] = lambda: {"keys": self.accounts.keys}
        self.too_busy = 0
        """How often signing in, and who is signed in, is refused as by a server that is only starting."""
        self.session_may_be_told = threading.Event()
        """Cleared, it holds back who is signed in."""
        self.session_may_be_told.set()
        self._status = status("ready")
        self._version = 0
        self._changed = threading.Condition()

    @property
    def answers(self) -> list[Answer]:
        """What the engine answers, one question after another."""
        return self.script.answers

    @answers.setter
    def answers(self, answers: list[Answer]) -> None:
        self.script.answers = answers

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What the engine was asked."""
        return self.script.asked

    @property
    def models(self) -> list[str]:
        """What the engine has."""
        return self.script.models

    @models.setter
    def models(self, models: list[str]) -> None:
        self.script.models = models
        if self.chat is not None:
            self.chat.refresh_models()

    def reachable(self, *, now: bool) -> None:
        """Cut the way to the home, or mend it."""
        self.offline = not now
        if self.offline and self.chat is not None:
            self.chat.break_streams()

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
        if path == "/api/auth/session" and self._is_too_busy():
            return
        if path == "/api/auth/session":
            self.home.session_may_be_told.wait(WAIT)
            self._json(200, self.home.accounts.session(signed_in=self.home.signed_in))
        elif path == "/api/auth/oidc/start":
            self._provider()
        elif path == "/api/streaming/events":
            self._events()
        elif self._is_chat(path):
            self._chat(path, b"")
        elif self._is_sealed(path):
            self._sealed(path, b"")
        elif path.startswith(("/api/", "/c2l/", "/e2e/")):
            self._account(path, None)
        else:
            self._file(path)

    def do_POST(self) -> None:
        path = self._note()
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self._is_chat(path):
            self._chat(path, content)
            return
        if self._is_sealed(path):
            self._sealed(path, content)
            return
        body = json.loads(content or b"null")
        if self.headers.get("c2l-request") is None:
            self._json(403, problem("forbidden", 403, "Not allowed", "The field is missing."))
        elif path == "/api/auth/sign-in" and self._is_too_busy():
            pass
        elif path == "/api/auth/sign-in":
            self.home.signed_in = self.home.signed_in or body == {"token": TOKEN}
            accepted = body == {"token": TOKEN}
            self._empty() if accepted else self._json(401, problem("unauthenticated", 401, "Sign in", "Used."))
        elif path == "/api/auth/sign-out":
            self.home.signed_in = False
            self._reply(self.home.accounts.signed_out)
        else:
            self._account(path, body)

    def do_PUT(self) -> None:
        path = self._note()
        self._chat(path, self.rfile.read(int(self.headers["content-length"])))

    def do_PATCH(self) -> None:
        path = self._note()
        content = self.rfile.read(int(self.headers["content-length"]))
        if self._is_chat(path):
            self._chat(path, content)
        else:
            self._account(path, json.loads(content))

    def do_DELETE(self) -> None:
        path = self._note()
        if self._is_chat(path):
            self._chat(path, b"")
        else:
            self._account(path, None)

    def _is_too_busy(self) -> bool:
        if self.home.too_busy == 0:
            return False
        self.home.too_busy -= 1
        self._json(503, problem("overloaded", 503, "Too much to do", "Later."))
        return True

    def _is_chat(self, path: str) -> bool:
        return self.home.chat is not None and path.startswith("/c2l/")

    def _is_sealed(self, path: str) -> bool:
        return path in (self.home.sealed.path, self.home.second.path)

    def _sealed(self, path: str, content: bytes) -> None:
        home = self.home.second if path == self.home.second.path else self.home.sealed
        kind = self.headers.get("content-type", "")
        code, kind, content = home.answer(self.command, kind, content)
        self._head(code, kind, ("content-length", str(len(content))))
        self.wfile.write(content)

    def _chat(self, path: str, content: bytes) -> None:
        chat = self.home.chat
        if chat is None or self.headers.get("c2l-request") is None:
            self._json(403, problem("forbidden", 403, "Not allowed", "The field is missing."))
            return
        if self.home.offline:
            self._json(503, problem("bridge-offline", 503, "The machine is not connected", "It may come back."))
            return
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            answer = chat.ask(self.command, path.removeprefix("/c2l"), query, content)
        except ConnectionResetError:
            self.close_connection = True
            return
        if isinstance(answer, HomeReply):
            self._head(answer.status, answer.media_type, ("content-length", str(len(answer.content))))
            self.wfile.write(answer.content)
            return
        with closing(answer):
            self._lines(answer, self.home.cuts.pop(0) if self.home.cuts and path.startswith("/c2l/runs/") else None)

    def _lines(self, lines: Iterator[bytes], cut: int | None) -> None:
        """Write events one by one, and break off after so many, or when the home is not to be reached any more."""
        self._head(200, "application/x-ndjson", ("transfer-encoding", "chunked"))
        self.close_connection = True
        count = 0
        try:
            for line in lines:
                if self.home.offline or count == cut:
                    return
                self._chunk(line)
                count += 1
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the page went away

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
        if file.name == "index.html" and self.home.chat is not None:
            content = content.replace(b"</head>", b'<meta name="c2l-home" content="direct" /></head>')
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
        if self.home.chat is not None:
            self.home.chat.close()
            self.home.chat = None
        self.shutdown()
        self.server_close()
        self._thread.join(5)
