"""Every control connection of this process: who they are, what they say, and what they are told."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from cloudtolocalllm.api import key_news
from cloudtolocalllm.api.browser import AmbiguousError, Fields, fields_of
from cloudtolocalllm.api.bus import CONTROL, Bus, BusClosedError, Message, SlowSubscriberError, Subscription
from cloudtolocalllm.api.control_socket import (
    HELLO_TIMEOUT,
    POLICY,
    SERVICE_RESTART,
    ControlSocket,
    Refusal,
    expects_hello,
)
from cloudtolocalllm.api.identity import BridgeRefusedError, BridgeVerifier, Identifier, Identity, is_bridge
from cloudtolocalllm.api.presence import Presence, Presences
from cloudtolocalllm.api.registry import Registry
from cloudtolocalllm.api.revocations import Revocations, blocked_member, bridge_member, named
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.api.waker import Waker
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import ControlMessageError, Hello, KeyRevoked, Revoked, Wake, Welcome
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet

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
        verifier: BridgeVerifier,
        presences: Presences,
        registry: Registry,
        revocations: Revocations,
        waker: Waker,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._identifier = identifier
        self._verifier = verifier
        self._presences = presences
        self._registry = registry
        self._revocations = revocations
        revocations.on_new(self._cut)
        self._waker = waker
        self._bus = bus
        self._clock = clock
        self._unknown: set[ControlSocket] = set()
        self._known: dict[str, list[ControlSocket]] = {}
        self._closing = False
        self._admissions = TaskSet(limit=2 * MAX_UNKNOWN)
        self._empty = asyncio.Event()
        """Set once the hub is closing and no connection is left."""

    def __len__(self) -> int:
        return len(self._unknown) + sum(len(sockets) for sockets in self._known.values())

    def start(self, coroutine: Coroutine[None, None, None]) -> bool:
        """See `control_socket.Hub.start`."""
        try:
            self._admissions.start(coroutine, "admitting a bridge")
        except RuntimeError:
            return False
        return True

    def protocol(self, **_: Any) -> ControlSocket:
        """Make the protocol of one connection; uvicorn calls it as its WebSocket class."""
        return ControlSocket(self)

    # what the bus says

    async def listen(self) -> None:
        """Pass on what the bus has for bridges until it is closed."""
        while True:
            subscription = self._bus.subscribe(CONTROL)
            try:
                if await _is_ready(subscription):
                    while True:
                        self._tell(await subscription.get())
            except BusClosedError:
                return
            except SlowSubscriberError as error:
                # Lost wake-ups are sent again with the user's next request; revocations come by another way too.
                log.warning("fell behind the bus", extra={"reason": str(error)})
            finally:
                subscription.close()

    def _tell(self, message: Message) -> None:
        for socket in tuple(self._known.get(message.get("bridge", ""), ())):
            if message["do"] == "wake":
                socket.send(Wake(message["instance"], self._verifier.nonce()))
            elif message["do"] == "revoke":
                _revoke(socket)
            elif message["do"] == key_news.ADDED:
                socket.send(key_news.read_added(message))

    def _cut(self, members: frozenset[str]) -> None:
        """Cut the bridges among what was revoked, and tell the others which of their user's keys were."""
        for bridge in named(members, bridge_member):
            for socket in tuple(self._known.get(bridge, ())):
                _revoke(socket)
        blocked, keys = named(members, blocked_member), key_news.keys_by_user(members)
        if not blocked and not keys:
            return
        for sockets in tuple(self._known.values()):
            for socket in tuple(sockets):
                user = socket.presence.user if socket.presence is not None else ""
                if user in blocked:  # not revoked: should the block be lifted, its bridges come back by themselves
                    socket.close(POLICY, "the account is blocked")
                for key in keys.get(user, ())[: key_news.MAX_TOLD]:
                    socket.send(KeyRevoked(key))

    # time

    async def sweep_forever(self) -> None:
        """Cut dead connections, once a SWEEP_INTERVAL."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep()

    def sweep(self) -> None:
        """Cut connections that are silent for DEAD_AFTER, said no hello in time, or outlived their credential."""
        now = self.now()
        wall = self._clock.wall()
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
                elif socket.presence is not None and socket.presence.expires <= wall:
                    socket.close(POLICY, "the credential has expired")

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
        await self._admissions.close()

    def _all(self) -> list[ControlSocket]:
        return [*self._unknown, *(socket for sockets in self._known.values() for socket in sockets)]

    # what the connections say (control_socket.Hub)

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock.monotonic()

    async def admit(self, path: str, headers: list[tuple[bytes, bytes]]) -> Identity:
        """See `control_socket.Hub.admit`."""
        if path.partition("?")[0] != CONTROL_TARGET:
            raise Refusal(Problem.NOT_FOUND, "This server has no such WebSocket route.")
        try:
            fields = fields_of(headers)
            identity = await self._who(fields)
        except AmbiguousError as error:
            raise Refusal(Problem.BAD_REQUEST, f"{error}.") from None
        except StateUnavailableError as error:
            log.warning("the state does not answer", extra={"cause": str(error)})
            raise Refusal(Problem.OVERLOADED, "Come back in a moment.") from None
        except BridgeRefusedError as error:
            nonce = self._verifier.nonce()
            raise Refusal(Problem.UNAUTHENTICATED, error.detail, nonce=nonce, error=error.error) from None
        if identity is None:
            nonce = self._verifier.nonce()
            raise Refusal(
                Problem.UNAUTHENTICATED, "Expected a bridge's credential.", nonce=nonce, error="invalid_token"
            )
        if b"origin" in fields:
            raise Refusal(Problem.FORBIDDEN, "No web page may open this connection.")
        if self._closing or len(self._unknown) > MAX_UNKNOWN:
            raise Refusal(Problem.OVERLOADED, "Come back in a moment.")
        return identity

    async def _who(self, fields: Fields) -> Identity | None:
        if is_bridge(fields):
            return await self._verifier.verify(fields, method="GET", path=CONTROL_TARGET)
        if self._identifier.identify(fields) is not None:
            raise Refusal(Problem.FORBIDDEN, "Only a bridge's own credential opens this connection.")
        return None

    def opened(self, socket: ControlSocket) -> None:
        """See `control_socket.Hub.opened`."""
        self._unknown.add(socket)

    def said(self, socket: ControlSocket, message: control.Message) -> None:
        """See `control_socket.Hub.said`."""
        if socket.presence is None:
            self._welcome(socket, expects_hello(message))
        elif isinstance(message, control.Presence):
            if message.engines != socket.presence.engines:
                self._presences.update(socket.presence, message.engines)
                self._registry.note(socket.presence)
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
        self._presences.leave(presence)
        self._registry.note(presence, farewell=socket.said_farewell)
        log.info("bridge left", extra={"bridge": bridge, "seconds": round(self.now() - socket.opened_at, 1)})

    def _welcome(self, socket: ControlSocket, hello: Hello) -> None:
        identity = socket.identity
        # It may have been revoked between the upgrade and the hello, when `_tell` did not know the socket yet.
        if identity is None or not self._identifier.still_holds(identity):
            if identity is not None and self._revocations.holds(bridge_member(identity.subject)):
                _revoke(socket)
            else:  # expired, or its user is blocked: what comes back with it may be let in again
                socket.close(POLICY, "the credential does not hold now")
            return
        self._unknown.discard(socket)
        sockets = self._known.setdefault(identity.subject, [])
        while len(sockets) >= MAX_PER_BRIDGE:
            oldest = sockets[0]
            oldest.close(POLICY, f"expected at most {MAX_PER_BRIDGE} connections of one bridge")
            sockets.remove(oldest)
            self._unknown.add(oldest)
        sockets.append(socket)
        presence = Presence(
            identity.subject, identity.user, self._clock.wall(), hello.version, hello.engines,
            name=hello.name, expires=identity.expires or 0.0,
        )  # fmt: skip
        socket.presence = presence
        socket.send(Welcome(identity.subject, self._verifier.nonce()))
        for key in self._revocations.keys_of(identity.user)[: key_news.MAX_TOLD]:
            socket.send(KeyRevoked(key))
        self._presences.join(presence)
        self._registry.note(presence, joined=True)
        self._waker.connected(presence.user, presence.bridge, presence.since)
        log.info("bridge came", extra={"bridge": presence.bridge, "version": presence.version})


async def _is_ready(subscription: Subscription) -> bool:
    """Return whether the bus got connected; nobody misses anything before that, and the bus itself says why."""
    try:
        await subscription.ready()
    except SlowSubscriberError:
        return False
    return True


def _revoke(socket: ControlSocket) -> None:
    if not socket.is_open:
        return  # told already, by one of the two ways: to cut it now would lose what it was told
    socket.send(Revoked())
    socket.close(POLICY, "the credential was revoked")


def _bridge(socket: ControlSocket) -> str | None:
    return socket.presence.bridge if socket.presence else None
