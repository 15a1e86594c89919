"""The edge with no socket at all: clients and upstreams are transports in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.memory_transport import MemoryTransport, turns

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.app import Edge
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.http1 import ConnectError, Connection, HttpServer
from cloudtolocalllm.runtime.http1._server_connection import ServerConnection

ALLOWED = b"HTTP/1.1 200 OK\r\nC2L-Endpoint: unix:/proxy\r\nC2L-Assertion: v1.ours.mac\r\nContent-Length: 0\r\n\r\n"


class MemoryPool:
    """Stands for a pool: every connection is a new one, kept for the test to answer on."""

    host = b"localhost"

    def __init__(self) -> None:
        self.transports: list[MemoryTransport] = []
        self.refusing = 0
        """How many of the next connections fail."""

    async def acquire(self, *, fresh: bool = False) -> Connection:
        if self.refusing:
            self.refusing -= 1
            raise ConnectError("expected a connection, got none")
        connection = Connection()
        self.transports.append(MemoryTransport(connection))
        return connection

    async def close(self) -> None:
        """Nothing is idle."""

    @property
    def last(self) -> MemoryTransport:
        return self.transports[-1]


class MemoryEdge:
    """An edge, its API and one proxy."""

    def __init__(self, edge: Edge, api: MemoryPool, proxy: MemoryPool) -> None:
        self.edge = edge
        self.api = api
        self.proxy = proxy
        self._server = HttpServer(edge)

    def connect(self, address: str = "192.0.2.1") -> MemoryTransport:
        return MemoryTransport(ServerConnection(self._server), peername=(address, 4242))

    async def ask(self, *lines: str, content: bytes = b"") -> MemoryTransport:
        """Send a request on a new connection and let the edge work."""
        client = self.connect()
        client.peer_sends("\r\n".join([*lines, "Host: localhost", "", ""]).encode() + content)
        await turns(10)
        return client

    async def ask_proxy(self, *lines: str, content: bytes = b"") -> tuple[MemoryTransport, MemoryTransport]:
        """Send a request on the data path, let the API allow it; return the client's and the proxy's transports."""
        client = await self.ask(*lines, content=content)
        self.api.last.peer_sends(ALLOWED)
        await turns(10)
        return client, self.proxy.last


@contextmanager
def memory_edge(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[MemoryEdge]:
    """Make an edge whose connections all stay in memory."""
    api, proxy = MemoryPool(), MemoryPool()
    monkeypatch.setattr("cloudtolocalllm.edge.app.Pool", lambda *_, **__: api)
    monkeypatch.setattr("cloudtolocalllm.edge.pools.Pool", lambda *_, **__: proxy)
    yield MemoryEdge(Edge(EdgeSettings(api=(Endpoint(path="/api"),), **settings), None), api, proxy)
