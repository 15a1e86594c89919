"""The frame codec."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each side on each connection."""

    version: int
    session_id: bytes
    epoch: int
    received: int
    """Sequence number of the next frame expected: how many numbered frames of this session came so far."""
    window: int
    max_streams: int


def peek_hello(message: bytes) -> Hello:
    """Read the HELLO at the start of a connection's first message, so that the acceptor can find the session.

    Raises:
        RemoteError: The message does not begin with a well-formed HELLO.
    """
    raise NotImplementedError
