"""The source that runs certbot, with scripts in certbot's place that do what a real one rarely does."""

import asyncio
import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.certs_parts import TestAuthority, certs_settings
from tests.support.eventually import eventually
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.certs import certbot, probe
from cloudtolocalllm.certs.acme import RETRY, Acme
from cloudtolocalllm.certs.policy import Life, Outcome
from cloudtolocalllm.certs.reload import ReloadError, hang_up
from cloudtolocalllm.certs.source import SourceError, WaitingError
from cloudtolocalllm.certs.supervisor import Checker, Supervisor
from cloudtolocalllm.certs.validate import Pair
from cloudtolocalllm.runtime.processes import start_time

NAMES = ("example.org", "app.example.org")
AUTHORITY = TestAuthority(FakeClock().now)


class Rig:
    """The source and a supervisor, with a script as certbot."""

    def __init__(self, folder: Path, script: str, **changes: Any) -> None:
        self.folder = folder
        self.clock = FakeClock()
        path = folder / "certbot.sh"
        path.write_text(f"#!/bin/sh\necho run >> {folder}/calls\n{script}\n")
        path.chmod(0o755)
        self.settings = certs_settings(folder, certbot=str(path), **changes)
        self.places = certbot.Places.of(self.settings)
        self.restart()

    def restart(self) -> None:
        """As a new process has it."""
        check = Checker(self.settings, self.clock, lambda: [AUTHORITY.root.certificate], strict=True)
        self.source = Acme(self.settings, os.environ, check, clock=self.clock, random=lambda: 0.5)
        self.supervisor = Supervisor(self.settings, self.source, check, clock=self.clock)

    @property
    def calls(self) -> int:
        path = self.folder / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def outcomes(self) -> list[Outcome]:
        ledger = self.source.outlook().ledger
        assert ledger is not None
        return [attempt.outcome for attempt in ledger.attempts]

    def has_issued(self, pair: Pair) -> None:
        """As certbot leaves it."""
        self.places.live.mkdir(parents=True, exist_ok=True)
        (self.places.live / "fullchain.pem").write_bytes(pair.fullchain)
        (self.places.live / "privkey.pem").write_bytes(pair.privkey)


def issues(folder: Path, pair: Pair) -> str:
    """A script that leaves a pair as certbot does."""
    (folder / "c").write_bytes(pair.fullchain)
    (folder / "k").write_bytes(pair.privkey)
    live = certbot.Places.of(certs_settings(folder)).live
    return f"mkdir -p {live}; cp {folder}/c {live}/fullchain.pem; cp {folder}/k {live}/privkey.pem"


async def test_what_certbot_got_before_a_death_is_deployed_without_asking_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 1")
    rig.has_issued(AUTHORITY.pair(NAMES))
    status = await rig.supervisor.step()
    assert status.usable
    assert rig.calls == 0


async def test_without_a_history_on_disk_nobody_is_asked(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 0")
    rig.places.base.parent.mkdir(parents=True)
    rig.places.base.write_text("a file where the folder should be")
    status = await rig.supervisor.step()
    assert "without which no authority is asked" in status.fault
    assert rig.calls == 0


async def test_a_certificate_that_is_unfit_counts_and_is_not_deployed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, issues(tmp_path, AUTHORITY.pair(("example.net",))))
    status = await rig.supervisor.step()
    assert "the authority's certificate is unfit" in status.fault
    assert not status.usable
    assert rig.outcomes() == [Outcome.UNFIT]
    await rig.supervisor.step()
    assert rig.calls == 1


async def test_a_success_without_a_new_certificate_is_a_failure(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 0")
    assert "left no new certificate" in (await rig.supervisor.step()).fault
    assert rig.outcomes() == [Outcome.UNFIT]


async def test_issued_deployed_and_left_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, issues(tmp_path, AUTHORITY.pair(NAMES)))
    assert (await rig.supervisor.step()).usable
    for _ in range(5):
        rig.clock.advance(3600)
        status = await rig.supervisor.step()
    rig.restart()
    assert (await rig.supervisor.step()).usable
    assert (status.fault, rig.calls) == ("", 1)


async def test_a_failure_is_told_through_the_pause_and_asked_for_again_after_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "echo 'Detail: CAA record prevents issuance'; exit 1")
    for _ in range(3):
        assert "CAA" in (await rig.supervisor.step()).fault
    assert rig.calls == 1
    rig.clock.advance(3600)
    await rig.supervisor.step()
    assert rig.calls == 2


async def test_a_clock_that_is_set_back_does_not_end_the_asking(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 1")
    rig.clock.advance(365 * 86_400)
    for _ in range(3):
        await rig.supervisor.step()
        rig.clock.advance(3600)
    assert rig.calls == 3
    rig.clock.advance(-365 * 86_400)
    await rig.supervisor.step()
    assert rig.calls == 3
    rig.clock.advance(2 * 3600)
    await rig.supervisor.step()
    assert rig.calls == 4


async def test_retry_ends_the_pause_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 1")
    await rig.supervisor.step()
    (rig.settings.state_dir / RETRY).write_text("")
    await rig.supervisor.step()
    await rig.supervisor.step()
    assert rig.calls == 2
    assert not (rig.settings.state_dir / RETRY).exists()


async def test_a_limit_that_is_told_of_makes_a_long_pause(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "echo urn:ietf:params:acme:error:rateLimited; exit 1")
    await rig.supervisor.step()
    assert rig.outcomes() == [Outcome.LIMITED]
    rig.clock.advance(11 * 3600)
    await rig.supervisor.step()
    assert rig.calls == 1


async def test_another_authority_replaces_what_the_first_issued(tmp_path: Path) -> None:
    rig = Rig(tmp_path, issues(tmp_path, AUTHORITY.pair(NAMES)))
    await rig.supervisor.step()
    rig.settings = certs_settings(tmp_path, certbot=rig.settings.certbot, staging=True)
    rig.restart()
    status = await rig.supervisor.step()
    assert rig.calls == 2
    assert status.usable, "the first one's stays until then"


async def test_a_missing_certbot_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "")
    rig.settings = certs_settings(tmp_path, certbot=str(tmp_path / "none"))
    rig.restart()
    assert "certbot could not be run" in (await rig.supervisor.step()).fault
    assert rig.outcomes() == [Outcome.FAILED]


async def test_the_address_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(tmp_path, "echo invalid contact for ops@example.org; exit 1", email="ops@example.org")
    with caplog.at_level(logging.INFO):
        await rig.supervisor.step()
    said = " ".join(str(vars(record)) for record in caplog.records)
    assert "invalid contact for [e-mail]" in said
    assert "ops@example.org" not in said


async def test_a_run_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "hang.sh"
    script.write_text(f"#!/bin/sh\ntrap '' TERM\nsleep 300 & echo $! > {tmp_path}/child\necho waiting\nwait\n")
    script.chmod(0o755)
    certbot_grace, certbot.STOP_GRACE = certbot.STOP_GRACE, 0.3
    try:
        begun = time.monotonic()
        result = await certbot.run([str(script)], {"PATH": os.defpath}, timeout=0.5)
    finally:
        certbot.STOP_GRACE = certbot_grace
    assert result.status is None
    assert result.output == "waiting\n"
    assert time.monotonic() - begun < 10
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if start_time(child) is None:
            break
        await asyncio.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("expected the child to have ended")


@pytest.mark.parametrize("turns", range(0, 40, 4))
async def test_an_end_at_any_moment_leaves_no_child(tmp_path: Path, turns: int) -> None:
    line = ["sh", "-c", f"echo $$ > {tmp_path}/child; exec sleep 300"]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        run = group.create_task(certbot.run(line, {"PATH": os.defpath}, timeout=60))
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
    written = await _content(tmp_path / "child")
    assert not written or start_time(int(written)) is None


async def test_a_stop_ends_certbot_and_counts_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, f"echo $$ > {tmp_path}/child; exec sleep 300")
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(rig.supervisor.run(stop))
        child = int(await eventually(lambda: _content(tmp_path / "child"), bool))
        stop.set()
    assert start_time(child) is None
    rig.restart()
    await rig.supervisor.step()
    assert (rig.outcomes(), rig.calls) == ([Outcome.PENDING], 1)


async def _content(path: Path) -> str:
    return await asyncio.to_thread(lambda: path.read_text().strip() if path.exists() else "")


async def test_only_the_end_of_many_words_is_kept() -> None:
    line = ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo the end"]
    result = await certbot.run(line, {"PATH": os.defpath}, timeout=20)
    assert (result.status, len(result.output)) == (0, certbot.OUTPUT_KEPT)
    assert result.output.endswith("the end\n")


async def test_nobody_is_asked_while_nginx_is_not_there(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 1", webroot_url="http://127.0.0.1:1")
    with pytest.raises(WaitingError, match="check that nginx runs"):
        await rig.source.bring(None, None)
    assert rig.calls == 0
    assert rig.outcomes() == []
    assert not list((rig.settings.webroot / probe.CHALLENGES).iterdir())


async def test_a_webroot_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "webroot").write_text("")
    rig = Rig(tmp_path, "exit 1", webroot_url="http://127.0.0.1:1")
    with pytest.raises(SourceError, match="could not write to the webroot"):
        await rig.source.bring(None, None)


async def test_a_fit_certificate_keeps_certbot_from_running(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "exit 1")
    now = rig.clock.wall()
    assert await rig.source.bring(Life(now - 86_400, now + 80 * 86_400), None) is None
    assert rig.calls == 0


def test_only_an_nginx_is_signalled(tmp_path: Path) -> None:
    pid_file = tmp_path / "nginx.pid"
    with pytest.raises(ReloadError, match="start it, or correct the path"):
        hang_up(pid_file)
    other = subprocess.Popen(["sleep", "60"])
    try:
        for text in ("1", "-1", "0", "x", "", "99999999"):
            pid_file.write_text(text)
            with pytest.raises(ReloadError):
                hang_up(pid_file)
        pid_file.write_text(f"{other.pid}\n")
        with pytest.raises(ReloadError, match="remove the stale file"):
            hang_up(pid_file)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
