"""A manager in the test's own process, and its caller."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cloudtolocalllm.auth.services import ServiceKeys, ServiceTokens
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager import service
from cloudtolocalllm.manager.settings import ManagerSettings
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.http1 import HttpError, Pool, Response, fetch

TOKEN = "its own"
"""Stands for a token of the API's that holds."""
FORKSERVER = (sys.executable, "-m", "cloudtolocalllm.cli.forkserver")


class Manager:
    """A manager in this process, and its caller."""

    def __init__(self, settings: ManagerSettings) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(service.serve(settings, self.stop))
        self.pool = Pool(str(settings.listen))
        self.clock = SystemClock()
        self.keys = ServiceKeys(settings.run_dir / "keys", "api", self.clock)
        self.tokens = ServiceTokens(self.keys, self.clock)

    async def ask(self, method: str, target: str, token: str | None = TOKEN) -> Response:
        token = self.tokens.mint("manager") if token is TOKEN else token
        headers = () if token is None else ((b"authorization", b"Bearer " + token.encode()),)
        return await fetch(self.pool, method, target, headers, timeout=10)

    async def json(self, method: str, target: str) -> Any:
        response = await self.ask(method, target)
        assert response.status == 200, response
        return json.loads(response.body)

    async def ready(self) -> None:
        async with asyncio.timeout(10):
            while not self.task.done():
                with contextlib.suppress(HttpError):
                    if (await self.ask("GET", "/readyz", None)).status == 200:
                        return
                await asyncio.sleep(0.01)
        self.task.result()

    async def end(self) -> None:
        self.stop.set()
        await self.pool.close()
        await asyncio.wait_for(self.task, 20)


@contextlib.asynccontextmanager
async def manager(run_dir: Path, **changes: Any) -> AsyncIterator[Manager]:
    values: dict[str, Any] = {"warm": 1, "forkserver": FORKSERVER, "stop_grace": 2.0, **changes}
    settings = ManagerSettings(
        service_keys=run_dir / "keys" / "public",
        run_dir=run_dir,
        listen=Endpoint(path=str(run_dir / "manager.sock")),
        **values,
    )
    made = Manager(settings)
    try:
        await made.ready()
        yield made
    finally:
        await made.end()
