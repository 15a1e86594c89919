"""The journal keeps answers, within its bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from cloudtolocalllm.bridge.journal import MAX_BACKLOG, RECORD_COST, ExchangeRunsError, Journal, Record
from cloudtolocalllm.runtime.http1 import Headers

HEAD = ((b"content-type", b"text/event-stream"),)


class Reader:
    """Takes as many bytes as it is allowed."""

    def __init__(self, record: Record, offset: int = 0, allowance: float = float("inf")) -> None:
        self.record = record
        self.first = self.offset = offset
        self.allowance = allowance
        self.data = bytearray()
        self.heads = 0
        self.over = False
        self.was_dropped = False
        record.follow(self)
        self.take()

    def take(self) -> bool:
        while self.offset < self.record.size and self.allowance > 0:
            data = self.record.read(self.offset, int(min(self.allowance, 1 << 20)))
            self.data += data
            self.offset += len(data)
            self.allowance -= len(data)
        return self.offset == self.record.size

    def allow(self, size: float) -> None:
        self.allowance += size
        if self.take():
            self.record.drained()

    def informed(self, status: int, headers: Headers) -> None:
        pass

    def headed(self) -> None:
        self.heads += 1

    def grew(self, data: bytes, at: int) -> bool:
        return self.take()

    def ended(self) -> None:
        self.over = True

    def dropped(self) -> None:
        self.was_dropped = True


def test_an_answer_is_replayed_from_any_byte_and_followed() -> None:
    journal = Journal(1 << 20)
    record = journal.open("one", 0.0)
    record.start(200, HEAD)
    assert record.write(b"abc")
    early, late = Reader(record), Reader(record, 2)
    record.write(b"def")
    record.finish(((b"x", b"1"),), 1.0)
    assert (bytes(early.data), bytes(late.data)) == (b"abcdef", b"cdef")
    assert early.over
    assert late.over
    found = journal.find("one", 2.0)
    assert found is record
    assert bytes(Reader(record, 4).data) == b"ef"


def test_a_running_id_cannot_be_used_again_but_a_finished_one_can() -> None:
    journal = Journal(1 << 20)
    record = journal.open("one", 0.0)
    with pytest.raises(ExchangeRunsError):
        journal.open("one", 0.0)
    record.finish((), 0.0)
    assert journal.open("one", 0.0) is not record
    assert journal.held == RECORD_COST


def test_an_answer_is_forgotten_ten_minutes_after_its_end() -> None:
    journal = Journal(1 << 20)
    record = journal.open("one", 0.0)
    record.write(b"x" * 100)
    assert journal.find("one", 5000.0) is record, "expected a running exchange to be kept however old"
    record.finish((), 5000.0)
    assert journal.find("one", 5599.9) is record
    assert journal.find("one", 5600.0) is None
    assert (journal.held, len(journal)) == (0, 0)


def test_the_oldest_finished_goes_first_when_memory_is_short() -> None:
    journal = Journal(3 * RECORD_COST + 3000)
    for name in ("a", "b"):
        record = journal.open(name, 0.0)
        record.write(b"x" * 1000)
        record.finish((), 0.0)
    running = journal.open("c", 1.0)
    running.write(b"x" * 1001)
    assert journal.find("a", 1.0) is None
    assert journal.find("b", 1.0) is not None
    assert running.kept
    assert journal.held <= journal.limit


def test_an_answer_larger_than_the_journal_is_shed_and_still_delivered_and_stoppable() -> None:
    journal = Journal(RECORD_COST + 1000)
    record = journal.open("one", 0.0)
    record.start(200, HEAD)
    reader = Reader(record)
    for _ in range(50):
        record.write(b"0123456789" * 10)
    assert not record.kept
    assert record.held == 0
    assert bytes(reader.data) == b"0123456789" * 500
    assert journal.find("one", 0.0) is record, "expected that it can still be found, to be cancelled"
    record.finish((), 1.0)
    assert journal.find("one", 1.0) is None
    assert (journal.held, len(journal)) == (0, 0)


@pytest.mark.parametrize("reader", ["nobody", "one who leaves", "one too far behind"])
def test_an_answer_that_nobody_can_read_any_more_is_called_off(reader: str) -> None:
    journal = Journal(RECORD_COST + 100)
    record = journal.open("one", 0.0)
    called_off: list[float] = []

    def cancel() -> None:
        called_off.append(record.size)
        record.break_off("cancelled", 1.0)

    record.cancel = cancel
    record.start(200, HEAD)
    readers = [] if reader == "nobody" else [Reader(record, allowance=1000 if reader == "one who leaves" else 0)]
    record.write(b"x" * 100)
    assert not called_off, "expected it to go on while it can be taken up"
    record.write(b"x" * (100 if reader == "one who leaves" else MAX_BACKLOG))
    assert not record.kept
    if reader == "one who leaves":
        assert not called_off
        record.unfollow(readers[0])
    assert called_off == [record.size]
    assert (journal.held, len(journal)) == (0, 0)


def test_a_slow_reader_stops_the_writer_until_it_catches_up() -> None:
    record = Journal(1 << 20).open("one", 0.0)
    drained: list[bool] = []
    record.on_drained = lambda: drained.append(True)
    reader = Reader(record, allowance=3)
    assert record.write(b"abc")
    assert not record.write(b"def")
    reader.allow(2)
    assert not drained
    reader.allow(1)
    assert drained


def test_the_fastest_reader_of_a_kept_answer_sets_the_pace() -> None:
    record = Journal(1 << 20).open("one", 0.0)
    slow, fast = Reader(record, allowance=0), Reader(record)
    assert record.write(b"abc")
    slow.allow(10)
    assert slow.data == fast.data == b"abc"


def test_without_readers_a_kept_answer_goes_on() -> None:
    record = Journal(1 << 20).open("one", 0.0)
    drained: list[bool] = []
    record.on_drained = lambda: drained.append(True)
    reader = Reader(record, allowance=0)
    assert not record.write(b"abc")
    record.unfollow(reader)
    assert drained
    assert record.write(b"def")
    assert bytes(Reader(record).data) == b"abcdef"


def test_an_answer_that_is_not_kept_holds_only_what_was_not_read() -> None:
    record = Record("one")
    reader = Reader(record, allowance=4)
    record.write(b"abc")
    assert record.held == 0
    record.write(b"def")
    assert record.held == 2
    reader.allow(10)
    assert record.held == 0
    assert bytes(reader.data) == b"abcdef"


def test_a_reader_that_is_far_behind_is_dropped_when_the_answer_is_shed() -> None:
    journal = Journal(3 * MAX_BACKLOG)
    record = journal.open("one", 0.0)
    slow, fast = Reader(record, allowance=0), Reader(record)
    for _ in range(4):
        record.write(b"x" * MAX_BACKLOG)
    assert slow.was_dropped
    assert not fast.was_dropped
    assert len(fast.data) == 4 * MAX_BACKLOG
    assert record.held == 0


def test_a_cut_answer_says_so() -> None:
    record = Journal(1 << 20).open("one", 0.0)
    reader = Reader(record)
    record.break_off("cancelled", 1.0)
    record.break_off("again", 2.0)
    assert (record.cut, record.finished_at) == ("cancelled", 1.0)
    assert reader.over


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=30), st.data())
def test_any_reader_gets_exactly_the_bytes_from_its_offset(chunks: list[bytes], data: st.DataObject) -> None:
    record = Journal(1 << 20).open("one", 0.0)
    readers = [Reader(record, allowance=data.draw(st.integers(0, 30)))]
    for chunk in chunks:
        record.write(chunk)
        if data.draw(st.booleans()):
            readers.append(Reader(record, data.draw(st.integers(0, record.size)), data.draw(st.integers(0, 200))))
        data.draw(st.sampled_from(readers)).allow(data.draw(st.integers(0, 40)))
    record.finish((), 1.0)
    whole = b"".join(chunks)
    for reader in readers:
        reader.allow(float("inf"))
        assert bytes(reader.data) == whole[reader.first :]


class JournalMachine(RuleBasedStateMachine):
    """The journal never holds more than its limit, and counts right."""

    records = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal(20_000, max_age=50.0)
        self.now = 0.0
        self.serial = 0
        self.whole: dict[str, bytes] = {}

    @rule(target=records)
    def open(self) -> Record:
        self.serial += 1
        record = self.journal.open(f"exchange-{self.serial}", self.now)
        self.whole[record.id] = b""
        return record

    @rule(record=records, size=st.integers(1, 6000))
    def write(self, record: Record, size: int) -> None:
        if not record.ended:
            data = bytes([size % 256]) * size
            record.write(data)
            self.whole[record.id] += data

    @rule(record=records)
    def finish(self, record: Record) -> None:
        if not record.ended:
            record.finish((), self.now)

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.journal.expire(self.now)

    @invariant()
    def counts_right(self) -> None:
        records = [*self.journal._running.values(), *self.journal._finished.values()]
        assert self.journal.held == sum(record.held + RECORD_COST for record in records)
        assert sum(record.held for record in records) <= self.journal.limit

    @invariant()
    def what_is_kept_is_whole(self) -> None:
        for record in [*self.journal._running.values(), *self.journal._finished.values()]:
            if record.kept:
                assert record.read(0, record.size) == self.whole[record.id]


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
