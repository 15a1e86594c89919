"""What can go wrong in the tunnel: ours (LocalError) and the peer's (RemoteError)."""

from typing import ClassVar

from cloudtolocalllm.tunnel.events import GoAwayReason


class TunnelError(Exception):
    """Base of every error of the tunnel."""


class LocalError(TunnelError):
    """The caller broke the contract of this package; nothing was sent."""


class StreamClosedError(LocalError):
    """The stream has ended or was reset, so the call can have no effect."""


class CreditExceededError(LocalError):
    """More bytes were offered than the peer's window allows."""


class RemoteError(TunnelError):
    """The peer broke the protocol; the connection must be closed. The text never quotes the peer's bytes."""

    goaway: ClassVar[GoAwayReason] = GoAwayReason.PROTOCOL_ERROR
    """What the peer is told before the connection is closed."""


class VersionError(RemoteError):
    """The peer speaks another version of the protocol."""

    goaway = GoAwayReason.VERSION


class EpochFencedError(RemoteError):
    """A connection with an epoch not above the current one tried to take over the session.

    Only that connection is refused: the session goes on with the one it had.
    """

    goaway = GoAwayReason.EPOCH_FENCED
