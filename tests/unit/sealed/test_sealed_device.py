"""Which requests the bridge answers: each rule has a test that fails without it."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sealed_parts import DEVICE, NOW, OTHER_DEVICE, opener, read, sealer

from cloudtolocalllm.sealed import base64url, dates, device
from cloudtolocalllm.sealed.bhttp import Message, RequestHead
from cloudtolocalllm.sealed.device import authenticate, device_id, proof_fields, public_point
from cloudtolocalllm.sealed.errors import (
    BusyError,
    MalformedError,
    MisuseError,
    ProofError,
    ReplayedError,
    SealedError,
    SkewError,
    UnknownDeviceError,
)
from cloudtolocalllm.sealed.exchange import seal_request
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.limits import MAX_SKEW
from cloudtolocalllm.sealed.ohttp import RequestOpener
from cloudtolocalllm.sealed.replay import ReplayGuard

PAIRED = {device_id(public_point(DEVICE)): public_point(DEVICE)}
OURS = device_id(public_point(DEVICE))


def received(
    label: str = "one", *, now: float = NOW, key: ec.EllipticCurvePrivateKey = DEVICE
) -> tuple[RequestOpener, Fields]:
    """A request as the bridge has opened it, and the fields that its device put in."""
    client, bridge = sealer(label), opener()
    fields = proof_fields(client, key, now)
    read(bridge, [seal_request(client, Message(RequestHead(b"GET", b"/", fields)))])
    return bridge, fields


def replaced(fields: Fields, name: bytes, value: bytes | None) -> Fields:
    return tuple((key, value if key == name else old) for key, old in fields if key != name or value is not None)  # type: ignore[misc]  # a None is left out


def check(bridge: RequestOpener, fields: Fields, now: float = NOW, replays: ReplayGuard | None = None) -> str:
    return authenticate(bridge, fields, PAIRED.get, ReplayGuard() if replays is None else replays, now)


def test_a_paired_device_is_recognised() -> None:
    assert check(*received()) == OURS


def test_a_device_that_is_not_paired_is_refused() -> None:
    with pytest.raises(UnknownDeviceError):
        check(*received(key=OTHER_DEVICE))


def test_a_removed_device_is_refused_at_once() -> None:
    bridge, fields = received()
    with pytest.raises(UnknownDeviceError):
        authenticate(bridge, fields, lambda name: None, ReplayGuard(), NOW)


def test_a_key_under_another_device_s_name_is_refused() -> None:
    bridge, fields = received(key=OTHER_DEVICE)
    fields = replaced(fields, b"c2l-device", OURS.encode())
    with pytest.raises(ProofError):  # our name, their signature
        check(bridge, fields)
    with pytest.raises(UnknownDeviceError):  # a store that gives another device's key for our name
        authenticate(bridge, fields, {OURS: public_point(OTHER_DEVICE)}.get, ReplayGuard(), NOW)


def test_a_proof_for_another_request_is_refused() -> None:
    _, fields = received("one")
    bridge, _ = received("two")
    with pytest.raises(ProofError):
        check(bridge, fields)


def test_a_signature_over_another_label_is_refused() -> None:
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    exported = client.export(device.EXPORT, device.EXPORT_BYTES)
    good = proof_fields(client, DEVICE, NOW)
    assert check(bridge, good) == OURS
    for message in (exported, b"other label\0" + exported, device.LABEL + client.export(b"other", 32)):
        proof = base64url.encode(device.sign(DEVICE, message)).encode()
        with pytest.raises(ProofError):
            check(bridge, replaced(good, b"c2l-proof", proof))


def test_a_date_out_of_the_skew_is_refused() -> None:
    for now in (NOW - MAX_SKEW, NOW + MAX_SKEW):
        assert check(*received(), now)
    for now in (NOW - MAX_SKEW - 1, NOW + MAX_SKEW + 1):
        with pytest.raises(SkewError):
            check(*received(), now)


def test_the_same_request_is_refused_the_second_time() -> None:
    replays = ReplayGuard()
    check(*received("one"), NOW, replays)
    check(*received("two"), NOW, replays)
    with pytest.raises(ReplayedError):
        check(*received("one"), NOW + 1, replays)


def test_strangers_requests_are_not_remembered() -> None:
    replays = ReplayGuard()
    for bridge, fields, now in (
        (*received(key=OTHER_DEVICE), NOW),
        (received("two")[0], received("one")[1], NOW),
        (*received(), NOW + 1000),
    ):
        with pytest.raises(SealedError):
            check(bridge, fields, now, replays)
    assert replays.size == 0


@pytest.mark.parametrize(
    ("name", "error"),
    [(b"date", SkewError), (b"c2l-device", UnknownDeviceError), (b"c2l-proof", ProofError)],
)
def test_each_field_must_be_there_once(name: bytes, error: type[SealedError]) -> None:
    bridge, fields = received()
    with pytest.raises(error):
        check(bridge, replaced(fields, name, None))
    with pytest.raises(MalformedError):
        check(bridge, (*fields, *(field for field in fields if field[0] == name)))


@pytest.mark.parametrize("name", [b"date", b"c2l-device", b"c2l-proof"])
@pytest.mark.parametrize("value", [b"", b"x", b"A" * 44, b"A" * 86 + b"=", b"\xff" * 43])
def test_a_field_that_is_not_of_its_form_is_refused(name: bytes, value: bytes) -> None:
    bridge, fields = received()
    with pytest.raises(MalformedError):
        check(bridge, replaced(fields, name, value))


def test_a_request_is_remembered_as_long_as_its_date_is_accepted() -> None:
    """The worst case: a date as far ahead as is accepted, sent again as late as that date is accepted."""
    replays = ReplayGuard()
    check(*received(now=NOW + MAX_SKEW), NOW, replays)
    with pytest.raises(ReplayedError):
        check(*received(now=NOW + MAX_SKEW), NOW + 2 * MAX_SKEW, replays)
    with pytest.raises(SkewError):
        check(*received(now=NOW + MAX_SKEW), NOW + 2 * MAX_SKEW + 1, replays)


def test_a_clock_that_is_set_back_brings_no_request_back() -> None:
    """Who can move this machine's clock (NTP is not authenticated) has it forget, then repeats what it recorded."""
    replays = ReplayGuard()
    check(*received("one"), NOW, replays)
    check(*received("two", now=NOW + 1000), NOW + 1000, replays)
    assert replays.size == 1
    with pytest.raises(SkewError):
        check(*received("one"), NOW + 1, replays)
    check(*received("three", now=NOW + 2), NOW + 2, replays)  # what is later than all that was forgotten goes on
    with pytest.raises(ReplayedError):
        check(*received("two", now=NOW + 1000), NOW + 1001, replays)


def test_the_memory_of_requests_is_bounded_and_gives_free_what_has_aged() -> None:
    replays = ReplayGuard(limit=2)
    replays.accept(b"1", NOW + 10, NOW)
    replays.accept(b"2", NOW, NOW)  # dates come in any order
    with pytest.raises(BusyError):
        replays.accept(b"3", NOW + 20, NOW + MAX_SKEW)
    replays.accept(b"3", NOW + 20, NOW + MAX_SKEW + 1)
    assert replays.size == 2
    with pytest.raises(ReplayedError):
        replays.accept(b"1", NOW + 10, NOW + 10 + MAX_SKEW)
    with pytest.raises(MisuseError):
        replays.accept(b"", NOW, NOW)


def test_signatures_are_those_of_the_device_only() -> None:
    point, message = public_point(DEVICE), b"message"
    good = device.sign(DEVICE, message)
    assert len(good) == 64
    assert good == device.sign(DEVICE, message)
    assert device.verify(point, good, message)
    refused: list[tuple[bytes, bytes, bytes]] = [
        (point, good, b"other"),
        (public_point(OTHER_DEVICE), good, message),
        (point, good[:-1], message),
        (point, good + b"\0", message),
        (point, bytes(64), message),
        (point, b"\xff" * 64, message),
    ]
    assert not any(device.verify(*case) for case in refused)
    for bad in (b"", point[:-1], b"\x02" + point[1:33], bytes(65), point[:-1] + bytes((point[-1] ^ 1,))):
        with pytest.raises(MalformedError):
            device.verify(bad, good, message)


@given(st.integers(-62135596800, 253402300799))  # the years 1 to 9999
def test_a_date_is_read_as_written(seconds: int) -> None:
    assert dates.decode(dates.encode(seconds)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"Mon, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:60 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
    ],
)
def test_a_date_has_one_form(text: bytes) -> None:
    assert dates.decode(b"Sun, 06 Nov 1994 08:49:37 GMT") == 784111777
    with pytest.raises(MalformedError):
        dates.decode(text)


def test_the_order_of_checks_tells_strangers_nothing() -> None:
    """Whoever is not paired learns neither whether a date was right nor whether a request was seen."""
    asked: list[str] = []

    def point_of(name: str) -> bytes | None:
        asked.append(name)
        return None

    lookup: Callable[[str], bytes | None] = point_of
    bridge, fields = received(now=NOW - 5000)
    with pytest.raises(UnknownDeviceError):
        authenticate(bridge, fields, lookup, ReplayGuard(), NOW)
    assert asked == [OURS]
