"""slowhttptest: 300 connections that send or read next to nothing; everybody else is served, in bounded memory.

Each attack is made twice at once: on a server as it is by default, which allows an address 256 connections, and on
one that counts none, as if each connection came from an address of its own. Whoever asks meanwhile comes from another
address than the attacker, so no limit of one address is what keeps the service up.
"""

import asyncio
from collections.abc import Iterator

import pytest
from tests.support.audit_probe import watch
from tests.support.audit_target import Target, given_target, running_target
from tests.support.audit_tools import Attack
from tests.support.stack import ROOT, Stack

pytestmark = [pytest.mark.audit, pytest.mark.slow, pytest.mark.timeout(120)]
CONNECTIONS = 300
MANY = ("-c", str(CONNECTIONS), "-r", "150", "-p", "5")
ANSWER = 1.0
"""Seconds within which 99 of 100 questions of everybody else are answered."""


@pytest.fixture(scope="module")
def servers(stack: Stack) -> Iterator[dict[str, Target]]:
    """Both, before the same platform."""
    with running_target(stack) as counted, running_target(stack, connections=0) as uncounted:
        yield {"counted": counted, "uncounted": uncounted}


@pytest.fixture(autouse=True)
def _ours() -> None:
    if given_target() is not None:
        pytest.skip("nobody's server is attacked but our own")


async def one(name: str, target: Target, path: str, arguments: tuple[str, ...], key: str) -> bool:
    """Attack a server, while everybody else is served; return whether it was rid of the attacker before the end."""
    attack = Attack(name, target, path, (*MANY, *arguments))
    try:
        seen = await watch(target, key, attack.over)
    finally:
        attack.stop()
    made = max(second.connected + second.closed for second in attack.seconds())
    print(f"{name}: {made} connections, {seen.says()}")
    seen.judge(ANSWER)
    assert made >= CONNECTIONS or attack.turned_off(), f"expected {CONNECTIONS} connections, got {made}"
    return attack.turned_off()


async def attacked(
    name: str, servers: dict[str, Target], path: str, key: str, ways: dict[str, tuple[str, ...]]
) -> dict[str, bool]:
    """Attack both at once; return which of them had rid itself of the attacker by the end."""
    rid = await asyncio.gather(
        *(one(f"{name}-{kind}", target, path, ways[kind], key) for kind, target in servers.items())
    )
    return dict(zip(servers, rid, strict=True))


async def test_slow_heads(servers: dict[str, Target], stack: Stack) -> None:
    """Slowloris: a further field every 3 s."""
    arguments = ("-H", "-i", "3", "-l", "40")
    rid = await attacked("heads", servers, "/", stack.api_key, dict.fromkeys(servers, arguments))
    assert rid == {"counted": True, "uncounted": True}, "each is closed after ten seconds"


async def test_slow_bodies(servers: dict[str, Target], stack: Stack) -> None:
    """R-U-Dead-Yet: some bytes of content every 5 s; and on the other server none any more."""
    trickle, pause = ("-B", "-i", "5", "-l", "20"), ("-B", "-i", "60", "-l", "40")
    rid = await attacked("bodies", servers, "/api/nothing", stack.api_key, {"counted": pause, "uncounted": trickle})
    assert rid["counted"], "each is closed 15 seconds after its last byte"


async def test_many_ranges(servers: dict[str, Target], stack: Stack) -> None:
    """The killer of Apache: 300 requests for the same file in thousands of pieces each."""
    arguments = ("-R", "-t", "GET", "-a", "5", "-b", "3000", "-l", "30")
    await attacked("ranges", servers, script(), stack.api_key, dict.fromkeys(servers, arguments))


async def test_slow_readers(servers: dict[str, Target], stack: Stack) -> None:
    """Slow read: each asks ten times for 350 kB and takes 32 bytes every 5 s."""
    arguments = ("-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "10", "-l", "15")
    await attacked("readers", servers, script(), stack.api_key, dict.fromkeys(servers, arguments))


def script() -> str:
    """Return the path of the largest file of the page."""
    assets = ROOT / "web" / "dist" / "assets"
    largest = max(assets.glob("*.js"), key=lambda path: path.stat().st_size)
    return f"/assets/{largest.name}"
