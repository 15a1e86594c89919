"""What a HELLO means for a session: pure decisions, taken before anything is changed.

The numbering of a session begins at its `origin`: the epoch of the HELLO by which the proxy first learned of the
session. The bridge states the origin it knows, the proxy answers with its own. Equal: both have kept the
numbering, and it goes on. Not equal: the proxy has a numbering that the bridge has never heard of (the proxy is
new, or its first answer was lost), so it begins at this very epoch. An answer that was lost on the way therefore
never lets one side go on while the other begins again.
"""

from dataclasses import dataclass

from cloudtolocalllm.tunnel.errors import EpochFencedError, RemoteError
from cloudtolocalllm.tunnel.frames import Hello


@dataclass(frozen=True, slots=True)
class Known:
    """What one side knows of the session when a HELLO comes."""

    session_id: bytes
    epoch: int
    """Of the present connection (bridge), or of the last one accepted (proxy)."""
    origin: int
    """0 while there is none."""
    used: bool
    """Whether any numbered frame of this numbering was received, or acknowledged by the peer."""
    peer_limits: tuple[int, int]
    """The window and max_streams that the peer stated when the numbering began."""
    first_stream: int
    """Proxy: the first stream id of this numbering."""
    last_stream: int
    """The highest stream id opened so far."""


def begins_anew_at_proxy(known: Known, hello: Hello) -> bool:
    """Judge the bridge's HELLO.

    Returns:
        Whether a numbering begins at this epoch (or begins again, nothing of it having reached the bridge).

    Raises:
        EpochFencedError: The epoch is not above the current one.
        RemoteError: The HELLO contradicts what is known.
    """
    _check_session(known, hello)
    if hello.epoch <= known.epoch:
        raise EpochFencedError(f"expected an epoch above {known.epoch}, got {hello.epoch}")
    if hello.origin >= hello.epoch:
        raise RemoteError(f"expected an origin below epoch {hello.epoch}, got {hello.origin}")
    if not known.origin:
        return True
    if hello.origin == known.origin:
        _check_limits(known, hello)
        if hello.last_stream > known.last_stream:
            raise RemoteError(f"expected a last stream of at most {known.last_stream}, got {hello.last_stream}")
        return False
    if known.used or hello.last_stream >= known.first_stream:
        raise RemoteError(f"expected origin {known.origin}, got {hello.origin}")
    _check_limits(known, hello)
    return True


def begins_anew_at_bridge(known: Known, hello: Hello) -> bool:
    """Judge the proxy's answer.

    Returns:
        Whether a numbering begins at this epoch and everything of an earlier one is lost.

    Raises:
        RemoteError: The HELLO contradicts what is known.
    """
    _check_session(known, hello)
    if hello.epoch != known.epoch:
        raise RemoteError(f"expected epoch {known.epoch} to be answered, got {hello.epoch}")
    if hello.last_stream:
        raise RemoteError(f"expected last stream 0 from a proxy, got {hello.last_stream}")
    if hello.origin == hello.epoch:
        if hello.received:
            raise RemoteError(f"expected 0 received frames from a proxy that begins, got {hello.received}")
        return True
    if not known.origin or hello.origin != known.origin:
        raise RemoteError(f"expected origin {known.origin or known.epoch}, got {hello.origin}")
    _check_limits(known, hello)
    return False


def _check_session(known: Known, hello: Hello) -> None:
    if hello.session_id != known.session_id:
        raise RemoteError("expected the id of this session in HELLO, got another")


def _check_limits(known: Known, hello: Hello) -> None:
    if (hello.window, hello.max_streams) != known.peer_limits:
        raise RemoteError("expected the window and max_streams that began the session, got others")
