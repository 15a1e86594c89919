"""Schemathesis against the OpenAPI document: no 5xx, and every answer is one that the document describes."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.api_parts import RunningApi, running_api
from tests.support.ports import free_port

from cloudtolocalllm.api.secrets import load_sealing_keys
from cloudtolocalllm.auth.sessions import COOKIE, Sealer, Session
from cloudtolocalllm.contracts.endpoint import Endpoint

pytestmark = pytest.mark.timeout(240)

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
ENDLESS = "/api/streaming/events"
SIGN_OUT = "/api/auth/sign-out"
"""Left out where a session is the point: it ends it. The stranger's run has it."""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    port = free_port()
    endpoint = Endpoint(host="127.0.0.1", port=port)
    async with running_api(tmp_path, listen=endpoint, public_url=f"http://127.0.0.1:{port}") as running:
        yield running


async def run(api: RunningApi, *arguments: str) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{api.settings.public_url}/api/openapi.json",
    ]
    command += ["--no-color", "--generation-deterministic", "--request-timeout", "10", "--continue-on-failure"]
    command += ["--max-examples", "8", "--exclude-path", ENDLESS, "--phases", "examples,coverage,fuzzing"]
    command += arguments
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(200):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]


async def test_as_a_stranger(api: RunningApi) -> None:
    await run(api, "--checks", ",".join((*CHECKS, "negative_data_rejection", "ignored_auth")))


async def test_signed_in_as_an_administrator(api: RunningApi) -> None:
    now = int(time.time())
    sealer = Sealer(load_sealing_keys(api.settings.secrets_dir))
    cookie = sealer.seal(Session(api.owner, "s_aaaaaaaaaaaaaaaaaaaa", now, now + 3600, admin=True))
    headers = ("-H", f"Cookie: {COOKIE}={cookie}", "-H", "c2l-request: 1")
    await run(api, "--checks", ",".join(CHECKS), "--exclude-path", SIGN_OUT, *headers)


async def test_as_another_user_by_api_key(api: RunningApi) -> None:
    owner = await api.pair(api.owner)
    person = api.person()
    await run(api, "--checks", ",".join(CHECKS), "-H", f"Authorization: Bearer {person.key}")
    (known,) = await api.registry.bridges(api.owner)
    assert (known.record.id, known.record.name) == (owner.id, "Desktop")
