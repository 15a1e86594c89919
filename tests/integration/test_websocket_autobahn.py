"""Autobahn's own client against our WebSocket endpoints, where it can be had: it needs Python 2.7.

    python2.7 -m pip install --target DIR autobahntestsuite && touch DIR/zope/__init__.py
    C2L_TEST_WSTEST="env PYTHONPATH=DIR python2.7 -c 'from autobahntestsuite.wstest import run; run()'"

The suite wants echoes of its texts, which neither endpoint gives; those cases are named here, every other must pass.
`test_websocket_conformance.py` has the same chapters in our own words and needs nothing.
"""

import asyncio
import contextlib
import json
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.integration.test_websocket_conformance import bridge_fields, tunnel_fields
from tests.support.api_parts import running_api
from tests.support.proxy_rig import proxy_rig

from cloudtolocalllm.contracts import control
from cloudtolocalllm.tunnel import SUBPROTOCOL

WSTEST = os.environ.get("C2L_TEST_WSTEST", "")
ECHOES = {"5.3", "5.4", "5.5", "5.6", "5.7", "5.8", "5.19", "5.20", "7.1.1", "7.1.2", "7.1.5"}
"""Fail unless a text, mostly a fragmented one, comes back."""
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""NON-STRICT: the text before the fault was not echoed."""

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]

pytestmark = [
    pytest.mark.skipif(not WSTEST, reason="needs Autobahn's wstest: set C2L_TEST_WSTEST"),
    pytest.mark.timeout(180),
]


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def authenticated(
    connect: Callable[[], Awaitable[Ends]], fields: Callable[[], Awaitable[dict[str, str]]]
) -> AsyncIterator[int]:
    """Relay connections, with our fields in their upgrade request; gives the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        kept = [text for text in lines if not text.lower().startswith(("host:", "origin:"))]
        ours = [f"{name}: {value}" for name, value in (await fields()).items()]
        further, onward = await connect()
        onward.write("\r\n".join([line, "Host: 127.0.0.1:8080", *kept, *ours, "", ""]).encode("latin-1"))
        await asyncio.gather(pump(reader, onward), pump(further, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def run(folder: Path, url: str, protocol: str) -> dict[str, str]:
    """Return what the suite says of each case."""
    options = {"failByDrop": False, "version": 18}
    server = {"agent": "ours", "url": url, "protocols": [protocol], "options": options}
    chapters = ["2.*", "3.*", "4.*", "5.*", "7.*"]
    spec = {"outdir": str(folder / "reports"), "servers": [server], "cases": chapters, "exclude-cases": ["7.1.6"]}
    (folder / "spec.json").write_text(json.dumps({**spec, "exclude-agent-cases": {}}))
    process = await asyncio.create_subprocess_exec(
        *shlex.split(WSTEST), "-m", "fuzzingclient", "-s", str(folder / "spec.json"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert await asyncio.wait_for(process.wait(), 150) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    index = json.loads((folder / "reports" / "index.json").read_text())["ours"]
    return {name: verdict["behavior"] for name, verdict in index.items()}


def check(verdicts: dict[str, str]) -> None:
    assert len(verdicts) > 80
    assert {name: verdict for name, verdict in verdicts.items() if verdict not in PASSED and name not in ECHOES} == {}


async def test_the_control_connection(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:

        async def connect() -> Ends:
            return await asyncio.open_unix_connection(api.socket)

        async with authenticated(connect, lambda: bridge_fields(api)) as port:
            check(await run(tmp_path, f"ws://127.0.0.1:{port}/ws/bridge", control.SUBPROTOCOL))


async def test_the_tunnel(tmp_path: Path) -> None:
    async with proxy_rig() as rig:

        async def connect() -> Ends:
            return await asyncio.open_connection(rig.endpoint.host, rig.endpoint.port)

        async def fields() -> dict[str, str]:
            return tunnel_fields()

        async with authenticated(connect, fields) as port:
            check(await run(tmp_path, f"ws://127.0.0.1:{port}/ws/tunnel", SUBPROTOCOL))
