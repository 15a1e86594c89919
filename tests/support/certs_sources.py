"""A source of certificates that does as a test says, and what the supervisor made of it."""

import asyncio

from cloudtolocalllm.certs.policy import Ledger, Life
from cloudtolocalllm.certs.source import Outlook, SourceError
from cloudtolocalllm.certs.validate import Pair


class ScriptedSource:
    """Brings what `next` holds."""

    identity = "scripted"

    def __init__(self) -> None:
        self.next: Pair | SourceError | None = None
        self.surprises = 0
        """How often it fails in a way that no source should."""
        self.brought = asyncio.Event()
        self.busy: asyncio.Event | None = None
        """What it waits for."""
        self.ledger: Ledger | None = None
        """Its attempts."""
        self.asked: list[tuple[Life | None, Pair | None]] = []

    def lives(self) -> list[Life | None]:
        """Return what it was told of at each look."""
        return [life for life, _ in self.asked]

    def pairs(self) -> list[Pair | None]:
        """Return the deployed pair that it was told of at each look."""
        return [pair for _, pair in self.asked]

    def outlook(self) -> Outlook:
        return Outlook(None, "as the test says", self.ledger)

    async def bring(self, life: Life | None, deployed: Pair | None) -> Pair | None:
        self.asked.append((life, deployed))
        if self.surprises > 0:
            self.surprises -= 1
            raise RuntimeError("a surprise")
        if isinstance(self.next, SourceError):
            raise self.next
        self.brought.set()
        if self.busy is not None:
            await self.busy.wait()
        return self.next
