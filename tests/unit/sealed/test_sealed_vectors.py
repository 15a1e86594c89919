"""The vectors of the documents that the envelope follows."""

import pytest
from tests.support.sealed_parts import read, vectors

from cloudtolocalllm.sealed import bhttp, hpke
from cloudtolocalllm.sealed.bhttp import InformationalHead, Message, RequestHead, ResponseHead
from cloudtolocalllm.sealed.bhttp_decoder import Kind, decode_message
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.key_config import decode_configs, encode_config
from cloudtolocalllm.sealed.ohttp import (
    RESPONSE_NONCE_BYTES,
    RequestOpener,
    RequestSealer,
    ResponseOpener,
    ResponseSealer,
    _ResponseKey,
)

RFC9292 = vectors("sealed/rfc9292.json")["vectors"]
RFC9180 = vectors("sealed/rfc9180.json")["vectors"]
DRAFT = vectors("sealed/chunked_ohttp_08.json")
RFC9458 = vectors("sealed/rfc9458.json")
unhex = bytes.fromhex


def fields(pairs: list[list[str]]) -> Fields:
    return tuple((name.encode(), value.encode()) for name, value in pairs)


def message(value: dict[str, object]) -> Message:
    head: RequestHead | ResponseHead
    plain: dict[str, str] = {key: item for key, item in value.items() if isinstance(item, str)}
    lines = fields(value["fields"])  # type: ignore[arg-type]  # JSON
    if value["kind"] == "request":
        control = (plain[part].encode() for part in ("scheme", "authority"))
        head = RequestHead(plain["method"].encode(), plain["path"].encode(), lines, *control)
    else:
        head = ResponseHead(int(value["status"]), lines)  # type: ignore[call-overload]  # JSON
    before = [InformationalHead(each["status"], fields(each["fields"])) for each in value["informational"]]  # type: ignore[attr-defined]  # JSON
    return Message(head, unhex(plain["content"]), fields(value["trailers"]), tuple(before))  # type: ignore[arg-type]  # JSON


@pytest.mark.parametrize("vector", RFC9292, ids=lambda vector: vector["name"])
def test_rfc_9292(vector: dict[str, object]) -> None:
    data = unhex(str(vector["hex"]))
    expected = message(vector["message"])  # type: ignore[arg-type]  # JSON
    kind = Kind.REQUEST if isinstance(expected.head, RequestHead) else Kind.RESPONSE
    assert decode_message(data, kind) == expected
    padding = int(str(vector["padding"]))
    encode = bhttp.encode_streamed if vector["streamed"] else bhttp.encode_known
    assert encode(expected, padding=padding) == data


def test_rfc_9292_up_to_12_bytes_can_be_removed_from_the_padded_request() -> None:
    data = unhex(RFC9292[1]["hex"])
    expected = decode_message(data, Kind.REQUEST)
    assert all(decode_message(data[:-cut], Kind.REQUEST) == expected for cut in range(1, 13))


@pytest.mark.parametrize("vector", RFC9180, ids=["base", "psk"])
def test_rfc_9180(vector: dict[str, str | int | list[dict[str, str]]]) -> None:
    def get(name: str) -> bytes:
        return unhex(str(vector.get(name, "")))

    psk = {"psk": get("psk"), "psk_id": get("psk_id")}
    enc, sending = hpke.sender(get("pkRm"), get("info"), get("skEm"), **psk)
    receiving = hpke.recipient(enc, get("skRm"), get("info"), **psk)
    assert enc == get("enc")
    for each in vector["encryptions"]:  # type: ignore[union-attr]  # JSON
        plain, sealed, aad = (unhex(each[name]) for name in ("pt", "ct", "aad"))  # type: ignore[index]  # JSON
        assert sending.seal(plain, aad) == sealed
        assert receiving.open(sealed, aad) == plain
    for each in vector["exports"]:  # type: ignore[union-attr]  # JSON
        expected = unhex(each["exported_value"])  # type: ignore[index]  # JSON
        assert sending.export(unhex(each["exporter_context"]), len(expected)) == expected  # type: ignore[index]  # JSON
        assert receiving.export(unhex(each["exporter_context"]), len(expected)) == expected  # type: ignore[index]  # JSON


def test_rfc_9458() -> None:
    """The form in one piece, which we do not use: its keys are derived as those of chunks are."""
    get = {name: unhex(value) for name, value in RFC9458.items() if name != "source"}
    (config,) = decode_configs(len(get["keyConfig"]).to_bytes(2, "big") + get["keyConfig"])
    assert config.public == hpke.public_key(get["skR"])
    enc, context = hpke.sender(config.public, get["info"], get["skE"])
    assert config.header + enc + context.seal(get["request"]) == get["encapsulatedRequest"]
    secret = context.export(b"message/bhttp response", RESPONSE_NONCE_BYTES)
    assert secret == get["secret"]
    key = _ResponseKey(enc, secret, get["responseNonce"])
    assert get["responseNonce"] + key.seal(get["response"], b"") == get["encapsulatedResponse"]


def test_draft_chunked_ohttp_08() -> None:
    get = {name: unhex(value) for name, value in DRAFT.items() if isinstance(value, str) and name != "source"}
    (config,) = decode_configs(len(get["keyConfig"]).to_bytes(2, "big") + get["keyConfig"])
    client = RequestSealer(config, get["skE"])
    at = DRAFT["requestSplit"][0]
    request = [client.header, client.seal(get["request"][:at]), client.seal(get["request"][at:]), client.seal_final()]
    assert b"".join(request) == unhex("".join(DRAFT["encapsulatedRequest"]))

    bridge = RequestOpener(lambda key_id: get["skR"] if key_id == 1 else None)
    assert b"".join(read(bridge, request)) == get["request"]
    answer = bridge.response(get["responseNonce"])
    assert isinstance(answer, ResponseSealer)
    at = DRAFT["responseSplit"][0]
    parts = [answer.header, answer.seal(get["response"][:at]), answer.seal(get["response"][at:]), answer.seal_final()]
    assert [part.hex() for part in parts] == DRAFT["encapsulatedResponse"]
    reader = client.response()
    assert isinstance(reader, ResponseOpener)
    assert b"".join(read(reader, parts)) == get["response"]


def test_our_key_configuration_names_the_one_suite() -> None:
    (config,) = decode_configs(bytes.fromhex("002d" + DRAFT["keyConfig"]))
    assert encode_config(config).hex() == DRAFT["keyConfig"][:70] + "0004" + "00010001"
