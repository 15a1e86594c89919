"""Bridges and their credentials on the whole platform: what the edge passes on, and how fast a revocation holds."""

import asyncio
import os
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.support.engines import EngineProcess
from tests.support.long_answer import question
from tests.support.raw_http import works
from tests.support.rogue_bridge import RogueBridge
from tests.support.stack import Stack
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus
from cloudtolocalllm.tunnel import GoAwayReason
from cloudtolocalllm.tunnel.frames import RESET

pytestmark = pytest.mark.timeout(60)
SOON = 2.0
"""Seconds within which a revocation must hold."""
UP = (EngineStatus("e", EngineKind.OLLAMA, EngineState.UP),)


async def test_a_nonce_comes_through_the_edge_on_both_ways(paced_stack: Stack) -> None:
    async with RogueBridge(paced_stack) as bridge:
        for path, protocol in (("/ws/tunnel", "c2l-tunnel.v1"), ("/ws/bridge", control.SUBPROTOCOL)):
            bridge.nonce = ""
            with pytest.raises(InvalidStatus) as caught:
                await bridge.dial_once(path=path, protocol=protocol)
            response = caught.value.response
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith('DPoP error="use_dpop_nonce"')
            bridge.nonce = response.headers["DPoP-Nonce"]
            await bridge.dial_once(path=path, protocol=protocol)


async def test_a_wake_up_brings_the_nonce_for_the_tunnel(paced_stack: Stack) -> None:
    async with RogueBridge(paced_stack) as bridge, httpx.AsyncClient(headers=paced_stack.headers) as client:
        dialled = await bridge.dial(path="/ws/bridge", protocol=control.SUBPROTOCOL)
        await dialled.socket.send(control.encode(control.Hello("0.1.0", "rogue", UP)))
        welcome = control.decode(str(await asyncio.wait_for(dialled.socket.recv(), 5)))
        assert isinstance(welcome, control.Welcome)
        assert welcome.nonce
        request = asyncio.get_running_loop().create_task(client.get(f"{paced_stack.url}/v1/models", timeout=5))
        wake = control.decode(str(await asyncio.wait_for(dialled.socket.recv(), 5)))
        assert isinstance(wake, control.Wake)
        bridge.nonce = wake.nonce
        await bridge.dial_once(path="/ws/tunnel", protocol="c2l-tunnel.v1")
        request.cancel()


async def test_a_stolen_credential_opens_nothing(paced_stack: Stack) -> None:
    async with RogueBridge(paced_stack) as bridge:
        bridge.key = ProofKey.generate()
        for path, protocol in (("/ws/tunnel", "c2l-tunnel.v1"), ("/ws/bridge", control.SUBPROTOCOL)):
            with pytest.raises(InvalidStatus) as caught:
                await bridge.dial_once(path=path, protocol=protocol)
            assert caught.value.response.status_code == 401
            assert "invalid_dpop_proof" in caught.value.response.headers["WWW-Authenticate"]


async def test_a_revocation_cuts_control_and_tunnel_at_once(paced_stack: Stack) -> None:
    async with (
        RogueBridge(paced_stack) as bridge,
        httpx.AsyncClient(headers=paced_stack.headers, timeout=15) as client,
    ):
        held = await bridge.dial(path="/ws/bridge", protocol=control.SUBPROTOCOL)
        await held.socket.send(control.encode(control.Hello("0.1.0", "rogue", UP)))
        assert isinstance(control.decode(str(await asyncio.wait_for(held.socket.recv(), 5))), control.Welcome)
        tunnel = await bridge.attach()
        asked = asyncio.get_running_loop().create_task(
            client.post(f"{paced_stack.url}/v1/chat/completions", json={"model": "x", "messages": []})
        )
        await bridge.request(tunnel)
        began = time.monotonic()
        assert (await client.delete(f"{paced_stack.url}/api/bridge/{bridge.id}")).status_code == 204
        assert await tunnel.goaway() == GoAwayReason.REVOKED.value
        assert any(kind == RESET for kind, _, _ in tunnel.frames), "expected home to be told to stop"
        messages = []
        try:
            while True:
                messages.append(control.decode(str(await asyncio.wait_for(held.socket.recv(), 5))))
        except ConnectionClosed:
            pass
        assert control.Revoked() in messages
        assert (await asked).status_code >= 500
        assert time.monotonic() - began < SOON
        for path, protocol in (("/ws/tunnel", "c2l-tunnel.v1"), ("/ws/bridge", control.SUBPROTOCOL)):
            with pytest.raises(InvalidStatus) as caught:
                await bridge.dial(path=path, protocol=protocol)
            assert "revoked" in caught.value.response.headers["WWW-Authenticate"]
    await works(paced_stack)


async def test_a_real_bridge_that_is_revoked_while_it_answers_ends(
    paced_stack: Stack, paced: EngineProcess, tmp_path: Path
) -> None:
    user, key = paced_stack.new_user("revoked")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloudtolocalllm", "bridge", "--server", paced_stack.url, "--engine", paced.url,
        "--data-dir", str(tmp_path), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        stdin=asyncio.subprocess.DEVNULL, env={"PATH": os.environ["PATH"], "C2L_BRIDGE_PAIRING_KEY": key},
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(headers={"x-api-key": key}, timeout=20) as client:
            async with asyncio.timeout(20):
                while True:
                    bridges = (await client.get(f"{paced_stack.url}/api/bridge")).json()
                    if bridges and bridges[0]["connected"]:
                        break
                    await asyncio.sleep(0.05)
            body = question(2000, 50.0)
            async with client.stream("POST", f"{paced_stack.url}/ollama/api/chat", json=body) as answer:
                assert answer.status_code == 200
                parts = answer.aiter_bytes()
                await anext(parts)
                began = time.monotonic()
                gone = await client.delete(f"{paced_stack.url}/api/bridge/{bridges[0]['id']}")
                assert gone.status_code == 204
                with pytest.raises(httpx.RemoteProtocolError):
                    async for _ in parts:
                        pass
                assert time.monotonic() - began < SOON
        assert await asyncio.wait_for(process.wait(), 10) == 3
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert user != paced_stack.owner
    await works(paced_stack)
