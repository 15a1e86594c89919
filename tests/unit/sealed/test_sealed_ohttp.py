"""Chunked OHTTP: any pieces give the same chunks; whatever is changed on the way is noticed."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sealed_parts import BRIDGE, SECRET, cut, opener, read, sealer, seeded

from cloudtolocalllm.sealed import hpke, limits, ohttp
from cloudtolocalllm.sealed.chunks import ChunkSplitter
from cloudtolocalllm.sealed.errors import (
    ForgedError,
    MalformedError,
    MisuseError,
    SealedError,
    TruncatedError,
    UnknownKeyError,
)
from cloudtolocalllm.sealed.key_config import KeyConfig
from cloudtolocalllm.sealed.limits import MAX_CHUNK, TAG
from cloudtolocalllm.sealed.ohttp import RequestOpener, ResponseOpener, ResponseSealer
from cloudtolocalllm.sealed.pairing import shared_secret

plain_chunks = st.lists(st.binary(max_size=60), min_size=1, max_size=5)
places = st.lists(st.integers(0, 5000), max_size=8)
PIECES = [b"first", b"", b"third", b"last"]
HEADER = 7 + hpke.KEY_BYTES


def request_parts(chunks: list[bytes]) -> list[bytes]:
    """The header, and each chunk with its length."""
    client = sealer()
    return [client.header, *(client.seal(chunk) for chunk in chunks[:-1]), client.seal_final(chunks[-1])]


def response_sides() -> tuple[ResponseSealer, ResponseOpener]:
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    return bridge.response(seeded("nonce", 16)), client.response()


def response_parts(chunks: list[bytes]) -> tuple[list[bytes], ResponseOpener]:
    bridge, client = response_sides()
    return [bridge.header, *(bridge.seal(chunk) for chunk in chunks[:-1]), bridge.seal_final(chunks[-1])], client


@given(plain_chunks, places)
@settings(max_examples=60)
def test_a_request_is_opened_from_any_pieces(chunks: list[bytes], where: list[int]) -> None:
    data = b"".join(request_parts(chunks))
    assert read(opener(), cut(data, where)) == chunks
    assert read(opener(), [bytes((byte,)) for byte in data]) == chunks


@given(plain_chunks, places)
@settings(max_examples=60)
def test_a_response_is_opened_from_any_pieces(chunks: list[bytes], where: list[int]) -> None:
    parts, client = response_parts(chunks)
    assert read(client, cut(b"".join(parts), where)) == chunks


def test_any_bit_changed_anywhere_is_noticed() -> None:
    request = b"".join(request_parts(PIECES))
    parts, _ = response_parts(PIECES)
    response = b"".join(parts)
    for at in range(len(request)):
        for bit in (0, 7):
            changed = bytearray(request)
            changed[at] ^= 1 << bit
            with pytest.raises(SealedError):
                read(opener(), [bytes(changed)])
    for at in range(len(response)):
        changed = bytearray(response)
        changed[at] ^= 1 << at % 8
        with pytest.raises(SealedError):
            read(response_sides()[1], [bytes(changed)])


def test_cut_off_anywhere_is_noticed() -> None:
    request = b"".join(request_parts(PIECES))
    for size in range(len(request)):
        with pytest.raises((TruncatedError, ForgedError)):
            read(opener(), [request[:size]])
    response = b"".join(response_parts(PIECES)[0])
    for size in range(len(response)):
        with pytest.raises((TruncatedError, ForgedError)):
            read(response_sides()[1], [response[:size]])


def test_cut_off_between_chunks_is_called_truncated() -> None:
    parts = request_parts(PIECES)
    response, client = response_parts(PIECES)
    for size in range(len(parts)):
        with pytest.raises(TruncatedError):
            read(opener(), parts[:size])
    for size in range(len(response)):
        with pytest.raises(TruncatedError):
            read(response_sides()[1], response[:size])
    assert read(client, response) == PIECES


@pytest.mark.parametrize(
    "order",
    [(2, 1, 3, 4), (1, 1, 2, 3, 4), (1, 3, 4), (1, 2, 3, 3, 4), (4,), (1, 2, 4), (1, 2, 3, 4, 4)],
)
def test_chunks_moved_repeated_or_left_out_are_noticed(order: tuple[int, ...]) -> None:
    parts = request_parts(PIECES)
    with pytest.raises(ForgedError):
        read(opener(), [parts[0], *(parts[index] for index in order)])
    response, client = response_parts(PIECES)
    with pytest.raises(ForgedError):
        read(client, [response[0], *(response[index] for index in order)])


def test_a_chunk_in_the_middle_cannot_be_made_the_final_one() -> None:
    parts = request_parts(PIECES)
    early = b"\0" + parts[1][1:]  # its length replaced by the final chunk's mark
    with pytest.raises(ForgedError):
        read(opener(), [parts[0], early])
    response, client = response_parts(PIECES)
    with pytest.raises(ForgedError):
        read(client, [response[0], b"\0" + response[1][1:]])


def test_a_chunk_of_another_request_or_response_does_not_open() -> None:
    one, two = sealer("one"), sealer("two")
    with pytest.raises(ForgedError):
        read(opener(), [one.header, two.seal_final(b"x")])
    bridge, _ = response_sides()
    other = sealer("other")
    with pytest.raises(ForgedError):
        read(other.response(), [bridge.header, bridge.seal_final(b"x")])


def test_the_two_directions_have_different_keys() -> None:
    client, bridge = sealer(), opener()
    sent = client.seal_all(b"same")
    read(bridge, [sent])
    with pytest.raises(ForgedError):
        read(client.response(), [seeded("nonce", 16), sent[HEADER:]])


def test_each_nonce_gives_other_bytes() -> None:
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    one, two = (bridge.response(seeded(label, 16)).seal_final(b"same") for label in ("one", "two"))
    assert one != two


def test_nothing_more_is_said_after_an_error() -> None:
    request = opener()
    with pytest.raises(ForgedError):
        request.receive_data(b"".join([*request_parts(PIECES)[:1], b"\x10" + bytes(16)]))
    for call in (lambda: request.receive_data(b""), request.end):
        with pytest.raises(MisuseError):
            call()
    _, client = response_sides()
    with pytest.raises(ForgedError):
        client.receive_data(bytes(16) + b"\x10" + bytes(16))
    with pytest.raises(MisuseError):
        client.end()


def test_a_message_ends_once() -> None:
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    response = bridge.response(seeded("nonce", 16))
    response.seal_final()
    calls: list[Callable[[], bytes]] = [lambda: client.seal(b""), client.seal_final, bridge.end, response.seal_final]
    for call in calls:
        with pytest.raises(MisuseError):
            call()


def test_another_suite_or_key_is_refused() -> None:
    request = b"".join(request_parts(PIECES))
    for at in (2, 4, 6):
        changed = bytearray(request)
        changed[at] ^= 3
        with pytest.raises(MalformedError):
            opener().receive_data(bytes(changed))
    with pytest.raises(UnknownKeyError):
        RequestOpener(lambda key_id: None).receive_data(request)
    with pytest.raises(ForgedError):
        read(RequestOpener(lambda key_id: seeded("another")), [request])


def test_the_key_id_is_bound() -> None:
    """The header is part of what the keys are derived from, though it is sent in the open."""
    request = bytearray(b"".join(request_parts(PIECES)))
    request[0] ^= 1
    with pytest.raises(ForgedError):
        read(RequestOpener(lambda key_id: BRIDGE.private), [bytes(request)])


def test_a_point_of_low_order_is_refused() -> None:
    with pytest.raises(MalformedError):
        opener().receive_data(BRIDGE.config.header + bytes(32))
    with pytest.raises(MalformedError):
        ohttp.RequestSealer(KeyConfig(1, bytes(32)), seeded("ephemeral"))


def test_long_messages_go_in_chunks_of_16_kib() -> None:
    plain = seeded("long", 3 * MAX_CHUNK + 5)
    chunks = read(opener(), [sealer().seal_all(plain)])
    assert [len(chunk) for chunk in chunks] == [MAX_CHUNK] * 3 + [5]
    assert b"".join(chunks) == plain
    with pytest.raises(MisuseError):
        sealer().seal(bytes(MAX_CHUNK + 1))


def test_chunks_out_of_their_range_are_refused_at_once() -> None:
    for length in ("0f", "8000" + f"{MAX_CHUNK + TAG + 1:04x}", "ffffffffffffffff"):
        with pytest.raises(MalformedError):
            ChunkSplitter().receive_data(bytes.fromhex(length))
    splitter = ChunkSplitter()
    with pytest.raises(MalformedError):
        splitter.receive_data(b"\0" + bytes(MAX_CHUNK + TAG + 1))


def test_a_message_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ohttp, "MAX_SEALED", 100)
    with pytest.raises(MisuseError):
        sealer().seal(bytes(101))
    client = sealer()
    client.seal(bytes(60))
    with pytest.raises(MisuseError):
        client.seal(bytes(60))
    client = sealer()
    for _ in range(100):  # chunks of nothing, of which there would be no end
        client.seal(b"")
    with pytest.raises(MisuseError):
        client.seal(b"")
    monkeypatch.setattr(ohttp, "MAX_SEALED", 1000)
    sent = sealer().seal_all(bytes(500))
    monkeypatch.setattr(ohttp, "MAX_SEALED", 100)
    with pytest.raises(MalformedError):
        read(opener(), [sent])
    assert limits.MAX_SEALED == 1 << 30


def test_a_pairing_opens_with_its_secret_only() -> None:
    shared = shared_secret(SECRET)
    sent = sealer(shared=shared).seal_all(b"device")
    asked: list[bytes] = []

    def secret(pairing_id: bytes) -> bytes:
        asked.append(pairing_id)
        return SECRET

    bridge = opener(secrets=secret)
    assert read(bridge, [sent]) == [b"device"]
    assert asked == [shared.id]
    with pytest.raises(ForgedError):
        read(opener(secrets=lambda pairing_id: seeded("another secret")), [sent])
    with pytest.raises(UnknownKeyError):
        read(opener(secrets=lambda pairing_id: None), [sent])
    with pytest.raises(SealedError):
        read(opener(), [sent])  # as an exchange
    with pytest.raises(SealedError):
        read(opener(secrets=secret), [sealer().seal_all(b"device" * 9)])  # an exchange as a pairing


def test_a_pairing_can_be_answered() -> None:
    client, bridge = sealer(shared=shared_secret(SECRET)), opener(secrets=lambda pairing_id: SECRET)
    read(bridge, [client.seal_all(b"")])
    assert read(client.response(), [bridge.response(seeded("n", 16)).seal_all(b"welcome")]) == [b"welcome"]


def test_our_own_mistakes() -> None:
    for key in (b"", bytes(31), bytes(33)):
        with pytest.raises(MisuseError):
            ohttp.RequestSealer(BRIDGE.config, key)
        with pytest.raises(MisuseError):
            hpke.recipient(bytes(32), key, b"")
    for psk, psk_id in ((b"x" * 31, b"id"), (b"x" * 32, b""), (b"", b"id")):
        with pytest.raises(MisuseError):
            hpke.sender(BRIDGE.config.public, b"", seeded("e"), psk=psk, psk_id=psk_id)
    with pytest.raises(MisuseError):
        ohttp.RequestSealer(BRIDGE.config, seeded("e"), ohttp.SharedSecret(b"short", SECRET))
    with pytest.raises(MisuseError):
        ResponseSealer(bytes(32), bytes(16), bytes(15))
    with pytest.raises(MisuseError):
        opener().export(b"", 32)
    with pytest.raises(TruncatedError):
        opener().end()
