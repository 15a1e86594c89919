"""What brings a pair: certbot, somebody's own files, or a local authority."""

from dataclasses import dataclass
from typing import Protocol

from cloudtolocalllm.certs.policy import Ledger, Life
from cloudtolocalllm.certs.validate import Pair


class SourceError(Exception):
    """No pair could be brought; the text says why and what to mend."""


class WaitingError(SourceError):
    """Something is not there yet and is looked for again soon; nobody was asked meanwhile."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What comes next, for people."""

    next_at: float | None
    """Seconds since the epoch; None when it depends on somebody's doing."""
    why: str
    ledger: Ledger | None = None
    """Of a source that asks an authority."""


class Source(Protocol):
    """Brings pairs; each must be checked before it is deployed."""

    @property
    def identity(self) -> str:
        """What is noted beside a deployed pair: one of another source is replaced."""
        ...

    async def bring(self, life: Life | None, deployed: Pair | None) -> Pair | None:
        """Return a pair to deploy, or None when what is deployed stays.

        Args:
            life: Of the deployed pair when it is fit and of this source; else None.
            deployed: The deployed pair, when it is of this source.

        Raises:
            SourceError: One is wanted and could not be had.
        """
        ...

    def outlook(self) -> Outlook:
        """Return what comes next, as of the last `bring`."""
        ...
