"""Chats through the platform that Compose brought up from nothing, over TLS with a certificate by ACME."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import httpx
import ollama
import openai
import pytest
from cryptography import x509
from tests.support.compose_answers import ask_at_once
from tests.support.compose_home import Home
from tests.support.compose_stack import DOMAIN, Platform
from tests.support.docker_engine import docker
from tests.support.engines import MODEL, EngineProcess
from tests.support.long_answer import question

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]
QUESTION: Any = [{"role": "user", "content": "go"}]


def test_it_comes_up_from_nothing(acme_platform: Platform) -> None:
    print(f"\nup -d to healthy with a certificate: {acme_platform.took:.1f} s")
    names = (DOMAIN, f"app.{DOMAIN}")
    chain = acme_platform.curl("/", "-o", "/dev/null", "-w", "%{certs}")
    leaf = x509.load_pem_x509_certificate(chain[chain.index("-----BEGIN") :].encode())
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(san.get_values_for_type(x509.DNSName)) == set(names)
    assert "Pebble" in leaf.issuer.rfc4514_string()
    for name in names:
        assert (
            acme_platform.curl("/", "-o", "/dev/null", "-w", "%{http_version} %{ssl_verify_result}", host=name)
            == "2 0"
        )


def test_certbot_keeps_within_its_limits_and_the_key_to_itself(acme_platform: Platform) -> None:
    certbot = acme_platform.containers("certbot")[0]
    key = docker("exec", certbot, "stat", "-L", "-c", "%u:%g %a", "/etc/c2l/certs/site/privkey.pem")
    assert key == "10030:10030 640"
    state = acme_platform.inspect(certbot)["State"]
    assert (state["OOMKilled"], state["Health"]["Status"]) == (False, "healthy")
    told = docker("exec", certbot, "python3", "-m", "cloudtolocalllm", "certs", "status", "--json")
    assert json.loads(told)["usable"]


@pytest.mark.parametrize("host", [DOMAIN, f"app.{DOMAIN}"])
def test_both_names_show_a_page(acme_platform: Platform, host: str) -> None:
    assert "<title>CloudToLocalLLM" in acme_platform.curl("/", host=host)


def test_clear_http_leads_to_tls(acme_platform: Platform) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", f"host: app.{DOMAIN}",
         f"http://127.0.0.1:{acme_platform.http}/chat"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout == f"308 {acme_platform.url}/chat"


def test_openais_client_streams_what_the_engine_says(home: Home, real_engine: EngineProcess) -> None:
    chunks = {}
    with (
        httpx.Client(timeout=60) as direct,
        httpx.Client(timeout=60, transport=home.transport()) as through,
    ):
        for name, client in {
            "direct": openai.OpenAI(
                base_url=f"{real_engine.url}/v1", api_key="none", http_client=cast("Any", direct)
            ),
            "through": openai.OpenAI(
                base_url=f"{home.url}/v1", api_key=home.api_key, http_client=cast("Any", through), max_retries=0
            ),
        }.items():
            stream = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True, temperature=0)
            chunks[name] = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert len(chunks["direct"]) > 10
    assert chunks["through"] == chunks["direct"]
    assert "".join(filter(None, chunks["through"])).strip() == real_engine.text.strip()


def test_ollamas_client_streams_what_the_engine_says(home: Home, standin: EngineProcess) -> None:
    chunks = {}
    for name, client in {
        "direct": ollama.Client(host=standin.url, timeout=60),
        "through": ollama.Client(
            host=f"{home.url}/ollama", headers=home.headers, timeout=60, transport=home.transport()
        ),
    }.items():
        answer = client.chat(model=f"{MODEL}:latest", messages=QUESTION, stream=True)
        chunks[name] = [part.message.content for part in answer]
        client._client.close()  # it has no close of its own
    assert len(chunks["direct"]) > 10
    assert chunks["through"] == chunks["direct"]
    assert "".join(filter(None, chunks["through"])).strip() == standin.text.strip()


def test_tokens_come_as_they_are_made_over_http2(home: Home, tmp_path: Path) -> None:
    """An answer of two seconds is not held back until its end by anybody on the way."""
    body = tmp_path / "body"
    body.write_text(json.dumps(question(40, 20)))
    command = [
        "curl", "-sSN", "--http2", "--cacert", str(home.platform.ca), "-H", f"authorization: Bearer {home.api_key}",
        "--data-binary", f"@{body}", "-w", "%{http_version}", "--max-time", "30",
        "--resolve", f"app.{DOMAIN}:{home.platform.https}:127.0.0.1", f"{home.url}/ollama/api/chat",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [(time.monotonic(), line) for line in process.stdout]
    assert lines[-1][1] == "2"
    assert json.loads(lines[-2][1])["done"] is True
    first, sixth, last = (lines[number][0] for number in (0, 5, -2))
    assert last - first > 1
    assert sixth - first < (last - first) / 2


def test_answers_at_once_are_not_mixed_up(home: Home) -> None:
    answers = ask_at_once(home, 20, tokens=60, pace=30)
    print(f"\n20 at once: {answers.line()}")
    assert answers.faults("refused", "cut", "altered") == []
    assert len({answer.text for answer in answers.done}) == 20
