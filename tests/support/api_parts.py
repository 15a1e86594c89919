"""A running API on a Unix socket, with a scripted manager, and clients that are not ours."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.support.scripted_manager import ScriptedManager, scripted_manager
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.typing import Subprotocol

from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.presence import Presences
from cloudtolocalllm.api.registry import BridgeRecord, Registry
from cloudtolocalllm.api.revocations import Revocations, key_member
from cloudtolocalllm.api.secrets import load_pseudonym_key, load_signing_ring
from cloudtolocalllm.api.service import serve
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.state import State
from cloudtolocalllm.api.state.open import open_state
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.dpop import Nonces, ProofKey
from cloudtolocalllm.auth.keys import DAY, KeyScope, mint_key
from cloudtolocalllm.auth.links import link_key, mint_link_token
from cloudtolocalllm.auth.pseudonyms import owner_of, user_of
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus, Hello, Welcome
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.clock import SystemClock

HOST = "127.0.0.1:8080"
ORIGIN = f"http://{HOST}"
MARK = {"c2l-request": "1"}


@dataclass
class Person:
    """A user with one API key."""

    id: str
    key_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class Paired:
    """A bridge's side of its pairing."""

    id: str
    user: str
    credential: str
    key: ProofKey

    def headers(self, path: str, nonce: str = "", *, method: str = "GET") -> dict[str, str]:
        """Return what proves who it is."""
        proof = self.key.prove(method, ORIGIN + path, now=time.time(), nonce=nonce, credential=self.credential)
        return {"authorization": f"DPoP {self.credential}", "dpop": proof}


@dataclass
class RunningApi:
    """The service, its manager, and its state as another process would open it."""

    settings: ApiSettings
    manager: ScriptedManager
    state: State
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    people: int = 0

    @property
    def database(self) -> sqlite3.Connection:
        """Return the connection of the embedded state, to damage what is behind it."""
        assert isinstance(self.state, SqliteState)
        return self.state._db

    @property
    def socket(self) -> str:
        return str(self.settings.listen.path)

    @property
    def ring(self) -> KeyRing:
        return load_signing_ring(self.settings.secrets_dir)

    @property
    def owner(self) -> str:
        return owner_of(load_pseudonym_key(self.settings.secrets_dir))

    @property
    def registry(self) -> Registry:
        """Return the bridges, as another replica would know them."""
        bus, clock = LocalBus(), SystemClock()
        revocations = Revocations(self.state, bus, clock)
        return Registry(self.state, Presences(bus), revocations, bus, clock, replica="another")

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Return a browser-like client: keeps cookies, sends Host."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket)
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers, timeout=10)

    def person(self, scope: KeyScope | None = None) -> Person:
        self.people += 1
        key = load_pseudonym_key(self.settings.secrets_dir)
        user = user_of(key, "https://issuer.test", f"person-{self.people}")
        return self.key_of(user, scope)

    def key_of(self, user: str, scope: KeyScope | None = None, *, lifetime: float = DAY) -> Person:
        """Return a user with a new API key."""
        claims, text = mint_key(self.ring, user=user, scope=scope or KeyScope(), lifetime=lifetime, now=time.time())
        return Person(user, claims.id, text)

    async def pair(self, user: str, name: str = "Desktop", *, enrol: bool = True) -> Paired:
        """Pair a bridge; `enrol` lists it before it has connected, as pairing does."""
        key, now = ProofKey.generate(), time.time()
        bridge = credentials.new_bridge_id()
        text, claims = credentials.issue(self.ring, bridge=bridge, user=user, thumbprint=key.thumbprint, now=now)
        if enrol:
            await self.registry.enrol(BridgeRecord(bridge, user, name, now, claims.expires))
        return Paired(bridge, user, text, key)

    async def revoke_key(self, person: Person) -> None:
        """Revoke a key as another process does: it holds here within a second."""
        revocations = Revocations(self.state, LocalBus(), SystemClock())
        await revocations.add(key_member(person.id, person.key_id), time.time() + DAY)

    async def sign_in_token(self, user: str) -> str:
        """Return the token of a one-time link."""
        token, hash_ = mint_link_token()
        await self.state.put(link_key(hash_), user.encode(), 60)
        return token

    async def sign_in(self, user: str) -> httpx.AsyncClient:
        """Return a client with a session."""
        token = await self.sign_in_token(user)
        client = self.client()
        async with self.client() as first:
            response = await first.post("/api/auth/sign-in", json={"token": token})
            assert response.status_code == 204, response.text
            client.cookies.update(first.cookies)
        return client

    async def authorize(self, method: str, uri: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Ask as the edge does."""
        async with self.client() as client:
            return await client.get("/internal/authorize", headers=question(method, uri, headers))

    @contextlib.asynccontextmanager
    async def bridge(
        self, paired: Paired, *engines: EngineStatus, name: str = "Desktop"
    ) -> AsyncIterator[ClientConnection]:
        """Connect as a bridge and say hello."""
        async with self.dial(paired) as socket:
            await socket.send(control.encode(Hello("0.1.0", name, engines or (engine(EngineState.UP),))))
            assert isinstance(await received(socket), Welcome)
            yield socket

    def nonce(self) -> str:
        """Return a nonce for a proof, as an earlier answer would have carried it."""
        return Nonces.of_ring(self.ring).issue(time.time())

    def dial(self, paired: Paired, **options: Any) -> connect:
        """Open a control connection."""
        options.setdefault("subprotocols", [Subprotocol(control.SUBPROTOCOL)])
        options.setdefault("additional_headers", paired.headers("/ws/bridge", self.nonce()))
        return unix_connect(self.socket, f"ws://{HOST}/ws/bridge", ping_interval=None, **options)


def question(method: str, uri: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    return {"x-original-method": method, "x-original-uri": uri, "x-original-host": HOST, **(headers or {})}


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the kind of a problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    value = response.json()
    assert value["status"] == response.status_code
    assert value["title"]
    assert value["detail"]
    return response.status_code, value["type"].removeprefix("urn:c2l:problem:")


def engine(state: EngineState) -> EngineStatus:
    return EngineStatus("ollama", EngineKind.OLLAMA, state)


async def received(socket: ClientConnection, timeout: float = 5.0) -> control.Message:
    """Return the next message."""
    async with asyncio.timeout(timeout):
        text = await socket.recv()
    assert isinstance(text, str)
    return control.decode(text)


@contextlib.asynccontextmanager
async def running_api(folder: Path, *, public_url: str = ORIGIN, **more: Any) -> AsyncIterator[RunningApi]:
    """Run the service in this loop until the block ends; it must then stop within its grace.

    Args:
        folder: For its files and sockets.
        public_url: The address that browsers use.
        more: Other settings.
    """
    given: dict[str, Any] = {
        "listen": Endpoint(path=str(folder / "run" / "a.sock")),
        "data_dir": folder / "cloud",
        "manager": Endpoint(path=str(folder / "m.sock")),
        "public_url": public_url,
        "drain_grace": 2.0,
    }
    settings = ApiSettings(**{**given, **more})
    async with (
        scripted_manager(folder, settings.service_keys_dir / "public") as manager,
        serving(settings, manager) as running,
    ):
        yield running


@contextlib.asynccontextmanager
async def serving(settings: ApiSettings, manager: ScriptedManager) -> AsyncIterator[RunningApi]:
    """Run one replica in this loop until the block ends; it must then stop within its grace."""
    ready, stop = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(settings, stop, ready=ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
        state = await open_state(settings.state, settings.database, SystemClock())
        try:
            yield RunningApi(settings, manager, state, stop, task)
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await asyncio.wait([task])
            await state.close()
