"""Binary HTTP: any pieces give the same message, and what is not one is refused."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sealed_parts import cut, read

from cloudtolocalllm.sealed import bhttp, varint
from cloudtolocalllm.sealed.bhttp import Content, InformationalHead, Message, RequestHead, ResponseHead
from cloudtolocalllm.sealed.bhttp_decoder import BinaryHttpDecoder, Kind, decode_message
from cloudtolocalllm.sealed.errors import MalformedError, MisuseError, SealedError, TruncatedError
from cloudtolocalllm.sealed.fields import Fields, check_field, single
from cloudtolocalllm.sealed.limits import MessageLimits

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+.^_`|~-", min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=40).map(lambda data: data.translate(None, b"\0\r\n").strip(b" \t"))
OF_CONNECTION = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te"}
sections = st.lists(st.tuples(names.filter(lambda name: name not in OF_CONNECTION), values), max_size=5).map(tuple)
visible = st.text([chr(code) for code in range(33, 127)], max_size=40).map(str.encode)
requests = st.builds(
    RequestHead,
    st.sampled_from([b"GET", b"POST", b"x-Odd!"]),
    visible.map(lambda path: b"/" + path),
    sections,
    st.sampled_from([b"https", b"http"]),
    visible,
)
informational = st.builds(InformationalHead, st.sampled_from([100, 102, 103, 199]), sections)
messages = st.one_of(
    st.builds(Message, requests, st.binary(max_size=200), sections),
    st.builds(
        Message,
        st.builds(ResponseHead, st.integers(200, 599), sections),
        st.binary(max_size=200),
        sections,
        st.lists(informational, max_size=3).map(tuple),
    ),
)
GET = RequestHead(b"GET", b"/", ((b"a", b"b"),))
OK = ResponseHead(200, ((b"a", b"b"),))


def kind_of(message: Message) -> Kind:
    return Kind.REQUEST if isinstance(message.head, RequestHead) else Kind.RESPONSE


def joined(events: list[object]) -> list[object]:
    """Events with neighbouring content as one."""
    out: list[object] = []
    for event in events:
        if isinstance(event, Content) and out and isinstance(out[-1], Content):
            out[-1] = Content(out[-1].data + event.data)
        else:
            out.append(event)
    return out


@given(messages, st.booleans(), st.integers(0, 20), st.lists(st.integers(0, 2000), max_size=8))
@settings(max_examples=150)
def test_what_is_written_is_read_from_any_pieces(
    message: Message, streamed: bool, padding: int, places: list[int]
) -> None:
    encode = bhttp.encode_streamed if streamed else bhttp.encode_known
    data = encode(message, padding=padding)
    assert decode_message(data, kind_of(message)) == message
    whole = joined(read(BinaryHttpDecoder(kind_of(message)), [data]))
    assert joined(read(BinaryHttpDecoder(kind_of(message)), cut(data, places))) == whole
    assert joined(read(BinaryHttpDecoder(kind_of(message)), [bytes((byte,)) for byte in data])) == whole


@given(messages, st.booleans())
@settings(max_examples=60)
def test_a_message_may_end_only_between_its_parts(message: Message, streamed: bool) -> None:
    """The RFC's truncation: the missing parts are empty. That none was lost, the sealing's final chunk tells."""
    data = (bhttp.encode_streamed if streamed else bhttp.encode_known)(message)
    for size in range(len(data)):
        try:
            found = decode_message(data[:size], kind_of(message))
        except TruncatedError:
            continue
        assert found.head == message.head or found.head.fields == ()
        assert found.content in (b"", message.content)
        assert found.trailers in ((), message.trailers)
        assert found.informational == message.informational


@given(st.binary(max_size=300), st.sampled_from(Kind), st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=300)
def test_garbage_gives_typed_errors_only_whatever_the_pieces(data: bytes, kind: Kind, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        try:
            return joined(read(BinaryHttpDecoder(kind), pieces))
        except SealedError as error:
            return type(error)

    data = bytes((data[0] & 3,)) + data[1:] if data else data
    assert outcome([data]) == outcome(cut(data, places))


BAD_FIELDS = [
    (b"", b"x"),
    (b"Upper", b"x"),
    (b"sp ace", b"x"),
    (b":path", b"/"),
    (b"n\xe9", b"x"),
    (b"a", b" x"),
    (b"a", b"x\t"),
    (b"a", b"x\r\ny: z"),
    (b"a", b"x\ny"),
    (b"a", b"\0"),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"te", b"trailers"),
    (b"upgrade", b"h2c"),
    (b"keep-alive", b"1"),
    (b"proxy-connection", b"close"),
]


def raw_section(fields: Fields) -> bytes:
    return b"".join(varint.encode(len(part)) + part for field in fields for part in field)


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_a_field_that_is_not_valid_in_http_2_is_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(MalformedError):
        check_field(*field)
    section = raw_section((field,))
    for data in (
        b"\x02\x03GET\x05https\x00\x01/" + section + b"\0",
        b"\x00\x03GET\x05https\x00\x01/" + varint.encode(len(section)) + section,
        b"\x02\x03GET\x05https\x00\x01/\0\0" + section + b"\0",
    ):
        if field[0]:
            with pytest.raises(MalformedError):
                decode_message(data, Kind.REQUEST)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x04", Kind.REQUEST),
        (b"\x01\x40\xc8", Kind.REQUEST),
        (b"\x00\x03GET\x05https\x00\x01/", Kind.RESPONSE),
        (b"\x00\x03G T\x05https\x00\x01/", Kind.REQUEST),
        (b"\x00\x00\x05https\x00\x01/", Kind.REQUEST),
        (b"\x00\x03GET\x00\x00\x01/", Kind.REQUEST),
        (b"\x00\x03GET\x05HTTPS\x00\x01/", Kind.REQUEST),
        (b"\x00\x03GET\x05https\x03a b\x01/", Kind.REQUEST),
        (b"\x00\x03GET\x05https\x00\x00", Kind.REQUEST),
        (b"\x00\x03GET\x05https\x00\x01x", Kind.REQUEST),
        (b"\x00\x03GET\x05https\x00\x01*", Kind.REQUEST),
        (b"\x00\x03GET\x05https\x00\x05/ a\r\n", Kind.REQUEST),
        (b"\x01\x40\x63", Kind.RESPONSE),  # status 99
        (b"\x01\x40\x65\x00\x40\xc8", Kind.RESPONSE),  # status 101
        (b"\x01\x42\x58", Kind.RESPONSE),  # status 600
        (b"\x01\x40\xc8\x02\x00\x00", Kind.RESPONSE),  # a name of no bytes
        (b"\x01\x40\xc8\x03\x01a\x05", Kind.RESPONSE),  # a value beyond its section
        (b"\x01\x40\xc8\x00\x00\x00\x00\x01", Kind.RESPONSE),  # padding that is not zero
    ],
)
def test_malformed(data: bytes, kind: Kind) -> None:
    with pytest.raises(MalformedError):
        decode_message(data, kind)
    decoder = BinaryHttpDecoder(kind)
    with pytest.raises(MalformedError):
        read(decoder, [bytes((byte,)) for byte in data])
    with pytest.raises(MisuseError):
        decoder.receive_data(b"")


SMALL = MessageLimits(control=8, section=32, fields=3, informational=2, chunk=64, content=100)


def over_a_limit() -> Iterator[tuple[bytes, Kind]]:
    fields = tuple((b"a", b"") for _ in range(4))
    yield bhttp.encode_known(Message(RequestHead(b"GET", b"/12345678"))), Kind.REQUEST
    for encode in (bhttp.encode_known, bhttp.encode_streamed):
        yield encode(Message(RequestHead(b"GET", b"/", ((b"a", b"x" * 40),)))), Kind.REQUEST
        yield encode(Message(RequestHead(b"GET", b"/", ((b"a", b"x" * 12), (b"b", b"x" * 20))))), Kind.REQUEST
        yield encode(Message(RequestHead(b"GET", b"/", fields))), Kind.REQUEST
        yield encode(Message(ResponseHead(200), b"", fields)), Kind.RESPONSE
        yield encode(Message(ResponseHead(200), b"", (), (InformationalHead(100),) * 3)), Kind.RESPONSE
        yield encode(Message(ResponseHead(200), b"x" * 101)), Kind.RESPONSE
    yield b"\x03\x40\xc8\0" + bhttp.content_chunk(b"x" * 60) * 2, Kind.RESPONSE


@pytest.mark.parametrize(("data", "kind"), list(over_a_limit()))
def test_a_limit_is_kept_as_soon_as_its_length_is_known(data: bytes, kind: Kind) -> None:
    with pytest.raises(MalformedError):
        BinaryHttpDecoder(kind, SMALL).receive_data(data)


def test_a_length_of_2_62_is_refused_before_anything_is_kept() -> None:
    for start in (b"\x00", b"\x00\x03GET\x05https\x00\x01/", b"\x02\x03GET\x05https\x00\x01/"):
        decoder = BinaryHttpDecoder(Kind.REQUEST)
        with pytest.raises(MalformedError):
            decoder.receive_data(start + b"\xff" * 8)


def test_bytes_one_by_one_do_not_cost_more_with_each() -> None:
    """A long value after a long name: nothing of either may be copied before both are there."""

    class Counting(bytearray):
        copied = 0

        def __getitem__(self, key: Any) -> Any:  # of both kinds
            found = super().__getitem__(key)
            Counting.copied += len(found) if isinstance(key, slice) else 0
            return found

    decoder = BinaryHttpDecoder(Kind.REQUEST)
    decoder._buffer = Counting()
    data = bhttp.encode_streamed(Message(RequestHead(b"GET", b"/", ((b"n" * 3000, b"v" * 3000),))))
    read(decoder, [bytes((byte,)) for byte in data])
    assert len(data) < Counting.copied < 20 * len(data)


def test_varint_takes_all_four_lengths_and_writes_the_shortest() -> None:
    for encoded in ("25", "4025", "80000025", "c000000000000025"):
        assert varint.decode(bytes.fromhex(encoded), 0) == (37, len(encoded) // 2)
        assert varint.decode(bytes.fromhex(encoded)[:-1], 0) is None
    edges = [0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, varint.MAX]
    sizes = [len(varint.encode(value)) for value in edges]
    assert sizes == [1, 1, 2, 2, 4, 4, 8, 8]
    assert all(
        varint.decode(varint.encode(value), 0) == (value, size) for value, size in zip(edges, sizes, strict=True)
    )
    assert all(one <= other for one, other in pairwise(sizes))
    for value in (-1, varint.MAX + 1):
        with pytest.raises(MisuseError):
            varint.encode(value)


def test_our_own_mistakes() -> None:
    with pytest.raises(MalformedError):
        RequestHead(b"GET", b"no-slash")
    with pytest.raises(MalformedError):
        ResponseHead(199)
    with pytest.raises(MalformedError):
        InformationalHead(200)
    with pytest.raises(MisuseError):
        bhttp.encode_known(Message(GET, informational=(InformationalHead(103),)))
    with pytest.raises(MalformedError):
        bhttp.stream_end(((b"A", b""),))
    decoder = BinaryHttpDecoder(Kind.RESPONSE)
    read(decoder, [bhttp.encode_known(Message(OK))])
    with pytest.raises(MisuseError):
        decoder.end()


def test_a_field_that_may_stand_once() -> None:
    assert single(((b"a", b"1"), (b"b", b"2")), b"b") == b"2"
    assert single((), b"b") is None
    with pytest.raises(MalformedError):
        single(((b"b", b"2"), (b"b", b"2")), b"b")
