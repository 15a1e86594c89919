"""Takes each request to the page's port to where it belongs: a file, the session, the status, the home."""

import json
import logging
from collections.abc import Callable
from typing import Any

from cloudtolocalllm.bridge.caller import AT_HOME
from cloudtolocalllm.bridge.gateway.inside import Inside
from cloudtolocalllm.bridge.page.door import PageDoor
from cloudtolocalllm.bridge.page.sessions import SESSION_LIFE, Session, Sessions
from cloudtolocalllm.bridge.page.small import SmallRequest
from cloudtolocalllm.bridge.page.status import StatusStream
from cloudtolocalllm.bridge.page.visit import Visit
from cloudtolocalllm.bridge.refusal import RefusalError, problem_response
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers, Request, RequestHandler, Responder
from cloudtolocalllm.runtime.http1.answered import Answered
from cloudtolocalllm.runtime.page_fields import SECURITY
from cloudtolocalllm.runtime.site import Site
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

INSIDE = ("/c2l", "/v1", "/ollama", "/anthropic")
"""What is served as to a sealed request."""
SESSION, SIGN_IN, SIGN_OUT = "/api/auth/session", "/api/auth/sign-in", "/api/auth/sign-out"
STATUS = "/api/streaming/events"
MAX_VISITS = 256
"""Requests at once."""
MAX_STREAMS = 32
"""Streams of the status at once."""

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), *SECURITY)
_NEW_LINK = "Open a new link; on this machine: cloudtolocalllm bridge page"


class PageApp:
    """The page's application."""

    def __init__(
        self, site: Site, door: PageDoor, sessions: Sessions, inside: Inside, status: Callable[[], dict[str, Any]],
        clock: Clock,
    ) -> None:  # fmt: skip
        """Make the application.

        Args:
            site: The files.
            door: Who may ask.
            sessions: Of whom is let in.
            inside: The home and its engines.
            status: How the machine is.
            clock: The time.
        """
        self._site = site
        self._door = door
        self._sessions = sessions
        self._inside = inside
        self._status = status
        self._clock = clock
        self._tasks = TaskSet(limit=MAX_STREAMS)
        self._visits: set[Visit] = set()
        self._streams: dict[StatusStream, Session] = {}

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request whose head is complete."""
        try:
            self._door.check_host(request.headers)
            return self._take(request, responder)
        except RefusalError as refusal:
            log.info("a request to the page was refused", extra={"cause": refusal.problem.value.slug})
            return _refused(responder, refusal)

    def end_streams(self) -> None:
        """End what would never end, so that the server can."""
        for stream in tuple(self._streams):
            stream.cut()
        for visit in tuple(self._visits):
            if visit.is_endless:
                visit.cut()

    async def close(self) -> None:
        """End what runs."""
        await self._tasks.close()

    def _take(self, request: Request, responder: Responder) -> RequestHandler:
        path = request.path
        if path.startswith("/api/"):
            self._door.check_page(request.headers)
            return self._api(request, responder)
        if not any(path == prefix or path.startswith(prefix + "/") for prefix in INSIDE):
            return self._file(request, responder)
        self._door.check_page(request.headers)
        session = self._session(request)
        if len(self._visits) >= MAX_VISITS:
            raise RefusalError(Problem.OVERLOADED, "Too many requests are under way.", retry_after=1)
        visit = Visit(session, responder, self._visits.discard)
        self._visits.add(visit)
        visit.begin(self._inside, request, self._clock.wall())
        return visit

    def _file(self, request: Request, responder: Responder) -> RequestHandler:
        if request.method not in ("GET", "HEAD"):
            raise RefusalError(Problem.METHOD_NOT_ALLOWED, "The page's files can only be read.")
        answer = self._site.answer(request)
        if answer is None:
            raise RefusalError(Problem.NOT_FOUND, "The page has no such file.")
        responder.respond(answer.status, answer.headers, answer.content)
        return Answered()

    # --- the session and the status -------------------------------------------------------------------------------

    def _api(self, request: Request, responder: Responder) -> RequestHandler:
        asked = (request.method, request.path)
        if asked == ("GET", SESSION):
            responder.respond(200, _JSON, json.dumps(self._who(request)).encode())
            return Answered()
        if asked == ("POST", SIGN_IN):
            return SmallRequest(lambda content: self._sign_in(responder, content))
        session = self._session(request)
        if asked == ("POST", SIGN_OUT):
            self._end(session)
            forget = (b"set-cookie", self._door.set_cookie("", 0))
            responder.respond(204, (forget, (b"cache-control", b"no-store"), *SECURITY), b"")
            return Answered()
        if asked == ("GET", STATUS):
            return self._follow(session, responder)
        raise RefusalError(Problem.NOT_FOUND, "The page of this machine has no such route; the server's has.")

    def _who(self, request: Request) -> dict[str, Any]:
        given = self._door.credentials(request.headers)
        session = self._sessions.find(given.cookie, given.key)
        if session is None:
            return {"signed_in": False, "providers": [], "sign_in": "link"}
        return {
            "signed_in": True, "user": AT_HOME, "expires": session.expires, "providers": [], "sign_in": "link",
            "admin": False,
        }  # fmt: skip

    def _session(self, request: Request) -> Session:
        """Return whose request it is.

        Raises:
            RefusalError: Nobody's who is let in.
        """
        given = self._door.credentials(request.headers)
        session = self._sessions.find(given.cookie, given.key)
        if session is None:
            raise RefusalError(Problem.UNAUTHENTICATED, _NEW_LINK)
        return session

    def _sign_in(self, responder: Responder, content: bytes | None) -> None:
        token = _token(content)
        begun = None if token is None else self._sessions.sign_in(token)
        if begun is None:
            log.warning("a link to the page was refused")
            _refused(responder, RefusalError(Problem.UNAUTHENTICATED, _NEW_LINK))
            return
        made, ended = begun
        if ended is not None:
            self._cut(ended)
        log.info("a browser was signed in at the page")
        cookie = (b"set-cookie", self._door.set_cookie(made.cookie, SESSION_LIFE))
        responder.respond(200, (*_JSON, cookie), json.dumps({"page_key": made.key}).encode())

    def _follow(self, session: Session, responder: Responder) -> RequestHandler:
        stream = StatusStream(responder, self._status, lambda: self._sessions.holds(session))
        try:
            stream.begin(self._tasks, self._unfollowed)
        except RuntimeError:
            raise RefusalError(
                Problem.OVERLOADED, f"Expected at most {MAX_STREAMS} pages at once; close some.", retry_after=10
            ) from None
        self._streams[stream] = session
        return stream

    def _unfollowed(self, stream: StatusStream) -> None:
        self._streams.pop(stream, None)

    def _end(self, session: Session) -> None:
        self._sessions.end(session)
        self._cut(session)

    def _cut(self, session: Session) -> None:
        """End what a session does that is over. Runs go on: they are the home's."""
        for stream, owner in tuple(self._streams.items()):
            if owner is session:
                stream.cut()
        for visit in tuple(self._visits):
            if visit.session is session:
                visit.cut()


def _token(content: bytes | None) -> str | None:
    try:
        document = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    token = document.get("token") if isinstance(document, dict) else None
    return token if isinstance(token, str) and token.isascii() else None


def _refused(responder: Responder, refusal: RefusalError) -> RequestHandler:
    status, headers, content = problem_response(refusal)
    allow = ((b"allow", b"GET, HEAD"),) if refusal.problem is Problem.METHOD_NOT_ALLOWED else ()
    responder.respond(status, (*headers, *allow, *SECURITY), content)
    return Answered()
