"""What can go wrong in the sealed envelope: ours (MisuseError) and the peer's (all others)."""


class SealedError(Exception):
    """Base of every error of the envelope. The text never quotes what was sealed, nor any key."""


class MisuseError(SealedError):
    """The caller broke the contract of this package; nothing was sealed or opened."""


class MalformedError(SealedError):
    """The bytes are not of the format, or exceed a limit."""


class TruncatedError(SealedError):
    """The message ended before its final chunk: what came may not be taken for the whole."""


class ForgedError(SealedError):
    """A chunk does not open: it was changed, moved, repeated or left out, or is for another key."""


class UnknownKeyError(SealedError):
    """The message is sealed to a key that is not held (any more), or to a pairing that is not open."""


class UntrustedError(SealedError):
    """A signed statement is not by the pinned identity, or its signature does not hold."""


class ExpiredError(SealedError):
    """A signed statement is not valid at this time."""


class RollbackError(SealedError):
    """A key configuration is older than one that was already accepted."""


class UnknownDeviceError(SealedError):
    """The device was never paired, or was removed."""


class ProofError(SealedError):
    """The device did not prove that it made this request."""


class SkewError(SealedError):
    """The request's date is missing, or too far from this clock."""


class ReplayedError(SealedError):
    """This very request was received before."""


class BusyError(SealedError):
    """Too many requests are remembered; none can be told from a replay until some have aged."""
