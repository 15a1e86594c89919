"""Homes whose engines have models, and questions to the local endpoint over them."""

import json
from typing import Any

import httpx
from tests.support.connect_parts import url_of
from tests.support.small_home import Run

from cloudtolocalllm.connect.service import Connect
from cloudtolocalllm.sealed.bhttp import RequestHead

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "go"}]}


def having(*models: str, name: str = "", answered: list[str] | None = None) -> Any:
    """Return an engine with models, which answers with its name."""

    async def engine(head: RequestHead, content: bytes, run: Run) -> None:
        run.fields = ((b"content-type", b"application/json"),)
        target = head.path.decode()
        if target.endswith("/api/tags") or target.endswith("/api/ps"):
            value: Any = {"models": [{"name": model, "model": model} for model in models]}
        elif target.endswith("/v1/models"):
            value = {"object": "list", "data": [{"id": model} for model in models]}
        else:
            asked = json.loads(content)["model"]
            if asked not in models:
                run.status = 404
                run.data += b'{"error":"model not found"}'
                return
            value = {"home": name}
            if answered is not None:
                answered.append(name)
        run.status = 200
        run.data += json.dumps(value).encode()

    return engine


async def post(connect: Connect, value: Any = CHAT) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{url_of(connect)}/api/chat", json=value)


async def get(connect: Connect, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(url_of(connect) + path)
