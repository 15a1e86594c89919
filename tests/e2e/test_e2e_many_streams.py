"""Ten thousand small requests leave nothing behind, and large ones arrive whole."""

import asyncio
from dataclasses import dataclass

import httpx
import psutil
import pytest
from tests.support.edge_doubles import read_body, read_head
from tests.support.engines import EngineProcess
from tests.support.memory_transport import until
from tests.support.stack import Stack

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]
AT_ONCE = 50
REQUESTS = 10_000
WARM_UP = 2_000
"""Requests before the first look: pools and buffers have then the size that this load gives them."""
MAX_GROWTH = 8 * 1024 * 1024
"""Bytes of the proxy's resident memory."""
PARTS = ("edge", "api", "bridge", "manager")


@dataclass(frozen=True)
class Look:
    """What the parts hold."""

    pids: dict[str, int]
    descriptors: dict[str, int]
    threads: dict[str, int]
    proxy_memory: int
    """Bytes."""


def look(stack: Stack) -> Look:
    (owned,) = [instance["id"] for instance in stack.instances() if instance["user"]]
    found = {name: process for name, process in stack.processes().items() if name in (*PARTS, owned)}
    assert set(found) == {*PARTS, owned}
    return Look(
        {name: process.pid for name, process in found.items()},
        {name: process.num_fds() for name, process in found.items()},
        {name: process.num_threads() for name, process in found.items()},
        psutil.Process(found[owned].pid).memory_info().rss,
    )


async def ask(stack: Stack, count: int) -> int:
    """Make requests one after another on one connection; return how many were answered with 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    request = (
        f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nAuthorization: Bearer {stack.api_key}\r\n\r\n"
    ).encode()
    good = 0
    try:
        for _ in range(count):
            writer.write(request)
            answer = await read_head(reader)
            await read_body(reader, answer)
            good += answer.status == 200 and b"demo:latest" in answer.body
    finally:
        writer.close()
    return good


async def ask_together(stack: Stack, count: int) -> None:
    results = await asyncio.gather(*(ask(stack, count // AT_ONCE) for _ in range(AT_ONCE)))
    assert sum(results) == count


async def test_ten_thousand_small_requests(paced_stack: Stack) -> None:
    await ask_together(paced_stack, WARM_UP)
    before = look(paced_stack)
    await ask_together(paced_stack, REQUESTS)

    def settled() -> bool:
        now = look(paced_stack).descriptors
        return all(now[name] <= count + 8 for name, count in before.descriptors.items())

    await until(settled, 5.0)
    after = look(paced_stack)
    assert after.pids == before.pids
    assert all(after.threads[name] <= count + 2 for name, count in before.threads.items())
    assert after.proxy_memory - before.proxy_memory < MAX_GROWTH


async def test_large_requests_arrive_whole(paced_stack: Stack, paced: EngineProcess) -> None:
    """More than the sockets on the way hold at once, several at a time; the bridge sees no fault in the tunnel."""
    log = paced_stack.data_dir / "logs" / "up.log"
    faults = log.read_text().count('"level": "error"')
    question = {
        "model": "demo:latest",
        "stream": False,
        "messages": [{"role": "user", "content": " ".join(str(number) for number in range(60_000))}],
        "options": {"demo_tokens": 1},
    }
    async with httpx.AsyncClient(timeout=20, headers=paced_stack.headers) as client:
        direct = (await client.post(f"{paced.url}/api/chat", json=question)).json()["prompt_eval_count"]
        for _ in range(4):
            answers = await asyncio.gather(
                *(client.post(f"{paced_stack.url}/ollama/api/chat", json=question) for _ in range(4))
            )
            assert [answer.status_code for answer in answers] == [200] * 4
            assert [answer.json()["prompt_eval_count"] for answer in answers] == [direct] * 4
    assert log.read_text().count('"level": "error"') == faults
