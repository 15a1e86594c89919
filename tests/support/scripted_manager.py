"""A manager that does as it is told: the manager's HTTP API on a Unix socket, with settable faults."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtolocalllm.auth.services import ServiceVerifier
from cloudtolocalllm.auth.signing import TokenRefusedError
from cloudtolocalllm.runtime.clock import SystemClock

TOKEN = "manager-token-of-a-test-0123456789"


@dataclass
class ScriptedManager:
    """What it answers, and what it was asked."""

    path: Path
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By user."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Methods and targets, in order."""
    capacity: int = 1_000
    delay: float = 0.0
    """Seconds before each answer to PUT."""
    broken: bool = False
    ready: bool = True
    """Whether it can make proxies now."""
    """Whether it answers nonsense."""
    leads: bool = True
    """Whether it is no standby."""
    made: int = 0
    refused_tokens: int = 0
    verifier: ServiceVerifier | None = None
    """Knows the API's tokens; None for the one TOKEN."""

    def instance(self, user: str) -> dict[str, Any]:
        self.made += 1
        name = f"px-{self.made:016x}"
        return {
            "id": name,
            "user": user,
            "endpoint": f"unix:{self.path.parent}/{name}.sock",
            "key": f"{self.made:064x}",
            "state": "ready",
            "created": 1.0,
        }

    def knows(self, head: str) -> bool:
        """Tell whether a request carries the token of a test, or one that the real manager would take."""
        found = re.search(r"\r\nauthorization: Bearer (\S+)\r\n", head, re.IGNORECASE)
        if found is None or self.verifier is None:
            return found is not None and found[1] == TOKEN
        try:
            return self.verifier.verify(found[1], now=SystemClock().wall()) == "api"
        except TokenRefusedError:
            return False

    def puts(self) -> int:
        return sum(method == "PUT" for method, _ in self.asked)

    async def answer(self, method: str, target: str) -> tuple[int, Any, str]:
        """Return status, content and Retry-After."""
        self.asked.append((method, target))
        path, _, query = target.partition("?")
        if not self.leads:
            return 503, {}, "0"
        if self.broken:
            return 200, "nonsense", ""
        if path == "/readyz":
            return (200 if self.ready else 503), {}, ""
        if path == "/v1/stats":
            return 200, {"starts": self.made}, ""
        if path == "/v1/instances":
            listed = [{**i, "in_flight": 0, "bridges": 0} for i in self.instances.values()]
            return 200, {"instances": [{k: v for k, v in i.items() if k != "key"} for i in listed]}, ""
        if method == "POST" and path.endswith("/disconnect"):
            return 204, None, ""
        user = path.removeprefix("/v1/instances/")
        if method == "PUT":
            await asyncio.sleep(self.delay)
            if user not in self.instances and len(self.instances) >= self.capacity:
                return 503, {}, "7"
            if user not in self.instances or query == "check=true":
                self.instances[user] = self.instance(user)
            return 200, self.instances[user], ""
        if method == "POST" and user.endswith("/disconnect"):
            return 204, None, ""
        if method == "DELETE":
            self.instances.pop(user, None)
            return 204, None, ""
        if user in self.instances:
            return 200, self.instances[user], ""
        return 404, {}, ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split("\r\n", 1)[0].split(" ")
                size = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
                await reader.readexactly(int(size[1]) if size else 0)
                status, retry_after = 401, ""
                value: Any = {}
                if self.knows(head):
                    status, value, retry_after = await self.answer(method, target)
                else:
                    self.refused_tokens += 1
                body = b"" if value is None else json.dumps(value).encode()
                lines = [f"HTTP/1.1 {status} X", "content-type: application/json"]
                lines += [] if value is None else [f"content-length: {len(body)}"]
                lines += [f"retry-after: {retry_after}"] if retry_after else []
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def scripted_manager(folder: Path, service_keys: Path | None = None) -> AsyncIterator[ScriptedManager]:
    """Run one on `folder`/m.sock that takes TOKEN, or the tokens of an API with these public keys."""
    manager = ScriptedManager(folder / "m.sock")
    if service_keys is not None:
        manager.verifier = ServiceVerifier("manager", service_keys, ("api",), SystemClock())
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        await manager.serve(reader, writer)

    server = await asyncio.start_unix_server(serve, manager.path)
    try:
        yield manager
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)
