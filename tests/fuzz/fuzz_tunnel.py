"""Fuzz the tunnel protocol with plain random inputs.

    python -m tests.fuzz.fuzz_tunnel --seconds 60 [--seed N]

Three kinds of rounds, in turn: garbage to a session, valid traffic with bytes of it mutated, and two sessions over
a wire that loses what it likes. A round may end in RemoteError and in nothing else; after each, memory is checked
against the limits. Every round prints nothing; a failure prints the seed of the round, which reproduces it alone
(`--seed N --rounds 1`). Run from the repository's root.
"""

import argparse
import itertools
import random
import time

from tests.support.tunnel_pair import Pair, connected, split_frames, unacked_data

from cloudtolocalllm.tunnel import (
    DataReceived,
    Limits,
    RemoteError,
    RequestHead,
    RequestReceived,
    ResetReason,
    ResponseHead,
    Session,
)
from cloudtolocalllm.tunnel.frames import HEADER, KIND_NAMES

LIMITS = Limits(window=2000, max_streams=8, max_unacked_frames=60, ack_every_frames=7, max_head=600)
POST = RequestHead("POST", "/v1/x", ((b"a", b"b"),))


def drain(session: Session) -> list[bytes]:
    """Return everything that a session has to send."""
    return list(iter(session.data_to_send, None))


def check_bounds(session: Session) -> None:
    """Check that nothing is kept beyond the limits, whatever came."""
    out = session._out
    assert len(out.replay.unacked) + len(out.replay.pending) <= LIMITS.max_unacked_frames
    assert session.open_streams <= LIMITS.max_streams
    assert len(out.reset_ids) <= LIMITS.max_unacked_frames + LIMITS.max_streams + 64
    assert len(out.control) <= 8
    assert all(stream.unconsumed <= LIMITS.window for stream in session._streams.values()) or session.ended


def busy_pair(rng: random.Random) -> Pair:
    """Return a pair with a few streams in various states."""
    pair = connected(LIMITS)
    for _ in range(rng.randint(0, 4)):
        stream_id = pair.proxy.session.open_stream(POST)
        pair.settle()
        if rng.random() < 0.7:
            pair.bridge.session.send_head(stream_id, ResponseHead(200))
            pair.bridge.session.send_data(stream_id, rng.randbytes(rng.randint(1, 500)))
        if rng.random() < 0.3:
            pair.proxy.session.end_stream(stream_id)
        pair.settle()
        if rng.random() < 0.2:
            pair.bridge.session.reset_stream(stream_id, ResetReason.INTERNAL)
    pair.settle()
    return pair


def garbage(rng: random.Random) -> None:
    """Feed frames with random headers and payloads."""
    pair = busy_pair(rng)
    session = rng.choice((pair.proxy, pair.bridge)).session
    for _ in range(rng.randint(1, 60)):
        payload = rng.randbytes(rng.choice((0, 1, 2, 4, 8, 8, 30, 700)))
        length = len(payload) if rng.random() < 0.95 else rng.getrandbits(32)
        kind = rng.choice(list(KIND_NAMES)) if rng.random() < 0.95 else rng.getrandbits(8)
        stream_id = rng.randint(0, 6) if rng.random() < 0.9 else rng.getrandbits(32)
        session.receive_data(HEADER.pack(kind, rng.random() < 0.02, stream_id, length) + payload, pair.now)
        session.events_received()
        drain(session)
        check_bounds(session)


def mutated(rng: random.Random) -> None:
    """Run valid traffic, some of whose bytes, frames or order are changed on the way."""
    pair = busy_pair(rng)
    for _ in range(rng.randint(1, 40)):
        act(rng, pair)
        pair.collect()
        for side, _ in pair.sides:
            while side.inbox:
                message = mutate(rng, side.inbox.popleft())
                side.session.receive_data(message, pair.now)
                side.events.clear()
                check_bounds(side.session)
        pair.collect()
        pair.later(rng.choice((0.0, 0.3)))


def mutate(rng: random.Random, message: bytes) -> bytes:
    """Return a message, rarely a changed one."""
    if rng.random() > 0.05:
        return message
    frames = list(split_frames(message))
    what = rng.randrange(4)
    if what == 0:
        data = bytearray(message)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if what == 1:
        frames.append(rng.choice(frames))
    elif what == 2:
        rng.shuffle(frames)
    else:
        return message[: rng.randrange(len(message))]
    return b"".join(frames)


def act(rng: random.Random, pair: Pair) -> None:
    """Do something that an owner may do."""
    proxy, bridge = pair.proxy.session, pair.bridge.session
    choice = rng.randrange(6)
    if choice == 0 and not proxy.ended and proxy.open_streams < LIMITS.max_streams:
        proxy.open_stream(POST)
        return
    session = rng.choice((proxy, bridge))
    streams = list(session._streams.values())
    if not streams:
        return
    stream = rng.choice(streams)
    if choice == 1 and session is bridge and stream.sending.name == "HEAD":
        session.send_head(stream.id, ResponseHead(rng.choice((103, 200)) if not stream.informational else 200))
    elif choice in (2, 3) and stream.sending.name == "BODY":
        session.send_data(stream.id, rng.randbytes(rng.randint(0, stream.window)))
    elif choice == 4:
        session.consumed(stream.id, rng.randint(0, stream.unconsumed))
    elif choice == 5 and rng.random() < 0.3:
        if stream.sending.name == "BODY" and rng.random() < 0.5:
            session.end_stream(stream.id)
        else:
            session.reset_stream(stream.id, ResetReason.CANCELLED)


def lossy(rng: random.Random) -> None:
    """Send one body over a wire that loses; it must arrive whole, in order, once."""
    pair = connected(LIMITS)
    stream_id = pair.proxy.session.open_stream(POST)
    body = rng.randbytes(rng.randint(1, 20_000))
    sent = 0
    got = b""
    for step in itertools.count():
        steady = step > 60
        pair.max_bytes = rng.choice((1, 300, 100_000))
        for event in pair.bridge.take_events():
            if isinstance(event, RequestReceived):
                pair.bridge.session.send_head(stream_id, ResponseHead(200))
        if pair.bridge.session.window(stream_id) and pair.bridge.session._streams[stream_id].sending.name == "BODY":
            size = rng.randint(1, pair.bridge.session.window(stream_id))
            pair.bridge.session.send_data(stream_id, body[sent : sent + size])
            sent = min(sent + size, len(body))
        pair.collect()
        pair.deliver(pair.proxy, 10**6 if steady else rng.randrange(8))
        pair.deliver(pair.bridge, 10**6 if steady else rng.randrange(8))
        for event in pair.proxy.take_events():
            if isinstance(event, DataReceived):
                got += event.data
                pair.proxy.session.consumed(stream_id, len(event.data))
        assert body.startswith(got)
        for side, _ in pair.sides:
            check_bounds(side.session)
            assert all(size <= LIMITS.window for size in unacked_data(side.session).values())
        if got == body:
            return
        assert step < 1000, "no progress"
        pair.later(0.3)
        if not steady and rng.random() < 0.3:
            pair.cut()
            pair.connect()


ROUNDS = (garbage, mutated, lossy)


def main() -> None:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(2**32)
    end = time.monotonic() + options.seconds
    faults = count = 0
    while time.monotonic() < end and count != options.rounds:
        run = ROUNDS[seed % len(ROUNDS)]
        try:
            run(random.Random(seed))
        except RemoteError:
            faults += 1
            assert run is not lossy, f"an honest peer was refused; seed {seed}"
        except BaseException:
            print(f"failed in {run.__name__}: --seed {seed} --rounds 1")
            raise
        seed += 1
        count += 1
    print(f"{count} rounds, {faults} ended in RemoteError, the next seed is {seed}")


if __name__ == "__main__":
    main()
