"""Floods stay bounded, losses are told, and addresses mean nothing after their day."""

import json
from typing import Any

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.audit.auditor import DAY, SINGLY, WINDOW, AddressCloak, Auditor
from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.audit.refusals import reason_of
from cloudtolocalllm.auth.signing import TokenRefusedError


class Lines:
    """A log in memory that a test fills up."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.room = 1_000_000

    def append(self, line: bytes) -> bool:
        if len(self.lines) >= self.room:
            return False
        self.lines.append(line)
        return True

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def codes(self) -> list[str]:
        return [record["metadata"]["event_code"] for record in self.records()]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def auditor(lines: Lines, clock: FakeClock) -> Auditor:
    return Auditor(lines, service="api", clock=clock)


def test_a_flood_of_refusals_is_a_few_records_and_a_count(auditor: Auditor, lines: Lines, clock: FakeClock) -> None:
    for n in range(10_000):
        auditor.record(Event.CREDENTIAL_REFUSED, reason=Reason.FORGED, address=f"198.51.100.{n % 250}")
        auditor.record(Event.CREDENTIAL_REFUSED, reason=Reason.EXPIRED)
        clock.advance(WINDOW / 20_000)
    auditor.flush()
    assert len(lines.lines) == 2 * SINGLY
    clock.advance(WINDOW)
    auditor.flush()
    counts = [record for record in lines.records() if "count" in record]
    assert [(record["status_code"], record["count"]) for record in counts] == [("forged", 9980), ("expired", 9980)]
    assert counts[0]["start_time"] < counts[0]["end_time"] <= clock.wall() * 1000
    auditor.record(Event.CREDENTIAL_REFUSED, reason=Reason.FORGED)
    assert len(lines.lines) == 2 * SINGLY + 3


def test_the_next_window_tells_of_the_last_without_a_flush(auditor: Auditor, lines: Lines, clock: FakeClock) -> None:
    for _ in range(SINGLY + 5):
        auditor.record(Event.HOST_REFUSED)
    clock.advance(WINDOW)
    auditor.record(Event.HOST_REFUSED)
    assert [record.get("count", 1) for record in lines.records()] == [1] * SINGLY + [5, 1]


def test_what_is_left_is_told_at_the_end(auditor: Auditor, lines: Lines) -> None:
    for _ in range(SINGLY + 1):
        auditor.record(Event.HOST_REFUSED)
    auditor.close()
    assert lines.records()[-1]["count"] == 1


def test_what_users_do_is_always_written_one_by_one(auditor: Auditor, lines: Lines) -> None:
    for _ in range(500):
        auditor.record(Event.KEY_REVOKED, user="u_a", reason=Reason.BY_USER)
    assert len(lines.lines) == 500


def test_losses_are_counted_and_told_when_there_is_room(auditor: Auditor, lines: Lines) -> None:
    lines.room = 2
    for _ in range(7):
        auditor.record(Event.SIGN_IN, user="u_a")
    lines.room = 100
    auditor.record(Event.SIGN_OUT, user="u_a", reason=Reason.BY_USER)
    assert lines.codes() == ["sign-in", "sign-in", "audit-gap", "sign-out"]
    assert lines.records()[2]["count"] == 5
    assert auditor.recorded == 4


def test_a_wrong_reason_costs_the_reason_and_not_the_event(
    auditor: Auditor, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    auditor.record(Event.SIGN_OUT, user="u_a", reason=Reason.FORGED)
    assert lines.records()[0]["status_code"] == "unspecified"
    assert "a reason that it does not give" in caplog.text


def test_without_a_log_nothing_happens(clock: FakeClock) -> None:
    auditor = Auditor(None, service="api", clock=clock)
    for _ in range(100):
        auditor.record(Event.HOST_REFUSED)
    auditor.flush()
    auditor.close()
    assert auditor.recorded == 0


def test_an_address_has_one_name_a_day_and_then_another(clock: FakeClock) -> None:
    cloak = AddressCloak()
    now = DAY * 20_000.0
    first = cloak.cloaked("198.51.100.7", now)
    assert first.startswith("ip-")
    assert first == cloak.cloaked("198.51.100.7", now + DAY - 1)
    assert first == cloak.cloaked("::ffff:198.51.100.7", now)
    assert first != cloak.cloaked("198.51.100.8", now)
    assert first != cloak.cloaked("198.51.100.7", now + DAY)
    assert first != cloak.cloaked("198.51.100.7", now), "the key of the day before is gone"
    assert first != AddressCloak().cloaked("198.51.100.7", now)


def test_of_ipv6_the_network_counts() -> None:
    cloak = AddressCloak()
    assert cloak.cloaked("2001:db8:1:2:3::1", 0) == cloak.cloaked("2001:db8:1:2::9", 0)
    assert cloak.cloaked("2001:db8:1:2::1", 0) != cloak.cloaked("2001:db8:1:3::1", 0)
    assert cloak.cloaked("/run/a.sock", 0) == cloak.cloaked("", 0) == "local"


def test_no_record_shows_an_address(auditor: Auditor, lines: Lines) -> None:
    auditor.record(Event.LIMIT_HIT, reason=Reason.LIMIT_ADDRESS, address="198.51.100.7")
    auditor.record(Event.LIMIT_HIT, reason=Reason.LIMIT_ADDRESS, address="2001:db8::7")
    assert b"198.51" not in b"".join(lines.lines)
    assert b"2001:db8" not in b"".join(lines.lines)
    assert all(record["src_endpoint"]["uid"].startswith("ip-") for record in lines.records())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not a token of ours", Reason.MALFORMED),
        ("another kind of token", Reason.WRONG_TYPE),
        ("signed by an unknown key", Reason.UNKNOWN_KEY),
        ("forged or malformed", Reason.FORGED),
        ("expired or not yet valid", Reason.EXPIRED),
        ("of another issuer than its key", Reason.WRONG_ISSUER),
        ("for another audience", Reason.WRONG_AUDIENCE),
    ],
)
def test_refusals_have_their_reason(text: str, reason: Reason) -> None:
    assert reason_of(TokenRefusedError(text)) is reason
    assert reason in Event.SERVICE_TOKEN_REFUSED.kind.reasons
    assert reason in Event.CREDENTIAL_REFUSED.kind.reasons
