"""The careless service that shows who reaches this machine: it must not fall silent by itself."""

import contextlib
import socket
import struct

import pytest
from tests.support.reach import answers_here, host_listener


def test_the_listener_outlives_who_says_nothing_and_who_breaks_off() -> None:
    with host_listener() as port:
        with socket.create_connection(("127.0.0.1", port), 5):  # silent until it is closed on
            assert answers_here("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), 5) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        assert answers_here("127.0.0.1", port)
    assert not answers_here("127.0.0.1", port)


def test_a_listener_that_fell_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.reach.answers_here", lambda host, port: False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(host_listener())
        with pytest.raises(AssertionError, match="to answer to the end"):
            stack.close()
