"""What was voided before its time. A mirror in memory, the same in every replica, so that asking costs nothing.

A revocation is told on the bus and is in the state; whoever missed the message finds it there within RELOAD_INTERVAL.
Each is kept until what it voids would have expired by itself.
"""

import asyncio
import logging
from collections.abc import Callable

from cloudtolocalllm.api.bus import Bus, BusClosedError, SlowSubscriberError, Subscription
from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.auth import sessions, tokens
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

GROUP = "revoked"
TOPIC = "revoked"
RELOAD_INTERVAL = 1.0
"""Seconds between two looks at the state: with the bus, a revocation holds everywhere within a moment, without it
within this time."""
WHOLE_INTERVAL = 60.0
"""Seconds after which all of them are read anew even if nothing changed, and those that ended are forgotten."""
MARK = "revoked"
"""The value by which a look at the state costs little: `ERA.CHANGE`, random both. With each revocation CHANGE is
another. ERA stays until the state is lost, upon which every replica puts back what it knows."""
MARK_TTL = 399 * 24 * 3600.0


def bridge_member(bridge: str) -> str:
    """Return under which name a bridge is revoked."""
    return f"bridge:{bridge}"


def key_member(user: str, key: str) -> str:
    """Return under which name a user's API key is revoked; another user's key with this id is not meant."""
    return f"key:{user}:{key}"


def session_member(session: str) -> str:
    """Return under which name a session is revoked."""
    return f"session:{session}"


def provider_session_member(hidden: str) -> str:
    """Return under which name all sessions that came of one session with the provider are revoked."""
    return f"provider-session:{hidden}"


BLOCK_LIFETIME = 366 * 24 * 3600.0
"""Seconds for which a user is kept out: as long as the longest-lived API key."""


def blocked_member(user: str) -> str:
    """Return under which name a user is kept out."""
    return f"blocked:{user}"


def user_member(user: str) -> str:
    """Return under which name all of a user's sessions up to a time are revoked."""
    return f"user:{user}"


_LONG_LIVED = ("key:", blocked_member(""))
"""Of what may live as long as BLOCK_LIFETIME; everything else ends with a session or a bridge's credential."""


def named(members: frozenset[str], kind: Callable[[str], str]) -> frozenset[str]:
    """Return the names among members that a function of this module with one argument made.

    Args:
        members: Of any kind.
        kind: The function, such as `bridge_member`.
    """
    prefix = kind("")
    return frozenset(member.removeprefix(prefix) for member in members if member.startswith(prefix))


class Revocations:
    """The living revocations."""

    def __init__(self, state: State, bus: Bus, clock: Clock) -> None:
        """Make a mirror that is empty until `load`.

        Args:
            state: Where they are kept.
            bus: Where they are told.
            clock: For their expiry.
        """
        self._state = state
        self._bus = bus
        self._clock = clock
        self._members: dict[str, bytes] = {}
        self._heard: dict[str, bytes | None] = {}
        """What was told since the last look at the state began, which that look may have missed; None for lifted."""
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._mark = b""
        """As it was before all of them were last read; empty before the first time."""
        self._whole_at = 0.0
        """Monotonic seconds when all of them are to be read again."""

    def __len__(self) -> int:
        return len(self._members)

    def on_new(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Have `listener` called with the members that were not known before."""
        self._listeners.append(listener)

    def holds(self, member: str) -> bool:
        """Tell whether something is revoked."""
        return member in self._members

    def keys_of(self, user: str) -> list[str]:
        """Return the ids of a user's revoked API keys."""
        prefix = key_member(user, "")
        return [member.removeprefix(prefix) for member in self._members if member.startswith(prefix)]

    def voids_session(self, session: str, user: str, issued: float, provider_session: str = "") -> bool:
        """Tell whether a session was ended, by itself or with all of its user's.

        Args:
            session: Its id.
            user: Whose it is.
            issued: When it began, in seconds since the epoch.
            provider_session: What stands for the provider's session that it came of; empty for none.
        """
        members = self._members
        if not members:
            return False
        if session_member(session) in members:
            return True
        if provider_session and provider_session_member(provider_session) in members:
            return True
        before = members.get(user_member(user))
        return before is not None and issued < float(before)

    async def add(self, member: str, expires: float, *, value: bytes = b"1") -> None:
        """Revoke something in every replica.

        Args:
            member: Made by a function of this module.
            expires: When what it voids would have ended by itself, in seconds since the epoch.
            value: For `user_member`, the time up to which its sessions are void.

        Raises:
            StateUnavailableError: It could not be written, or not that it was; to be tried again.
        """
        ttl = expires - self._clock.wall()
        if ttl <= 0:
            return
        await self._state.add(GROUP, member, value, ttl)
        self._hear(member, value)
        self._bus.publish(TOPIC, {"member": member, "value": value.decode()})
        await self._mark_change()

    async def lift(self, member: str) -> bool:
        """Take a revocation back in every replica; False when there was none.

        Raises:
            StateUnavailableError: It could not be; it goes on to hold.
        """
        found = await self._state.remove(GROUP, member) is not None
        self._hear(member, None)
        self._bus.publish(TOPIC, {"member": member, "value": ""})
        await self._mark_change()
        return found

    async def revoke_user(self, user: str, *, before: float, lifetime: float) -> None:
        """Void a user's sessions that began before a time.

        Args:
            user: Whose.
            before: Seconds since the epoch.
            lifetime: Seconds for which a session could have lived on.
        """
        await self.add(user_member(user), before + lifetime, value=repr(before).encode())

    async def load(self) -> None:
        """Read all of them anew.

        Raises:
            StateUnavailableError: They cannot be read; those known before go on to hold.
        """
        mark = await self._state.get(MARK)
        if mark is None:
            mark = _new_mark(tokens.random_id(tokens.ID_LENGTH))
            await self._state.put(
                MARK, mark, MARK_TTL, only_new=True
            )  # if there is one by now, the next look sees it
        if self._mark and _era(mark) != _era(self._mark):
            mark = await self._restore(mark)
        self._heard = {}
        (members,) = await self._state.members(GROUP)
        for member, value in self._heard.items():
            if value is None:
                members.pop(member, None)
            else:
                members[member] = value
        self._mark = mark
        self._whole_at = self._clock.monotonic() + WHOLE_INTERVAL
        self._take(members)

    async def look(self) -> None:
        """Read all of them anew if any was added or lifted since the last time.

        Raises:
            StateUnavailableError: That cannot be told; those known before go on to hold.
        """
        if self._clock.monotonic() >= self._whole_at or await self._state.get(MARK) != self._mark:
            await self.load()

    async def _mark_change(self) -> None:
        mark = await self._state.get(MARK)
        era = tokens.random_id(tokens.ID_LENGTH) if mark is None else _era(mark)
        await self._state.put(MARK, _new_mark(era), MARK_TTL)

    async def _restore(self, mark: bytes) -> bytes:
        """Put back what the state lost; without their expiries, for as long as the longest-lived of their kind.

        Returns:
            The mark by now: another if something was put back, so that every replica looks.
        """
        log.warning("the state was lost; putting back the revocations that are known here")
        (living,) = await self._state.members(GROUP)
        lost = {member: value for member, value in self._members.items() if member not in living}
        for member, value in lost.items():
            ttl = BLOCK_LIFETIME if member.startswith(_LONG_LIVED) else sessions.LIFETIME
            await self._state.add(GROUP, member, value, ttl)
        if lost:
            mark = _new_mark(_era(mark))
            await self._state.put(MARK, mark, MARK_TTL)
        return mark

    async def follow(self) -> None:
        """Keep the mirror true until the bus is closed."""
        subscription = self._bus.subscribe(TOPIC)
        try:
            while True:
                try:
                    subscription = await self._listen(subscription)
                except BusClosedError:
                    return
                try:
                    await self.look()
                except StateUnavailableError:
                    log.warning("revocations could not be read; those known go on to hold")
        finally:
            subscription.close()

    async def _listen(self, subscription: Subscription) -> Subscription:
        """Take messages for RELOAD_INTERVAL and return the subscription to go on with."""
        try:
            async with asyncio.timeout(RELOAD_INTERVAL):
                while True:
                    message = await subscription.get()
                    self._hear(message["member"], message["value"].encode() or None)
        except TimeoutError:
            return subscription
        except SlowSubscriberError:
            return self._bus.subscribe(TOPIC)

    def _hear(self, member: str, value: bytes | None) -> None:
        self._heard[member] = value
        members = {**self._members, member: value or b""}
        if value is None:
            del members[member]
        self._take(members)

    def _take(self, members: dict[str, bytes]) -> None:
        before = self._members
        new = frozenset(member for member, value in members.items() if before.get(member) != value)
        self._members = members
        if new:
            for listener in self._listeners:
                listener(new)


def _era(mark: bytes) -> str:
    return mark.decode("ascii", "replace").partition(".")[0]


def _new_mark(era: str) -> bytes:
    return f"{era}.{tokens.random_id(tokens.ID_LENGTH)}".encode()
