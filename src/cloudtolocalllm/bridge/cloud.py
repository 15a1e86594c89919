"""The bridge's small requests to the cloud's HTTP API."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.bridge.identity import PairingError, base_url
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch

TIMEOUT = 15.0
"""Seconds for one request."""
MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    value: dict[str, Any]
    """The JSON object; empty when it was none."""

    @property
    def detail(self) -> str:
        """The sentence for people in a problem document, made harmless to print; "" when there is none."""
        text = self.value.get("detail")
        return "".join(c for c in text if c.isprintable())[:300] if isinstance(text, str) else ""


class Cloud:
    """The server's API. Close it after use."""

    def __init__(self, server: str) -> None:
        """Make a client that has not connected.

        Raises:
            PairingError: The URL is none.
        """
        try:
            address = EngineAddress.parse(server)
        except ValueError:
            raise PairingError("expected the server's URL, such as https://example.org") from None
        self.url = base_url(server)
        self._prefix = address.prefix
        self._host = self.url.removeprefix("https://").removeprefix("http://").partition("/")[0]
        self._pool = Pool(address.authority, connect_timeout=TIMEOUT, tls=address.tls)

    async def ask(
        self, method: str, target: str, value: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one request.

        Args:
            method: HTTP method.
            target: Path at the server.
            value: Sent as JSON; None for no content.
            headers: More fields.

        Raises:
            PairingError: No answer, or not in time.
        """
        fields = [(b"host", self._host.encode()), (b"accept", b"application/json")]
        fields += [(name.lower().encode(), text.encode()) for name, text in (headers or {}).items()]
        content = b"" if value is None else json.dumps(value).encode()
        if content:
            fields.append((b"content-type", b"application/json"))
        try:
            response = await fetch(
                self._pool,
                method,
                self._prefix + target,
                tuple(fields),
                content,
                timeout=TIMEOUT,
                max_content=MAX_ANSWER,
            )
        except (HttpError, OSError, TimeoutError):
            raise PairingError("the server does not answer; see that its URL is right and that it runs") from None
        try:
            found = json.loads(response.body) if response.body else {}
        except (ValueError, RecursionError):
            found = {}
        fields_back = {name.decode("latin-1"): text.decode("latin-1") for name, text in response.headers}
        return Answer(response.status, fields_back, found if isinstance(found, dict) else {})

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()
