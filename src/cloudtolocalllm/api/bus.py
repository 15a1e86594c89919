"""How the API's replicas tell each other what happened; here for one process.

A message says that something changed; nothing depends on every message arriving. A subscriber that cannot keep
up is dropped with an error rather than slowing the publisher or growing without bound: it starts afresh from the
present state.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

Message = Mapping[str, str]

CONTROL = "control"
"""Topic: what to tell a bridge. Members `do` ("wake" or "revoke"), `bridge`, and for wake `instance`."""
MAX_QUEUED = 1_000
"""Messages that wait for one subscriber."""
READY_TIMEOUT = 2.0
"""Seconds that a new subscriber waits for the bus to be connected."""


def user_topic(user: str) -> str:
    """Return the topic on which changes of one user's status are told."""
    return f"user/{user}"


class SlowSubscriberError(Exception):
    """The subscriber missed messages and was dropped; subscribe again and read the present state."""


class BusClosedError(Exception):
    """The bus was closed, because the service stops."""


class Subscription(Protocol):
    """Messages of one topic, in order; of other replicas those published once `ready` has returned."""

    async def ready(self) -> None:
        """Wait until nothing is missed any more, for a subscriber that reads the present state next.

        Raises:
            SlowSubscriberError: The bus is not connected and was not within READY_TIMEOUT.
            BusClosedError: There will be none.
        """
        ...

    async def get(self) -> Message:
        """Return the next message.

        Raises:
            SlowSubscriberError: Too many waited, or the connection that brings them was lost, or made only after
                this subscription, which `ready` had not waited for.
            BusClosedError: There will be none.
        """
        ...

    def close(self) -> None:
        """Take no more."""


class Bus(Protocol):
    """Publish and subscribe."""

    def publish(self, topic: str, message: Message) -> None:
        """Tell every subscriber of a topic, soon; never waits."""

    def subscribe(self, topic: str) -> Subscription:
        """Begin to receive a topic's messages."""
        ...

    async def run(self) -> None:
        """Carry messages between replicas until cancelled; within one process there is nothing to do."""

    def close(self) -> None:
        """End every subscription."""


class LocalBus:
    """A bus within one process."""

    def __init__(self) -> None:
        self._topics: dict[str, set[QueuedSubscription]] = {}
        self._closed = False

    def publish(self, topic: str, message: Message) -> None:
        """See `Bus.publish`."""
        for subscription in tuple(self._topics.get(topic, ())):
            subscription.put(message)

    async def run(self) -> None:
        """See `Bus.run`."""

    def subscribe(self, topic: str, *, limit: int = MAX_QUEUED) -> "QueuedSubscription":
        """See `Bus.subscribe`; `limit` is how many messages may wait."""
        subscription = QueuedSubscription(self, topic, limit)
        if self._closed:
            subscription.fail(BusClosedError())
        else:
            self._topics.setdefault(topic, set()).add(subscription)
        return subscription

    def close(self) -> None:
        """See `Bus.close`."""
        self._closed = True
        for subscriptions in tuple(self._topics.values()):
            for subscription in tuple(subscriptions):
                subscription.fail(BusClosedError())

    def forget(self, topic: str, subscription: "QueuedSubscription") -> None:
        """Drop a subscription."""
        subscriptions = self._topics.get(topic)
        if subscriptions is not None:
            subscriptions.discard(subscription)
            if not subscriptions:
                del self._topics[topic]

    @property
    def topics(self) -> int:
        """Topics with a subscriber."""
        return len(self._topics)


class _Owner(Protocol):
    def forget(self, topic: str, subscription: "QueuedSubscription") -> None: ...


class QueuedSubscription:
    """A subscription whose bus puts messages into it."""

    def __init__(self, bus: _Owner, topic: str, limit: int) -> None:
        self._bus = bus
        self._topic = topic
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(limit + 1)
        self._limit = limit
        self._error: Exception | None = None

    def put(self, message: Message) -> None:
        """Have a message wait for the subscriber, or drop a subscriber that too many wait for."""
        if self._queue.qsize() >= self._limit:
            self.fail(SlowSubscriberError(f"expected at most {self._limit} messages to wait"))
        else:
            self._queue.put_nowait(message)

    def fail(self, error: Exception) -> None:
        """Drop the subscriber, which gets the error next."""
        if self._error is None:
            self._error = error
            self._bus.forget(self._topic, self)
            self._queue.put_nowait(None)  # wakes the reader; the queue has one place more than messages may take

    async def ready(self) -> None:
        """See `Subscription.ready`; within one process that is at once."""
        if self._error is not None:
            raise self._error

    async def get(self) -> Message:
        """Return the next message; an error comes before what still waits, for it is out of date."""
        if self._error is None and (message := await self._queue.get()) is not None:
            return message
        raise self._error or BusClosedError

    def close(self) -> None:
        """Take no more."""
        self._bus.forget(self._topic, self)
