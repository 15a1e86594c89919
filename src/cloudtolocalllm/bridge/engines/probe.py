"""Finds engines on the well-known local ports."""

import asyncio
import logging
from collections.abc import Collection

from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.bridge.engines.answers import (
    is_loading,
    is_ours,
    ollama_models,
    ollama_version,
    openai_models,
)
from cloudtolocalllm.contracts.control import EngineKind
from cloudtolocalllm.runtime.http1 import HttpError, Pool, Response, fetch

log = logging.getLogger(__name__)

WELL_KNOWN_PORTS: dict[int, str] = {
    11434: "Ollama",
    1234: "LM Studio",
    8080: "llama.cpp",
    8000: "vLLM",
    1337: "Jan",
    5001: "koboldcpp",
    5000: "text-generation-webui",
}
PROBE_TIMEOUT = 1.0
"""Seconds for each question; what is on this machine answers at once or is no engine."""


async def probe(ports: Collection[int], *, host: str = "127.0.0.1") -> dict[int, EngineKind]:
    """Return which of these ports have an engine, and of what kind; all are asked at the same time."""
    found = await asyncio.gather(*(_probe_port(host, port) for port in ports))
    return {port: kind for port, kind in zip(ports, found, strict=True) if kind is not None}


async def _probe_port(host: str, port: int) -> EngineKind | None:
    address = EngineAddress(host, port)
    pool = Pool(address.authority, connect_timeout=PROBE_TIMEOUT)
    try:
        return await _kind(pool, address)
    except (HttpError, OSError, TimeoutError):
        return None
    finally:
        await pool.close()


async def _kind(pool: Pool, address: EngineAddress) -> EngineKind | None:
    version = await _get(pool, address, "/api/version")
    if is_ours(version):
        return None
    if ollama_version(version) is not None and ollama_models(await _get(pool, address, "/api/tags")) is not None:
        return EngineKind.OLLAMA
    models = await _get(pool, address, "/v1/models")
    if is_ours(models):
        return None
    if openai_models(models) is not None or is_loading(models):
        return EngineKind.OPENAI
    return None


async def _get(pool: Pool, address: EngineAddress, path: str) -> Response:
    fields = ((b"host", address.authority.encode()), (b"accept", b"application/json"))
    return await fetch(pool, "GET", path, fields, timeout=PROBE_TIMEOUT, max_content=4 * 1024 * 1024)
