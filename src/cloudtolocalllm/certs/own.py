"""Somebody's own certificate: read, and read again when it is replaced."""

import asyncio
from pathlib import Path

from cloudtolocalllm.certs.policy import Life
from cloudtolocalllm.certs.source import Outlook, SourceError
from cloudtolocalllm.certs.validate import MAX_PEM, Pair


class Own:
    """Brings two files."""

    identity = "own"

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._seen: Pair | None = None

    def outlook(self) -> Outlook:
        """Return that it is up to whoever brings the files."""
        return Outlook(None, f"replace {self._certificate} and {self._key} before it expires")

    async def bring(self, life: Life | None, deployed: Pair | None) -> Pair | None:
        """Return the files' contents when they differ from what is deployed.

        While a fit pair is deployed, a change is taken when two looks in a row saw the same: between writing the one
        file and the other, there is none.

        Raises:
            SourceError: A file cannot be read.
        """
        pair = await asyncio.to_thread(self._read)
        settled, self._seen = pair == self._seen, pair
        if pair == deployed or (life is not None and not settled):
            return None
        return pair

    def _read(self) -> Pair:
        return Pair(_content(self._certificate, "certificate"), _content(self._key, "key"))


def _content(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM + 1)
    except OSError as error:
        raise SourceError(
            f"could not read your {what} {path} ({error.strerror or error}): put it there, readable for this "
            "process's user"
        ) from error
