"""The times of one connection and of its session: what is due when. The clock is the caller's."""

from cloudtolocalllm.tunnel.limits import Limits


class Liveness:
    """When a connection was heard, and until when it may stay silent. All times are monotonic seconds."""

    __slots__ = ("_limits", "_silence", "handshake_by", "heard", "ping_at", "pings", "resume_by")

    def __init__(self, limits: Limits) -> None:
        """Make it without a connection."""
        self._limits = limits
        self._silence = limits.silence
        self.heard: float = 0.0
        """When the last message came."""
        self.ping_at: float | None = None
        """When the next PING is due; None at the proxy, which sends none."""
        self.pings = 0
        """Pings sent on this connection: the number of the last one."""
        self.handshake_by: float | None = None
        self.resume_by: float | None = None
        """When the session ends unless it is attached again."""

    def begin_handshake(self, now: float) -> None:
        """A connection was made and HELLO is awaited."""
        self.ping_at = None
        self.handshake_by = now + self._limits.handshake_timeout

    def up(self, now: float, *, pinging: bool) -> None:
        """HELLO came."""
        self.heard = now
        self.handshake_by = self.resume_by = None
        self.pings = 0
        self.ping_at = now + self._limits.ping_interval if pinging else None

    def down(self) -> None:
        """There is no connection any more."""
        self.handshake_by = self.ping_at = None

    def lost(self, now: float) -> None:
        """A connection that was up is gone: the resume window runs from the first time this is noticed."""
        if self.resume_by is None:
            self.resume_by = now + self._limits.resume_window

    @property
    def silent_at(self) -> float:
        """When a connection that is up is dead unless something comes."""
        return self.heard + self._silence

    def ping_due(self, now: float) -> int | None:
        """Return the number of the PING that is due, or None.

        One is due when nothing was heard for an interval. What is heard tells as much as a PONG, and whoever hears
        frames answers them with ACK soon, so that the other side hears as well; a PING would only wake every hop.
        """
        if self.ping_at is None or now < self.ping_at:
            return None
        if now < self.heard + self._limits.ping_interval:
            self.ping_at = self.heard + self._limits.ping_interval
            return None
        self.ping_at = now + self._limits.ping_interval
        self.pings += 1
        return self.pings
