"""A cloud that misbehaves on purpose: every attack is noticed and has a name; none gives a wrong or a short answer.

What a person was shown before it was noticed is always a true beginning of the answer, and an answer counts as whole
only if it is. Against real bridges and engines.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import pytest
from tests.support import hostile_cloud as cloud
from tests.support.hostile_cloud import Asked, Misdeed, Pieces, take_apart, taken
from tests.support.hostile_setting import (
    CHANGES,
    QUESTION,
    REQUEST_HEAD,
    TRUTH,
    Place,
    RefusedInsideError,
    answer_to,
    cut_to,
    flipped,
    on_chunks,
    running_place,
)
from tests.support.sealed_client import ClearProblemError, CutError, OuterAnswer

from cloudtolocalllm.sealed.errors import ForgedError, MalformedError, SealedError, TruncatedError
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RESPONSE_TYPE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_place(tmp_path_factory.mktemp("homes")) as made:
        yield made


def test_an_honest_cloud_is_believed(place: Place) -> None:
    it = place.setting()
    assert place.run(it.ask()) == TRUTH
    assert it.engine == [QUESTION]
    pieces = take_apart(it.sealed, REQUEST_HEAD)
    assert len(pieces.chunks) > 1, "expected chunks to attack"
    assert pieces.encode() == it.sealed


def test_the_answer_has_chunks_to_attack(place: Place) -> None:
    kept: list[bytes] = []

    def keep(content: bytes) -> bytes:
        kept.append(content)
        return content

    place.run(place.setting(cloud.OnAnswers(keep)).ask())
    assert len(take_apart(kept[0]).chunks) > 2
    assert take_apart(kept[0]).encode() == kept[0]


# --- answers ---


@pytest.mark.parametrize("name", CHANGES)
def test_an_answer_whose_chunks_are_rearranged(place: Place, name: str) -> None:
    change, error = CHANGES[name]
    place.run(place.setting(cloud.OnAnswers(on_chunks(change))).noticed(error))


@pytest.mark.parametrize("at", [0, 15, 16, 17, 18, 40, 600, 20_000, -17, -1])
def test_an_answer_with_one_bit_flipped(place: Place, at: int) -> None:
    misdeed = cloud.OnAnswers(flipped(at))
    place.run(place.setting(misdeed).noticed(ForgedError, MalformedError, TruncatedError))


@pytest.mark.parametrize("lost", [True, False], ids=["connection lost", "seems to end well"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 18, 100, 545, 5_000, 20_000, 34_000])
def test_an_answer_cut_short(place: Place, size: int, lost: bool) -> None:
    it = place.setting(cloud.OnAnswers(cut_to(size), lost=lost))
    place.run(it.noticed(CutError if lost else TruncatedError))


@pytest.mark.parametrize("missing", [1, 15, 16, 17, 18, 400])
def test_an_answer_cut_at_its_very_end(place: Place, missing: int) -> None:
    it = place.setting(cloud.OnAnswers(lambda content: content[:-missing]))
    place.run(it.noticed(TruncatedError, ForgedError))


def test_the_answer_to_another_question(place: Place) -> None:
    it = place.setting(cloud.Swap())
    first = b'{"model": "tiny"}'
    assert place.run(it.ask(first)) == answer_to(first)
    place.run(it.noticed(ForgedError))
    assert not it.shown


def test_a_request_that_is_led_to_another_home(place: Place) -> None:
    """That one cannot even open it."""
    it = place.setting()
    it.cloud.astray = True
    error = place.run(it.noticed(ClearProblemError))
    assert isinstance(error, ClearProblemError)
    assert error.slug in ("bad-request", "ohttp-key")
    assert it.engine == []


IN_THE_CLEAR = [
    (200, "application/json", b'{"choices": [{"message": {"content": "Lyon"}}]}'),
    (200, "text/event-stream", b"data: Lyon\n\ndata: [DONE]\n\n"),
    (200, "message/bhttp", b"\3@\xc8\0\4Lyon\0\0"),
    (200, "", b""),
    (302, "text/html", b""),
    (404, cloud.PROBLEM_TYPE, b'{"type": "urn:c2l:problem:model-not-found"}'),
    (400, cloud.PROBLEM_TYPE, b"\xff\xfe["),
]


@pytest.mark.parametrize(("status", "content_type", "content"), IN_THE_CLEAR)
def test_an_answer_of_the_clouds_own(place: Place, status: int, content_type: str, content: bytes) -> None:
    it = place.setting(cloud.Instead(status, content_type, content), attempts=5)
    place.run(it.noticed(ClearProblemError))
    assert not it.shown


@pytest.mark.parametrize(
    ("made_up", "error"),
    [
        (b"", TruncatedError),
        (Pieces(bytes(16), (), b"").encode(), TruncatedError),
        (Pieces(bytes(16), (), bytes(16)).encode(), ForgedError),
        (Pieces(bytes(16), (bytes(528),), bytes(16)).encode(), ForgedError),
        (b"HTTP/1.1 200 OK\r\n\r\nLyon", SealedError),
    ],
)
def test_an_answer_of_the_clouds_own_that_looks_sealed(
    place: Place, made_up: bytes, error: type[SealedError]
) -> None:
    it = place.setting(cloud.Instead(200, RESPONSE_TYPE, made_up))
    place.run(it.noticed(error))
    assert not it.shown


def test_a_cloud_that_says_for_ever_that_the_key_is_unknown(place: Place) -> None:
    document = {"type": "https://iana.org/assignments/http-problem-types#ohttp-key"}
    it = place.setting(cloud.Instead(400, cloud.PROBLEM_TYPE, json.dumps(document).encode()), attempts=5)
    error = place.run(it.noticed(ClearProblemError))
    assert isinstance(error, ClearProblemError)
    assert error.slug == "ohttp-key"
    assert [asked.method for asked in it.cloud.seen] == ["GET", "POST", "GET", "POST"], "once more, and no more"


@dataclass
class HeldBack:
    """An answer of which each piece but the first waits."""

    given: OuterAnswer
    go: asyncio.Event

    @property
    def status(self) -> int:
        return self.given.status

    @property
    def content_type(self) -> str:
        return self.given.content_type

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async for piece in self.given.pieces():
            yield piece
            await self.go.wait()

    async def leave(self) -> None:
        await self.given.leave()


class Delay(Misdeed):
    """Holds answers back in their middle."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
        return HeldBack(given, self.go) if asked.sealed else given


def test_an_answer_that_is_held_back_is_not_taken_for_whole(place: Place) -> None:
    async def check() -> None:
        misdeed = Delay()
        it = place.setting(misdeed)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.ask(), 0.3)
        it.check_shown()
        misdeed.go.set()
        assert await it.ask() == TRUTH, "late is not wrong"

    place.run(check())


# --- answers that are taken up again ---


@pytest.mark.parametrize("name", CHANGES)
def test_after_an_attack_that_ends_the_answer_is_taken_up_and_equal(place: Place, name: str) -> None:
    it = place.setting(cloud.OnAnswers(on_chunks(CHANGES[name][0]), times=2), attempts=5)
    assert place.run(it.ask()) == TRUTH
    assert it.engine == [QUESTION], "expected nothing to run twice"


@pytest.mark.parametrize("size", [0, 10, 300, 700, 17_000, 30_000])
def test_a_cut_answer_goes_on_where_it_was(place: Place, size: int) -> None:
    it = place.setting(cloud.OnAnswers(cut_to(size), times=3, lost=True), attempts=5)
    assert place.run(it.ask()) == TRUTH
    assert it.engine == [QUESTION]


def test_the_first_answer_is_none_to_the_request_that_takes_it_up(place: Place) -> None:
    """Else its beginning would be shown twice."""
    it = place.setting(cloud.Repeat(), attempts=3)
    place.run(it.noticed(ForgedError))
    assert 0 < len(it.shown) < len(TRUTH)


def test_an_answer_that_never_gets_whole_is_given_up(place: Place) -> None:
    it = place.setting(cloud.OnAnswers(cut_to(700)), attempts=4)
    place.run(it.noticed(TruncatedError))
    assert len([asked for asked in it.cloud.seen if asked.sealed]) == 4


# --- requests ---


@pytest.mark.parametrize("name", CHANGES)
def test_a_request_whose_chunks_are_rearranged(place: Place, name: str) -> None:
    it = place.setting(cloud.OnRequests(on_chunks(CHANGES[name][0], REQUEST_HEAD)))
    error = place.run(it.noticed(ClearProblemError))
    assert isinstance(error, ClearProblemError)
    assert (error.status, error.slug) == (400, "bad-request")
    assert it.engine == []


@pytest.mark.parametrize("at", [0, 1, 3, 5, 7, 38, 39, 40, 41, 100, 17_000, 40_000, -17, -1])
def test_a_request_with_one_bit_flipped(place: Place, at: int) -> None:
    it = place.setting(cloud.OnRequests(flipped(at)))
    error = place.run(it.noticed(ClearProblemError))
    assert isinstance(error, ClearProblemError)
    assert (error.status, error.slug) in ((400, "bad-request"), (400, "ohttp-key"))
    assert it.engine == []


@pytest.mark.parametrize("size", [0, 1, 7, 38, 39, 40, 41, 42, 500, 16_441, 16_442, 30_000, 49_000])
def test_a_request_cut_short(place: Place, size: int) -> None:
    it = place.setting(cloud.OnRequests(cut_to(size)))
    error = place.run(it.noticed(ClearProblemError))
    assert isinstance(error, ClearProblemError)
    assert (error.status, error.slug) == (400, "bad-request")
    assert it.engine == []


@pytest.mark.parametrize("at", [3, 45, 17_000, 40_000, -1])
def test_a_request_that_was_damaged_and_is_sent_again_is_answered(place: Place, at: int) -> None:
    """Under the same name: what came damaged, and was begun perhaps, must not stand in its way."""
    it = place.setting(cloud.OnRequests(flipped(at), times=2), attempts=5)
    assert place.run(it.ask()) == TRUTH
    assert it.engine == [QUESTION]


def test_a_request_that_is_sent_twice_is_answered_once(place: Place) -> None:
    async def check() -> None:
        it = place.setting()
        assert await it.ask() == TRUTH
        again = await taken(await it.cloud.send("POST", it.client.target, REQUEST_TYPE, it.sealed))
        assert (again.status, again.content_type) == (200, RESPONSE_TYPE), "why, only the device could read"
        assert len(again.content) < 4_000 < len(TRUTH)
        assert it.engine == [QUESTION]

    place.run(check())


def test_the_answer_to_the_second_copy_tells_the_device_that_it_is_one(place: Place) -> None:
    class Twice(Misdeed):
        async def answer(self, asked: Asked, given: OuterAnswer) -> OuterAnswer:
            if not asked.sealed:
                return given
            await taken(given)
            return await it.cloud.home.send(asked.method, asked.target, asked.content_type, asked.content)

    it = place.setting(Twice())
    error = place.run(it.noticed(RefusedInsideError))
    assert isinstance(error, RefusedInsideError)
    assert (error.status, error.slug) == (503, "connection-lost")
    assert it.engine == [QUESTION]


def test_a_request_that_is_held_back_for_long_is_not_accepted(place: Place) -> None:
    async def check() -> None:
        it = place.setting()
        await it.client.refresh()
        now = it.client.now
        it.client.now = lambda: now() - 121  # it was sealed then
        with pytest.raises(RefusedInsideError) as caught:
            await it.ask()
        assert (caught.value.status, caught.value.slug) == (400, "date")
        assert it.engine == []

    place.run(check())
