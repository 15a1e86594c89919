"""Which bridge serves a request, and waiting for one to attach."""

import asyncio
from collections.abc import Callable, Iterable

from cloudtolocalllm.link import Stream, StreamHandler, Tunnel, TunnelServer
from cloudtolocalllm.tunnel import LocalError, RequestHead


class BusyError(Exception):
    """Bridges are attached, but none takes another stream; or too many requests wait already."""


class Waiter:
    """A request that waits for one of its bridges."""

    __slots__ = ("bridges", "expired", "ready", "timer")

    def __init__(
        self,
        bridges: frozenset[str],
        ready: Callable[[], None],
        expired: Callable[[], None],
        timer: asyncio.TimerHandle,
    ) -> None:
        self.bridges = bridges
        self.ready = ready
        self.expired = expired
        self.timer = timer


class Bridges:
    """The attached bridges, as requests see them."""

    def __init__(self, *, max_waiting: int) -> None:
        """Make a board that knows no tunnel yet.

        Args:
            max_waiting: Requests at once that may wait.
        """
        self._server: TunnelServer | None = None
        self._waiters: dict[int, Waiter] = {}
        self._max_waiting = max_waiting
        self._closed = False

    def use(self, server: TunnelServer) -> None:
        """Look at this server's tunnels; it tells `attached` when one comes."""
        self._server = server

    def open(
        self, bridges: Iterable[str], head: RequestHead, handler: StreamHandler, tried: set[Tunnel]
    ) -> Stream | None:
        """Open a stream at the first bridge that is attached and takes it.

        A detached session is passed over: whether its bridge comes back is not known, and one that does is waited
        for like any other.

        Args:
            bridges: Ids, best first.
            head: The request.
            handler: Of the stream.
            tried: Tunnels that refused this request; the one that takes it now is added.

        Returns:
            The stream, or None when none of the bridges is attached.

        Raises:
            BusyError: Some are attached and none takes it.
        """
        busy = False
        for bridge in bridges:
            for tunnel in [] if self._server is None else self._server.tunnels(bridge):
                if not tunnel.attached or tunnel.going_away is not None:
                    continue  # its bridge is changing over: the tunnel that follows is worth waiting for
                if tunnel in tried:
                    busy = True
                else:
                    try:
                        stream = tunnel.open(head, handler)
                    except LocalError:
                        busy = True
                        continue
                    tried.add(tunnel)
                    return stream
        if busy:
            raise BusyError
        return None

    def wait(
        self, bridges: Iterable[str], timeout: float, ready: Callable[[], None], expired: Callable[[], None]
    ) -> Waiter:
        """Have `ready` called once one of the bridges attaches, or `expired` after `timeout` seconds.

        Raises:
            BusyError: Too many wait already.
        """
        if len(self._waiters) >= self._max_waiting:
            raise BusyError

        def on_time() -> None:
            self.leave(waiter)
            expired()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(0.0 if self._closed else timeout, on_time)
        waiter = Waiter(frozenset(bridges), ready, expired, timer)
        self._waiters[id(waiter)] = waiter
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Wait no more; nothing is called."""
        waiter.timer.cancel()
        self._waiters.pop(id(waiter), None)

    def attached(self, bridge_id: str, tunnel: Tunnel) -> None:
        """Wake those who wait for this bridge, in the order in which they came."""
        for waiter in [w for w in self._waiters.values() if bridge_id in w.bridges]:
            if id(waiter) in self._waiters:
                self.leave(waiter)
                waiter.ready()

    def close(self) -> None:
        """Let nobody wait any longer: the proxy stops."""
        self._closed = True
        for waiter in list(self._waiters.values()):
            self.leave(waiter)
            waiter.expired()

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return len(self._waiters)
