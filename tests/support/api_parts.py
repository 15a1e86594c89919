"""A running API on a Unix socket, with a scripted manager, and clients that are not ours."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.support.scripted_manager import TOKEN, ScriptedManager, scripted_manager
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.typing import Subprotocol

from cloudtolocalllm.api.service import serve
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.store import Store
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus, Hello, Welcome
from cloudtolocalllm.contracts.endpoint import Endpoint

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


@dataclass
class RunningApi:
    """The service, its manager, and the store as another process would open it."""

    settings: ApiSettings
    manager: ScriptedManager
    store: Store
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    @property
    def socket(self) -> str:
        return str(self.settings.listen.path)

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Return a browser-like client: keeps cookies, sends Host."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket)
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers, timeout=10)

    def person(self) -> Person:
        user = self.store.create_user()
        record, key = self.store.create_key(user, "test")
        return Person(user, record.id, key)

    async def sign_in(self, user: str) -> httpx.AsyncClient:
        """Return a client with a session."""
        token, _ = self.store.create_sign_in_link(user)
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
        self, credential: str, *engines: EngineStatus, name: str = "Desktop"
    ) -> AsyncIterator[ClientConnection]:
        """Connect as a bridge and say hello."""
        async with self.dial(credential) as socket:
            await socket.send(control.encode(Hello("0.1.0", name, engines or (engine(EngineState.UP),))))
            assert isinstance(await received(socket), Welcome)
            yield socket

    def dial(self, credential: str, **options: Any) -> connect:
        """Open a control connection."""
        options.setdefault("subprotocols", [Subprotocol(control.SUBPROTOCOL)])
        headers = {"Authorization": f"Bearer {credential}"}
        return unix_connect(
            self.socket, f"ws://{HOST}/ws/bridge", additional_headers=headers, ping_interval=None, **options
        )


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
async def running_api(folder: Path, *, public_url: str = ORIGIN) -> AsyncIterator[RunningApi]:
    """Run the service in this loop until the block ends; it must then stop within its grace."""
    token = folder / "token"
    token.write_text(TOKEN)
    settings = ApiSettings(
        listen=Endpoint(path=str(folder / "run" / "a.sock")),
        data_dir=folder / "cloud",
        manager=Endpoint(path=str(folder / "m.sock")),
        manager_token_file=token,
        public_url=public_url,
        drain_grace=2.0,
    )
    ready, stop = asyncio.Event(), asyncio.Event()
    async with scripted_manager(folder) as manager, asyncio.TaskGroup() as group:
        task = group.create_task(serve(settings, stop, ready=ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
        with contextlib.closing(Store(settings.database)) as store:
            try:
                yield RunningApi(settings, manager, store, stop, task)
            finally:
                stop.set()
                async with asyncio.timeout(10):
                    await asyncio.wait([task])
