"""Bridges' control connections, ten thousand to a process: `python -m bench.control_load`.

Commands on stdin and answers on stdout, a JSON line each. The connections are raw: an upgrade with the bridge's
proof, a hello, a ping every HEARTBEAT seconds, as a real bridge sends them.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any, cast

from bench.http import Client, Target
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus, Hello

AT_ONCE = 100
WELCOME_TIMEOUT = 60.0
_PING = b"\x89\x80\x00\x00\x00\x00"
_ENGINES = (EngineStatus("ollama", EngineKind.OLLAMA, EngineState.UP),)


def _masked(text: bytes) -> bytes:
    """Return a text frame under the mask zero, which leaves it as it is."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + b"\x00\x00\x00\x00" + text


class Bridge(asyncio.Protocol):
    """One connection."""

    def __init__(self, upgrade: bytes) -> None:
        self._upgrade = upgrade
        self._buffer = b""
        self._upgraded = False
        self.transport: asyncio.Transport | None = None
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.woken = 0.0
        """Monotonic seconds of the last wake-up."""
        self.wakes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self._fail(f"expected 101, got {head[:300]!r} {rest[:300]!r}")
                return
            self._upgraded, self._buffer = True, rest
            if self.transport is not None:
                hello = control.encode(Hello("0.1.0", "bench", _ENGINES))
                self.transport.write(_masked(hello.encode()))
        self._frames()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._fail("expected to stay connected")

    def beat(self) -> None:
        """Send a ping."""
        if self.transport is not None:
            self.transport.write(_PING)

    def _fail(self, reason: str) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(RuntimeError(reason))

    def _frames(self) -> None:
        while len(self._buffer) >= 2:
            size, start = self._buffer[1] & 127, 2
            if size == 126:
                size, start = int.from_bytes(self._buffer[2:4], "big"), 4
            if len(self._buffer) < start + size:
                return
            kind, text = self._buffer[0] & 15, self._buffer[start : start + size]
            self._buffer = self._buffer[start + size :]
            if kind == 1 and b'"wake"' in text:
                self.woken = time.monotonic()
                self.wakes += 1
            elif kind == 1 and b'"welcome"' in text and not self.welcomed.done():
                self.welcomed.set_result(None)


class Load:
    """All of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self.bridges: list[Bridge] = []
        self._beating: list[Bridge] = []

    async def connect(self) -> None:
        """Open every connection."""
        gate = asyncio.Semaphore(AT_ONCE)
        loop = asyncio.get_running_loop()

        async def one(user: dict[str, Any]) -> Bridge:
            async with gate:
                _, bridge = await loop.create_unix_connection(lambda: Bridge(self._upgrade(user)), self._job["unix"])
                self._beating.append(bridge)
                await bridge.welcomed
                return bridge

        async with asyncio.timeout(WELCOME_TIMEOUT):
            self.bridges += await asyncio.gather(*(one(user) for user in self._job["users"]))

    @property
    def lost(self) -> int:
        """Bridges that are connected no more."""
        return sum(bridge.transport is None for bridge in self.bridges)

    async def beat_forever(self) -> None:
        """Ping from every connection each HEARTBEAT, spread over it."""
        while True:
            share = max(1, len(self._beating) // 100)
            for batch in _batches(self._beating, share):
                for bridge in batch:
                    bridge.beat()
                await asyncio.sleep(control.HEARTBEAT / 100)
            await asyncio.sleep(0.01)

    async def wake(self, samples: int, rounds: int) -> dict[str, Any]:
        """Ask for some users' proxies again and again; return milliseconds from asking to the bridge's wake-up."""
        chosen = random.Random(7).sample(range(len(self.bridges)), samples)
        client = await Client.connect(self._target("", 0))
        latencies: list[float] = []
        missed = 0
        for number in range(rounds + 1):
            for index in chosen:
                bridge = self.bridges[index]
                before, asked = bridge.wakes, time.monotonic()
                status, _ = await client.fetch(self._target(self._job["users"][index]["key"], index).message)
                for _ in range(200):
                    if bridge.wakes > before:
                        break
                    await asyncio.sleep(0.0005)
                if status != 200 or bridge.wakes == before:
                    missed += 1
                elif number:  # the first round starts the proxies
                    latencies.append((bridge.woken - asked) * 1000)
            await asyncio.sleep(1.1)  # a bridge is woken for the same proxy once a second
        client.close()
        return {"latencies": latencies, "missed": missed, "lost": self.lost}

    def _target(self, key: str, index: int) -> Target:
        headers = {
            "x-original-method": "POST",
            "x-original-uri": "/v1/chat/completions",
            "x-original-host": self._job["host"],
            "authorization": f"Bearer {key}",
            "x-request-id": f"bench-{index}",
        }
        return Target("authorize", unix=self._job["unix"], path="/internal/authorize", headers=headers)

    def _upgrade(self, user: dict[str, Any]) -> bytes:
        url = f"http://{self._job['host']}/ws/bridge"
        proof = ProofKey.from_jwk(user["jwk"]).prove(
            "GET", url, now=time.time(), nonce=self._job["nonce"], credential=user["credential"]
        )
        lines = [
            "GET /ws/bridge HTTP/1.1", f"Host: {self._job['host']}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Sec-WebSocket-Protocol: {control.SUBPROTOCOL}", f"Authorization: DPoP {user['credential']}",
            f"DPoP: {proof}",
        ]  # fmt: skip
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _batches(items: list[Bridge], size: int) -> list[list[Bridge]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load: Load | None = None
    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            command = json.loads(line)
            if command["do"] == "connect":
                load = Load(command)
                beating = group.create_task(load.beat_forever())
                await load.connect()
                print(json.dumps({"connected": len(load.bridges)}), flush=True)
            elif load is not None:
                print(json.dumps(await load.wake(command["samples"], command["rounds"])), flush=True)
        if load is not None:
            beating.cancel()


if __name__ == "__main__":
    asyncio.run(_main())
