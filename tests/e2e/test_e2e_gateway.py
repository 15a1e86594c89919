"""Sealed requests through the whole platform, and the owner's commands about devices while it runs."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.support.sealed_client import HttpOuter, SealedClient
from tests.support.stack import Stack

from cloudtolocalllm.sealed.pairing import PairingLink, read_link

NAMED = b"exchange 0123456"
CHAT = {"messages": [{"role": "user", "content": "Count to five."}], "stream": True}


@pytest.fixture
def stack(paced_stack: Stack) -> Stack:
    return paced_stack


def command(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    full = [sys.executable, "-m", "cloudtolocalllm", *arguments]
    return subprocess.run(
        full, capture_output=True, text=True, timeout=40, check=False, env={**os.environ, **environ}
    )


def bridge(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return command("bridge", *arguments, "--data-dir", str(stack.data_dir / "bridge"))


@pytest.fixture
async def outer(stack: Stack) -> AsyncIterator[HttpOuter]:
    async with httpx.AsyncClient(timeout=30) as http:
        yield HttpOuter(http, stack.url, stack.headers)


async def new_device(stack: Stack, outer: HttpOuter, name: str) -> SealedClient:
    said = bridge(stack, "pair-device")
    found = re.search(r"/pair#(\S+)", said.stdout)
    assert found is not None, said.stderr
    assert said.stderr == "", "expected it to know that the bridge runs"
    return await SealedClient.paired(outer, read_link(found.group(1)), name)


async def test_the_link_that_up_prints_pairs_the_page_too(stack: Stack, outer: HttpOuter) -> None:
    made = command("sign-in-link", "--data-dir", str(stack.data_dir)).stdout.strip()
    for link in (stack.sign_in_url, made):
        fragment = parse_qs(urlsplit(link).fragment)
        assert set(fragment) == {"token", "pair"}
    link_of_it: PairingLink = read_link(fragment["pair"][0])
    page = await SealedClient.paired(outer, link_of_it, "page")
    assert (await page.ask("GET", "/c2l/home"))["version"]


async def test_a_sealed_answer_comes_through_the_whole_platform_and_can_be_taken_up(
    stack: Stack, outer: HttpOuter
) -> None:
    client = await new_device(stack, outer, "laptop")
    model = (await client.ask("GET", "/v1/models"))["data"][0]["id"]
    first = await client.open("POST", "/v1/chat/completions", {**CHAT, "model": model}, exchange=NAMED)
    content = await first.read()
    assert content.endswith(b"data: [DONE]\n\n")
    assert len(content) > 200
    again = await client.open("POST", "/v1/chat/completions", exchange=NAMED, offset=100)
    assert await again.read() == content[100:]


async def test_the_owner_lists_and_removes_devices_while_it_runs(stack: Stack, outer: HttpOuter) -> None:
    client = await new_device(stack, outer, "a tablet of long ago")
    assert await client.ask("GET", "/v1/models")
    assert client.device in bridge(stack, "devices").stdout
    assert bridge(stack, "devices", "--remove", client.device[:10]).returncode == 0
    assert await client.refused("GET", "/v1/models") == (401, "device-unknown")


def test_a_second_bridge_on_the_same_store_is_refused(stack: Stack) -> None:
    credential = stack.data_dir / "bridge" / "credential.json"
    done = command(
        "bridge", C2L_BRIDGE_SERVER=stack.url, C2L_BRIDGE_CREDENTIAL_FILE=str(credential),
        C2L_BRIDGE_ENGINES="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 1
    assert "the only bridge" in done.stderr
    assert "stop it first" in done.stderr
    refused = bridge(stack, "new-identity", "--yes")
    assert refused.returncode == 1
    assert "stop it first" in refused.stderr
