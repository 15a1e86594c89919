"""Serves the page on the loopback, for as long as the bridge runs."""

import contextlib
import errno
import html
import logging
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cloudtolocalllm.bridge.gateway.inside import Inside
from cloudtolocalllm.bridge.page.app import PageApp
from cloudtolocalllm.bridge.page.door import PageDoor
from cloudtolocalllm.bridge.page.link import PageAddress, address_path, write_address
from cloudtolocalllm.bridge.page.sessions import SECRET_BYTES, Sessions
from cloudtolocalllm.bridge.settings import BridgeSettings
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers, HttpServer
from cloudtolocalllm.runtime.page_fields import SECURITY
from cloudtolocalllm.runtime.site import Site, web_root

log = logging.getLogger(__name__)

HOSTS = ("127.0.0.1", "::1")
"""The second is left out where the system has no IPv6, or its port is taken."""
MAX_CONNECTIONS = 256
GRACE = 0.5
"""Seconds for which answers may end at a stop; what is asked of the home goes on there, and is taken up again."""


class NoPageError(Exception):
    """The page cannot be served. The text says why, and how to mend it."""


class Page:
    """A page that is being served."""

    def __init__(self, server: HttpServer, app: PageApp, address: PageAddress, file: Path, clock: Clock) -> None:
        self._server = server
        self._app = app
        self._file = file
        self._clock = clock
        self.address = address

    def link(self) -> str:
        """Return a new link that signs a browser in, once."""
        return self.address.link(self._clock.wall())

    async def close(self) -> None:
        """End."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
        self._app.end_streams()
        await self._server.close(GRACE)
        await self._app.close()


async def open_page(
    settings: BridgeSettings, port: int, inside: Inside, status: Callable[[], dict[str, Any]], clock: Clock
) -> Page:
    """Serve the page.

    Args:
        settings: The bridge's; the file for links stands beside its credential.
        port: Of TCP; 0 for any free one.
        inside: The home and its engines.
        status: How the machine is.
        clock: The time.

    Raises:
        NoPageError: It cannot be served; nothing else is the matter.
    """
    file = address_path(settings.credential_file)
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)  # of a bridge that was killed; it names a port that may be anybody's now
    site = _site(settings)
    sockets = _bound(port)
    address = PageAddress(f"http://{HOSTS[0]}:{sockets[0].getsockname()[1]}", secrets.token_bytes(SECRET_BYTES))
    door = PageDoor(sockets[0].getsockname()[1])
    app = PageApp(site, door, Sessions(address.secret, clock), inside, status, clock)
    server = HttpServer(app, error_headers=SECURITY, clock=clock, gate=_Gate())
    page = Page(server, app, address, file, clock)
    try:
        for sock in sockets:
            await server.listen_socket(sock)
        write_address(file, address)
    except OSError as error:
        for sock in sockets:
            sock.close()
        await page.close()
        raise NoPageError(f"expected to write to {file}, got {type(error).__name__}") from None
    log.info("the page of this machine is served", extra={"url": address.url})
    return page


def announcement(page: Page) -> str:
    """Return what a person at the terminal is told."""
    return f"""
This machine's own page, for a browser on this machine (the link works once, within 5 minutes):

  {page.link()}

Another link: cloudtolocalllm bridge page
"""


def with_mark(content: bytes, origin: str) -> bytes:
    """Return index.html with the mark by which the page knows that there is nobody between it and its home.

    It also says that the browser is to keep no conversations: while the bridge does not run, another user's program
    may listen on its port, and is then the same site to the browser.

    Args:
        content: The file.
        origin: Of the server, where other devices are paired.
    """
    mark = f'<meta name="c2l-home" content="direct" data-keep="nothing" data-server="{html.escape(origin)}" />'
    return content.replace(b"<head>", b"<head>" + mark.encode(), 1)


def _origin(server: str) -> str:
    parts = urlsplit(server)
    return f"{parts.scheme}://{parts.netloc}"


def redirecting(link: str) -> str:
    """Return a file that leads a browser to a link.

    A browser that is started with the link itself shows it to every user who lists the processes.
    """
    at = html.escape(link, quote=True)
    return (
        f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={at}"><title>CloudToLocalLLM</title><a href="{at}">Go on</a>\n'
    )


class _Gate:
    """Bounds connections: a program of another user can open them, too."""

    def __init__(self) -> None:
        self._open = 0

    def opened(self, peer: str) -> bool:
        self._open += 1
        return self._open <= MAX_CONNECTIONS

    def refusal(self, peer: str) -> tuple[int, Headers, bytes] | None:
        return None

    def closed(self, peer: str) -> None:
        self._open -= 1


def _site(settings: BridgeSettings) -> Site:
    root = settings.page_root or web_root()
    if root is None:
        raise NoPageError("this installation has no built page; in a checkout: cd web && npm ci && npm run build")
    try:
        return Site(root, lambda content: with_mark(content, _origin(settings.server)))
    except (OSError, ValueError) as error:
        raise NoPageError(f"expected a built page in {root}, got {error}") from None


def _bound(port: int) -> list[socket.socket]:
    """Return the sockets, the first one's port being the page's."""
    try:
        first = _socket(HOSTS[0], port)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise NoPageError(
                f"port {port} is taken or not allowed; another bridge of this machine may serve its page there. "
                "Choose another with --page-port, or C2L_BRIDGE_PAGE_PORT"
            ) from None
        raise NoPageError(f"expected to listen on port {port} of {HOSTS[0]}, got {error.strerror}") from None
    try:
        return [first, _socket(HOSTS[1], first.getsockname()[1])]
    except OSError:
        log.info("the page is not served on the loopback of IPv6")
        return [first]


def _socket(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There, others could otherwise bind to the same port and take what comes (SO_REUSEADDR, Winsock).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        # At once: who binds an address that nobody listens on may be allowed to bind it too.
        sock.listen(socket.SOMAXCONN)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
