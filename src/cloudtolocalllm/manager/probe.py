"""Asks proxies how they are, over their sockets."""

import json
from dataclasses import dataclass
from typing import Protocol

from cloudtolocalllm.auth.assertion import manager_token
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch

MAX_CONTENT = 64 * 1024
"""Bytes of an answer; a proxy's stats have a few hundred."""


class ProbeError(Exception):
    """The proxy did not answer as it should; the text says how and is for the log."""


@dataclass(frozen=True, slots=True)
class ProxyStats:
    """What a proxy says of itself, as far as the manager uses it."""

    in_flight: int
    last_activity: float
    """Seconds since the epoch; 0 when there was none."""
    bridges: int
    """Bridges attached."""
    streams_total: int
    limited: int = 0
    """Requests that it refused for the user's limits since it started."""
    limited_keys: int = 0
    """Requests that it refused for a key's own limit since it started."""

    @classmethod
    def from_json(cls, content: bytes) -> "ProxyStats":
        """Read the answer to GET /stats.

        Raises:
            ProbeError: It is malformed.
        """
        try:
            value = json.loads(content)
            stats = cls(
                in_flight=int(value["in_flight"]),
                last_activity=float(value["last_activity"] or 0),
                bridges=len(value.get("bridges", ())),
                streams_total=int(value.get("streams_total", 0)),
                limited=int(value.get("limited", 0)),
                limited_keys=int(value.get("limited_keys", 0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ProbeError("expected stats as a JSON object with in_flight and last_activity") from None
        if stats.in_flight < 0:
            raise ProbeError("expected in_flight of at least 0, got less")
        return stats


class Probe(Protocol):
    """How proxies are asked."""

    async def healthy(self, endpoint: Endpoint, key: str, *, timeout: float) -> bool:
        """Return whether a proxy accepts requests: GET /healthz answers 200 within `timeout` seconds."""
        ...

    async def stats(self, endpoint: Endpoint, key: str, *, timeout: float) -> ProxyStats:
        """Return what a proxy says of itself.

        Raises:
            ProbeError: No proper answer within `timeout` seconds.
        """
        ...

    async def disconnect(self, endpoint: Endpoint, key: str, bridge: str, *, timeout: float) -> None:
        """Have a proxy cut a bridge's tunnels.

        Raises:
            ProbeError: It did not say within `timeout` seconds that it has.
        """
        ...


class HttpProbe:
    """Asks by HTTP/1.1, each time on a new connection: 10 s apart, keeping one open in each proxy is no gain."""

    async def healthy(self, endpoint: Endpoint, key: str, *, timeout: float) -> bool:
        """See `Probe.healthy`."""
        try:
            await self._get(endpoint, key, "/healthz", timeout)
        except ProbeError:
            return False
        return True

    async def stats(self, endpoint: Endpoint, key: str, *, timeout: float) -> ProxyStats:
        """See `Probe.stats`."""
        return ProxyStats.from_json(await self._get(endpoint, key, "/stats", timeout))

    async def disconnect(self, endpoint: Endpoint, key: str, bridge: str, *, timeout: float) -> None:
        """See `Probe.disconnect`."""
        await self._ask("POST", endpoint, key, f"/bridges/{bridge}/disconnect", timeout, 204)

    async def _get(self, endpoint: Endpoint, key: str, target: str, timeout: float) -> bytes:
        return await self._ask("GET", endpoint, key, target, timeout, 200)

    async def _ask(
        self, method: str, endpoint: Endpoint, key: str, target: str, timeout: float, status: int
    ) -> bytes:
        bearer = b"Bearer " + manager_token(bytes.fromhex(key)).encode()
        headers = ((b"host", b"proxy"), (b"authorization", bearer))
        pool = Pool(str(endpoint), max_idle=0, connect_timeout=timeout)
        try:
            response = await fetch(pool, method, target, headers, timeout=timeout, max_content=MAX_CONTENT)
        except (HttpError, OSError, TimeoutError) as error:
            raise ProbeError(f"no answer: {type(error).__name__}") from error
        finally:
            await pool.close()
        if response.status != status:
            raise ProbeError(f"expected status {status}, got {response.status}")
        return response.body
