"""Write the byte vectors of the tunnel protocol to tests/vectors/tunnel/.

    python scripts/make_tunnel_vectors.py

`frames.json` has one frame of each kind, and some variants, with the values they carry. `dialogue.json` is one whole
conversation of two sessions: a request, its response, a lost connection, the replay. A second implementation
should produce and understand exactly these bytes; tests/unit/tunnel/test_tunnel_vectors.py shows how ours does.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from cloudtolocalllm.tunnel import (
    Event,
    GoAwayReason,
    Hello,
    RequestHead,
    ResetReason,
    ResponseHead,
    Role,
    Session,
    frames,
    heads,
)

FOLDER = Path(__file__).parent.parent / "tests" / "vectors" / "tunnel"
SESSION_ID = bytes(range(16))
MAX_HEAD = 65536

POST = RequestHead("POST", "/v1/chat/completions?x=%20", ((b"host", b"home"), (b"content-type", b"application/json")))
EARLY = ResponseHead(103, ((b"link", b"</style.css>"),))
OK = ResponseHead(200, ((b"content-type", b"text/event-stream"), (b"x-odd", b"caf\xe9")))
TRAILERS = ((b"checksum", b"abc"),)


def plain(value: object) -> Any:
    """Return a value as JSON can hold it: bytes in hex, enumerations by name."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, GoAwayReason | ResetReason):
        return value.name
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def event(value: Event) -> dict[str, Any]:
    """Return an event with its name."""
    fields: dict[str, Any] = plain(value)
    return {"event": type(value).__name__, **fields}


def frame_vectors() -> list[dict[str, Any]]:
    """Return one frame of each kind, with its values."""
    hello = Hello(1, SESSION_ID, 3, 7, 262144, 1024, 2, 9)

    def vector(name: str, encoded: bytes, /, **values: object) -> dict[str, Any]:
        kind, _, stream_id, _ = frames.HEADER.unpack_from(encoded)
        kind_name = frames.KIND_NAMES[kind]
        values_plain = {key: plain(value) for key, value in values.items()}
        return {"name": name, "kind": kind_name, "stream_id": stream_id, "values": values_plain, "hex": encoded.hex()}

    def numbered(kind: int, payload: bytes) -> bytes:
        return frames.frame(kind, 0x01020304, payload)

    reset = frames.encode_reset(0x01020304, ResetReason.ENGINE_ERROR, "broke off")
    return [
        vector("hello", frames.encode_hello(hello), hello=hello),
        vector("ack", frames.encode_ack(2**40 + 5), received=2**40 + 5),
        vector("ping", frames.encode_ping(frames.PING, 1), number=1),
        vector("pong", frames.encode_ping(frames.PONG, 1), number=1),
        *(vector(f"goaway {reason.name}", frames.encode_goaway(reason), reason=reason) for reason in GoAwayReason),
        vector("open", numbered(frames.OPEN, heads.encode_request(POST, MAX_HEAD)), head=POST),
        vector("head, informational", numbered(frames.HEAD, heads.encode_response(EARLY, MAX_HEAD)), head=EARLY),
        vector("head, final", numbered(frames.HEAD, heads.encode_response(OK, MAX_HEAD)), head=OK),
        vector("data", numbered(frames.DATA, b"data: {}\n\n"), data=b"data: {}\n\n"),
        vector("end", numbered(frames.END, b""), trailers=()),
        vector(
            "end with trailers", numbered(frames.END, heads.encode_trailers(TRAILERS, MAX_HEAD)), trailers=TRAILERS
        ),
        vector("reset", reset, reason=ResetReason.ENGINE_ERROR, detail="broke off"),
        vector("credit", numbered(frames.CREDIT, frames.encode_credit(131072)), size=131072),
    ]


class Dialogue:
    """Two sessions and the record of what they say."""

    def __init__(self) -> None:
        self.sessions = {"bridge": Session(Role.BRIDGE, SESSION_ID), "proxy": Session(Role.PROXY, SESSION_ID)}
        self.steps: list[dict[str, Any]] = []

    def call(self, side: str, method: str, *args: Any) -> None:
        """Call a method and record it."""
        getattr(self.sessions[side], method)(*args)
        self.steps.append({"side": side, "call": method, "arguments": [plain(arg) for arg in args]})
        self.events(side)

    def events(self, side: str) -> None:
        """Record what a side tells its owner."""
        events = [event(value) for value in self.sessions[side].events_received()]
        if events:
            self.steps.append({"side": side, "events": events})

    def send(self, side: str, now: float, *, lost: bool = False) -> None:
        """Record all that a side sends, and deliver it unless it is lost."""
        other = "proxy" if side == "bridge" else "bridge"
        while (message := self.sessions[side].data_to_send()) is not None:
            self.steps.append({"side": side, "sends": message.hex(), "lost": lost, "now": now})
            if not lost:
                self.sessions[other].receive_data(message, now)
                self.events(other)


def dialogue_steps() -> list[dict[str, Any]]:
    """Return one whole conversation."""
    talk = Dialogue()
    talk.call("bridge", "attach", 0.0)
    talk.call("proxy", "attach", 0.0)
    talk.send("bridge", 0.0)
    talk.send("proxy", 0.0)
    talk.call("proxy", "open_stream", POST)
    talk.call("proxy", "send_data", 1, b'{"stream":true}')
    talk.call("proxy", "end_stream", 1)
    talk.send("proxy", 0.1)
    talk.call("bridge", "send_head", 1, OK)
    talk.call("bridge", "send_data", 1, b"data: one\n\n")
    talk.send("bridge", 0.1)
    # This token, and the acknowledgement of the last ones, are lost with the connection.
    talk.call("bridge", "send_data", 1, b"data: two\n\n")
    talk.send("bridge", 0.2, lost=True)
    talk.call("proxy", "tick", 2.5)
    talk.send("proxy", 2.5, lost=True)
    talk.call("bridge", "detach", 2.5)
    talk.call("proxy", "detach", 2.5)
    talk.call("bridge", "send_data", 1, b"data: three\n\n")
    talk.call("proxy", "open_stream", RequestHead("GET", "/api/tags"))
    talk.call("bridge", "attach", 3.0)
    talk.call("proxy", "attach", 3.0)
    talk.send("bridge", 3.0)
    talk.send("proxy", 3.0)
    talk.send("bridge", 3.0)
    talk.call("bridge", "end_stream", 1, TRAILERS)
    talk.call("proxy", "reset_stream", 2, ResetReason.CANCELLED, "client gone")
    talk.send("proxy", 3.1)
    talk.send("bridge", 3.1)
    talk.call("bridge", "tick", 8.2)
    talk.send("bridge", 8.2)
    talk.send("proxy", 8.2)
    talk.call("proxy", "go_away", GoAwayReason.IDLE)
    talk.send("proxy", 8.3)
    return talk.steps


def build() -> dict[str, Any]:
    """Return the contents of every vector file by its name."""
    return {"frames.json": frame_vectors(), "dialogue.json": dialogue_steps()}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in build().items():
        (FOLDER / name).write_text(json.dumps(content, indent=1) + "\n")
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
