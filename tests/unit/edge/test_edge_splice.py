"""Two transports in memory, joined."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.memory_transport import MemoryTransport, turns

from cloudtolocalllm.edge import splice as module
from cloudtolocalllm.edge.splice import splice


class Slow(MemoryTransport):
    """As a socket whose peer may stop reading: closed only once its buffer is empty."""

    def __init__(self) -> None:
        self.full = False
        super().__init__(asyncio.Protocol())

    def fill(self) -> None:
        self.full = True
        super().fill()

    def empty(self) -> None:
        self.full = False
        super().empty()
        if self._closing:
            asyncio.get_running_loop().call_soon(self._lost)

    def close(self) -> None:
        if self.full:
            self._closing = True
        else:
            super().close()

    def abort(self) -> None:
        self.aborted = True
        self.full = False
        if self._closing:
            asyncio.get_running_loop().call_soon(self._lost)
        else:
            super().close()


class Joined:
    def __init__(self, from_left: bytes = b"", from_right: bytes = b"") -> None:
        self.left, self.right, self.ends = Slow(), Slow(), 0
        splice(self.left, from_left, self.right, from_right, self._ended)

    def _ended(self) -> None:
        self.ends += 1


async def test_bytes_pass_both_ways_and_what_came_early_first() -> None:
    joined = Joined(b"early left", b"early right")
    joined.left.peer_sends(b" more")
    joined.right.peer_sends(b" too")
    assert joined.right.take() == b"early left more"
    assert joined.left.take() == b"early right too"
    assert joined.ends == 0


async def test_a_slow_side_stops_the_other_producer_and_only_that() -> None:
    joined = Joined()
    joined.right.fill()
    assert not joined.left.is_reading()
    assert joined.right.is_reading()
    joined.left.peer_sends(b"waits")
    assert joined.right.take() == b""
    assert joined.left.waiting == 5
    joined.right.peer_sends(b"passes")
    assert joined.left.take() == b"passes"
    joined.right.empty()
    await turns()
    assert joined.left.is_reading()
    assert joined.right.take() == b"waits"


async def test_both_sides_may_be_slow() -> None:
    joined = Joined()
    joined.left.fill()
    joined.right.fill()
    assert not joined.left.is_reading()
    assert not joined.right.is_reading()
    joined.left.empty()
    assert joined.right.is_reading()
    assert not joined.left.is_reading()


@pytest.mark.parametrize("how", ["eof", "lost"])
@pytest.mark.parametrize("who", ["left", "right"])
async def test_one_sides_end_is_the_others(who: str, how: str) -> None:
    joined = Joined()
    ending, other = (joined.left, joined.right) if who == "left" else (joined.right, joined.left)
    ending.peer_sends(b"last")
    if how == "eof":
        ending.peer_closes()
    else:
        ending.abort()
    await turns()
    assert other.take() == b"last"
    assert joined.left.closed.is_set()
    assert joined.right.closed.is_set()
    assert joined.ends == 2


async def test_a_side_that_left_before_the_splice_ends_the_other() -> None:
    left, right, ends = Slow(), Slow(), []
    left.close()
    await turns()  # its old protocol was told
    splice(left, b"", right, b"x", lambda: ends.append(1))
    await turns()
    assert right.closed.is_set()
    assert ends


@pytest.mark.parametrize("how", ["eof", "lost"])
async def test_a_reader_that_stalls_does_not_keep_the_end_off_for_ever(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.0)
    joined = Joined()
    joined.left.fill()
    if how == "eof":
        joined.right.reading = True
        joined.right.peer_closes()
    else:
        joined.right.abort()
    await turns(8)
    assert joined.left.aborted
    assert joined.left.closed.is_set()
    assert joined.ends == 2


async def test_a_reader_that_stalls_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile nothing is read from the other side, so its end would not be seen either."""
    monkeypatch.setattr(module, "STALL_TIMEOUT", 0.0)
    joined = Joined()
    joined.left.fill()
    await turns(8)
    assert joined.left.aborted
    assert joined.right.closed.is_set()
    assert joined.ends == 2


async def test_a_reader_that_goes_on_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_TIMEOUT", 0.0)
    joined = Joined()
    joined.left.fill()
    joined.left.empty()
    await turns(8)
    assert not joined.left.is_closing()
    assert joined.ends == 0


async def test_what_a_reader_takes_late_is_still_sent() -> None:
    joined = Joined()
    joined.right.peer_sends(b"all of it")
    joined.left.fill()
    joined.right.abort()
    await turns()
    assert not joined.left.closed.is_set()
    joined.left.empty()
    await turns()
    assert joined.left.closed.is_set()
    assert not joined.left.aborted
    assert joined.left.take() == b"all of it"


steps = st.lists(
    st.tuples(
        st.sampled_from(["left", "right"]), st.one_of(st.binary(min_size=1), st.sampled_from(["fill", "empty"]))
    )
)


@settings(max_examples=100)
@given(steps)
def test_order_and_content_hold_under_any_back_pressure(script: list[tuple[str, bytes | str]]) -> None:
    asyncio.run(play(script))


async def play(script: list[tuple[str, bytes | str]]) -> None:
    joined = Joined()
    sides = {"left": joined.left, "right": joined.right}
    sent = {"left": b"", "right": b""}
    for name, step in script:
        side = sides[name]
        if isinstance(step, bytes):
            side.peer_sends(step)
            sent[name] += step
        elif step == "fill" and not side.full:
            side.fill()
        elif step == "empty" and side.full:
            side.empty()
        await turns(1)
        other = joined.right if name == "left" else joined.left
        assert len(other.written) + side.waiting == len(sent[name])
    for side in sides.values():
        if side.full:
            side.empty()
    await turns()
    assert bytes(joined.right.written) == sent["left"]
    assert bytes(joined.left.written) == sent["right"]
