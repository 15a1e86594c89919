"""Joins the parts: looks at what is deployed, has a source bring a pair, checks it, deploys it, tells about it."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography import x509

from cloudtolocalllm.certs import validate
from cloudtolocalllm.certs.deploy import Deployed, DeployError, Folder
from cloudtolocalllm.certs.policy import Life
from cloudtolocalllm.certs.reload import ReloadError, hang_up
from cloudtolocalllm.certs.settings import CertsSettings
from cloudtolocalllm.certs.source import Source, SourceError, WaitingError
from cloudtolocalllm.certs.status import Status, exposition
from cloudtolocalllm.certs.validate import Facts, Pair, UnfitError
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

STATUS = "status.json"
BEAT = 20.0
"""Seconds between looks at whether it is time to tell."""
TELL_EVERY = 60.0
"""Seconds after which status and metrics are written even when nothing changed: they show that this process lives."""


class Checker:
    """Knows what a pair must cover and which roots end its chain."""

    def __init__(
        self, settings: CertsSettings, clock: Clock, roots: Callable[[], Sequence[x509.Certificate]], *, strict: bool
    ) -> None:
        """Make one.

        Args:
            settings: What was configured.
            clock: The time.
            roots: Returns the authorities that end a chain.
            strict: Refuse a chain that leads to none of them.
        """
        self._names = settings.domains
        self._clock = clock
        self._roots = roots
        self._strict = strict

    def __call__(self, pair: Pair) -> Facts:
        """Return what a pair holds.

        Raises:
            UnfitError: It must not be deployed.
        """
        return validate.check(pair, self._names, self._clock.wall(), roots=self._roots(), strict=self._strict)


class Supervisor:
    """Keeps one certificate."""

    def __init__(self, settings: CertsSettings, source: Source, check: Checker, *, clock: Clock) -> None:
        self._settings = settings
        self._source = source
        self._check = check
        self._clock = clock
        self._folder = folder_of(settings)
        self._fault = ""
        self._remarks: tuple[str, ...] = ()
        self._last_success: float | None = None
        self._told: Status | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Keep it until `stop` is set; a run of certbot is then ended, and counts as a failure."""
        self._tell(*self._look()[1:])
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(self._beat()), group.create_task(self._steps())]
            await stop.wait()
            for part in parts:
                part.cancel()

    async def _steps(self) -> None:
        while True:
            try:
                await self.step()
            except Exception:
                # What nobody thought of must not end the process: what is deployed is still looked after.
                log.exception("a look at the certificate failed")
            await asyncio.sleep(self._settings.poll)

    async def _beat(self) -> None:
        """Go on telling while a step takes minutes, as certbot may."""
        while True:
            await asyncio.sleep(BEAT)
            try:
                self._tell(*self._look()[1:])
            except Exception:
                log.exception("telling how the certificate stands failed")

    async def step(self) -> Status:
        """Look once, act if it is time, and return how things stand afterwards."""
        deployed, facts, problem = self._look()
        mine = deployed if deployed is not None and deployed.source == self._source.identity else None
        try:
            if facts is not None and deployed is not None and not self._folder.stamped(deployed.pair):
                self._folder.stamp(deployed.pair, facts)
                self._reload()
            life = Life(facts.not_before, facts.not_after) if facts is not None and mine is not None else None
            pair = await self._source.bring(life, mine.pair if mine is not None else None)
            if pair is not None:
                self._deploy(pair)
                _, facts, problem = self._look()
            if pair is not None or not self._pausing(life):
                self._fault = ""
        except WaitingError as error:
            self._complain(str(error), logging.WARNING)
        except UnfitError as error:
            kept = "the deployed one stays" if facts is not None else "there is none deployed that is fit"
            self._complain(f"the new certificate was refused: {error}; {kept}", logging.ERROR)
        except (SourceError, DeployError) as error:
            self._complain(str(error), logging.ERROR)
        return self._tell(facts, problem)

    def _look(self) -> tuple[Deployed | None, Facts | None, str]:
        deployed = self._folder.read()
        if deployed is None:
            return None, None, ""
        try:
            return deployed, self._check(deployed.pair), ""
        except UnfitError as error:
            return deployed, None, str(error)

    def _deploy(self, pair: Pair) -> None:
        facts = self._check(pair)
        self._folder.put(pair, facts, self._source.identity, self._clock.wall())
        self._last_success = self._clock.wall()
        log.info(
            "deployed a certificate",
            extra={"folder": str(self._folder.path), "serial": facts.serial, "not_after": int(facts.not_after)},
        )
        if facts.remarks != self._remarks:
            self._remarks = facts.remarks
            for remark in facts.remarks:
                log.warning("the certificate is deployed, but %s", remark)
        self._reload()

    def _pausing(self, life: Life | None) -> bool:
        """Return whether the source waits after a failure, which then still stands."""
        ledger = self._source.outlook().ledger
        due = life is None or self._clock.wall() >= life.due
        return due and ledger is not None and ledger.streak > 0

    def _reload(self) -> None:
        if self._settings.nginx_pid_file is None:
            return
        try:
            hang_up(self._settings.nginx_pid_file)
        except ReloadError as error:
            log.warning("nginx was not reloaded: %s", error)

    def _complain(self, text: str, level: int) -> None:
        if text != self._fault:
            log.log(level, text)
        self._fault = text

    def _tell(self, facts: Facts | None, problem: str) -> Status:
        status = self.status(facts, problem)
        told = self._told
        if told is None or status.at - told.at >= TELL_EVERY or replace(status, at=told.at) != told:
            try:
                write(self._settings, status)
            except OSError as error:
                log.warning("could not write status or metrics: %s", error)
            else:
                self._told = status
        return status

    def status(self, facts: Facts | None, problem: str) -> Status:
        """Return how things stand."""
        outlook = self._source.outlook()
        ledger = outlook.ledger
        issued = ledger.last_issued if ledger is not None else None
        failed, in_a_row = ledger.settled if ledger is not None else (0, 0)
        return Status(
            name=self._settings.folder_name,
            mode=self._settings.mode,
            names=self._settings.domains,
            at=self._clock.wall(),
            usable=facts is not None,
            problem=problem,
            fault=self._fault,
            not_before=facts.not_before if facts else None,
            not_after=facts.not_after if facts else None,
            serial=facts.serial if facts else "",
            issuer=facts.issuer if facts else "",
            remarks=facts.remarks if facts else (),
            next_at=outlook.next_at,
            next_why=outlook.why,
            last_success=max((t for t in (issued, self._last_success) if t is not None), default=None),
            issued=ledger.issued if ledger else 0,
            failed=failed,
            failures_in_a_row=in_a_row,
        )


def folder_of(settings: CertsSettings) -> Folder:
    """Return where the certificate is deployed."""
    group = settings.group if settings.group >= 0 else None
    return Folder(settings.deploy_dir / settings.folder_name, group=group)


def write(settings: CertsSettings, status: Status) -> None:
    """Write what `certs status` and a metrics collector read.

    Raises:
        OSError: It could not be written.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(settings.state_dir / STATUS, json.dumps(status.to_json()).encode(), mode=files.PUBLIC)
    settings.metrics.parent.mkdir(parents=True, exist_ok=True)
    files.replace(settings.metrics, exposition(status).encode(), mode=files.PUBLIC)
