"""An answer on its way to the browser: paced, and broken off visibly."""

import pytest

from cloudtolocalllm.bridge.page.port import MAX_HELD, MAX_WRITE, PagePort
from cloudtolocalllm.runtime.http1 import Body, Headers
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY
from cloudtolocalllm.tunnel import ResetReason, ResponseHead


class Said:
    """Notes what a responder is told."""

    peer = "127.0.0.1"

    def __init__(self) -> None:
        self.calls: list[object] = []

    def inform(self, status: int, headers: Headers) -> None:
        self.calls.append(("inform", status))

    def start(self, status: int, headers: Headers, body: Body) -> None:
        self.calls.append(("start", status, body))

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def end(self, trailers: Headers = ()) -> None:
        self.calls.append("end")

    def abort(self) -> None:
        self.calls.append("abort")

    def respond(self, status: int, headers: Headers, content: bytes) -> None:
        raise AssertionError

    def pause_body(self) -> None:
        self.calls.append("pause")

    def resume_body(self) -> None:
        self.calls.append("resume")

    def hijack(self) -> tuple[object, bytes]:
        raise AssertionError


def made() -> tuple[PagePort, Said, list[str]]:
    said, over = Said(), list[str]()
    return PagePort(said, lambda: over.append("over")), said, over  # type: ignore[arg-type] # hijack's transport


def test_an_answer_and_nothing_after_its_end() -> None:
    port, said, over = made()
    port.send_head(ResponseHead(103, ()))
    port.send_head(ResponseHead(200, ()))
    port.send_head(ResponseHead(500, ()))
    port.send_data(b"x")
    port.end()
    port.send_data(b"y")
    port.end()
    port.reset(ResetReason.CANCELLED)
    assert said.calls == [("inform", 103), ("start", 200, CHUNKED), b"x", "end"]
    assert (over, port.over, port.window) == (["over"], True, 0)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_content(status: int) -> None:
    port, said, _ = made()
    port.send_head(ResponseHead(status, ()))
    assert said.calls == [("start", status, NO_BODY)]


def test_what_broke_off_or_never_began_is_seen_to_be_no_whole_answer() -> None:
    for headed in (True, False):
        port, said, over = made()
        if headed:
            port.send_head(ResponseHead(200, ()))
            port.reset(ResetReason.ENGINE_ERROR, "why")
        else:
            port.end()
        assert said.calls[-1] == "abort"
        assert over == ["over"]


def test_a_full_connection_takes_nothing() -> None:
    port, _, _ = made()
    assert port.window == MAX_WRITE
    port.set_writable(writable=False)
    assert port.window == 0
    port.set_writable(writable=True)
    assert port.window == MAX_WRITE


def test_content_that_nobody_takes_stops_the_reading() -> None:
    port, said, _ = made()
    port.took(MAX_HELD)
    assert said.calls == []
    port.took(1)
    port.took(1)
    assert said.calls == ["pause"]
    port.consumed(10)
    assert said.calls == ["pause"]
    port.consumed(MAX_HELD)
    assert said.calls == ["pause", "resume"]
