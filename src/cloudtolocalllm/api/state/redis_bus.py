"""The bus of several replicas: Redis' publish and subscribe.

One connection does both (RESP3), so what is subscribed to before something is published in this process receives it,
by way of Redis and so once. Redis keeps nothing for who is away: when the connection was lost, every subscriber is
told to start afresh from the present state. What is published meanwhile waits, the newest MAX_OUTBOX of it.
"""

import asyncio
import contextlib
import json
import logging
from collections import Counter, deque
from typing import Any

from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from cloudtolocalllm.api.bus import (
    MAX_QUEUED,
    READY_TIMEOUT,
    BusClosedError,
    Message,
    QueuedSubscription,
    SlowSubscriberError,
)
from cloudtolocalllm.api.state import checks
from cloudtolocalllm.api.state.redis_address import RedisAddress
from cloudtolocalllm.runtime.backoff import Backoff

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 * 1024
"""Bytes of a message as JSON."""
MAX_OUTBOX = 1_000
"""Messages that wait to be published."""
BATCH = 100
"""Commands that are sent at once."""
CONNECT_TIMEOUT = 2.0
SEND_TIMEOUT = 5.0
HEARTBEAT = 4.0
"""Seconds of quiet after which the connection is tried."""
SILENCE = 10.0
"""Seconds without a sign of life after which the connection is given up."""

_AnyConnection = Connection | UnixDomainSocketConnection
_Command = tuple[str, ...] | tuple[str, str, bytes]


class RedisBus:
    """See `Bus`. `run` must be running for anything to move. One object belongs to one event loop."""

    def __init__(self, url: str, *, silence: float = SILENCE) -> None:
        """Make a bus.

        Args:
            url: See `RedisAddress.parse`. Replicas with the same database share a bus.
            silence: Seconds after which a connection on which nothing comes is given up.

        Raises:
            StateError: The URL is none of ours.
        """
        self._address = RedisAddress.parse(url)
        self._silence = silence
        # Channels know nothing of databases, so the name tells them apart.
        self._prefix = f"c2l:{self._address.database}:bus:"
        self._topics: dict[str, set[_Subscription]] = {}
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._dropped = 0
        self._changed: dict[str, None] = {}
        """Topics that were subscribed to or left and of which Redis was not told yet, in order."""
        self._asked: set[str] = set()
        """Topics that Redis was told to send."""
        self._unconfirmed: Counter[str] = Counter()
        """How many SUBSCRIBEs of a topic Redis has not answered yet."""
        self._work = asyncio.Event()
        self._connected = asyncio.Event()
        self._end = asyncio.Event()
        self._closed = False

    @property
    def is_connected(self) -> bool:
        """Whether messages come and go at this moment."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait until messages come and go, for as long as it takes."""
        await self._connected.wait()

    def publish(self, topic: str, message: Message) -> None:
        """See `Bus.publish`; the oldest message that waits is dropped when MAX_OUTBOX do.

        Raises:
            ValueError: The topic is no printable ASCII, or the message is larger than MAX_MESSAGE.
        """
        checks.check_names(topic)
        text = json.dumps(dict(message), separators=(",", ":")).encode()
        if len(text) > MAX_MESSAGE:
            raise ValueError(f"expected a message of at most {MAX_MESSAGE} bytes, got {len(text)}")
        if self._closed:
            return
        if len(self._outbox) >= MAX_OUTBOX:
            self._outbox.popleft()
            self._dropped += 1
        self._outbox.append((topic, text))
        self._work.set()

    def subscribe(self, topic: str, *, limit: int = MAX_QUEUED) -> "_Subscription":
        """See `Bus.subscribe`; `limit` is how many messages may wait.

        Raises:
            ValueError: The topic is no printable ASCII.
        """
        checks.check_names(topic)
        subscription = _Subscription(self, topic, limit)
        if self._closed:
            subscription.fail(BusClosedError())
            return subscription
        subscriptions = self._topics.setdefault(topic, set())
        subscriptions.add(subscription)
        if len(subscriptions) == 1:
            self._change(topic)
        elif self._is_confirmed(topic):
            subscription.confirm()
        return subscription

    def forget(self, topic: str, subscription: QueuedSubscription) -> None:
        """Drop a subscription."""
        subscriptions = self._topics.get(topic)
        if subscriptions is None or not isinstance(subscription, _Subscription):
            return
        subscriptions.discard(subscription)
        if not subscriptions:
            del self._topics[topic]
            self._change(topic)

    def close(self) -> None:
        """See `Bus.close`; `run` publishes what waits, if it can at once, and ends."""
        self._closed = True
        self._fail_all(BusClosedError())
        self._end.set()
        self._work.set()

    async def run(self) -> None:
        """See `Bus.run`; ends when the bus was closed, too."""
        backoff = Backoff(maximum=5.0)
        while not self._closed:
            connection = self._address.connection_class(**self._address.connection_options(protocol=3))
            try:
                await self._serve(connection, backoff)
            except* (RedisError, OSError) as group:  # TimeoutError is an OSError
                log.warning(
                    "the bus is not connected",
                    extra={"redis": self._address.label, "reason": type(group.exceptions[0]).__name__},
                )
            finally:
                self._disconnected()
                with contextlib.suppress(RedisError, OSError):
                    await connection.disconnect(nowait=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._end.wait()

    async def _serve(self, connection: _AnyConnection, backoff: Backoff) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        self._begin()
        log.info("the bus is connected", extra={"redis": self._address.label})
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(connection, backoff), name="bus reader")
            await self._write(connection)
            reading.cancel()

    def _begin(self) -> None:
        """Ask anew for every topic that someone waits to be told of, and tell the others that they missed some."""
        for subscriptions in tuple(self._topics.values()):
            for subscription in tuple(subscriptions):
                if not subscription.is_awaited:
                    subscription.fail(SlowSubscriberError("the bus was connected only after it was subscribed to"))
        self._changed = dict.fromkeys(self._topics)
        self._connected.set()
        self._work.set()

    def _disconnected(self) -> None:
        was_connected = self._connected.is_set()
        self._connected.clear()
        self._asked.clear()
        self._unconfirmed.clear()
        if was_connected:
            self._fail_all(SlowSubscriberError("the connection of the bus was lost"))
        self._changed.clear()

    # what goes out

    async def _write(self, connection: _AnyConnection) -> None:
        while True:
            commands = self._next_commands()
            if not commands:
                if self._closed:
                    return
                self._work.clear()
                try:
                    async with asyncio.timeout(min(HEARTBEAT, self._silence / 2)):
                        await self._work.wait()
                    continue
                except TimeoutError:
                    commands = [("PING",)]
            async with asyncio.timeout(SEND_TIMEOUT):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def _next_commands(self) -> list[_Command]:
        """Return what to tell Redis next: who subscribed comes before what was published later."""
        commands: list[_Command] = []
        while self._changed and len(commands) < BATCH:
            topic = next(iter(self._changed))
            del self._changed[topic]
            if topic in self._topics and topic not in self._asked:
                self._asked.add(topic)
                self._unconfirmed[topic] += 1
                commands.append(("SUBSCRIBE", self._prefix + topic))
            elif topic not in self._topics and topic in self._asked:
                self._asked.remove(topic)
                commands.append(("UNSUBSCRIBE", self._prefix + topic))
            elif self._is_confirmed(topic):
                self._confirm(topic)  # left and subscribed to again before Redis heard of it
        if self._dropped:
            log.warning("messages were dropped, as too many waited", extra={"messages": self._dropped})
            self._dropped = 0
        while self._outbox and not self._changed and len(commands) < BATCH:
            topic, text = self._outbox.popleft()
            commands.append(("PUBLISH", self._prefix + topic, text))
        return commands

    def _change(self, topic: str) -> None:
        if self._connected.is_set():  # else `_begin` looks at all of them
            self._changed[topic] = None
            self._work.set()

    # what comes in

    async def _read(self, connection: _AnyConnection, backoff: Backoff) -> None:
        while True:
            async with asyncio.timeout(self._silence):
                found = await connection.read_response(push_request=True)
            backoff.reset()  # only now, for one that connects us and then refuses must not be asked without a pause
            if isinstance(found, list) and len(found) == 3:
                self._take(found)

    def _take(self, push: list[Any]) -> None:
        kind, channel, data = push
        topic = channel.decode(errors="replace").removeprefix(self._prefix)
        if kind == b"message":
            self._deliver(topic, data)
        elif kind == b"subscribe":
            self._unconfirmed[topic] -= 1
            if self._unconfirmed[topic] <= 0:
                del self._unconfirmed[topic]
            if self._is_confirmed(topic):
                self._confirm(topic)

    def _deliver(self, topic: str, data: bytes) -> None:
        subscriptions = self._topics.get(topic)
        if not subscriptions:
            return
        message = _parse(data)
        if message is None:
            log.error("a message on the bus is none of ours", extra={"bytes": len(data)})
            return
        for subscription in tuple(subscriptions):
            subscription.put(message)

    def _is_confirmed(self, topic: str) -> bool:
        return topic in self._asked and topic not in self._unconfirmed and topic not in self._changed

    def _confirm(self, topic: str) -> None:
        for subscription in self._topics.get(topic, ()):
            subscription.confirm()

    def _fail_all(self, error: Exception) -> None:
        for subscriptions in tuple(self._topics.values()):
            for subscription in tuple(subscriptions):
                subscription.fail(error)


class _Subscription(QueuedSubscription):
    def __init__(self, bus: RedisBus, topic: str, limit: int) -> None:
        super().__init__(bus, topic, limit)
        self._settled = asyncio.Event()
        self.is_awaited = False

    async def ready(self) -> None:
        self.is_awaited = True
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self._settled.wait()
        except TimeoutError:
            raise SlowSubscriberError(f"the bus was not connected within {READY_TIMEOUT:g} s") from None
        finally:
            self.is_awaited = False
        await super().ready()

    def confirm(self) -> None:
        self._settled.set()

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self._settled.set()


def _parse(data: bytes) -> dict[str, str] | None:
    try:
        found = json.loads(data) if len(data) <= MAX_MESSAGE else None
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
        return found
    return None
