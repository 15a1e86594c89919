"""The byte vectors: what we write is what they say, and what they say is understood."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.make_tunnel_vectors import MAX_HEAD, SESSION_ID, build, event, plain

from cloudtolocalllm.tunnel import GoAwayReason, RequestHead, ResetReason, ResponseHead, Role, Session, frames, heads

FOLDER = Path(__file__).parents[2] / "vectors" / "tunnel"
FRAMES: list[dict[str, Any]] = json.loads((FOLDER / "frames.json").read_text())
DIALOGUE: list[dict[str, Any]] = json.loads((FOLDER / "dialogue.json").read_text())


@pytest.mark.parametrize("name", ["frames.json", "dialogue.json"])
def test_what_we_write_is_what_the_vectors_say(name: str) -> None:
    assert json.loads((FOLDER / name).read_text()) == build()[name]


def test_every_kind_of_frame_has_a_vector() -> None:
    assert {vector["kind"] for vector in FRAMES} == set(frames.KIND_NAMES.values())


def decode(kind: int, payload: bytes) -> dict[str, Any]:
    """Read a payload as `frames.json` shows it."""
    if kind == frames.RESET:
        reason, detail = frames.decode_reset(payload)
        return {"reason": plain(reason), "detail": detail}
    values: dict[int, tuple[str, Callable[[], object]]] = {
        frames.HELLO: ("hello", lambda: frames.decode_hello(payload)),
        frames.ACK: ("received", lambda: frames.decode_ack(payload)),
        frames.PING: ("number", lambda: frames.decode_ping(payload, kind)),
        frames.PONG: ("number", lambda: frames.decode_ping(payload, kind)),
        frames.GOAWAY: ("reason", lambda: frames.decode_goaway(payload)),
        frames.OPEN: ("head", lambda: heads.decode_request(payload, MAX_HEAD)),
        frames.HEAD: ("head", lambda: heads.decode_response(payload, MAX_HEAD)),
        frames.DATA: ("data", lambda: payload),
        frames.END: ("trailers", lambda: heads.decode_trailers(payload, MAX_HEAD)),
        frames.CREDIT: ("size", lambda: frames.decode_credit(payload)),
    }
    name, value = values[kind]
    return {name: plain(value())}


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
def test_frames_are_understood(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    kind, flags, stream_id, length = frames.HEADER.unpack_from(data)
    payload = data[frames.HEADER_BYTES :]
    assert (frames.KIND_NAMES[kind], flags, stream_id, length) == (
        vector["kind"],
        0,
        vector["stream_id"],
        len(payload),
    )
    assert decode(kind, payload) == vector["values"]


@pytest.mark.parametrize("name", ["bridge", "proxy"])
def test_the_dialogue_is_understood_from_its_bytes_alone(name: str) -> None:
    """One side is ours and makes its own calls; the other side is the file."""
    session = Session(Role(name), SESSION_ID)
    made = iter(step for step in build()["dialogue.json"] if step["side"] == name and "call" in step)
    for step in DIALOGUE:
        if step["side"] == name and "call" in step:
            assert next(made) == step
            call(session, step)
        elif step["side"] == name and "sends" in step:
            message = session.data_to_send()
            assert message is not None
            assert message.hex() == step["sends"]
        elif step["side"] == name:
            assert [event(value) for value in session.events_received()] == step["events"]
        elif "sends" in step and not step["lost"]:
            session.receive_data(bytes.fromhex(step["sends"]), step["now"])


def call(session: Session, step: dict[str, Any]) -> None:
    """Make a call of the dialogue, its arguments as in the file."""
    arguments = [argument(step["call"], position, value) for position, value in enumerate(step["arguments"])]
    getattr(session, step["call"])(*arguments)


def argument(method: str, position: int, value: Any) -> Any:
    """Turn an argument of the file into ours."""

    def headers(fields: list[list[str]]) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((bytes.fromhex(name), bytes.fromhex(content)) for name, content in fields)

    if isinstance(value, dict):
        fields = headers(value["headers"])
        if "method" in value:
            return RequestHead(value["method"], value["target"], fields)
        return ResponseHead(value["status"], fields)
    if isinstance(value, list):
        return headers(value)
    if method == "go_away":
        return GoAwayReason[value]
    if method == "reset_stream" and position == 1:
        return ResetReason[value]
    return bytes.fromhex(value) if method == "send_data" and position == 1 else value
