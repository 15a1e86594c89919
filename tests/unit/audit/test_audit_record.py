"""What a record says, and that nothing of a peer gets in."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.audit.events import CATEGORIES, OTHER, Class, Event, Reason, Severity
from cloudtolocalllm.audit.record import Entry, identifier, line_of

REQUIRED = {
    "time", "class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "metadata", "status_id",
}  # fmt: skip


def record(entry: Entry) -> dict[str, Any]:
    line = line_of(entry, uid="0123456789abcdef", service="api")
    assert b"\n" not in line
    value: dict[str, Any] = json.loads(line)
    return value


@pytest.mark.parametrize("event", Event)
def test_every_event_has_what_ocsf_asks_of_its_class(event: Event) -> None:
    value = record(Entry(event, 1_800_000_000.5))
    kind = event.kind
    assert value.keys() >= REQUIRED
    assert value["time"] == 1_800_000_000_500
    assert value["category_uid"] == value["class_uid"] // 1000
    assert value["category_uid"] in CATEGORIES
    assert value["type_uid"] == value["class_uid"] * 100 + value["activity_id"]
    assert value["metadata"]["product"]["name"] == "CloudToLocalLLM"
    assert value["metadata"]["event_code"] == kind.code
    match kind.class_:
        case Class.AUTHENTICATION:
            assert value["user"]
            assert value["service"]["name"] == "api"
        case Class.ACCOUNT_CHANGE:
            assert value["user"]
        case Class.AUTHORIZE_SESSION | Class.USER_ACCESS:
            assert value["user"]
            assert value["privileges"] == ["admin"]
        case Class.ENTITY_MANAGEMENT:
            assert value["entity"]["type"] == kind.entity != ""
        case Class.API_ACTIVITY:
            assert value["actor"]
            assert value["src_endpoint"]
            assert value["api"]["operation"] == kind.code
        case Class.APPLICATION_LIFECYCLE:
            assert value["app"]["name"] == "api"


def test_codes_and_texts_are_fit_for_a_table() -> None:
    codes = [event.kind.code for event in Event]
    assert len(set(codes)) == len(codes)
    for event in Event:
        kind = event.kind
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
        assert event.name.lower().replace("_", "-") == kind.code
        assert kind.meaning.endswith(".")
        assert kind.severity in Severity
        assert 1 <= kind.activity_id <= 13 or kind.activity_id == OTHER
        assert len(set(kind.reasons)) == len(kind.reasons)
        assert Reason.UNSPECIFIED not in kind.reasons


def test_every_reason_is_some_events() -> None:
    given_ = {reason for event in Event for reason in event.kind.reasons}
    assert set(Reason) - given_ == {Reason.UNSPECIFIED}


def test_a_reason_of_another_event_is_a_fault() -> None:
    assert record(Entry(Event.LIMIT_HIT, 0.0, reason=Reason.LIMIT_KEYS))["status_code"] == "limit-keys"
    with pytest.raises(ValueError, match="expected one of the reasons of limit-hit, got forged"):
        record(Entry(Event.LIMIT_HIT, 0.0, reason=Reason.FORGED))


def test_several_in_one() -> None:
    value = record(Entry(Event.LIMIT_HIT, 10.0, reason=Reason.LIMIT_KEYS, count=7, until=20.0))
    assert (value["count"], value["start_time"], value["end_time"]) == (7, 10_000, 20_000)
    assert "count" not in record(Entry(Event.LIMIT_HIT, 10.0))


@pytest.mark.parametrize(
    "text",
    [
        "a@example.org",
        "198.51.100.7",
        "2001:db8::1",
        "a.b.c",
        "llama3.2:1b",
        "",
        "x" * 65,
        "a b",
        "\u00e4",
        "a/b",
        'a"b',
    ],
)
def test_what_is_no_identifier_is_not_written(text: str) -> None:
    assert identifier(text) == "invalid"
    entry = Entry(
        Event.KEY_MADE, 0.0, user=text, request_id=text, about=text, source=text, settings=(text, "ok"), digest=text
    )
    line = line_of(entry, uid="u", service="api")
    if text:
        assert text.encode() not in line.replace(b'"version":"1.6.0"', b"")
    assert json.loads(line)["unmapped"]["settings"] == ["ok"]


def test_identifiers_of_ours_are_written() -> None:
    value = record(
        Entry(
            Event.KEY_REVOKED,
            0.0,
            user="u_guq5pi4vzry6glg2sssi",
            request_id="a1b2",
            about="abcdefghijkl",
            source="ip-00ff",
        )
    )
    assert value["actor"]["user"]["uid"] == "u_guq5pi4vzry6glg2sssi"
    assert value["metadata"]["correlation_uid"] == "a1b2"
    assert value["entity"] == {"type_id": 99, "type": "key", "uid": "abcdefghijkl"}
    assert value["src_endpoint"] == {"uid": "ip-00ff"}


def texts_in(value: Any) -> list[str]:
    """Return every text among the values; names of members are ours."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts_in(one)]
    if isinstance(value, list):
        return [text for one in value for text in texts_in(one)]
    return [value] if isinstance(value, str) else []


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Event)), st.text(max_size=80), st.floats(0, 4e9))
def test_any_text_leaves_one_line_of_known_words(event: Event, text: str, time: float) -> None:
    entry = Entry(
        event, time, user=text, request_id=text, about=text, source=text, settings=[text] * 200, digest=text
    )
    line = line_of(entry, uid="u", service="api")
    assert len(line) < 16_000
    assert line.isascii()
    assert b"\n" not in line
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        assert text not in texts_in(json.loads(line))
