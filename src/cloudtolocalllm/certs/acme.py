"""Certificates of an ACME authority: certbot asks when the policy lets it, and every attempt is on disk before it."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from cloudtolocalllm.certs import certbot, hints, history, policy, probe
from cloudtolocalllm.certs.policy import Attempt, Decision, Ledger, Life, Outcome
from cloudtolocalllm.certs.settings import CertsSettings
from cloudtolocalllm.certs.source import Outlook, SourceError, WaitingError
from cloudtolocalllm.certs.validate import Facts, Pair, UnfitError
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

RETRY = "retry"
"""A file of this name in the state directory asks not to wait for the end of a pause."""

Check = Callable[[Pair], Facts]


class Acme:
    """Brings what certbot gets."""

    def __init__(
        self,
        settings: CertsSettings,
        environ: Mapping[str, str],
        check: Check,
        *,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """Make a source.

        Args:
            settings: What was configured.
            environ: The process's environment.
            check: Raises UnfitError for a pair that must not be deployed.
            clock: The time.
            random: Returns a number from 0 up to 1.
        """
        self._settings = settings
        self._environ = environ
        self._check = check
        self._clock = clock
        self._random = random
        self._places = certbot.Places.of(settings)
        self._plan = _plan(settings)
        self._check_at = 0.0
        self._ledger: Ledger | None = None
        self._decision = Decision(False, 0.0, "nothing was decided yet")

    @property
    def identity(self) -> str:
        """The authority."""
        return f"acme {self._settings.acme_server}"

    @property
    def _history(self) -> Path:
        return self._places.base / f"{self._places.name}.attempts.json"

    def outlook(self) -> Outlook:
        """Return when the authority is asked next."""
        return Outlook(self._decision.at, self._decision.why, self._ledger)

    async def bring(self, life: Life | None, deployed: Pair | None) -> Pair | None:
        """Return a certificate that certbot got, or gets now.

        Raises:
            SourceError: The attempt failed.
        """
        if (left := self._left_behind(life, deployed)) is not None:
            return left
        now = self._clock.wall()
        ledger = self._loaded(now)
        retry = self._settings.state_dir / RETRY
        self._decision = policy.decide(
            life,
            ledger,
            self._settings.domains,
            self._plan,
            now,
            check_at=self._check_at,
            asked=await asyncio.to_thread(retry.exists),
        )
        if now >= self._check_at:
            self._check_at = policy.next_look(now, self._random())
        if not self._decision.act:
            if life is not None and now < life.due:
                retry.unlink(missing_ok=True)  # there is nothing to try again
            return None
        await self._nginx_is_there()
        retry.unlink(missing_ok=True)
        return await self._attempt(ledger, now)

    def _left_behind(self, life: Life | None, deployed: Pair | None) -> Pair | None:
        """Return what certbot got and nobody deployed, because a process died in between."""
        pair = self._lineage()
        if pair is None or pair == deployed:
            return None
        try:
            facts = self._check(pair)
        except UnfitError:
            return None
        return pair if life is None or facts.not_before > life.not_before else None

    def _lineage(self) -> Pair | None:
        live = self._places.live
        try:
            return Pair((live / "fullchain.pem").read_bytes(), (live / "privkey.pem").read_bytes())
        except OSError:
            return None

    def _loaded(self, now: float) -> Ledger:
        if self._ledger is None:
            try:
                self._places.base.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._ledger = history.load(self._history, self._settings.domains, now)
            except OSError as error:
                raise SourceError(_unwritable(self._history, error)) from error
        if any(attempt.begun > now for attempt in self._ledger.attempts):
            self._ledger = self._ledger.clamped(now)  # the clock was set back meanwhile
        return self._ledger

    def _note(self, ledger: Ledger) -> None:
        """Keep the history; without it on disk the authority is not asked, or a crash loop could hammer it."""
        try:
            history.save(self._history, ledger)
        except OSError as error:
            raise SourceError(_unwritable(self._history, error)) from error
        self._ledger = ledger

    async def _nginx_is_there(self) -> None:
        settings = self._settings
        if settings.challenge != "http-01" or not settings.webroot_url:
            return
        try:
            there = await probe.served(settings.webroot, settings.webroot_url, settings.domains[0])
        except OSError as error:
            raise WaitingError(
                f"could not write to the webroot {settings.webroot} ({error.strerror or error}): give this process's "
                "user that folder"
            ) from error
        if not there:
            raise WaitingError(
                f"waiting until {settings.webroot_url} serves /.well-known/acme-challenge/ from {settings.webroot}: "
                "check that nginx runs and has the same folder"
            )

    async def _attempt(self, ledger: Ledger, now: float) -> Pair:
        names = tuple(sorted(self._settings.domains))
        ledger = ledger.begun(Attempt(now, names, Outcome.PENDING, self._random(), self._plan))
        self._note(ledger)
        log.info("asking the authority", extra={"server": self._settings.acme_server, "names": len(names)})
        try:
            pair, outcome, fault = await self._run()
        except OSError as error:
            pair, outcome, fault = None, Outcome.FAILED, f"certbot could not be run ({error}): install it"
        self._note(ledger.ended(outcome, self._clock.wall()))
        if pair is None:
            raise SourceError(fault)
        return pair

    async def _run(self) -> tuple[Pair | None, Outcome, str]:
        settings, places = self._settings, self._places
        before = self._lineage()
        await asyncio.to_thread(certbot.prepare, settings, places)
        line = certbot.command(settings, places)
        result = await certbot.run(line, certbot.child_environment(settings, self._environ), timeout=settings.timeout)
        said = result.output.replace(settings.email, "[e-mail]") if settings.email else result.output
        if result.status != 0:
            log.error("certbot failed", extra={"status": result.status, "output": said})
            if result.status is None:
                return None, Outcome.FAILED, f"certbot did not end within {settings.timeout:.0f} s and was stopped"
            outcome = Outcome.LIMITED if hints.limited(result.output) else Outcome.FAILED
            return None, outcome, f"certbot failed: {hints.advice(result.output)}"
        log.info("certbot succeeded", extra={"output": said})
        pair = self._lineage()
        if pair is None or pair == before:
            return None, Outcome.UNFIT, f"certbot ended well and left no new certificate in {places.live}"
        try:
            self._check(pair)
        except UnfitError as error:
            return None, Outcome.UNFIT, f"the authority's certificate is unfit: {error}"
        return pair, Outcome.ISSUED, ""


def _plan(settings: CertsSettings) -> str:
    """Return what an attempt was made with, as a hash: a mended setting is tried without the pause."""
    parts = (
        settings.domains, settings.acme_server, settings.challenge, settings.dns_provider, settings.dns_propagation,
        settings.dns_credentials, settings.webroot, settings.email, settings.eab_kid, settings.ca_bundle,
    )  # fmt: skip
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"could not keep the history of attempts in {path} ({error.strerror or error}), without which no authority "
        "is asked: give this process's user the state directory, and see that its disk has room"
    )
