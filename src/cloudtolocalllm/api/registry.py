"""The bridges of each user, and which of them are connected to which replica.

Both are in the state and expire: a bridge with its credential, a connection with its replica. What this replica's own
connections say comes from memory, at once; what other replicas know comes from the state.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from cloudtolocalllm.api.bus import CONTROL, Bus, user_topic
from cloudtolocalllm.api.presence import Presence, Presences
from cloudtolocalllm.api.revocations import Revocations, bridge_member
from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.auth import credentials
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

MAX_NAME = 100
"""Characters of a bridge's or a key's name."""
MAX_BRIDGES = 100
"""Bridges of one user."""
REPLICAS = "replicas"
HEARTBEAT = 2.0
"""Seconds between two signs of life of a replica."""
REPLICA_TTL = 7.0
"""Seconds after which a replica that gave none counts as gone, and its bridges as not connected."""
PRESENCE_TTL = 3600.0
"""Seconds for which a connection's entry is kept; it is written again in half of that."""
MOVING_TTL = 3.0
"""Seconds for which the bridges of a replica that stops beside others count as connected: they move to those, and
whoever asks for one meanwhile is not told that it is offline. Most need less than one."""
RETURN_TIME = 15.0
"""Seconds after a connection broke off in which the bridge is likely to come back: when nginx was replaced, or its
own network changed. A killed nginx is back in two to six, and what waited for it comes before the bridge."""
REVOCATION_SLACK = 60.0
"""Seconds within which every replica knows of a revocation and renews no more."""
LEAVE_TIMEOUT = 2.0
"""Seconds for telling the other replicas what this one still knew when it stops."""


class TooManyBridgesError(Exception):
    """The user has MAX_BRIDGES already; the text says what to do."""


@dataclass(frozen=True, slots=True)
class BridgeRecord:
    """A paired bridge. Times are seconds since the epoch."""

    id: str
    user: str
    name: str
    created: float
    expires: float
    """When its credential ends, unless it is renewed."""
    last_seen: float | None = None
    """When it was last connected; None for never."""
    version: str | None = None
    """What it last said its version was."""
    left: bool = False
    """Whether it closed its last connection itself, so that nobody need wait for it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A bridge that is connected to some replica."""

    since: float
    """Seconds since the epoch."""
    version: str
    engines: tuple[EngineStatus, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A bridge and its connection, None when it has none."""

    record: BridgeRecord
    connection: Connection | None
    returning: bool = False
    """Whether it was connected a moment ago, so that it may be about to connect anew."""


def clean_name(text: str) -> str:
    """Return a name as it is kept and shown: printable, not empty, at most MAX_NAME characters."""
    return "".join(c for c in text if c.isprintable()).strip()[:MAX_NAME] or "unnamed"


class Registry:
    """Knows the bridges."""

    def __init__(
        self, state: State, presences: Presences, revocations: Revocations, bus: Bus, clock: Clock, *, replica: str
    ) -> None:
        """Make a registry.

        Args:
            state: What all replicas share.
            presences: This replica's own connections.
            revocations: Which bridges are void.
            bus: Tells the other replicas and the pages.
            clock: For expiry.
            replica: This process's id, unlike that of any other.
        """
        self._state = state
        self._presences = presences
        self._revocations = revocations
        self._bus = bus
        self._clock = clock
        self._replica = replica
        self._noted: dict[tuple[str, str], float | None] = {}
        self._something = asyncio.Event()
        self._beat_at = 0.0
        """Monotonic seconds of the next sign of life."""
        self._farewells: set[str] = set()
        """Bridges that closed their connection themselves, until that is written down."""
        self._moving = False
        """Whether the connections are about to move to other replicas."""
        self.on_joined: Callable[[str, str, float], Awaitable[None]] | None = None
        """Called with user, bridge and time once a new connection is known to the other replicas."""

    # what routes ask

    async def bridges(self, user: str) -> list[Known]:
        """Return a user's bridges, oldest first.

        Raises:
            StateUnavailableError: The state does not answer.
        """
        records, presences, replicas = await self._state.members(f"bridges/{user}", f"presence/{user}", REPLICAS)
        known = []
        for id_, value in records.items():
            if self._revocations.holds(bridge_member(id_)):
                continue
            record = _record(user, id_, json.loads(value))
            presence = presences.get(id_)
            connection = self._connection(id_, presence, replicas)
            known.append(Known(record, connection, connection is None and self._may_return(record, presence)))
        known.sort(key=lambda item: (item.record.created, item.record.id))
        return known

    async def find(self, user: str, bridge: str) -> Known | None:
        """Return one of a user's bridges; None when the user has none with this id."""
        return next((known for known in await self.bridges(user) if known.record.id == bridge), None)

    async def enrol(self, record: BridgeRecord) -> None:
        """Add a bridge that was paired, or one whose credential was renewed.

        Raises:
            TooManyBridgesError: The user has MAX_BRIDGES others.
        """
        if not await self._write(record):
            raise TooManyBridgesError(f"expected at most {MAX_BRIDGES} bridges, there are as many; remove one first")
        self._tell(record.user)

    async def rename(self, user: str, bridge: str, name: str) -> bool:
        """Rename a bridge; False when the user has none with this id."""
        known = await self.find(user, bridge)
        if known is None:
            return False
        await self._write(replace(known.record, name=clean_name(name)))
        self._tell(user)
        return True

    async def revoke(self, user: str, bridge: str) -> bool:
        """Void a bridge's credential and cut the bridge, whichever replica holds it.

        Returns:
            False when the user has no such bridge.
        """
        known = await self.find(user, bridge)
        if known is None:
            return False
        # Not the entry's own expiry: a renewal that is under way may have made a credential that lives longer.
        await self._revocations.add(
            bridge_member(bridge), self._clock.wall() + credentials.LIFETIME + REVOCATION_SLACK
        )
        await self._state.remove(f"bridges/{user}", bridge)
        await self._state.remove(f"presence/{user}", bridge)
        self._bus.publish(CONTROL, {"do": "revoke", "bridge": bridge})
        self._tell(user)
        return True

    # what this replica's connections say

    def note(self, presence: Presence, *, joined: bool = False, farewell: bool = False) -> None:
        """A connection came, changed or went: the other replicas will know in a moment.

        Args:
            presence: Whose.
            joined: Whether it is new.
            farewell: Whether the bridge closed it itself: it will not be back at once.
        """
        key = (presence.user, presence.bridge)
        if farewell:
            self._farewells.add(presence.bridge)
        elif joined:
            self._farewells.discard(presence.bridge)
        self._noted[key] = presence.since if joined else self._noted.get(key)
        self._something.set()

    async def run(self) -> None:
        """Write down what is noted, and give signs of life, until cancelled."""
        while True:
            await self._beat()
            await self._write_noted()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._beat_at - self._clock.monotonic())):
                    await self._something.wait()

    async def move(self) -> None:
        """Have the connections, which are about to be closed, count as they are until they are somewhere else.

        For MOVING_TTL, and only where there are other replicas to move to. `leave` must follow.
        """
        with contextlib.suppress(StateUnavailableError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                (replicas,) = await self._state.members(REPLICAS)
                self._moving = any(replica != self._replica for replica in replicas)

    async def leave(self) -> None:
        """Tell that this replica and its connections are gone, or will be in a moment: it stops."""
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                if self._moving:
                    await self._state.add(REPLICAS, self._replica, b"0", MOVING_TTL)
                else:
                    await self._state.remove(REPLICAS, self._replica)  # first: with it all of them count as gone
                while self._noted:
                    await self._write_next()
        except (StateUnavailableError, TimeoutError):
            log.warning("could not take leave; the other replicas notice within %g s", REPLICA_TTL)

    async def connected(self) -> int:
        """Return how many bridges are connected, all replicas together, as of their last signs of life.

        Raises:
            StateUnavailableError: The state does not answer.
        """
        (replicas,) = await self._state.members(REPLICAS)
        others = sum(int(value) for replica, value in replicas.items() if replica != self._replica)
        return others + len(self._presences)

    async def _beat(self) -> None:
        """Give a sign of life, if it is time."""
        now = self._clock.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + HEARTBEAT
        due = self._clock.wall() - PRESENCE_TTL / 2
        try:
            (replicas,) = await self._state.members(REPLICAS)
            await self._state.add(REPLICAS, self._replica, str(len(self._presences)).encode(), REPLICA_TTL)
        except StateUnavailableError:
            return
        # Without our last sign of life in it, the state may have been lost, and with it all that we ever wrote.
        anew = self._replica not in replicas
        for presence in self._presences.connected():
            if anew or presence.written < due:
                self.note(presence)

    async def _write_noted(self) -> None:
        self._something.clear()
        while self._noted:
            try:
                await self._write_next()
            except StateUnavailableError:
                log.warning("could not write down who is connected; trying again")
                return
            await self._beat()  # writing down ten thousand can take longer than we may be silent
            await asyncio.sleep(0)  # and others want to be served

    async def _write_next(self) -> None:
        user, bridge = key = next(iter(self._noted))
        joined = self._noted.pop(key)
        try:
            await self._write_one(user, bridge)
        except StateUnavailableError:
            # what was noted since is as good, but for when it joined
            self._noted[key] = joined if self._noted.get(key) is None else self._noted[key]
            raise
        if key not in self._noted:  # what was noted meanwhile may be another farewell
            self._farewells.discard(bridge)
        if joined is not None and self.on_joined is not None:
            await self.on_joined(user, bridge, joined)

    async def _write_one(self, user: str, bridge: str) -> None:
        presence = self._presences.of(bridge)
        records, presences, replicas = await self._state.members(f"bridges/{user}", f"presence/{user}", REPLICAS)
        if presence is not None and not self._is_superseded(presence, presences.get(bridge), replicas):
            presence.written = self._clock.wall()
            await self._state.add(f"presence/{user}", bridge, _encode(presence, self._replica), PRESENCE_TTL)
        await self._write_seen(user, bridge, presence, records.get(bridge))
        if presence is None:
            # After it was written down as seen: whoever looks in between is not to take it for long gone.
            await self._remove_presence(user, bridge, presences.get(bridge))
        self._tell(user)

    async def _remove_presence(self, user: str, bridge: str, value: bytes | None) -> None:
        if self._moving or not _is_of(value, self._replica):
            return  # while they move, the entry goes with ours of the replicas
        removed = await self._state.remove(f"presence/{user}", bridge)
        if removed is not None and not _is_of(removed, self._replica):
            # It came to another replica between our two steps, as it does when this one is restarted.
            await self._state.add(f"presence/{user}", bridge, removed, PRESENCE_TTL)

    def _is_superseded(self, presence: Presence, value: bytes | None, replicas: dict[str, bytes]) -> bool:
        """Tell whether the bridge is connected to another replica since later: ours is the half-dead connection."""
        if value is None:
            return False
        entry = json.loads(value)
        other = entry["replica"]
        return other != self._replica and other in replicas and float(entry["since"]) > presence.since

    async def _write_seen(self, user: str, bridge: str, presence: Presence | None, value: bytes | None) -> None:
        if self._revocations.holds(bridge_member(bridge)):
            return  # or its entry, read before it was removed, would come back
        now = self._clock.wall()
        if value is not None:
            record = _record(user, bridge, json.loads(value))
            version = presence.version if presence else record.version
            left = presence is None and bridge in self._farewells
            await self._write(replace(record, last_seen=now, version=version, left=left))
        elif presence is not None:
            # Its credential holds, so the state was lost: the bridge brings its entry back.
            name = clean_name(presence.name)
            await self._write(
                BridgeRecord(bridge, user, name, now, presence.expires, last_seen=now, version=presence.version)
            )

    def _connection(self, bridge: str, value: bytes | None, replicas: dict[str, bytes]) -> Connection | None:
        own = self._presences.of(bridge)
        if own is not None:
            return Connection(own.since, own.version, own.engines)
        if value is None:
            return None
        entry = json.loads(value)
        if entry["replica"] == self._replica and not self._moving:
            return None
        if entry["replica"] not in replicas:
            return None
        engines = tuple(EngineStatus(e[0], EngineKind(e[1]), EngineState(e[2])) for e in entry["engines"])
        return Connection(entry["since"], entry["version"], engines)

    def _may_return(self, record: BridgeRecord, presence: bytes | None) -> bool:
        """Tell whether a bridge that is not connected was cut off just now; our own entry is about to be removed."""
        if record.left or record.id in self._farewells:
            return False
        just_seen = record.last_seen is not None and self._clock.wall() - record.last_seen < RETURN_TIME
        return just_seen or _is_of(presence, self._replica)

    async def _write(self, record: BridgeRecord) -> bool:
        value = json.dumps(
            {
                "name": record.name,
                "created": record.created,
                "expires": record.expires,
                "last_seen": record.last_seen,
                "version": record.version,
                "left": record.left,
            }
        )
        ttl = record.expires - self._clock.wall()
        if ttl <= 0:
            return True
        return await self._state.add(f"bridges/{record.user}", record.id, value.encode(), ttl, limit=MAX_BRIDGES)

    def _tell(self, user: str) -> None:
        self._bus.publish(user_topic(user), {"changed": "bridge"})


def _encode(presence: Presence, replica: str) -> bytes:
    engines = [(e.id, e.kind.value, e.state.value) for e in presence.engines]
    value = {"since": presence.since, "version": presence.version, "engines": engines, "replica": replica}
    return json.dumps(value).encode()


def _is_of(value: bytes | None, replica: str) -> bool:
    return value is not None and json.loads(value)["replica"] == replica


def _record(user: str, id_: str, value: dict[str, Any]) -> BridgeRecord:
    return BridgeRecord(
        id_, user, value["name"], value["created"], value["expires"], value["last_seen"], value["version"],
        value.get("left", False),
    )  # fmt: skip
