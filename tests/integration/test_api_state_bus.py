"""What every bus does, and what Redis' bus does when its connection fails."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
from tests.support.redis_server import RedisServer, running_redis

from cloudtolocalllm.api.bus import Bus, BusClosedError, LocalBus, SlowSubscriberError, Subscription
from cloudtolocalllm.api.state import StateError, open_bus, redis_bus
from cloudtolocalllm.api.state.redis_bus import MAX_MESSAGE, MAX_OUTBOX, RedisBus
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.tasks import TaskSet

Starter = Callable[..., RedisBus]


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="c2l-") as folder, running_redis(Path(folder)) as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that a test may stop."""
    with tempfile.TemporaryDirectory(prefix="c2l-") as folder, running_redis(Path(folder)) as server:
        yield server


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    """Makes running buses, and sees that closing them ends them without help."""
    tasks = TaskSet()
    buses: list[RedisBus] = []
    runs: list[asyncio.Task[None]] = []

    def start_(url: str, *, silence: float = 10.0) -> RedisBus:
        bus = RedisBus(url, silence=silence)
        buses.append(bus)
        runs.append(tasks.start(bus.run(), "bus"))
        return bus

    yield start_
    for bus in buses:
        bus.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*runs)
    await tasks.close()


@pytest.fixture(params=["local", "redis"])
async def pair(request: pytest.FixtureRequest, start: Starter) -> tuple[Bus, Bus]:
    """The buses of two replicas; within one process there is one."""
    if request.param == "local":
        bus = LocalBus()
        await bus.run()
        return bus, bus
    server = request.getfixturevalue("shared")
    buses = start(server.url), start(server.unix_url)
    await connected(*buses)
    return buses


async def connected(*buses: RedisBus) -> None:
    async with asyncio.timeout(10):
        for bus in buses:
            await bus.wait_connected()


async def ready(*subscriptions: Subscription) -> None:
    for subscription in subscriptions:
        await subscription.ready()


async def take(subscription: Subscription, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [(await subscription.get())["n"] for _ in range(count)]


# every bus


async def test_messages_reach_every_subscriber_of_the_topic_in_order_and_once(pair: tuple[Bus, Bus]) -> None:
    here, there = pair
    first, second, third, other = (
        here.subscribe("a"),
        here.subscribe("a"),
        there.subscribe("a"),
        there.subscribe("user/b*"),
    )
    await ready(first, second, third, other)
    for n in range(300):
        here.publish("a", {"n": str(n)})
    here.publish("user/b*", {"n": "other"})
    for subscription in (first, second, third):
        assert await take(subscription, 300) == [str(n) for n in range(300)]
    assert await take(other, 1) == ["other"]
    here.publish("a", {"n": "last"})
    for subscription in (first, second, third):
        assert await take(subscription, 1) == ["last"]


async def test_what_is_published_after_subscribing_arrives_in_the_same_process(pair: tuple[Bus, Bus]) -> None:
    bus, _ = pair
    for n in range(50):
        subscription = bus.subscribe("a")
        bus.publish("a", {"n": str(n)})
        assert await take(subscription, 1) == [str(n)]
        subscription.close()


async def test_who_is_ready_misses_nothing_of_others(pair: tuple[Bus, Bus]) -> None:
    here, there = pair
    for n in range(50):
        subscription = here.subscribe(f"t{n % 3}")
        await subscription.ready()
        there.publish(f"t{n % 3}", {"n": str(n)})
        assert await take(subscription, 1) == [str(n)]
        subscription.close()


async def test_any_text_arrives_as_it_was(pair: tuple[Bus, Bus]) -> None:
    here, there = pair
    subscription = there.subscribe("a")
    await subscription.ready()
    message = {"": "", "ä\n": '\0"\r\n\u2028😀', "n": "x" * 8000}
    here.publish("a", message)
    async with asyncio.timeout(10):
        assert await subscription.get() == message


async def test_who_is_slow_is_dropped_and_others_are_not(pair: tuple[Bus, Bus]) -> None:
    here, there = pair
    slow, good = here.subscribe("a"), there.subscribe("a")
    await ready(slow, good)
    for n in range(1500):
        there.publish("a", {"n": str(n)})
        if n % 50 == 49:
            assert await take(good, 50) == [str(m) for m in range(n - 49, n + 1)]
    with pytest.raises(SlowSubscriberError):
        await take(slow, 1500)
    again = here.subscribe("a")
    await again.ready()
    there.publish("a", {"n": "again"})
    assert await take(again, 1) == ["again"]


async def test_a_wait_that_was_given_up_loses_no_message(pair: tuple[Bus, Bus]) -> None:
    here, there = pair
    subscription = here.subscribe("a")
    await subscription.ready()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await subscription.get()
    there.publish("a", {"n": "1"})
    assert await take(subscription, 1) == ["1"]


async def test_closing_ends_who_waits_and_who_comes_later(pair: tuple[Bus, Bus]) -> None:
    bus, _ = pair
    subscription = bus.subscribe("a")
    await subscription.ready()

    async def wait() -> None:
        with pytest.raises(BusClosedError):
            await subscription.get()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(wait())
        await asyncio.sleep(0.01)
        bus.close()
    late = bus.subscribe("a")
    for call in (late.get(), late.ready(), subscription.get(), subscription.ready()):
        with pytest.raises(BusClosedError):
            await call
    bus.publish("a", {"n": "too late"})


async def test_one_of_two_subscribers_leaving_takes_nothing_from_the_other(pair: tuple[Bus, Bus]) -> None:
    here, there = pair
    leaving, staying = here.subscribe("a"), here.subscribe("a")
    await ready(leaving, staying)
    leaving.close()
    leaving.close()
    there.publish("a", {"n": "1"})
    assert await take(staying, 1) == ["1"]


# Redis' bus


async def subscribed(server: RedisServer, channels: set[str]) -> None:
    """Wait until Redis has subscribers of exactly these channels."""
    with redis.Redis.from_url(server.unix_url) as client:
        async with asyncio.timeout(10):
            while {name.decode() for name in client.pubsub_channels()} != channels:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.01)


async def test_who_left_costs_redis_nothing(server: RedisServer, start: Starter) -> None:
    bus = start(server.url)
    await connected(bus)
    kept = bus.subscribe("kept")
    for n in range(300):
        bus.subscribe(f"t{n}").close()
        flapping = [bus.subscribe(f"f{m}") for m in range(3)]
        if n % 10 == 0:
            await asyncio.sleep(0)
        for subscription in flapping:
            subscription.close()
    last = bus.subscribe("f1")
    await ready(kept, last)
    await subscribed(server, {"c2l:0:bus:kept", "c2l:0:bus:f1"})
    bus.publish("f1", {"n": "1"})
    assert await take(last, 1) == ["1"]
    last.close()
    kept.close()
    await subscribed(server, set())


async def test_a_lost_connection_is_told_and_made_again(server: RedisServer, start: Starter) -> None:
    here, there = start(server.url), start(server.unix_url)
    await connected(here, there)
    mine, quiet, theirs = here.subscribe("a"), here.subscribe("b"), there.subscribe("a")
    await ready(mine, quiet, theirs)
    server.stop()
    for subscription in (mine, quiet):
        async with asyncio.timeout(10):
            with pytest.raises(SlowSubscriberError, match="connection of the bus was lost"):
                await subscription.get()
    assert not here.is_connected
    async with asyncio.timeout(10):
        with pytest.raises(SlowSubscriberError):
            await theirs.get()
    here.publish("a", {"n": "while away"})
    unaware = here.subscribe("a")  # who reads the state now and never asks whether it is ready
    with pytest.raises(SlowSubscriberError, match="was not connected within 2 s"):
        await there.subscribe("a").ready()
    server.start()
    async with asyncio.timeout(10):
        with pytest.raises(SlowSubscriberError, match="connected only after it was subscribed to"):
            await unaware.get()
    await connected(here, there)
    again = here.subscribe("a")
    await again.ready()
    there.publish("a", {"n": "back"})
    async with asyncio.timeout(10):
        while (await again.get())["n"] != "back":
            pass


async def test_who_awaits_the_connection_goes_on_with_it(server: RedisServer, start: Starter) -> None:
    server.stop()
    bus = start(server.url)
    subscription = bus.subscribe("a")
    bus.publish("a", {"n": "waits"})
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(subscription.ready())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        server.start()
    assert await take(subscription, 1) == ["waits"]


async def test_nobody_is_ready_before_redis_said_so(server: RedisServer, start: Starter) -> None:
    bus = start(server.url)
    await connected(bus)
    server.freeze()
    first = bus.subscribe("a")
    await asyncio.sleep(0.1)  # it is asked for, and not yet answered
    second = bus.subscribe("a")
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(subscription.ready()) for subscription in (first, second)]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        server.thaw()
    third = bus.subscribe("a")
    async with asyncio.timeout(0):
        await third.ready()  # of a topic that comes already one is at once


async def test_closing_does_not_wait_for_the_next_attempt(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    monkeypatch.setattr(redis_bus, "Backoff", lambda **_: Backoff(first=1e6, maximum=1e6))
    bus = RedisBus(server.url)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(bus.run())
        await asyncio.sleep(0.2)
        bus.close()


async def test_what_waits_for_the_connection_is_bounded(
    server: RedisServer, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    listening = start(server.unix_url)
    await connected(listening)
    away = RedisBus(server.url)
    for n in range(MAX_OUTBOX + 500):
        away.publish("a", {"n": str(n)})
    subscription = listening.subscribe("a", limit=MAX_OUTBOX + 500)
    await subscription.ready()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(away.run())
        with caplog.at_level(logging.WARNING):
            assert await take(subscription, MAX_OUTBOX) == [str(n) for n in range(500, MAX_OUTBOX + 500)]
        away.close()
        async with asyncio.timeout(10):
            await running
    assert any(getattr(record, "messages", None) == 500 for record in caplog.records)


async def test_what_was_published_before_closing_still_goes_out(shared: RedisServer, start: Starter) -> None:
    here, there = start(shared.url), start(shared.url)
    await connected(here, there)
    subscription = there.subscribe("a")
    await subscription.ready()
    here.publish("a", {"n": "goodbye"})
    here.close()
    assert await take(subscription, 1) == ["goodbye"]


async def test_a_dead_connection_is_noticed_and_an_idle_one_kept(server: RedisServer, start: Starter) -> None:
    bus = start(server.url, silence=0.5)
    await connected(bus)
    subscription = bus.subscribe("a")
    await subscription.ready()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await subscription.get()  # nothing to say for three times as long
    server.freeze()
    async with asyncio.timeout(10):
        with pytest.raises(SlowSubscriberError):
            await subscription.get()
    server.thaw()
    await connected(bus)


async def test_one_that_connects_and_refuses_is_not_asked_without_a_pause(
    server: RedisServer, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(server.unix_url) as client:
        client.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "+@connection", "+select")
    bus = start(f"redis://mute:secret@127.0.0.1:{server.port}/0")
    bus.publish("a", {"n": "1"})
    with caplog.at_level(logging.INFO):
        for _ in range(40):
            bus.publish("a", {"n": "1"})
            await asyncio.sleep(0.05)
    refusals = [record for record in caplog.records if getattr(record, "reason", "") == "NoPermissionError"]
    assert 1 <= len(refusals) <= 15
    assert "secret" not in caplog.text


async def test_what_others_publish_there_harms_nobody(
    server: RedisServer, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    bus = start(server.url)
    await connected(bus)
    subscription = bus.subscribe("a")
    await subscription.ready()
    with redis.Redis.from_url(server.unix_url) as client:
        for text in (b"", b"\xff", b"[]", b'{"n": 1}', b'{"n": "' + b"x" * MAX_MESSAGE + b'"}', b"[" * 16_000):
            client.publish("c2l:0:bus:a", text)
    bus.publish("a", {"n": "ours"})
    assert await take(subscription, 1) == ["ours"]
    assert caplog.text.count("none of ours") == 6


async def test_databases_of_one_redis_are_buses_of_their_own(shared: RedisServer, start: Starter) -> None:
    here, there = start(shared.url), start(f"redis://127.0.0.1:{shared.port}/1")
    await connected(here, there)
    subscription = there.subscribe("a")
    await subscription.ready()
    here.publish("a", {"n": "other platform"})
    own = here.subscribe("a")
    await own.ready()  # by now Redis has passed on what came before
    there.publish("a", {"n": "ours"})
    assert await take(subscription, 1) == ["ours"]


async def test_what_is_too_large_or_badly_named_is_refused(shared: RedisServer) -> None:
    bus = RedisBus(shared.url)
    with pytest.raises(ValueError, match=f"at most {MAX_MESSAGE} bytes"):
        bus.publish("a", {"n": "x" * MAX_MESSAGE})
    for topic in ("", "a b", "x" * 201):
        with pytest.raises(ValueError, match="printable ASCII"):
            bus.publish(topic, {})
        with pytest.raises(ValueError, match="printable ASCII"):
            bus.subscribe(topic)


def test_the_setting_says_which_bus(tmp_path: Path) -> None:
    assert isinstance(open_bus(""), LocalBus)
    assert isinstance(open_bus("redis://127.0.0.1:1/0"), RedisBus)
    (tmp_path / "url").write_text("redis://127.0.0.1:1/0\n")
    assert isinstance(open_bus(f"file:{tmp_path / 'url'}"), RedisBus)
    with pytest.raises(StateError):
        open_bus("amqp://127.0.0.1")
