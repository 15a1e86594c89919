"""What is deployed, what is refused, and what is told of it."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.support.certs_parts import DAY, TestAuthority, certs_settings
from tests.support.certs_sources import ScriptedSource
from tests.support.eventually import eventually
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.certs import supervisor
from cloudtolocalllm.certs.policy import Attempt, Ledger, Life, Outcome
from cloudtolocalllm.certs.source import SourceError, WaitingError
from cloudtolocalllm.certs.status import Status, exposition
from cloudtolocalllm.certs.supervisor import Checker, Supervisor, folder_of
from cloudtolocalllm.certs.validate import Pair

NAMES = ("example.org", "app.example.org")
AUTHORITY = TestAuthority(FakeClock().now)


class Rig:
    """A supervisor on a folder."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.clock = FakeClock()
        self.settings = certs_settings(folder, **changes)
        self.source = ScriptedSource()
        self.check = Checker(self.settings, self.clock, lambda: [AUTHORITY.root.certificate], strict=True)
        self.supervisor = Supervisor(self.settings, self.source, self.check, clock=self.clock)
        self.folder = folder_of(self.settings)

    async def step(self, brings: Pair | SourceError | None = None) -> Status:
        self.source.next = brings
        return await self.supervisor.step()

    def deployed(self) -> Pair | None:
        read = self.folder.read()
        return read.pair if read else None


async def test_what_is_fit_is_deployed_and_told(tmp_path: Path) -> None:
    rig, pair = Rig(tmp_path), AUTHORITY.pair(NAMES)
    status = await rig.step(pair)
    assert rig.deployed() == pair
    assert status.usable
    assert status.days_left == pytest.approx(89)
    told = json.loads((tmp_path / "state" / "status.json").read_text())
    assert told["not_after"] == status.not_after
    assert "c2l_certificate_days_left" in (tmp_path / "state" / "metrics.prom").read_text()


BAD = {
    "expired": lambda: AUTHORITY.pair(NAMES, begins=90 * DAY, ends=-DAY),
    "a certificate for example.org": lambda: AUTHORITY.pair(("example.net",)),
    "got another": lambda: Pair(AUTHORITY.pair(NAMES).fullchain, AUTHORITY.pair(NAMES).privkey),
    "breaks off": lambda: Pair(AUTHORITY.pair(NAMES).fullchain[:-40], AUTHORITY.pair(NAMES).privkey),
    "not valid before": lambda: AUTHORITY.pair(NAMES, begins=-DAY),
    "chain is incomplete": lambda: TestAuthority(FakeClock().now, "Foreign").pair(NAMES),
}


@pytest.mark.parametrize("words", BAD)
async def test_what_is_unfit_is_refused_and_the_old_one_stays(
    tmp_path: Path, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig, old = Rig(tmp_path), AUTHORITY.pair(NAMES)
    await rig.step(old)
    stamp = (rig.folder.path / "stamp").read_text()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            status = await rig.step(BAD[words]())
    assert rig.deployed() == old
    assert (rig.folder.path / "stamp").read_text() == stamp
    assert status.usable
    assert words in status.fault
    assert "the deployed one stays" in status.fault
    assert [words in message for message in caplog.messages].count(True) == 1, "told once, not at every look"
    assert (await rig.step(AUTHORITY.pair(NAMES))).fault == ""


async def test_nothing_unfit_is_deployed_even_where_nothing_is(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    status = await rig.step(BAD["expired"]())
    assert rig.deployed() is None
    assert not status.usable
    assert "there is none deployed" in status.fault


async def test_a_source_is_told_of_its_own_fit_pair_only(tmp_path: Path) -> None:
    rig, pair = Rig(tmp_path), AUTHORITY.pair(NAMES)
    await rig.step(pair)
    await rig.step()
    assert rig.source.lives()[-1] == Life(rig.clock.now - 86_400, rig.clock.now + 89 * 86_400)
    assert rig.source.pairs()[-1] == pair
    rig.clock.advance(89 * 86_400)
    status = await rig.step()
    assert rig.source.lives()[-1] is None
    assert rig.source.pairs()[-1] == pair
    assert not status.usable
    assert "expired" in status.problem
    other = Rig(tmp_path)
    other.source.identity = "another"
    await other.step()
    assert (other.source.lives(), other.source.pairs()) == ([None], [None])


async def test_faults_are_told_and_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(tmp_path)
    with caplog.at_level(logging.WARNING):
        status = await rig.step(WaitingError("waiting until nginx is there"))
        assert status.fault == "waiting until nginx is there"
        status = await rig.step(SourceError("certbot failed: mend this"))
    assert status.fault == "certbot failed: mend this"
    assert caplog.messages == ["waiting until nginx is there", "certbot failed: mend this"]
    assert (await rig.step()).fault == ""


async def test_a_stamp_that_a_death_left_out_is_made_up_for(tmp_path: Path) -> None:
    rig, pair = Rig(tmp_path), AUTHORITY.pair(NAMES)
    await rig.step(pair)
    (rig.folder.path / "stamp").unlink()
    await rig.step()
    assert rig.folder.stamped(pair)


async def test_what_nobody_thought_of_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig, stop = Rig(tmp_path, poll=0.001), asyncio.Event()
    rig.source.surprises = 2
    rig.source.next = AUTHORITY.pair(NAMES)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(rig.supervisor.run(stop))
        await rig.source.brought.wait()
        stop.set()
    assert rig.deployed() == rig.source.next
    assert caplog.messages.count("a look at the certificate failed") == 2


async def test_it_goes_on_telling_while_certbot_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BEAT", 0.001)
    rig, stop = Rig(tmp_path), asyncio.Event()
    rig.source.busy = asyncio.Event()
    first = rig.clock.now

    async def told_at() -> float:
        return float(json.loads((tmp_path / "state" / "status.json").read_text())["at"])

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(rig.supervisor.run(stop))
        await rig.source.brought.wait()
        rig.clock.advance(supervisor.TELL_EVERY)
        await eventually(told_at, lambda at: at != first)
        stop.set()
        rig.source.busy.set()


def test_the_count_of_failures_never_falls(tmp_path: Path) -> None:
    """Though an attempt is on disk as a failure until it has ended; "pending" are those that nothing followed."""
    rig, ledger = Rig(tmp_path), Ledger()
    counts, in_a_row = [], []
    ends = (Outcome.ISSUED, Outcome.FAILED, Outcome.PENDING, Outcome.LIMITED, Outcome.ISSUED)
    for number, outcome in enumerate(ends):
        ledger = ledger.begun(Attempt(rig.clock.now + number, NAMES, Outcome.PENDING, 0.5, "p"))
        for then in (ledger, ledger.ended(outcome, rig.clock.now)):
            rig.source.ledger = ledger = then
            status = rig.supervisor.status(None, "")
            counts.append(status.failed)
            in_a_row.append(status.failures_in_a_row)
    assert counts == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert in_a_row == [0, 0, 0, 1, 1, 1, 2, 3, 3, 0]


async def test_a_full_disk_of_the_state_ends_nothing(tmp_path: Path) -> None:
    rig, pair = Rig(tmp_path), AUTHORITY.pair(NAMES)
    (tmp_path / "state").write_text("a file where the folder should be")
    status = await rig.step(pair)
    assert status.usable
    assert rig.deployed() == pair


def test_metrics_are_well_formed_whatever_the_name() -> None:
    status = Status(
        name='a"b\\c\n', mode="own", names=("x",), at=10.0, usable=True, not_before=0.0, not_after=86_410.0
    )
    text = exposition(status)
    assert '{name="a\\"b\\\\c\\n"}' in text
    assert 'c2l_certificate_days_left{name="a\\"b\\\\c\\n"} 1\n' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP c2l_certificate_", "# TYPE c2l_certificate_", "c2l_certificate_"))
