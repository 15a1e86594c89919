"""Write our own vectors of the sealed envelope to tests/vectors/sealed/python.json.

    python scripts/make_sealed_vectors.py

What is random elsewhere is fixed here, so each run writes the same. The TypeScript twin reads all of it and makes all
of it again but the device's signatures, which WebCrypto makes with a random number
(web/tests/protocol/sealed/cross.test.ts). It has written typescript.json in turn, which
tests/unit/sealed/test_sealed_cross.py reads:

    cd web && C2L_WRITE_VECTORS=1 npx vitest run tests/protocol/sealed/cross.test.ts
"""

import json
from typing import Any

from tests.support.sealed_parts import (
    BRIDGE,
    CHAT,
    DEVICE,
    IDENTITY,
    NOW,
    PINNED,
    RING,
    SECRET,
    VECTORS,
    opener,
    read,
    sealer,
    seeded,
)

from cloudtolocalllm.sealed import base64url, bhttp, statement
from cloudtolocalllm.sealed.bhttp import InformationalHead, Message, RequestHead, ResponseHead
from cloudtolocalllm.sealed.device import device_id, proof_fields, proof_message, public_point, sign
from cloudtolocalllm.sealed.exchange import ResponseWriter, seal_request
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.key_config import encode_configs
from cloudtolocalllm.sealed.ohttp import SharedSecret
from cloudtolocalllm.sealed.padding import request_size
from cloudtolocalllm.sealed.pairing import Introduction, PairingLink
from cloudtolocalllm.sealed.resume import Resume, resume_fields
from cloudtolocalllm.sealed.safety_words import safety_words
from cloudtolocalllm.sealed.statement import state_keys

FILE = VECTORS / "sealed" / "python.json"
LINK = PairingLink("home", PINNED, SECRET)
NONCE = seeded("nonce", 16)
DELTAS = [(0.0, b"data: {}\n\n"), (0.03, "data: Käse\n\n".encode()), (0.06, b"data: 3\n\n"), (0.31, b"x" * 900)]
TRAILERS: Fields = ((b"checksum", b"abc"),)


def fields(value: Fields) -> list[list[str]]:
    return [[name.decode("latin-1"), text.decode("latin-1")] for name, text in value]


def plain(message: Message) -> dict[str, Any]:
    head = message.head
    out: dict[str, Any] = {"fields": fields(head.fields)}
    if isinstance(head, RequestHead):
        parts = {part: getattr(head, part).decode() for part in ("method", "scheme", "authority", "path")}
        out = {"type": "request", **parts, **out}
    else:
        out = {"type": "response", "status": head.status, **out}
    before = [
        {"type": "informational", "status": h.status, "fields": fields(h.fields)} for h in message.informational
    ]
    return {
        "head": out,
        "content": message.content.hex(),
        "trailers": fields(message.trailers),
        "informational": before,
    }


def messages() -> list[dict[str, Any]]:
    """Messages of both kinds in both forms."""
    odd: Fields = ((b"x-odd", b"caf\xe9"), (b"x-odd", b""))
    cases = [
        Message(RequestHead(b"GET", b"/api/tags")),
        Message(RequestHead(b"POST", b"/v1/chat?x=%20", odd, b"http", b"h:1"), b"x" * 70, TRAILERS),
        Message(ResponseHead(204)),
        Message(ResponseHead(200, odd), b"y" * 300, TRAILERS, (InformationalHead(103, odd), InformationalHead(100))),
    ]
    return [
        plain(case)
        | {
            "known": bhttp.encode_known(case, padding=3).hex(),
            "streamed": bhttp.encode_streamed(case, padding=3).hex(),
        }
        for case in cases
    ]


def exchange(name: str, message: Message, shared: SharedSecret | None = None) -> dict[str, Any]:
    """A request, and a response in chunks."""
    client = sealer(name, shared)
    bridge = opener(secrets=lambda pairing_id: SECRET) if shared else opener()
    sent = seal_request(client, message)
    read(bridge, [sent])
    sizes = (0, 1, 16384, 3) if len(message.content) > 1000 else (17, 64, 300, 0)
    chunks = [seeded(f"{name} {size}", size) for size in sizes]
    answer = bridge.response(NONCE)
    sealed = answer.header + b"".join(answer.seal(chunk) for chunk in chunks[:-1]) + answer.seal_final(chunks[-1])
    return {
        "name": name,
        "ephemeral": seeded(name).hex(),
        "secret": SECRET.hex() if shared else None,
        "message": plain(message),
        "request": sent.hex(),
        "proofMessage": proof_message(client).hex(),
        "responseNonce": NONCE.hex(),
        "responseChunks": [chunk.hex() for chunk in chunks],
        "response": sealed.hex(),
    }


def streamed() -> dict[str, Any]:
    """A response as the bridge writes it: padded, at its times."""
    client, bridge = sealer("streamed"), opener()
    sent = seal_request(client, CHAT)
    read(bridge, [sent])
    writer = ResponseWriter(bridge.response(NONCE))
    steps: list[dict[str, Any]] = [{"at": None, "sends": writer.inform(InformationalHead(103)).hex()}]
    steps += [{"at": None, "sends": writer.start(ResponseHead(200, ((b"content-type", b"text/plain"),))).hex()}]
    for at, data in DELTAS:
        if writer.deadline is not None and writer.deadline <= at:
            deadline = writer.deadline
            steps.append({"at": deadline, "sends": writer.poll(deadline).hex()})
        steps.append({"at": at, "sends": writer.write(data, at).hex()})
    steps.append({"at": None, "sends": writer.finish(TRAILERS).hex()})
    return {
        "ephemeral": seeded("streamed").hex(),
        "request": sent.hex(),
        "steps": [step for step in steps if step["sends"]],
        "content": b"".join(data for _, data in DELTAS).hex(),
        "fields": [["content-type", "text/plain"]],
        "trailers": fields(TRAILERS),
    }


def device() -> dict[str, Any]:
    """A device's key, and a proof by it."""
    ours = public_point(DEVICE)
    client = sealer("proof")
    return {
        "private": f"{DEVICE.private_numbers().private_value:064x}",
        "point": ours.hex(),
        "id": device_id(ours),
        "ephemeral": seeded("proof").hex(),
        "proofMessage": proof_message(client).hex(),
        "proofFields": fields(proof_fields(client, DEVICE, NOW)),
        "signed": b"message".hex(),
        "signature": sign(DEVICE, b"message").hex(),
    }


def build() -> dict[str, Any]:
    """Return the contents of the file."""
    words = safety_words(PINNED, base64url.decode(device_id(public_point(DEVICE)), "a device"))
    return {
        "now": NOW,
        "bridge": {"keyId": BRIDGE.key_id, "private": BRIDGE.private.hex(), "public": BRIDGE.config.public.hex()},
        "configs": encode_configs((BRIDGE.config,)).hex(),
        "identity": {
            "private": IDENTITY.private_bytes_raw().hex(),
            "public": IDENTITY.public_key().public_bytes_raw().hex(),
            "fingerprint": PINNED.hex(),
        },
        "statement": statement.sign(state_keys(RING, "home", NOW), IDENTITY),
        "messages": messages(),
        "exchanges": [
            exchange("request", CHAT),
            exchange("long request", Message(CHAT.head, seeded("prompt", 20_000))),
            exchange(
                "pairing",
                Message(RequestHead(b"POST", b"/c2l/devices"), Introduction(public_point(DEVICE), "Käthe").encode()),
                LINK.shared,
            ),
        ],
        "streamed": streamed(),
        "device": device(),
        "pairing": {"fragment": LINK.fragment, "id": LINK.shared.id.hex(), "secret": SECRET.hex()},
        "introduction": Introduction(public_point(DEVICE), "Käthe").encode().decode(),
        "safetyWords": list(words),
        "requestSizes": [[size, request_size(size)] for size in (0, 1024, 1025, 5000, 100_000, 9_999_999)],
        "resume": {
            "exchange": seeded("exchange", 16).hex(),
            "offset": 12345,
            "fields": fields(resume_fields(Resume(seeded("exchange", 16), 12345))),
        },
    }


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(build(), indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
