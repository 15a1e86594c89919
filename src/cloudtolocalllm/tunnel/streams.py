"""One stream: a request half and a response half, each with its state.

Rules
- A stream has two halves. The request half is sent by the proxy, the response half by the bridge; each side
  keeps the state of both: `sending` and `receiving`.
- OPEN makes a stream. It is the request half's head, so that half begins in BODY, the response half in HEAD.
- A half moves only as TRANSITIONS says; any signal that is not in the table breaks the protocol (ours to send:
  LocalError, theirs: RemoteError).
- RESET, from either side and in any state, ends both halves at once.
- A stream is finished when both halves are DONE and our END is numbered; then nothing of it is kept.
- CREDIT is no signal: it may come in any state.
"""

from collections import deque
from enum import Enum
from typing import Final

from cloudtolocalllm.tunnel.limits import MAX_INFORMATIONAL


class Half(Enum):
    """The state of one half of a stream."""

    HEAD = "awaiting its head"
    BODY = "in its body"
    DONE = "complete"


class Signal(Enum):
    """What moves a half."""

    INFORMATIONAL = "informational head"
    FINAL = "final head"
    DATA = "data"
    END = "end"


TRANSITIONS: Final[dict[tuple[Half, Signal], Half]] = {
    (Half.HEAD, Signal.INFORMATIONAL): Half.HEAD,
    (Half.HEAD, Signal.FINAL): Half.BODY,
    (Half.BODY, Signal.DATA): Half.BODY,
    (Half.BODY, Signal.END): Half.DONE,
}

# Names for the states that the data path compares with: an attribute of an Enum class costs more than a global.
BODY: Final = Half.BODY
DONE: Final = Half.DONE


class Stream:
    """What one side knows of one stream."""

    __slots__ = (
        "active",
        "credit",
        "deficit",
        "end",
        "flushed",
        "granting",
        "id",
        "in_flight",
        "informational",
        "opened",
        "queue",
        "receiving",
        "sending",
        "to_grant",
        "unconsumed",
        "urgent",
        "window",
    )

    def __init__(self, stream_id: int, sending: Half, receiving: Half, window: int) -> None:
        """Make a stream that was just opened.

        Args:
            stream_id: Its id.
            sending: The state of our half.
            receiving: The state of the peer's half.
            window: Bytes that each side may have in flight.
        """
        self.id = stream_id
        self.sending = sending
        self.receiving = receiving
        self.informational = 0
        """Informational heads that passed, in whichever direction the response goes."""
        # what we send
        self.window = window
        """Bytes that the caller may still queue."""
        self.in_flight = 0
        """Bytes numbered and not yet granted again: no CREDIT may exceed this."""
        self.queue: deque[bytes | memoryview] = deque()
        self.deficit = 0
        self.active = False
        """Whether the scheduler has it in its round."""
        self.end: bytes | None = None
        """The payload of our END while it waits for the data before it."""
        self.flushed = False
        """Whether our END was numbered."""
        self.opened = True
        """Whether its OPEN was numbered (False only at the proxy, until then)."""
        self.urgent = 0
        """Frames of it in the scheduler's urgent queue."""
        # what we receive
        self.credit = window
        """Bytes that the peer may still send."""
        self.unconsumed = 0
        """Bytes received that the caller has not passed on."""
        self.to_grant = 0
        """Bytes passed on that were not granted again."""
        self.granting = False
        """Whether a CREDIT is queued."""

    def passes(self, status: int) -> bool:
        """Count a response head and tell whether it may come here: 1xx in small number before a final one."""
        if status >= 200:
            return True
        self.informational += 1
        return self.informational <= MAX_INFORMATIONAL


def signal_of(status: int) -> Signal:
    """Return what a response head with this status is."""
    return Signal.INFORMATIONAL if status < 200 else Signal.FINAL
