"""Everybody else while a server is attacked: what they are answered, and what the attack costs it."""

import asyncio
import contextlib
import re
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from tests.support.audit_target import APP, Target
from tests.support.audit_tools import program
from tests.support.edge_doubles import read_body, read_head

PROBER = "127.0.0.2"
"""Another address than the attacker's."""
PATHS = ("/", "/readyz", "/v1/models")
"""The page, through the API, and through a user's proxy."""
PAUSE = 0.25
"""Seconds between two rounds of questions."""
LATEST = 8.0
"""Seconds for any answer: attacker and server share this machine's processors, unlike two machines."""
MEMORY = 256 * 1024 * 1024
"""Bytes of nginx's container."""


@dataclass
class Watched:
    """What was seen of one server while it was attacked."""

    took: list[float] = field(default_factory=list)
    """Seconds of each question."""
    faults: list[str] = field(default_factory=list)
    memory: int = 0
    """Bytes of its processes at most."""
    kept: int = 0
    """Bytes at most that the kernel had for its clients."""

    @property
    def usual(self) -> float:
        """The seconds within which 99 of 100 questions were answered."""
        return sorted(self.took)[-(-len(self.took) * 99 // 100) - 1]

    def says(self) -> str:
        """Return the figures as a line."""
        return (
            f"{len(self.took)} questions, 99 of 100 within {self.usual:.2f} s, slowest {max(self.took):.2f} s, "
            f"nginx {self.memory / 1e6:.0f} MB, kernel {self.kept / 1e6:.0f} MB"
        )

    def judge(self, usual: float = LATEST) -> None:
        """Fail unless each question was answered, in time, and the server stayed small.

        Args:
            usual: Seconds within which 99 of 100 are answered.
        """
        assert self.faults == []
        assert len(self.took) >= 2 * len(PATHS)
        assert self.usual <= usual
        assert max(self.took) <= LATEST
        assert self.memory + self.kept < MEMORY


async def watch(target: Target, key: str, over: Callable[[], bool]) -> Watched:
    """Ask a server again and again.

    Args:
        target: Which.
        key: An API key.
        over: Tells whether the attack has ended.
    """
    seen = Watched()
    while not over():
        for path in PATHS:
            began = time.monotonic()
            try:
                async with asyncio.timeout(10):
                    status = await ask(target, path, key)
            except (OSError, asyncio.IncompleteReadError) as error:
                seen.faults.append(f"{path}: {error!r}")
            else:
                if status != 200:
                    seen.faults.append(f"{path}: {status}")
            seen.took.append(time.monotonic() - began)
        # Beside the loop: it asks on behalf of several who watch, and reading takes long on a busy machine.
        seen.memory = max(seen.memory, await asyncio.to_thread(memory_of, target))
        seen.kept = max(seen.kept, await asyncio.to_thread(kept_for, target))
        await asyncio.sleep(PAUSE)
    return seen


async def ask(target: Target, path: str, key: str) -> int:
    """Ask on a new connection; return the status."""
    context = ssl.create_default_context(cafile=str(target.root))
    reader, writer = await asyncio.open_connection(
        target.address, target.tls_port, ssl=context, server_hostname=APP, local_addr=(PROBER, 0)
    )
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {APP}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await read_head(reader)
        await read_body(reader, answer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer.status


def memory_of(target: Target) -> int:
    """Return the bytes of nginx's processes."""
    assert target.server is not None
    master = psutil.Process(target.server.pid)
    return sum(int(process.memory_full_info().pss) for process in (master, *master.children()))


def kept_for(target: Target) -> int:
    """Return the bytes that the kernel keeps of what nginx sent and clients have not taken."""
    command = [program("ss", "iproute2"), "-tnm", "state", "established", f"sport = :{target.tls_port}"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    return sum(int(number) for number in re.findall(r"skmem:\([^)]*\bw(\d+)", lines))
