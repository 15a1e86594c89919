"""Our own vectors: what Python writes has not changed, and what TypeScript wrote is understood."""

import pytest
from scripts.make_sealed_vectors import build
from tests.support.sealed_parts import read, vectors

from cloudtolocalllm.sealed.bhttp import Message, ResponseHead
from cloudtolocalllm.sealed.device import authenticate, device_id
from cloudtolocalllm.sealed.errors import RollbackError, UntrustedError
from cloudtolocalllm.sealed.exchange import RequestReader, ResponseReader, read_all
from cloudtolocalllm.sealed.key_config import KeyConfig
from cloudtolocalllm.sealed.key_ring import GatewayKey
from cloudtolocalllm.sealed.ohttp import RequestOpener, RequestSealer
from cloudtolocalllm.sealed.pairing import read_introduction, shared_secret
from cloudtolocalllm.sealed.replay import ReplayGuard
from cloudtolocalllm.sealed.statement import verify

unhex = bytes.fromhex
THEIRS = vectors("sealed/typescript.json")
BRIDGE = GatewayKey(THEIRS["bridge"]["keyId"], unhex(THEIRS["bridge"]["private"]), THEIRS["now"])
POINT = unhex(THEIRS["point"])
PAIRED = {device_id(POINT): POINT}


def key(key_id: int) -> bytes | None:
    return BRIDGE.private if key_id == BRIDGE.key_id else None


def test_our_vectors_are_what_we_write() -> None:
    assert vectors("sealed/python.json") == build()


def test_a_request_by_webcrypto_is_opened_and_its_device_recognised() -> None:
    opener = RequestOpener(key)
    message = read_all(RequestReader(opener), unhex(THEIRS["request"]))
    assert message.content == unhex(THEIRS["content"])
    assert "Grüße 🦙" in message.content.decode()
    assert authenticate(opener, message.head.fields, PAIRED.get, ReplayGuard(), THEIRS["now"]) in PAIRED


def test_a_response_by_webcrypto_is_opened() -> None:
    config = KeyConfig(BRIDGE.key_id, BRIDGE.config.public)
    client = RequestSealer(config, unhex(THEIRS["ephemeral"]))
    assert THEIRS["request"].startswith(client.header.hex())
    message = read_all(ResponseReader(client.response()), unhex(THEIRS["response"]))
    expected = ResponseHead(200, ((b"content-type", b"text/plain"),))
    assert message == Message(expected, unhex(THEIRS["content"]))


def test_a_pairing_by_webcrypto_is_opened() -> None:
    shared = shared_secret(unhex(THEIRS["secret"]))
    opener = RequestOpener(key, lambda pairing_id: shared.secret if pairing_id == shared.id else None)
    message = read_all(RequestReader(opener), unhex(THEIRS["pairing"]))
    device = read_introduction(message.content)
    assert (device.point, device.name) == (POINT, THEIRS["name"])
    points = {device.device_id: device.point}
    assert authenticate(opener, message.head.fields, points.get, ReplayGuard(), THEIRS["now"]) == device.device_id


def test_a_statement_by_webcrypto_is_verified() -> None:
    pinned = unhex(THEIRS["fingerprint"])
    found = verify(THEIRS["statement"], pinned, "home", THEIRS["now"], seen=THEIRS["now"])
    assert found.configs == (BRIDGE.config,)
    with pytest.raises(RollbackError):
        verify(THEIRS["statement"], pinned, "home", THEIRS["now"], seen=THEIRS["now"] + 1)
    with pytest.raises(UntrustedError):
        verify(THEIRS["statement"], bytes(32), "home", THEIRS["now"])


def test_each_way_something_was_read() -> None:
    assert len(read(RequestOpener(key), [unhex(THEIRS["request"])])) == 1
