"""What the audit log hears of proxies and their limits."""

import json
from typing import Any

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.audit import Lifecycle
from cloudtolocalllm.manager.drivers.base import InstanceSpec
from cloudtolocalllm.manager.monitor import Monitor
from cloudtolocalllm.manager.policy import Phase, Reason
from cloudtolocalllm.manager.probe import ProxyStats
from cloudtolocalllm.manager.table import Entry, Table


class Lines(list[dict[str, Any]]):
    """A log in memory."""

    def append(self, line: bytes) -> bool:  # type: ignore[override] # takes lines, keeps what they say
        super().append(json.loads(line))
        return True


class Told:
    """A probe that says what a test wants."""

    def __init__(self, *figures: tuple[int, int]) -> None:
        self._figures = list(figures)

    async def healthy(self, endpoint: Endpoint, key: str, *, timeout: float) -> bool:
        raise NotImplementedError

    async def disconnect(self, endpoint: Endpoint, key: str, bridge: str, *, timeout: float) -> None:
        raise NotImplementedError

    async def stats(self, endpoint: Endpoint, key: str, *, timeout: float) -> ProxyStats:
        limited, keys = self._figures.pop(0)
        return ProxyStats(0, 0.0, 0, 0, limited, keys)


def entry(user: str | None = "u_a") -> Entry:
    made = Entry(InstanceSpec("px-1", user, "00", 0.0), Phase.READY, 0.0)
    made.endpoint = Endpoint(path="/none")
    return made


@pytest.mark.parametrize("reason", Reason)
def test_every_end_is_told_with_a_reason_that_the_event_gives(
    reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines()
    Lifecycle(Auditor(lines, service="manager", clock=FakeClock())).ends(entry(), reason)
    (record,) = lines
    assert record["status_code"] != "unspecified"
    assert record["metadata"]["event_code"] in ("proxy-removed", "proxy-killed")
    assert record["actor"]["user"]["uid"] == "u_a"
    assert record["entity"] == {"type_id": 99, "type": "proxy", "uid": "px-1"}
    assert caplog.text == ""


async def looked(known: bool, *figures: tuple[int, int]) -> list[tuple[str, int]]:
    lines, table, one, clock = Lines(), Table(), entry(), FakeClock()
    if not known:
        one.limited = None
    table.add(one)
    lifecycle = Lifecycle(Auditor(lines, service="manager", clock=clock))
    monitor = Monitor(table, Told(*figures), clock, 1e6, lambda: None, lifecycle)
    for _ in figures:
        await monitor.sweep()
    assert all(record["actor"]["user"]["uid"] == "u_a" for record in lines)
    return [(record["status_code"], record.get("count", 1)) for record in lines]


async def test_limits_that_a_proxy_enforced_are_told_once_each_look() -> None:
    told = await looked(True, (0, 0), (3, 0), (3, 0), (4, 7))
    assert told == [("limit-user", 3), ("limit-user", 1), ("limit-key", 7)]


async def test_what_an_adopted_proxy_refused_before_is_not_told_again() -> None:
    assert await looked(False, (9, 9), (9, 10)) == [("limit-key", 1)]
