"""Pairing without a link, against the real gateway: words, the home's consent, and how it comes to nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.eventually import eventually
from tests.support.gateway_front import GatewayFront, gateway_front
from tests.support.gateway_parts import store_of
from tests.support.scripted_engine import scripted_engine
from tests.support.sealed_client import SealedClient, TunnelOuter, link_of

from cloudtolocalllm.bridge.store import devices
from cloudtolocalllm.bridge.store.devices import BY_LOCAL, Device
from cloudtolocalllm.connect import words
from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.connect.errors import HomeError
from cloudtolocalllm.connect.home_client import HomeClient, InnerRequest, whole
from cloudtolocalllm.connect.homes import Homes
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.pairing import NewHome, import_key
from cloudtolocalllm.connect.service import homes_folder, keys_folder
from cloudtolocalllm.connect.vault import FileVault
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.connect.words import Answer, Met, Moment, Question, Standing, meet, pin
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed import fingerprint
from cloudtolocalllm.sealed.safety_words import safety_words

BRIDGE = "br-test"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "LOOK", 0.05)
    monkeypatch.setattr(words, "LOOK_MOST", 0.2)
    monkeypatch.setattr(words, "_TICK", 0.05)


Compare = Callable[[Question], Awaitable[Answer]]


@dataclass
class Somebody:
    """Compares the words in a way that the test gives."""

    compare: Compare
    question: Question | None = None
    moments: list[Moment] = field(default_factory=list)

    def show(self, question: Question) -> None:
        self.question = question

    async def compared(self) -> Answer:
        assert self.question is not None
        return await self.compare(self.question)

    def waits(self, moment: Moment) -> None:
        self.moments.append(moment)

    async def now(self) -> Moment:
        return self.moments[-1] if self.moments else Moment(None, Standing.WAITS, 0.0, "")


async def says_yes(_: Question) -> Answer:
    return Answer.SAME


async def says_nothing(_: Question) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def link_to(front: GatewayFront) -> AsyncIterator[ServerLink]:
    tasks, clock = TaskSet(), SystemClock()
    address = ServerAddress.parse(f"http://127.0.0.1:{front.port}")
    link = ServerLink(address, "c2l_test", Watch(tasks, clock), clock)
    try:
        yield link
    finally:
        await link.close()
        await tasks.close()


async def meeting(front: GatewayFront, folder: Path, person: Somebody, *, wait: float = 30.0) -> Met:
    async with link_to(front) as link:
        homes = Homes(homes_folder(folder))
        return await meet(link, BRIDGE, NewHome("laptop", "Desktop"), person, homes, SystemClock(), wait=wait)


async def waiting_one(front: GatewayFront) -> Device:
    """Return the device that waits at home, once one does."""

    async def listed() -> list[Device]:
        assert front.home is not None
        return await store_of(front.home).read(devices.all_of)

    found = await eventually(listed, lambda all_: [one for one in all_ if not one.paired])
    return next(one for one in found if not one.paired)


async def approve(front: GatewayFront) -> Device:
    waits = await waiting_one(front)
    assert front.home is not None
    return await store_of(front.home).write(lambda tx: devices.approve(tx, waits.id, approved_by=BY_LOCAL))


async def remove(front: GatewayFront, id_: str) -> None:
    assert front.home is not None
    await store_of(front.home).write(lambda tx: devices.remove(tx, id_))


async def words_at_home(front: GatewayFront) -> tuple[str, ...]:
    """Return what the home shows of the device that waits there."""
    assert front.home is not None
    waits = await waiting_one(front)
    return safety_words(link_of(front.home).fingerprint, fingerprint.decode(waits.id))


def nothing_kept(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("first", ["home", "person"])
async def test_let_in_at_home_and_the_same_words(tmp_path: Path, first: str) -> None:
    folder, at = tmp_path / "laptop", tmp_path / "home"
    at.mkdir()
    async with scripted_engine() as engine, gateway_front(at, engine.url) as front:
        compared, agreed = asyncio.Event(), asyncio.Event()

        async def compares(question: Question) -> Answer:
            shown = await words_at_home(front)
            compared.set()
            await agreed.wait()
            return Answer.SAME if shown == question.words else Answer.DIFFERENT

        person = Somebody(compares)
        pairing = asyncio.ensure_future(meeting(front, folder, person))
        waits = await waiting_one(front)
        assert waits.name == "laptop"
        await compared.wait()
        if first == "home":
            await approve(front)
            await eventually(person.now, lambda moment: moment.standing is Standing.LET_IN)
            assert not pairing.done(), "expected it to wait for the person"
            agreed.set()
        else:
            agreed.set()
            await eventually(person.now, lambda moment: moment.answer is Answer.SAME)
            assert not pairing.done(), "expected it to wait for the home"
            assert nothing_kept(folder)
            await approve(front)
        met = await pairing
        assert nothing_kept(folder), "expected nothing to be kept before it is pinned"
        assert (met.home.device_id, met.home.name) == (waits.id, "Desktop")
        vault, homes = FileVault(keys_folder(folder)), Homes(homes_folder(folder))
        pin(met, homes, vault)
        (home,) = homes.load()
        assert front.home is not None
        assert home.fingerprint == link_of(front.home).fingerprint
        assert homes.seen(home) == met.seq > 0
        key = import_key(vault.get(home.secret_name) or "")
        async with link_to(front) as link:
            client = HomeClient(link, BRIDGE, home.fingerprint, key, SystemClock(), seen=homes.seen(home))
            answer = await client.ask(InnerRequest("GET", "/v1/models"))
            assert (await whole(answer))[0].status == 200
            answer.close()


async def test_refused_at_home(tmp_path: Path) -> None:
    async with scripted_engine() as engine, gateway_front(tmp_path, engine.url) as front:
        folder = tmp_path / "laptop"
        for compare in (says_yes, says_nothing):
            pairing = asyncio.ensure_future(meeting(front, folder, Somebody(compare)))
            waits = await waiting_one(front)
            await remove(front, waits.id)
            with pytest.raises(HomeError, match=r"The home refused: .* Nothing is kept here"):
                await pairing
        assert nothing_kept(folder)


@pytest.mark.parametrize("let_in", [False, True])
async def test_a_cloud_in_the_middle_shows_other_words(tmp_path: Path, let_in: bool) -> None:
    """It answers as the home with an identity of its own, and asks the home to let in a key of its own."""
    folder, true, false = tmp_path / "laptop", tmp_path / "home", tmp_path / "cloud"
    true.mkdir()
    false.mkdir()
    async with (
        scripted_engine() as engine,
        gateway_front(true, engine.url) as home,
        gateway_front(false, engine.url) as cloud,
    ):
        assert home.home is not None
        thief = SealedClient(TunnelOuter(home.home), BRIDGE, link_of(home.home).fingerprint)
        assert (await thief.introduce("laptop")).status == 202

        async def compares(question: Question) -> Answer:
            shown = await words_at_home(home)
            if let_in:
                await approve(home)
                await approve(cloud)
            return Answer.SAME if shown == question.words else Answer.DIFFERENT

        with pytest.raises(HomeError, match=r"The words differ, .* Nothing is kept here\. Do not let it in"):
            await meeting(cloud, folder, Somebody(compares))
        assert nothing_kept(folder)


async def test_a_cloud_that_changes_its_mind(tmp_path: Path) -> None:
    """The words were those of one identity; what another says afterwards is not taken for it."""
    folder, true, false = tmp_path / "laptop", tmp_path / "home", tmp_path / "cloud"
    true.mkdir()
    false.mkdir()
    async with (
        scripted_engine() as engine,
        gateway_front(true, engine.url) as home,
        gateway_front(false, engine.url) as cloud,
    ):
        pairing = asyncio.ensure_future(meeting(home, folder, Somebody(says_yes)))
        await waiting_one(home)
        theirs, home.home = home.home, cloud.home
        try:
            # Key configurations of two homes that were made within one second bear the same number.
            with pytest.raises(HomeError, match=r"another key|arrived changed"):
                await pairing
        finally:
            home.home = theirs
        assert nothing_kept(folder)


@pytest.mark.parametrize(
    ("compare", "let_in", "said"),
    [
        (says_yes, False, r"not let in at home in time\. Nothing is kept here\. Do not let it in"),
        (says_nothing, False, r"not let in at home in time\. Nothing is kept here"),
        (says_nothing, True, r"Nobody said here in time .* Nothing is kept here\. It was let in at home: put"),
    ],
)
async def test_the_time_is_over(tmp_path: Path, compare: Compare, let_in: bool, said: str) -> None:
    async with scripted_engine() as engine, gateway_front(tmp_path, engine.url) as front:
        folder = tmp_path / "laptop"
        person = Somebody(compare)
        pairing = asyncio.ensure_future(meeting(front, folder, person, wait=4.0 if let_in else 0.5))
        if let_in:
            await approve(front)
        with pytest.raises(HomeError, match=said):
            await pairing
        assert person.moments, "expected it to show that it waits"
        assert person.moments[0].left > person.moments[-1].left
        assert nothing_kept(folder)


async def test_a_home_that_is_away_for_a_while(tmp_path: Path) -> None:
    async with scripted_engine() as engine, gateway_front(tmp_path, engine.url) as front:
        person = Somebody(says_yes)
        pairing = asyncio.ensure_future(meeting(front, tmp_path / "laptop", person))
        await waiting_one(front)
        await front.stop()
        await eventually(person.now, lambda moment: moment.trouble)
        await front.start()
        await approve(front)
        assert (await pairing).seq > 0
        assert person.moments[-1].answer is Answer.SAME


async def test_a_home_that_is_away_from_the_start_is_not_asked(tmp_path: Path) -> None:
    async with scripted_engine() as engine, gateway_front(tmp_path, engine.url) as front:
        await front.stop()
        person = Somebody(says_yes)
        with pytest.raises(HomeError, match="away"):
            await meeting(front, tmp_path / "laptop", person)
        assert person.question is None


async def test_another_identity_than_the_one_that_is_known_is_told(tmp_path: Path) -> None:
    folder, one, two = tmp_path / "laptop", tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    vault, homes = FileVault(keys_folder(folder)), Homes(homes_folder(folder))
    async with (
        scripted_engine() as engine,
        gateway_front(one, engine.url) as front,
        gateway_front(two, engine.url) as other,
    ):
        told = []
        for _ in range(3):
            person = Somebody(says_yes)
            pairing = asyncio.ensure_future(meeting(front, folder, person))
            await approve(front)
            before = [home.secret_name for home in homes.load()]
            pin(await pairing, homes, vault)
            assert person.question is not None
            told.append(person.question.known_otherwise)
            assert len(homes.load()) == 1
            assert [name for name in before if vault.get(name)] == [], "expected the former key to be gone"
            if len(told) == 2:
                front.home, other.home = other.home, front.home
        assert told == [False, False, True]
        front.home, other.home = other.home, front.home
