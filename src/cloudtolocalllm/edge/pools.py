"""Connections to the users' proxies."""

from collections import OrderedDict

from cloudtolocalllm.runtime.http1 import Pool

MAX_POOLS = 4096
"""Endpoints whose idle connections are kept; the one used longest ago is forgotten first."""


class Pools:
    """A pool for each endpoint."""

    def __init__(self) -> None:
        self._pools: OrderedDict[str, Pool] = OrderedDict()
        self._forgotten: list[Pool] = []

    def of(self, endpoint: str) -> Pool:
        """Return the endpoint's pool."""
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = Pool(endpoint, max_idle=4, connect_timeout=2.0)
            if len(self._pools) > MAX_POOLS:
                self._forgotten.append(self._pools.popitem(last=False)[1])
        else:
            self._pools.move_to_end(endpoint)
        return pool

    async def forget(self, endpoint: str) -> None:
        """Close what is idle to an endpoint that is no more."""
        pool = self._pools.pop(endpoint, None)
        if pool is not None:
            await pool.close()
        while self._forgotten:
            await self._forgotten.pop().close()

    async def close(self) -> None:
        """Close every idle connection."""
        for endpoint in list(self._pools):
            await self.forget(endpoint)
