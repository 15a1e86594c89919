"""What can go wrong in the tunnel: ours (LocalError) and the peer's (RemoteError)."""


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


class EpochFencedError(RemoteError):
    """A connection with an epoch not above the current one tried to take over the session."""
