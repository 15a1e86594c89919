"""Two sessions joined in memory, with everything on the way in plain sight."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from cloudtolocalllm.tunnel import DataReceived, Event, Limits, Role, Session
from cloudtolocalllm.tunnel.frames import DATA, HEADER, HEADER_BYTES

SESSION_ID = bytes(range(16))


@dataclass
class Side:
    """A session, what it told, and what is on the way to it."""

    session: Session
    events: list[Event] = field(default_factory=list)
    inbox: deque[bytes] = field(default_factory=deque)

    def take_events(self) -> list[Event]:
        """Return the events so far and forget them."""
        self.events += self.session.events_received()
        events = self.events
        self.events = []
        return events


class Pair:
    """A bridge and a proxy; `now` is their clock."""

    def __init__(self, limits: Limits | None = None, *, proxy_limits: Limits | None = None) -> None:
        self.now = 100.0
        self.limits = limits or Limits()
        self.proxy_limits = proxy_limits or self.limits
        self.bridge = Side(Session(Role.BRIDGE, SESSION_ID, limits=self.limits))
        self.proxy = Side(Session(Role.PROXY, SESSION_ID, limits=self.proxy_limits))
        self.max_bytes = 256 * 1024
        self.burst = 10**9
        """Messages that a side gets rid of at once; the rest waits in the session, as behind a full socket."""

    @property
    def sides(self) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
        """Each side with its peer."""
        return (self.bridge, self.proxy), (self.proxy, self.bridge)

    def connect(self) -> None:
        """Begin a new connection; nothing is delivered yet."""
        self.bridge.inbox.clear()
        self.proxy.inbox.clear()
        self.bridge.session.attach(self.now)
        self.proxy.session.attach(self.now)
        self.collect()

    def collect(self) -> bool:
        """Put what both sides have to send on its way, and tell whether there was any."""
        any_sent = False
        for side, peer in self.sides:
            side.events += side.session.events_received()
            for _ in range(self.burst):
                message = side.session.data_to_send(self.max_bytes)
                if message is None:
                    break
                peer.inbox.append(message)
                any_sent = True
        return any_sent

    def deliver(self, side: Side, count: int = 1) -> int:
        """Deliver up to `count` messages to one side and return how many there were."""
        delivered = 0
        while side.inbox and delivered < count:
            side.session.receive_data(side.inbox.popleft(), self.now)
            delivered += 1
            self.collect()
        return delivered

    def settle(self) -> None:
        """Deliver everything, and what is sent in answer, until nothing is on the way."""
        while self.collect() or self.bridge.inbox or self.proxy.inbox:
            self.deliver(self.bridge)
            self.deliver(self.proxy)

    def cut(self) -> None:
        """Lose the connection and everything on the way."""
        self.bridge.inbox.clear()
        self.proxy.inbox.clear()
        self.bridge.session.detach(self.now)
        self.proxy.session.detach(self.now)
        self.collect()

    def later(self, seconds: float) -> None:
        """Let time pass at once, then tick both sides."""
        self.now += seconds
        for side, _ in self.sides:
            side.session.tick(self.now)
        self.collect()

    def restart_proxy(self) -> None:
        """Replace the proxy by a new process that knows nothing."""
        self.proxy = Side(Session(Role.PROXY, SESSION_ID, limits=self.proxy_limits))


def connected(limits: Limits | None = None, *, proxy_limits: Limits | None = None) -> Pair:
    """Return a pair whose first connection is up and whose events were taken."""
    pair = Pair(limits, proxy_limits=proxy_limits)
    pair.connect()
    pair.settle()
    pair.bridge.take_events()
    pair.proxy.take_events()
    return pair


def received_data(events: list[Event], stream_id: int) -> bytes:
    """Return the payload that some events brought for one stream."""
    return b"".join(
        event.data for event in events if isinstance(event, DataReceived) and event.stream_id == stream_id
    )


def split_frames(message: bytes) -> Iterator[bytes]:
    """Cut a message into its frames."""
    position = 0
    while position < len(message):
        end = position + HEADER_BYTES + HEADER.unpack_from(message, position)[3]
        yield message[position:end]
        position = end


def unacked_data(session: Session) -> dict[int, int]:
    """Return, for each stream, the bytes of DATA that a session keeps for replay."""
    replay = session._out.replay
    sizes: dict[int, int] = {}
    for frame in (*replay.unacked, *replay.pending):
        kind, _, stream_id, length = HEADER.unpack_from(frame)
        if kind == DATA:
            sizes[stream_id] = sizes.get(stream_id, 0) + length
    return sizes


def kept_state(session: Session) -> int:
    """Return how many streams, frames and marks a session holds on to."""
    out = session._out
    return (
        len(session._streams)
        + len(out.replay.unacked)
        + len(out.replay.pending)
        + len(out.reset_ids)
        + len(out._reset_numbers)
        + len(out._resets)
        + len(out._urgent)
        + len(out._active)
        + len(out.control)
    )
