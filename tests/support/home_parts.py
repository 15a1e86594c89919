"""A home without a cloud: the bridge's store, runs and API, with engines over real HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.scripted_engine import Asked

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.home_api.home import Home
from cloudtolocalllm.bridge.home_api.messages import Caller, Events, Reply, Request
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.service import Bridge
from cloudtolocalllm.bridge.settings import BridgeSettings

LOCAL = Caller(None)


@dataclass
class HomeClient:
    """Speaks to the home API."""

    bridge: Bridge
    caller: Caller = LOCAL

    @property
    def home(self) -> Home:
        assert self.bridge.home is not None
        return self.bridge.home

    async def ask(self, method: str, path: str, value: Any = None, **query: object) -> Reply | Events:
        assert self.bridge.home_api is not None
        content = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        texts = {name: str(item) for name, item in query.items()}
        return await self.bridge.home_api.handle(self.caller, Request(method, path, texts, content))

    async def get(self, method: str, path: str, value: Any = None, status: int = 200, **query: object) -> Any:
        reply = await self.ask(method, path, value, **query)
        assert isinstance(reply, Reply), reply
        assert reply.status == status, reply
        return json.loads(reply.content) if reply.content else None

    async def problem(self, method: str, path: str, value: Any = None, **query: object) -> str:
        reply = await self.ask(method, path, value, **query)
        assert isinstance(reply, Reply), reply
        return str(json.loads(reply.content)["type"]).removeprefix("urn:c2l:problem:")

    async def events(self, method: str, path: str, value: Any = None, **query: object) -> AsyncGenerator[Any, None]:
        reply = await self.ask(method, path, value, **query)
        assert isinstance(reply, Events), reply
        return reply.events

    async def asked(self, content: str = "hi") -> tuple[str, str]:
        """Begin a conversation with a question; return the ids of both."""
        talk = (await self.get("POST", "/conversations", {"title": "t"}))["id"]
        note = await self.get("POST", f"/conversations/{talk}/messages", {"role": "user", "content": content})
        return talk, note["id"]

    async def start(self, talk: str, note: str, **more: Any) -> dict[str, Any]:
        body = {"model": "tiny", "parent": note, **more}
        run: dict[str, Any] = await self.get("POST", f"/conversations/{talk}/runs", body)
        return run

    async def watched(self, run: str, offset: int = 0, seconds: float = 20) -> tuple[str, dict[str, Any]]:
        """Watch a run to its end; return its text from an offset on, checked to be without gap, and the run."""
        text = ""
        async with asyncio.timeout(seconds):
            async for event in await self.events("GET", f"/runs/{run}/events", offset=offset):
                assert "problem" not in event, event
                if (piece := event["text"]) is not None:
                    assert piece["at"] == offset
                    text += piece["text"]
                    offset = piece["end"]
                if event["run"] is not None:
                    return text, event["run"]
        raise AssertionError("a watch without an end")


@asynccontextmanager
async def home(folder: Path, *engines: str, **settings: Any) -> AsyncGenerator[HomeClient]:
    """Run a bridge that is never connected to a cloud."""
    credential = folder / "credential.json"
    if not credential.exists():
        now = time.time()
        url = "http://127.0.0.1:9"
        BridgeIdentity(url, "br-test", "secret", ProofKey.generate(), now, now + 30 * 86_400).save(credential)
    settings.setdefault("drain_grace", 0.1)
    bridge = Bridge(
        BridgeSettings(
            server="http://127.0.0.1:9",
            credential_file=credential,
            engines=engines or ("http://127.0.0.1:9",),
            **settings,
        )
    )
    try:
        await bridge.start()
        yield HomeClient(bridge)
    finally:
        await bridge.close()


def event(content: str = "", **more: Any) -> bytes:
    """Return an event of a streamed answer."""
    delta: dict[str, Any] = {**({"content": content} if content else {}), **more}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


LAST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\ndata: [DONE]\n\n'
)


def begin(asked: Asked) -> None:
    """Send the head of a streamed answer."""
    asked.head(200, "content-type: text/event-stream", chunked=True)


def finish(asked: Asked) -> None:
    """Send the end of a streamed answer."""
    asked.chunk(LAST)
    asked.last_chunk()
