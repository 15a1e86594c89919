"""Every control connection of this process: who they are, what they say, and what they are told."""

import asyncio
import contextlib
import logging
from typing import Any

from cloudtolocalllm.api.browser import AmbiguousError, fields_of
from cloudtolocalllm.api.bus import CONTROL, Bus, BusClosedError, Message, SlowSubscriberError
from cloudtolocalllm.api.control_socket import (
    HELLO_TIMEOUT,
    POLICY,
    SERVICE_RESTART,
    ControlSocket,
    Refusal,
    expects_hello,
)
from cloudtolocalllm.api.identity import Identifier, Identity, Via
from cloudtolocalllm.api.presence import Presence, Presences
from cloudtolocalllm.api.recorder import Recorder
from cloudtolocalllm.api.store import Store
from cloudtolocalllm.api.waker import Waker
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import ControlMessageError, Hello, Revoked, Wake, Welcome
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

CONTROL_TARGET = "/ws/bridge"
SWEEP_INTERVAL = 1.0
"""Seconds between looks at which connections are dead: one is noticed within DEAD_AFTER + SWEEP_INTERVAL = 13 s."""
MAX_PER_BRIDGE = 4
"""Connections of one bridge at once; a fifth costs the oldest. A bridge needs one, two while it reconnects."""
MAX_UNKNOWN = 1_000
"""Connections that did not say hello yet."""


class ControlHub:
    """Owns the control connections."""

    def __init__(
        self,
        identifier: Identifier,
        store: Store,
        presences: Presences,
        recorder: Recorder,
        waker: Waker,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._identifier = identifier
        self._store = store
        self._presences = presences
        self._recorder = recorder
        self._waker = waker
        self._bus = bus
        self._clock = clock
        self._unknown: set[ControlSocket] = set()
        self._known: dict[str, list[ControlSocket]] = {}
        self._closing = False
        self._empty = asyncio.Event()
        """Set once the hub is closing and no connection is left."""

    def __len__(self) -> int:
        return len(self._unknown) + sum(len(sockets) for sockets in self._known.values())

    def protocol(self, **_: Any) -> ControlSocket:
        """Make the protocol of one connection; uvicorn calls it as its WebSocket class."""
        return ControlSocket(self)

    # what the bus says

    async def listen(self) -> None:
        """Pass on what the bus has for bridges until it is closed."""
        while True:
            subscription = self._bus.subscribe(CONTROL)
            try:
                while True:
                    self._tell(await subscription.get())
            except BusClosedError:
                return
            except SlowSubscriberError:
                # Lost wake-ups are sent again with the user's next request; revocations are looked up.
                log.exception("fell behind the bus")
                self._cut_revoked()
            finally:
                subscription.close()

    def _tell(self, message: Message) -> None:
        for socket in tuple(self._known.get(message["bridge"], ())):
            if message["do"] == "wake":
                socket.send(Wake(message["instance"]))
            elif message["do"] == "revoke":
                _revoke(socket)

    def _cut_revoked(self) -> None:
        paired = self._store.bridge_ids()
        for bridge in [bridge for bridge in self._known if bridge not in paired]:
            for socket in tuple(self._known[bridge]):
                _revoke(socket)

    # time

    async def sweep_forever(self) -> None:
        """Cut dead connections and write sightings down, once a SWEEP_INTERVAL."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep()
            if self._store.changed_elsewhere():  # the command line may have removed a bridge
                self._cut_revoked()
            self._recorder.flush()

    def sweep(self) -> None:
        """Cut the connections that are silent for DEAD_AFTER or did not say hello in time."""
        now = self.now()
        for socket in tuple(self._unknown):
            if now - socket.opened_at > HELLO_TIMEOUT:
                log.info("no hello in time")
                socket.abort()
        for sockets in tuple(self._known.values()):
            for socket in tuple(sockets):
                socket.messages = 0
                if now - socket.heard > control.DEAD_AFTER:
                    log.info("bridge is silent", extra={"bridge": _bridge(socket)})
                    socket.abort()

    async def close(self, grace: float) -> None:
        """Ask every bridge to come back later, wait up to `grace` seconds for them to go, then cut."""
        self._closing = True
        self._note_empty()
        for socket in self._all():
            socket.close(SERVICE_RESTART, "restarting")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._empty.wait()
        for socket in self._all():
            socket.abort()

    def _all(self) -> list[ControlSocket]:
        return [*self._unknown, *(socket for sockets in self._known.values() for socket in sockets)]

    # what the connections say (control_socket.Hub)

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock.monotonic()

    def admit(self, path: str, headers: list[tuple[bytes, bytes]]) -> Identity:
        """See `control_socket.Hub.admit`."""
        if path.partition("?")[0] != CONTROL_TARGET:
            raise Refusal(Problem.NOT_FOUND, "This server has no such WebSocket route.")
        try:
            fields = fields_of(headers)
            identity = self._identifier.identify(fields)
        except AmbiguousError as error:
            raise Refusal(Problem.BAD_REQUEST, f"{error}.") from None
        if identity is None:
            raise Refusal(Problem.UNAUTHENTICATED, "The bridge's credential is not valid; pair it again.")
        if identity.via is not Via.BRIDGE:
            raise Refusal(Problem.FORBIDDEN, "Only a bridge's own credential opens this connection.")
        if b"origin" in fields:
            raise Refusal(Problem.FORBIDDEN, "No web page may open this connection.")
        if self._closing or len(self._unknown) > MAX_UNKNOWN:
            raise Refusal(Problem.OVERLOADED, "Come back in a moment.")
        return identity

    def opened(self, socket: ControlSocket) -> None:
        """See `control_socket.Hub.opened`."""
        self._unknown.add(socket)

    def said(self, socket: ControlSocket, message: control.Message) -> None:
        """See `control_socket.Hub.said`."""
        if socket.presence is None:
            self._welcome(socket, expects_hello(message))
        elif isinstance(message, control.Presence):
            self._presences.update(socket.presence, message.engines)
        else:
            raise ControlMessageError("expected presence")

    def closed(self, socket: ControlSocket) -> None:
        """See `control_socket.Hub.closed`."""
        self._unknown.discard(socket)
        if socket.presence is not None:
            self._left(socket, socket.presence)
        self._note_empty()

    def _note_empty(self) -> None:
        if self._closing and not self._unknown and not self._known:
            self._empty.set()

    def _left(self, socket: ControlSocket, presence: Presence) -> None:
        bridge = presence.bridge
        sockets = self._known.get(bridge, [])
        if socket in sockets:  # else it was displaced
            sockets.remove(socket)
            if not sockets:
                del self._known[bridge]
        self._recorder.bridge_seen(bridge, presence.version)
        self._presences.leave(presence)
        log.info("bridge left", extra={"bridge": bridge, "seconds": round(self.now() - socket.opened_at, 1)})

    def _welcome(self, socket: ControlSocket, hello: Hello) -> None:
        identity = socket.identity
        # It may have been revoked between the upgrade and the hello, when `_tell` did not know the socket yet.
        if identity is None or not self._identifier.still_holds(identity):
            _revoke(socket)
            return
        self._unknown.discard(socket)
        sockets = self._known.setdefault(identity.subject, [])
        while len(sockets) >= MAX_PER_BRIDGE:
            oldest = sockets[0]
            oldest.close(POLICY, f"expected at most {MAX_PER_BRIDGE} connections of one bridge")
            sockets.remove(oldest)
            self._unknown.add(oldest)
        sockets.append(socket)
        presence = Presence(identity.subject, identity.user, self._clock.wall(), hello.version, hello.engines)
        socket.presence = presence
        self._recorder.bridge_seen(presence.bridge, presence.version)
        socket.send(Welcome(identity.subject))
        self._presences.join(presence)
        self._waker.connected(presence.user, presence.bridge, presence.since)
        log.info("bridge came", extra={"bridge": presence.bridge, "version": presence.version})


def _revoke(socket: ControlSocket) -> None:
    socket.send(Revoked())
    socket.close(POLICY, "the credential was revoked")


def _bridge(socket: ControlSocket) -> str | None:
    return socket.presence.bridge if socket.presence else None
