"""The local endpoint over homes of `small_home`, paired as a person pairs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.small_home import API_KEY, SmallHome

from cloudtolocalllm.connect.address import read_invitation
from cloudtolocalllm.connect.homes import Home, Homes, key_name
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.pairing import NewHome, pair
from cloudtolocalllm.connect.service import Connect, homes_folder, keys_folder
from cloudtolocalllm.connect.settings import ConnectSettings
from cloudtolocalllm.connect.vault import FileVault
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.tasks import TaskSet


async def pair_with(folder: Path, invitation: str, *, server: str = "", name: str = "", priority: int = 0) -> Home:
    """Pair by a link, keeping the API key as a person's prompt would have it kept."""
    address, link = read_invitation(invitation, server)
    tasks, clock = TaskSet(), SystemClock()
    vault = FileVault(keys_folder(folder))
    vault.put(key_name(address.url), API_KEY)
    outer = ServerLink(address, API_KEY, Watch(tasks, clock), clock)
    try:
        new = NewHome("test laptop", name, priority)
        return await pair(outer, link, new, Homes(homes_folder(folder)), vault, clock)
    finally:
        await outer.close()
        await tasks.close()


@asynccontextmanager
async def connected(folder: Path, **settings: Any) -> AsyncIterator[Connect]:
    """Run the endpoint over the homes in a folder."""
    settings.setdefault("port", 0)
    connect = Connect(ConnectSettings(folder, keyring=False, **settings))
    await connect.start()
    try:
        yield connect
    finally:
        await connect.close()


def url_of(connect: Connect) -> str:
    """Return where it listens."""
    return f"http://127.0.0.1:{connect.port}"


@asynccontextmanager
async def at_home(folder: Path, home: SmallHome, **settings: Any) -> AsyncIterator[Connect]:
    """Pair with a home, and run the endpoint."""
    await pair_with(folder, home.invite())
    async with connected(folder, **settings) as connect:
        yield connect
