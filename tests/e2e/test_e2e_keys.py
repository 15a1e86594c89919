"""API keys through the whole platform: made, limited, listed and revoked, with clients that are not ours."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from tests.support.engines import EngineProcess
from tests.support.stack import Stack, running_stack, wait_for

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
    for target in ("/ollama/api/tags", "/ollama/v1/models", "/c2l/keys", "/v1/%2e%2e/ollama/api/tags"):
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


def test_a_revoked_key_dies_at_once_and_the_page_lists_it(stack: Stack, page: httpx.Client) -> None:
    made = page.post("/api/auth/keys", json={"name": "From the page", "days": 30})
    assert made.status_code == 201, made.text
    by_page, page_id = made.json()["key"], made.json()["id"]
    by_cli, cli_id = make(stack, "From the shell")

    def listed() -> dict[str, dict[str, object]]:
        answer = page.get("/c2l/keys")
        assert answer.status_code == 200, answer.text
        return {key["id"]: key for key in answer.json()["keys"]}

    wait_for(lambda: page_id in listed(), within=5, what="the home to hear of the key")
    assert listed()[page_id]["name"] == "From the page"
    assert listed()[cli_id]["name"] == "From the shell"
    assert {key["name"] for key in listed().values()} >= {"Owner (owner.key)"}
    for key in (by_page, by_cli):
        assert httpx.get(f"{stack.url}/v1/models", headers={"x-api-key": key}).status_code == 200
    cli(stack, "revoke", cli_id)
    assert page.delete(f"/api/auth/keys/{page_id}").status_code == 204
    for key in (by_page, by_cli):
        answer = httpx.get(f"{stack.url}/v1/models", headers={"x-api-key": key})
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:c2l:problem:unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    wait_for(lambda: listed()[page_id]["revoked"] is True, within=5, what="the page's key to be listed as revoked")
    assert listed()[cli_id]["revoked"] is True


def test_a_key_lists_no_keys(stack: Stack) -> None:
    answer = httpx.get(f"{stack.url}/c2l/keys", headers={**stack.headers, "c2l-via": "session", "C2L_Via": "session"})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:c2l:problem:forbidden")
