"""API keys through the whole platform: made, limited, listed and revoked, with clients that are not ours."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from tests.support.engines import EngineProcess
from tests.support.sealed_client import HttpOuter, SealedClient
from tests.support.stack import Stack, running_stack

from cloudtolocalllm.sealed.pairing import PairingLink, read_link

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def stack(standin: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[standin.url]) as stack,
    ):
        yield stack


def cli(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cloudtolocalllm", "keys", *arguments, "--data-dir", str(stack.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)


def make(stack: Stack, *arguments: str) -> tuple[str, str]:
    """Return a key's text and its id."""
    made = cli(stack, "create", *arguments)
    return made.stdout.strip(), made.stderr.split()[1]


def client(stack: Stack, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0, timeout=20)


def ask(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], max_tokens=4)
    return answer.choices[0].message.content or ""


@pytest.fixture
def page(stack: Stack) -> Iterator[httpx.Client]:
    """A signed-in page."""
    token = urlsplit(
        subprocess.run(
            [sys.executable, "-m", "cloudtolocalllm", "sign-in-link", "--data-dir", str(stack.data_dir)],
            capture_output=True, text=True, timeout=30, check=True,
        ).stdout.strip()
    ).fragment.removeprefix("token=").partition("&")[0]  # fmt: skip
    with httpx.Client(base_url=stack.url, headers={"c2l-request": "1", "origin": stack.url}, timeout=20) as page:
        assert page.post("/api/auth/sign-in", json={"token": token}).status_code == 204
        yield page


def first_model(stack: Stack) -> str:
    return client(stack, stack.api_key).models.list().data[0].id


def test_a_key_for_one_model_sees_and_uses_no_other(stack: Stack) -> None:
    model = first_model(stack)
    key, _ = make(stack, "--model", model)
    assert [item.id for item in client(stack, key).models.list()] == [model]
    assert ask(client(stack, key), model)
    blind, _ = make(stack, "--model", "another*")
    assert list(client(stack, blind).models.list()) == []
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client(stack, blind), model)
    assert "does not reach that far" in str(caught.value)


def test_a_key_for_one_route_reaches_no_other(stack: Stack) -> None:
    key, _ = make(stack, "--route", "/v1/")
    headers = {"x-api-key": key}
    assert httpx.get(f"{stack.url}/v1/models", headers=headers).status_code == 200
    for target in ("/ollama/api/tags", "/ollama/v1/models", "/c2l/conversations", "/v1/%2e%2e/ollama/api/tags"):
        answer = httpx.get(httpx.URL(stack.url + target), headers=headers)
        refused = (403, "urn:c2l:problem:key-scope") if "%" not in target else (400, "urn:c2l:problem:bad-request")
        assert (answer.status_code, answer.json()["type"]) == refused, target


def test_a_key_with_requests_a_minute_is_told_when_to_come_again(stack: Stack) -> None:
    key, _ = make(stack, "--rpm", "3")
    answers = [httpx.get(f"{stack.url}/v1/models", headers={"x-api-key": key}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["ratelimit"].endswith('"key-requests";r=2;t=20')
    refused = answers[-1]
    assert refused.json()["type"] == "urn:c2l:problem:rate-limited"
    assert 15 <= int(refused.headers["retry-after"]) <= 20
    assert "key-requests" in refused.headers["ratelimit-policy"]
    assert httpx.get(f"{stack.url}/v1/models", headers=stack.headers).status_code == 200


def test_a_key_with_tokens_a_day_ends_with_them(stack: Stack) -> None:
    key, key_id = make(stack, "--tokens-per-day", "5")
    model = first_model(stack)
    ask(client(stack, key), model)
    with pytest.raises(openai.RateLimitError):
        ask(client(stack, key), model)
    assert key_id in cli(stack, "list").stdout


def offered(stack: Stack) -> PairingLink:
    command = [sys.executable, "-m", "cloudtolocalllm", "bridge", "pair-device"]
    command += ["--data-dir", str(stack.data_dir / "bridge")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    link = next(word for word in shown.split() if "/pair#" in word)
    return read_link(urlsplit(link).fragment)


@pytest.fixture
async def home(stack: Stack, page: httpx.Client) -> AsyncIterator[SealedClient]:
    """The home, as a paired page asks it."""
    cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    fields = {"c2l-request": "1", "origin": stack.url, "cookie": cookie}
    async with httpx.AsyncClient(timeout=30) as http:
        outer = HttpOuter(http, stack.url, fields)
        yield await SealedClient.paired(outer, offered(stack), "page")


async def listed_when(home: SealedClient, key_id: str, **members: object) -> dict[str, dict[str, Any]]:
    """Return the home's list once it has a key with these members."""
    async with asyncio.timeout(20):
        while True:
            listed = {key["id"]: key for key in (await home.ask("GET", "/c2l/keys"))["keys"]}
            if key_id in listed and members.items() <= listed[key_id].items():
                return listed
            await asyncio.sleep(0.1)


def make_by(page: httpx.Client, name: str) -> tuple[str, str]:
    made = page.post("/api/auth/keys", json={"name": name, "days": 30})
    assert made.status_code == 201, made.text
    return made.json()["key"], made.json()["id"]


def revoke_by(page: httpx.Client, key_id: str) -> None:
    assert page.delete(f"/api/auth/keys/{key_id}").status_code == 204


def models(stack: Stack, key: str) -> httpx.Response:
    return httpx.get(f"{stack.url}/v1/models", headers={"x-api-key": key})


async def test_a_revoked_key_dies_at_once_and_the_page_lists_it(
    stack: Stack, page: httpx.Client, home: SealedClient
) -> None:
    by_page, page_id = make_by(page, "From the page")
    by_cli, cli_id = make(stack, "From the shell")

    listed = await listed_when(home, page_id, name="From the page")
    assert listed[cli_id]["name"] == "From the shell"
    assert {key["name"] for key in listed.values()} >= {"Owner (owner.key)"}
    for key in (by_page, by_cli):
        assert models(stack, key).status_code == 200
    cli(stack, "revoke", cli_id)
    revoke_by(page, page_id)
    for key in (by_page, by_cli):
        answer = models(stack, key)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:c2l:problem:unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    listed = await listed_when(home, page_id, revoked=True)
    assert listed[cli_id]["revoked"] is True


def test_nobody_lists_keys_in_the_clear(stack: Stack, page: httpx.Client) -> None:
    by_key = httpx.get(f"{stack.url}/c2l/keys", headers={**stack.headers, "c2l-via": "session", "C2L_Via": "session"})
    for answer in (by_key, page.get("/c2l/keys")):
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:c2l:problem:route-refused")
