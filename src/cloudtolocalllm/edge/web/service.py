"""The page server's process."""

import asyncio
import logging
from collections.abc import Callable

from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge.answers import Answered, send_problem
from cloudtolocalllm.edge.headers import SECURITY
from cloudtolocalllm.edge.web.settings import WebSettings
from cloudtolocalllm.runtime.http1 import HttpServer, Request, RequestHandler, Responder
from cloudtolocalllm.runtime.site import Site

log = logging.getLogger(__name__)


class Web:
    """Answers requests for files of the build. It decides about nobody: limits, hosts and routes are nginx's."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request whose head is complete."""
        if request.path == "/healthz":
            responder.respond(200, ((b"content-type", b"application/json"), *SECURITY), b'{"status":"ok"}')
        elif request.method not in ("GET", "HEAD"):
            send_problem(responder, Problem.METHOD_NOT_ALLOWED, "The page's files can only be read.")
        elif (answer := self._site.answer(request)) is not None:
            responder.respond(answer.status, answer.headers, answer.content)
        else:
            send_problem(responder, Problem.NOT_FOUND, "There is no such file.")
        return Answered()


async def serve(settings: WebSettings, stop: asyncio.Event, *, ready: Callable[[int], None] | None = None) -> None:
    """Serve until `stop` is set, then let the answers under way finish.

    Args:
        settings: What was configured.
        stop: Set to end it.
        ready: Called with the port once it listens; 0 for a Unix socket.

    Raises:
        ValueError: The build is none.
        OSError: Nothing can listen there.
    """
    if not (settings.root / "index.html").is_file():
        raise ValueError(f"expected a built page, with index.html, in {settings.root}")
    server = HttpServer(Web(Site(settings.root)), error_headers=SECURITY)
    listen = settings.listen
    try:
        port = 0
        if listen.path is not None:
            await server.listen_unix(listen.path)
        else:
            port = await server.listen_tcp(listen.host or "127.0.0.1", listen.port or 0)
        log.info("listening", extra={"endpoint": str(listen)})
        if ready is not None:
            ready(port)
        await stop.wait()
    finally:
        await server.close(settings.drain_grace)
