import asyncio

import pytest

from cloudtolocalllm.api.bus import BusClosedError, LocalBus, SlowSubscriberError


async def test_messages_come_in_order_to_every_subscriber_of_the_topic_only() -> None:
    bus = LocalBus()
    first, second, other = bus.subscribe("a"), bus.subscribe("a"), bus.subscribe("b")
    for n in range(3):
        bus.publish("a", {"n": str(n)})
    bus.publish("b", {"n": "other"})
    assert [(await first.get())["n"] for _ in range(3)] == ["0", "1", "2"]
    assert [(await second.get())["n"] for _ in range(3)] == ["0", "1", "2"]
    assert (await other.get())["n"] == "other"


async def test_a_message_wakes_who_waits() -> None:
    bus = LocalBus()
    subscription = bus.subscribe("a")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(subscription.get())
        await asyncio.sleep(0)
        bus.publish("a", {"x": "1"})
    assert waiting.result() == {"x": "1"}


async def test_a_slow_subscriber_is_dropped_and_others_are_not() -> None:
    bus = LocalBus()
    slow, good = bus.subscribe("a", limit=2), bus.subscribe("a", limit=10)
    for n in range(5):
        bus.publish("a", {"n": str(n)})
    with pytest.raises(SlowSubscriberError, match="at most 2"):
        await slow.get()
    with pytest.raises(SlowSubscriberError):
        await slow.get()
    assert [(await good.get())["n"] for _ in range(5)] == ["0", "1", "2", "3", "4"]


async def test_closing_ends_who_waits_and_who_comes_later() -> None:
    bus = LocalBus()
    subscription = bus.subscribe("a")

    async def wait() -> None:
        with pytest.raises(BusClosedError):
            await subscription.get()

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        await asyncio.sleep(0)
        bus.close()
    with pytest.raises(BusClosedError):
        await bus.subscribe("a").get()
    assert bus.topics == 0


async def test_who_left_costs_nothing() -> None:
    bus = LocalBus()
    for _ in range(100):
        bus.subscribe("a").close()
    bus.publish("a", {})
    assert bus.topics == 0


async def test_a_cancelled_wait_loses_no_message() -> None:
    bus = LocalBus()
    subscription = bus.subscribe("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await subscription.get()
    bus.publish("a", {"x": "1"})
    assert await subscription.get() == {"x": "1"}
