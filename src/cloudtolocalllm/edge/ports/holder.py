"""Holds listening TCP sockets, and hands them to those who may connect to a Unix socket (SCM_RIGHTS, unix(7)).

nginx can so be replaced with no connection refused: the old one and the new one take connections from one queue, and
while there is neither they wait in it. Whoever accepts a connection has it in the network of this process, so nginx
itself needs none that leads out. Nothing is read from a connection here.

One message with all descriptors greets each client. It says `serving` once it accepts connections, and is told
`others N` whenever the number of other clients that serve has changed, so that an old one knows when it can go. The
end of the connection means that the sockets' network is gone.

Only the standard library, and nothing else of the package: it stands alone in its image, which so seldom changes.
"""

import argparse
import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

log = logging.getLogger(__name__)

GREETING = b"c2l-ports 1\n"
SERVING = b"serving\n"
MAX_CLIENTS = 16
"""Two while one nginx follows another, and health checks."""
BACKLOG = 4096
"""Connections that wait while there is no nginx; the kernel's somaxconn bounds it too."""
MODE = 0o660
"""Of the Unix socket: its owner and its group."""


class HolderError(Exception):
    """A port or the Unix socket cannot be had; the text says which and why."""


def listen(address: str) -> socket.socket:
    """Return a socket that listens at `HOST:PORT`, an IPv6 address in brackets.

    Raises:
        HolderError: It is no address, or it cannot be had.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise HolderError("expected an address as 0.0.0.0:8080 or [::]:8080")
    v6 = host.startswith("[")
    found = None
    try:
        found = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:  # or it would take the port of IPv4 too
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((host.strip("[]"), int(port)))
        found.listen(BACKLOG)
    except OSError as error:
        if found is not None:
            found.close()
        raise HolderError(f"expected to listen at {address}, got: {error.strerror or error}") from None
    found.setblocking(False)  # nginx takes it as it comes, and must never wait in accept
    return found


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    serves: bool = False
    told: int = 0
    """How many others served when it was last told."""


class Holder:
    """The sockets, and who has them."""

    def __init__(self, path: Path, held: Sequence[socket.socket]) -> None:
        """Listen on the Unix socket.

        Args:
            path: Where; a socket that an earlier holder left there is replaced.
            held: What is handed out.

        Raises:
            HolderError: The Unix socket cannot be made.
        """
        self._held = tuple(held)
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._door = _door(path)
        self._selector.register(self._door, selectors.EVENT_READ)

    def serve(self) -> NoReturn:
        """Serve for ever."""
        while True:
            self.step(None)

    def step(self, timeout: float | None) -> None:
        """Do what is due; wait for it no longer than `timeout` seconds, None for as long as it takes."""
        for key, _ in self._selector.select(timeout):
            client = self._clients.get(key.fd)
            if client is None:
                self._admit()
            else:
                self._hear(client)
        self._tell()

    def close(self) -> None:
        """Close everything; a second time does nothing."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        for one in (self._door, *self._held):
            one.close()

    def _admit(self) -> None:
        try:
            connection, _ = self._door.accept()
        except OSError:
            return  # it has left already
        if len(self._clients) >= MAX_CLIENTS:
            log.warning("a client is turned away: there are as many as there may be")
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ)
        try:
            socket.send_fds(connection, [GREETING], [one.fileno() for one in self._held])
        except OSError:
            self._drop(client)

    def _hear(self, client: _Client) -> None:
        try:
            said = client.connection.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said == SERVING:
            log.info("a client serves now")
            client.serves = True
        else:  # its end, or what no client says
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client.serves:
            log.info("a client that served has left")
        del self._clients[client.connection.fileno()]
        self._selector.unregister(client.connection)
        client.connection.close()

    def _tell(self) -> None:
        serving = sum(client.serves for client in self._clients.values())
        for client in list(self._clients.values()):
            others = serving - client.serves
            if others != client.told:
                client.told = others
                try:
                    client.connection.send(b"others %d\n" % others)
                except OSError:  # it has left, or has not read for a long time
                    self._drop(client)


def _door(path: Path) -> socket.socket:
    """Return the listening Unix socket; it appears under its name only when nobody else may connect any more."""
    fresh = path.with_name(path.name + ".new")
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        mask = os.umask(0o777)
        try:
            door.bind(str(fresh))
        finally:
            os.umask(mask)
        fresh.chmod(MODE)
        door.listen(MAX_CLIENTS)
        fresh.rename(path)
    except OSError as error:
        door.close()
        reason = os.strerror(error.errno or errno.EIO)
        raise HolderError(f"expected to make the socket {path}, got: {reason}") from None
    door.setblocking(False)
    return door


def run(path: Path, addresses: Sequence[str]) -> int:
    """Hold ports until SIGTERM or SIGINT; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        held = [listen(address) for address in addresses]
        holder = Holder(path, held)
    except HolderError as error:
        sys.stderr.write(f"ports: {error}\n")
        return 1
    log.info("holds %s", " ".join(addresses))
    try:
        holder.serve()
    finally:
        holder.close()


def main() -> int:
    """Run by itself, from its image."""
    parser = argparse.ArgumentParser(description="Holds listening sockets and hands them to nginx.")
    parser.add_argument("path", type=Path, metavar="SOCKET", help="Unix socket to hand them out at")
    parser.add_argument("addresses", nargs="+", metavar="HOST:PORT", help="what to listen at")
    options = parser.parse_args()
    form = '{"time": "%(asctime)s", "level": "%(levelname)s", "service": "ports", "message": "%(message)s"}'
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format=form)
    return run(options.path, options.addresses)


if __name__ == "__main__":
    sys.exit(main())
