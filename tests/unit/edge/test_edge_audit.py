"""What the audit log hears of clients that the edge turns away."""

import json
from typing import Any

from tests.support.fake_clock import FakeClock

from cloudtolocalllm.audit.auditor import SINGLY, Auditor
from cloudtolocalllm.edge.audit import AuditWatch
from cloudtolocalllm.edge.clients import direct
from cloudtolocalllm.edge.routes import Route
from cloudtolocalllm.edge.watch import Watch


class Lines(list[dict[str, Any]]):
    """A log in memory."""

    def append(self, line: bytes) -> bool:  # type: ignore[override] # takes lines, keeps what they say
        super().append(json.loads(line))
        return True


def told(*calls: tuple[str, str]) -> list[tuple[str, str | None, str]]:
    lines = Lines()
    watch: Watch = AuditWatch(Auditor(lines, service="edge", clock=FakeClock()))
    for what, reason in calls:
        if what == "limited":
            watch.on_limited(direct("198.51.100.7"), reason, None, b"")
        else:
            watch.on_refused(direct("198.51.100.7"), reason, Route.DATA, b"id-1")
    assert "198.51" not in json.dumps(lines)
    return [(one["metadata"]["event_code"], one.get("status_code"), one["src_endpoint"]["uid"][:3]) for one in lines]


def test_refusals_and_limits_are_told_with_their_reason() -> None:
    assert told(("limited", "connections"), ("limited", "sign-in"), ("refused", "host"), ("refused", "origin")) == [
        ("limit-hit", "limit-connections", "ip-"),
        ("limit-hit", "limit-address", "ip-"),
        ("host-refused", None, "ip-"),
        ("forbidden", "cross-site", "ip-"),
    ]


def test_a_flood_is_bounded() -> None:
    assert len(told(*[("refused", "host")] * 1000)) == SINGLY
