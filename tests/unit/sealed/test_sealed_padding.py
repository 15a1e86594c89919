"""What the relay sees of sizes and times, and that the content comes out unchanged."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sealed_parts import CHAT, cut, opener, read, sealer, seeded

from cloudtolocalllm.sealed.bhttp import Content, End, InformationalHead, Message, RequestHead, ResponseHead
from cloudtolocalllm.sealed.chunks import ChunkSplitter
from cloudtolocalllm.sealed.errors import ForgedError, MalformedError, MisuseError, TruncatedError
from cloudtolocalllm.sealed.exchange import RequestReader, ResponseReader, ResponseWriter, read_all, seal_request
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.limits import MAX_CHUNK, TAG
from cloudtolocalllm.sealed.ohttp import RESPONSE_NONCE_BYTES
from cloudtolocalllm.sealed.padding import (
    DEFAULT_POLICY,
    NO_PADDING,
    PaddingPolicy,
    PaddingRemover,
    SizeClass,
    padme,
    record,
    request_size,
)
from cloudtolocalllm.sealed.resume import Resume, offset_fields, read_offset, read_resume, resume_fields

OK = ResponseHead(200, ((b"content-type", b"text/event-stream"),))
POLICIES = [DEFAULT_POLICY, NO_PADDING, PaddingPolicy(0.0, 1024, 0, 0), PaddingPolicy(1.0, 16384, 16384, 16384)]


def sides(policy: PaddingPolicy = DEFAULT_POLICY) -> tuple[ResponseWriter, ResponseReader]:
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    return ResponseWriter(bridge.response(seeded("nonce", 16)), policy), ResponseReader(client.response())


def sizes(data: bytes) -> list[int]:
    """Plaintext sizes of a response's chunks, as a relay can compute them."""
    splitter = ChunkSplitter()
    chunks = splitter.receive_data(data[RESPONSE_NONCE_BYTES:])
    return [len(chunk) - TAG for chunk in [*chunks, splitter.end()]]


def token(length: int) -> bytes:
    """A delta as llama.cpp sends it."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * length + b'"}}],"model":"m","id":"1"}\n\n'


@given(
    st.lists(st.tuples(st.binary(max_size=700), st.floats(0, 0.3)), max_size=20),
    st.sampled_from(POLICIES),
    st.lists(st.integers(0, 50_000), max_size=6),
    st.booleans(),
)
@settings(max_examples=60)
def test_content_comes_out_as_it_went_in(
    deltas: list[tuple[bytes, float]], policy: PaddingPolicy, places: list[int], early: bool
) -> None:
    writer, reader = sides(policy)
    now = 0.0
    out = writer.inform(InformationalHead(103, ((b"a", b"b"),))) if early else b""
    out += writer.start(OK)
    for data, pause in deltas:
        now += pause
        if writer.deadline is not None and writer.deadline <= now:
            out += writer.poll(writer.deadline)
        out += writer.write(data, now)
    out += writer.finish(((b"trailer", b"x"),))
    events: list[Any] = read(reader, cut(out, places))
    assert b"".join(event.data for event in events if isinstance(event, Content)) == b"".join(d for d, _ in deltas)
    assert [event for event in events if isinstance(event, ResponseHead)] == [OK]
    assert events[-1] == End(((b"trailer", b"x"),))
    assert (events[0] == InformationalHead(103, ((b"a", b"b"),))) == early
    if not early:  # an informational head goes alone
        assert all(size % policy.multiple == 0 for size in sizes(out))
    assert all(size <= MAX_CHUNK for size in sizes(out))


@pytest.mark.parametrize("per_second", [5, 10, 30, 100])
@given(st.lists(st.integers(1, 24), min_size=40, max_size=80))
@settings(max_examples=10)
def test_tokens_of_every_length_are_in_one_size_class(per_second: int, lengths: list[int]) -> None:
    """All chunks of a stream are of one size, whatever its tokens' lengths."""
    writer, _ = sides()
    out = [writer.start(OK)]
    for index, length in enumerate(lengths):
        now = index / per_second
        if writer.deadline is not None and writer.deadline <= now:
            out.append(writer.poll(writer.deadline))
        out.append(writer.write(token(length), now))
    out.append(writer.finish())
    assert set(sizes(b"".join(out))) == {DEFAULT_POLICY.stream_size}


def test_one_size_class_whatever_the_token_lengths_are() -> None:
    """Two answers that differ only in their tokens' lengths look the same."""

    def seen(lengths: list[int]) -> list[tuple[float, int]]:
        writer, _ = sides()
        sent = [(0.0, len(writer.start(OK)))]
        for index, length in enumerate(lengths):
            now = index * 0.03
            if writer.deadline is not None and writer.deadline <= now:
                sent.append((writer.deadline, len(writer.poll(writer.deadline))))
            if data := writer.write(token(length), now):
                sent.append((now, len(data)))
        return [*sent, (99.0, len(writer.finish()))]

    assert seen([1] * 60) == seen([12] * 60) == seen([1, 12] * 30)
    # The test can fail: without padding they differ.


def test_without_padding_the_lengths_show() -> None:
    def seen(length: int) -> list[int]:
        writer, _ = sides(NO_PADDING)
        return [len(writer.start(OK)), *(len(writer.write(token(length), at)) for at in range(3))]

    assert seen(1) != seen(12)


def test_content_is_sent_at_whole_intervals_of_the_clock() -> None:
    writer, reader = sides()
    out = writer.start(OK)
    first = writer.write(b"a", 10.02)
    assert first  # at once
    assert writer.deadline is None
    assert writer.write(b"b", 10.03) == b""
    assert writer.deadline == pytest.approx(10.1)
    assert writer.write(b"c", 10.07) == b""
    assert writer.poll(10.09) == b""
    second = writer.poll(10.1001)
    assert second
    assert writer.deadline is None
    assert writer.write(b"d", 10.55) == b""  # though nothing was sent for long
    assert writer.deadline == pytest.approx(10.6)
    third = writer.write(b"e", 10.62)
    assert third
    assert writer.write(b"", 10.7) == b""
    events = read(reader, [out + first, second, third + writer.finish()])
    assert [event.data for event in events if isinstance(event, Content)] == [b"a", b"bc", b"de"]


def test_all_answers_are_sent_on_at_the_same_moments() -> None:
    """Who sends them wakes once for all: a wake-up costs far more than to seal a chunk."""
    deadlines = set()
    for number in range(9):
        writer, _ = sides()
        writer.start(OK)
        writer.write(b"first", 7.003 + number / 100)
        writer.write(b"second", 7.004 + number / 100)
        deadlines.add(writer.deadline)
    assert len(deadlines) == 1


def test_no_interval_sends_at_once() -> None:
    writer, _ = sides(NO_PADDING)
    writer.start(OK)
    assert all(writer.write(b"x", now) for now in (1.0, 1.0, 1.001))


def test_a_flood_is_sent_in_full_chunks_and_kept_nowhere() -> None:
    writer, reader = sides()
    out = writer.start(OK)
    data = seeded("flood", 100_000)
    sent = writer.write(data, 0.0)
    assert len(sent) > 99_000 - 2 * MAX_CHUNK
    assert max(sizes(out + sent + writer.finish())) == MAX_CHUNK
    writer, reader = sides()
    message = read_all(reader, writer.start(OK) + writer.write(data, 0.0) + writer.finish())
    assert message == Message(OK, data)


def test_long_heads_and_trailers() -> None:
    fields: Fields = tuple((b"f%d" % index, b"v" * 900) for index in range(60))
    writer, reader = sides()
    head = ResponseHead(200, fields)
    message = read_all(reader, writer.start(head) + writer.write(b"x", 0.0) + writer.finish(fields))
    assert message == Message(head, b"x", fields)


def test_the_engine_s_own_coding_stays_and_its_length_goes() -> None:
    writer, reader = sides()
    head = ResponseHead(200, ((b"content-encoding", b"gzip"), (b"content-length", b"1")))
    message = read_all(reader, writer.start(head) + writer.write(b"x", 0.0) + writer.finish())
    assert message.head.fields == ((b"content-encoding", b"gzip"),)


def test_a_response_in_no_coding_is_read_as_it_is() -> None:
    client, bridge = sealer(), opener()
    read(bridge, [client.seal_all(b"")])
    sent = bridge.response(seeded("nonce", 16)).seal_all(bytes.fromhex("0140c8000568656c6c6f"))
    assert read_all(ResponseReader(client.response()), sent) == Message(ResponseHead(200), b"hello")


def test_a_response_cut_off_between_chunks_is_not_whole() -> None:
    writer, reader = sides()
    out = writer.start(OK) + writer.write(b"a", 0.0)
    reader.receive_data(out)
    with pytest.raises(TruncatedError):
        reader.end()
    writer, reader = sides()
    out = writer.start(OK) + writer.finish()
    with pytest.raises(ForgedError):
        read(reader, [out[:-1]])


@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 30)), max_size=6), st.lists(st.integers(0, 400)))
def test_padding_is_removed_from_any_pieces(records: list[tuple[bytes, int]], places: list[int]) -> None:
    remover = PaddingRemover()
    data = b"".join(record(*each) for each in records)
    assert b"".join(remover.receive_data(piece) for piece in cut(data, places)) == b"".join(d for d, _ in records)
    remover.end()


def test_padding_that_is_not_padding_is_refused() -> None:
    with pytest.raises(MalformedError):
        PaddingRemover().receive_data(record(b"a", 2)[:-1] + b"x")
    for size in range(1, 8):
        remover = PaddingRemover()
        remover.receive_data(record(b"a", 3)[:size])
        with pytest.raises(TruncatedError):
            remover.end()


def test_sizes_grow_by_a_quarter_more_than_needed_and_do_not_shrink() -> None:
    sized = SizeClass(DEFAULT_POLICY)
    assert [sized.size(needed) for needed in (10, 1024, 1025, 100, 1400, 1409)] == [
        1024, 1024, 1408, 1408, 1408, 1792,
    ]  # fmt: skip
    assert [sized.size(needed) for needed in (4000, 10)] == [4096, 4096]
    assert [sized.size(needed) for needed in (5000, 16384, 10)] == [5120, 16384, 4096]


def test_a_stream_has_one_size_and_its_doubles() -> None:
    sized = SizeClass(DEFAULT_POLICY)
    sized.is_stream()
    assert [sized.size(needed) for needed in (10, 4096, 4097, 10, 8193, MAX_CHUNK)] == [
        4096, 4096, 8192, 4096, 16384, 16384,
    ]  # fmt: skip
    unpadded = SizeClass(NO_PADDING)
    unpadded.is_stream()
    assert [unpadded.size(needed) for needed in (0, 1, 700)] == [0, 1, 700]


@pytest.mark.parametrize("kind", [b"text/event-stream; charset=utf-8", b"Application/X-NDJSON"])
def test_a_stream_is_known_by_its_media_type(kind: bytes) -> None:
    writer, _ = sides()
    head = ResponseHead(200, ((b"content-type", kind),))
    assert set(sizes(writer.start(head) + writer.finish())) == {DEFAULT_POLICY.stream_size}
    writer, _ = sides()
    head = ResponseHead(200, ((b"content-type", b"application/json"),))
    assert set(sizes(writer.start(head) + writer.finish())) == {DEFAULT_POLICY.floor}


def test_padme_leaves_few_sizes_and_costs_at_most_an_eighth() -> None:
    assert [padme(size) for size in (0, 1, 9, 1000, 1025, 100_000)] == [0, 1, 10, 1024, 1088, 100_352]
    everything = [padme(size) for size in range(1, 20_000)]
    assert everything == sorted(everything)
    assert all(size <= padded <= size * 1.12 + 1 for size, padded in enumerate(everything, 1))
    assert len({request_size(size) for size in range(1, 20_000)}) < 64
    assert request_size(1) == request_size(1024) == 1024
    assert request_size(77, NO_PADDING) == 77


@given(st.binary(max_size=3000))
@settings(max_examples=30)
def test_a_request_s_size_shows_little(content: bytes) -> None:
    message = Message(CHAT.head, content)
    sent = seal_request(sealer(), message)
    assert read_all(RequestReader(opener()), sent) == message
    other = Message(CHAT.head, bytes(len(content) // 64 * 64))
    assert abs(len(sent) - len(seal_request(sealer(), other))) <= 128


def test_a_request_without_padding() -> None:
    assert len(seal_request(sealer(), CHAT)) - len(seal_request(sealer(), CHAT, NO_PADDING)) > 800


@pytest.mark.parametrize(
    "wrong",
    [
        {"multiple": 0},
        {"multiple": 100},
        {"floor": -1},
        {"floor": MAX_CHUNK + 1},
        {"ceiling": MAX_CHUNK + 1},
        {"stream_size": -1},
        {"stream_size": MAX_CHUNK + 1},
        {"ceiling": 4000},
        {"interval": -1.0},
        {"headroom": 0.9},
        {"request_floor": -1},
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        PaddingPolicy(**wrong)


def test_a_response_has_one_head_and_one_end() -> None:
    writer, _ = sides()
    before: list[Callable[[], bytes]] = [writer.finish, lambda: writer.write(b"", 0.0)]
    for call in before:
        with pytest.raises(MisuseError):
            call()
    writer.start(OK)
    twice: list[Callable[[], bytes]] = [lambda: writer.start(OK), lambda: writer.inform(InformationalHead(103))]
    for call in twice:
        with pytest.raises(MisuseError):
            call()
    writer.finish()
    for call in before:
        with pytest.raises(MisuseError):
            call()


def test_where_to_resume() -> None:
    exchange = seeded("exchange", 16)
    for offset in (0, 1, 2**53 - 1):
        assert read_resume(resume_fields(Resume(exchange, offset))) == Resume(exchange, offset)
    assert read_resume(()) is None
    assert read_offset(offset_fields(0)) == 0
    assert read_offset(()) is None
    assert RequestHead(b"GET", b"/", resume_fields(Resume(exchange, 5))).fields[1] == (b"c2l-offset", b"5")
    name = resume_fields(Resume(exchange))[0]
    for wrong in (b"", b"-1", b"01", b"1.0", b"9007199254740992", b"1" * 17, b"\xd9\xa1"):
        with pytest.raises(MalformedError):
            read_resume((name, (b"c2l-offset", wrong)))
    for fields in (((b"c2l-offset", b"1"),), (name, name), ((name[0], name[1][:-2]),)):
        with pytest.raises(MalformedError):
            read_resume(fields)
    for arguments in ((b"", 0), (exchange, -1), (exchange, 2**53)):
        with pytest.raises(MisuseError):
            Resume(*arguments)
