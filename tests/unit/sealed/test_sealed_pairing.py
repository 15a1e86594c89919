"""Pairing: the link, the one-time secret, the introduction and safety words."""

import json
from collections.abc import Callable

import pytest
from tests.support.sealed_parts import DEVICE, NOW, OTHER_DEVICE, PINNED, SECRET, opener, sealer, seeded

from cloudtolocalllm.sealed import base64url, pairing
from cloudtolocalllm.sealed.bhttp import Message, RequestHead
from cloudtolocalllm.sealed.device import authenticate, device_id, proof_fields, public_point
from cloudtolocalllm.sealed.errors import BusyError, MalformedError, MisuseError, ProofError
from cloudtolocalllm.sealed.exchange import RequestReader, read_all, seal_request
from cloudtolocalllm.sealed.fingerprint import decode
from cloudtolocalllm.sealed.pairing import Introduction, PairingLink, PairingOffers, read_introduction, read_link
from cloudtolocalllm.sealed.replay import ReplayGuard
from cloudtolocalllm.sealed.safety_words import safety_words
from cloudtolocalllm.sealed.word_list import WORDS

LINK = PairingLink("home-1_A", PINNED, SECRET)
POINT = public_point(DEVICE)
OURS = device_id(POINT)


def test_a_link_is_read_as_written() -> None:
    for fragment in (LINK.fragment, "#" + LINK.fragment):
        assert read_link(fragment) == LINK
    assert base64url.encode(SECRET) not in repr(LINK)
    assert len(LINK.fragment) < 160  # a QR code of a size that a phone reads


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text.replace("c2l1", "c2l2"),
        lambda text: text.replace("home-1_A", ""),
        lambda text: text.replace("home-1_A", "a b"),
        lambda text: text + ".x",
        lambda text: text.replace("c2l1.", ""),
        lambda text: text + "\n",
    ],
)
def test_a_link_that_is_not_whole_is_refused(change: Callable[[str], str]) -> None:
    with pytest.raises(MalformedError):
        read_link(change(LINK.fragment))


def test_a_secret_s_name_does_not_tell_it() -> None:
    shared = LINK.shared
    assert len(shared.id) == 16
    assert shared.id not in SECRET
    assert shared.id != pairing.shared_secret(seeded("another")).id


def pair(offers: PairingOffers, *, now: float = NOW, name: str = "Phone", label: str = "e") -> str:
    """What a bridge does with a device's request."""
    client = sealer(label, LINK.shared)
    introduction = Introduction(POINT, name)
    head = RequestHead(b"POST", pairing.PATH, proof_fields(client, DEVICE, now))
    sent = seal_request(client, Message(head, introduction.encode()))

    bridge = opener(secrets=lambda pairing_id: offers.secret(pairing_id, now))
    message = read_all(RequestReader(bridge), sent)
    device = read_introduction(message.content)
    name_of = authenticate(bridge, message.head.fields, {device.device_id: device.point}.get, ReplayGuard(), now)
    assert offers.take(LINK.shared.id, now)
    return f"{device.name} {name_of}"


def test_a_device_pairs_with_a_link_once() -> None:
    offers = PairingOffers()
    assert offers.add(SECRET, NOW) == LINK.shared
    assert pair(offers) == f"Phone {OURS}"
    assert offers.size == 0
    assert not offers.take(LINK.shared.id, NOW)
    with pytest.raises(Exception, match="a pairing that is open"):
        pair(offers, label="e2")


def test_a_link_is_good_for_ten_minutes() -> None:
    offers = PairingOffers()
    offers.add(SECRET, NOW)
    assert offers.secret(LINK.shared.id, NOW + 599) == SECRET
    assert offers.secret(LINK.shared.id, NOW + 600) is None
    offers.add(SECRET, NOW)
    assert not offers.take(LINK.shared.id, NOW + 600)


def test_a_wrong_secret_does_not_use_a_link_up() -> None:
    offers = PairingOffers()
    offers.add(SECRET, NOW)
    assert offers.secret(bytes(16), NOW) is None
    assert pair(offers)


def test_links_are_bounded() -> None:
    offers = PairingOffers()
    for index in range(pairing.MAX_OFFERS):
        offers.add(seeded(f"offer {index}"), NOW)
    with pytest.raises(BusyError):
        offers.add(SECRET, NOW)
    offers.add(SECRET, NOW + 600)
    assert offers.size == 1
    with pytest.raises(MisuseError):
        offers.add(b"short", NOW)


def test_an_introduction_needs_the_private_key() -> None:
    client = sealer(shared=LINK.shared)
    head = RequestHead(b"POST", pairing.PATH, proof_fields(client, OTHER_DEVICE, NOW))
    fields = tuple((name, OURS.encode() if name == b"c2l-device" else value) for name, value in head.fields)
    bridge = opener(secrets=lambda pairing_id: SECRET)
    read_all(RequestReader(bridge), seal_request(client, Message(head)))
    with pytest.raises(ProofError):
        authenticate(bridge, fields, {OURS: POINT}.get, ReplayGuard(), NOW)


@pytest.mark.parametrize("name", ["P", "Käthes Telefon 📱", "x" * 64])
def test_an_introduction_is_read_as_written(name: str) -> None:
    introduction = Introduction(POINT, name)
    assert read_introduction(introduction.encode()) == introduction
    assert introduction.device_id == OURS


KEY = base64url.encode(POINT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 900,
        b"x" * 1025,
        json.dumps({"key": KEY}),
        json.dumps({"key": KEY, "name": "a", "more": 1}),
        json.dumps({"key": KEY, "name": ""}),
        json.dumps({"key": KEY, "name": " a"}),
        json.dumps({"key": KEY, "name": "x" * 65}),
        json.dumps({"key": KEY, "name": "a\u202eb"}),
        json.dumps({"key": KEY, "name": "a\nb"}),
        json.dumps({"key": KEY, "name": 1}),
        json.dumps({"key": KEY[:-4], "name": "a"}),
        json.dumps({"key": None, "name": "a"}),
    ],
)
def test_malformed_introductions(body: str | bytes) -> None:
    with pytest.raises(MalformedError):
        read_introduction(body.encode() if isinstance(body, str) else body)


def test_our_own_mistakes() -> None:
    for arguments in (("", PINNED, SECRET), ("a", b"", SECRET), ("a", PINNED, b"short"), ("a.b", PINNED, SECRET)):
        with pytest.raises(MisuseError):
            PairingLink(*arguments)
    with pytest.raises(MisuseError):
        safety_words(PINNED, b"")
    assert decode(base64url.encode(PINNED)) == PINNED


def test_safety_words() -> None:
    device = decode(OURS)
    words = safety_words(PINNED, device)
    assert len(words) == 8
    assert set(words) <= set(WORDS)
    assert words == safety_words(PINNED, device)
    others = {safety_words(seeded("x"), device), safety_words(PINNED, seeded("x")), safety_words(device, PINNED)}
    assert len(others | {words}) == 4


def test_the_word_list_is_bip_39_s() -> None:
    assert len(WORDS) == len({word[:4] for word in WORDS}) == 2048
    assert list(WORDS) == sorted(WORDS)
    assert (WORDS[0], WORDS[-1]) == ("abandon", "zoo")
