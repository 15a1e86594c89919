"""Asks the holder of the ports (edge/ports) for its listening sockets, and hears from it while they are in use."""

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.ports.holder import GREETING, SERVING

log = logging.getLogger(__name__)

MAX_SOCKETS = 16
GREETED_WITHIN = 5.0
"""Seconds."""
ASK_EVERY = 0.2
"""Seconds between two attempts to reach a holder that is not there (yet)."""
_OTHERS = re.compile(rb"others ([0-9]{1,3})\n")


class PortsError(Exception):
    """The holder is not there, or is none; the text says which."""


class Ports:
    """Listening sockets that a holder handed over, and the connection to it."""

    def __init__(self, connection: socket.socket, sockets: Sequence[socket.socket]) -> None:
        """Take over an open connection and what came by it; see `connect`."""
        self._connection = connection
        self.sockets = tuple(sockets)
        self.lost = asyncio.Event()
        """Set when the holder has gone, and the sockets' network with it."""
        self.superseded = asyncio.Event()
        """Set when another nginx serves the same sockets."""
        self._heard = b""
        asyncio.get_running_loop().add_reader(connection, self._hear)

    @classmethod
    async def connect(cls, path: Path) -> "Ports":
        """Ask once.

        Raises:
            PortsError: Nobody is there, or what is there answers something else.
        """
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as failed:
            failed.callback(connection.close)
            connection.setblocking(False)
            try:
                async with asyncio.timeout(GREETED_WITHIN):
                    await loop.sock_connect(connection, str(path))
                    await _readable(connection)
                sockets = _received(connection)
            except (OSError, TimeoutError, PortsError) as error:
                reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                got = f"got: {reason or 'no answer'}; start the service ports"
                raise PortsError(f"expected the holder of the ports at {path}, {got}") from None
            failed.pop_all()
            return cls(connection, sockets)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the sockets listen."""
        names = [one.getsockname() for one in self.sockets]
        return tuple(Endpoint(host=str(name[0]), port=int(name[1])) for name in names)

    @property
    def identity(self) -> frozenset[tuple[int, int]]:
        """Tells whether two are the same sockets."""
        found = [os.fstat(one.fileno()) for one in self.sockets]
        return frozenset((one.st_dev, one.st_ino) for one in found)

    def variable(self) -> str:
        """Return what nginx has to find in its environment as NGINX, to inherit them."""
        return "".join(f"{one.fileno()};" for one in self.sockets)

    def serving(self) -> None:
        """Say that connections are accepted now."""
        with contextlib.suppress(OSError):  # its end will be heard
            self._connection.send(SERVING)

    def close(self) -> None:
        """Close our copies of everything."""
        asyncio.get_running_loop().remove_reader(self._connection)
        for one in (self._connection, *self.sockets):
            one.close()

    def _hear(self) -> None:
        try:
            said = self._connection.recv(256)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            asyncio.get_running_loop().remove_reader(self._connection)
            self.lost.set()
            return
        self._heard = (self._heard + said)[-256:]
        found = _OTHERS.findall(self._heard)
        if found:
            self._heard = self._heard[self._heard.rfind(b"\n") + 1 :]
            self.superseded.set() if int(found[-1]) else self.superseded.clear()


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def told() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, told)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _received(connection: socket.socket) -> list[socket.socket]:
    greeting, numbers, flags, _ = socket.recv_fds(connection, 256, MAX_SOCKETS)
    sockets: list[socket.socket] = []
    for number in numbers:
        try:
            sockets.append(socket.socket(fileno=number))
        except OSError:  # something else that can be open
            os.close(number)
    whole = greeting.startswith(GREETING) and not flags & socket.MSG_CTRUNC and len(sockets) == len(numbers)
    if not whole or not sockets or any(one.family not in (socket.AF_INET, socket.AF_INET6) for one in sockets):
        for one in sockets:
            one.close()
        raise PortsError("something that hands over no ports")
    return sockets
