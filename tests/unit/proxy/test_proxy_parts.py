"""Settings, figures, problems, and who waits for which bridge."""

import json
from types import TracebackType

import pytest

from cloudtolocalllm.auth.assertion import manager_token
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.link import Tunnel
from cloudtolocalllm.proxy import problems
from cloudtolocalllm.proxy.selection import Bridges, BusyError, Waiter
from cloudtolocalllm.proxy.settings import PREFIX, ProxySettings
from cloudtolocalllm.proxy.stats import Stats
from cloudtolocalllm.runtime import settings
from cloudtolocalllm.tunnel import ResetReason, Role, Session


class HandClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def test_settings_are_read_and_never_shown() -> None:
    environ = {
        "C2L_PROXY_INSTANCE": "px-1",
        "C2L_PROXY_KEY": "ab" * 32,
        "C2L_PROXY_LISTEN": "unix:/run/p.sock",
        "C2L_PROXY_LEASH_FD": "7",
        "C2L_PROXY_HEAD_TIMEOUT": "2.5",
    }
    loaded = settings.load(ProxySettings, PREFIX, environ)
    assert loaded.key == bytes.fromhex("ab" * 32)
    assert loaded.listen == Endpoint(path="/run/p.sock")
    assert (loaded.leash_fd, loaded.head_timeout, loaded.attach_timeout) == (7, 2.5, 10.0)
    assert "ab" * 32 not in repr(loaded)
    assert repr(loaded.key) not in repr(loaded)


def test_a_bad_key_is_named_and_not_echoed() -> None:
    with pytest.raises(settings.SettingsError, match="64 hexadecimal digits") as fault:
        settings.load(ProxySettings, PREFIX, {"C2L_PROXY_KEY": "abcd1234"})
    assert "abcd1234" not in str(fault.value)


def test_the_managers_token_depends_on_the_key_only() -> None:
    assert manager_token(b"k" * 32) == manager_token(b"k" * 32)
    assert manager_token(b"k" * 32) != manager_token(b"l" * 32)


def test_a_live_stream_is_activity() -> None:
    clock = HandClock()
    stats = Stats(clock)
    clock.now = 1010
    stats.begin()
    clock.now = 1500
    assert stats.to_json(["home"])["last_activity"] == 1500
    stats.end()
    clock.now = 2000
    assert stats.to_json([]) == {
        "in_flight": 0,
        "streams_total": 1,
        "last_activity": 1500,
        "bridges": [],
        "bytes_up": 0,
        "bytes_down": 0,
        "started": 1000,
        "limited": 0,
        "limited_keys": 0,
    }


class Answers:
    """A responder that keeps the one answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.document: dict[str, object] = {}

    def respond(self, status: int, headers: tuple[tuple[bytes, bytes], ...], content: bytes) -> None:
        self.status, self.headers, self.document = status, dict(headers), json.loads(content)


@pytest.mark.parametrize(
    ("reason", "status", "slug"),
    [
        (ResetReason.CANCELLED, 502, "engine-error"),
        (ResetReason.REFUSED, 503, "overloaded"),
        (ResetReason.ENGINE_UNREACHABLE, 502, "engine-unreachable"),
        (ResetReason.ENGINE_ERROR, 502, "engine-error"),
        (ResetReason.TOO_LARGE, 413, "too-large"),
        (ResetReason.TIMED_OUT, 504, "timed-out"),
        (ResetReason.INTERNAL, 500, "internal"),
        (ResetReason.SESSION_LOST, 503, "connection-lost"),
    ],
)
def test_every_reset_has_its_problem(reason: ResetReason, status: int, slug: str) -> None:
    answers = Answers()
    problem, detail = problems.of_reset(reason)
    problems.respond(answers, problem, detail, b"exchange-1")  # type: ignore[arg-type] # as much as is used
    assert answers.status == status
    assert answers.document["type"] == f"urn:c2l:problem:{slug}"
    assert answers.document["exchange"] == "exchange-1"
    assert answers.headers[b"content-type"] == b"application/problem+json"
    assert answers.headers[b"c2l-exchange-id"] == b"exchange-1"
    assert (b"retry-after" in answers.headers) == (status == 503)


def test_every_reset_reason_is_covered() -> None:
    for reason in ResetReason:
        problems.of_reset(reason)


class Waiting:
    def __init__(self, bridges: Bridges) -> None:
        self.bridges = bridges
        self.log: list[str] = []
        self.waiters: dict[str, Waiter] = {}

    def wait(self, name: str, *bridges: str) -> None:
        self.waiters[name] = self.bridges.wait(
            bridges, 60, lambda: self.log.append(f"{name} ready"), lambda: self.log.append(f"{name} expired")
        )

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for waiter in self.waiters.values():
            self.bridges.leave(waiter)


async def test_a_bridge_wakes_those_who_wait_for_it_in_their_order() -> None:
    tunnel = Tunnel(Session(Role.PROXY, bytes(16)), None)  # type: ignore[arg-type] # nothing is told here
    with Waiting(Bridges(max_waiting=10)) as waiting:
        waiting.wait("a", "home")
        waiting.wait("b", "office", "home")
        waiting.wait("c", "office")
        waiting.bridges.attached("home", tunnel)
        assert waiting.log == ["a ready", "b ready"]
        assert waiting.bridges.waiting == 1


async def test_one_who_left_is_not_called() -> None:
    tunnel = Tunnel(Session(Role.PROXY, bytes(16)), None)  # type: ignore[arg-type] # nothing is told here
    with Waiting(Bridges(max_waiting=10)) as waiting:
        waiting.wait("a", "home")
        waiting.bridges.leave(waiting.waiters["a"])
        waiting.bridges.attached("home", tunnel)
        assert waiting.log == []


async def test_waiting_is_bounded_and_ends_when_the_proxy_stops() -> None:
    with Waiting(Bridges(max_waiting=2)) as waiting:
        waiting.wait("a", "home")
        waiting.wait("b", "home")
        with pytest.raises(BusyError):
            waiting.wait("c", "home")
        waiting.bridges.close()
        assert waiting.log == ["a expired", "b expired"]
