"""What is refused, by whom, and that nothing breaks by it."""

import httpx
import pytest
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ollama/api/create"),
        ("POST", "/ollama/api/push"),
        ("POST", "/ollama/api/pull"),
        ("POST", "/ollama/api/copy"),
        ("DELETE", "/ollama/api/delete"),
        ("POST", "/ollama/api/blobs/sha256:0"),
        ("HEAD", "/ollama/api/blobs/sha256:0"),
        ("POST", "/v1/files"),
        ("GET", "/ollama/metrics"),
    ],
)
def test_the_bridge_refuses_the_route(paced_stack: Stack, method: str, path: str) -> None:
    answer = httpx.request(method, paced_stack.url + path, headers=paced_stack.headers, timeout=20)
    assert answer.status_code == 403
    if method != "HEAD":
        assert answer.json()["type"] == "urn:c2l:problem:route-refused"
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer c2l_aaaaaaaaaaaa_" + "A" * 43},
        {"Authorization": "Bearer none"},
        {"Authorization": "Basic b3duZXI6"},
        {"x-api-key": "x"},
        {"Cookie": "c2l_session=forged"},
        {"c2l-assertion": "v1.e30.x"},
    ],
)
def test_a_stranger_is_refused(paced_stack: Stack, headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/ollama/api/tags", "/api/bridge", "/api/streaming/status"):
        answer = httpx.get(paced_stack.url + path, headers=headers, timeout=20)
        assert answer.status_code == 401, path
        assert answer.json()["type"] == "urn:c2l:problem:unauthenticated"


def test_a_key_in_the_query_is_no_key(paced_stack: Stack) -> None:
    answer = httpx.get(f"{paced_stack.url}/v1/models?api_key={paced_stack.api_key}", timeout=20)
    assert answer.status_code == 401


def test_internal_routes_are_not_reached_from_outside(paced_stack: Stack) -> None:
    assert httpx.get(f"{paced_stack.url}/internal/authorize", headers=paced_stack.headers).status_code == 404


def test_another_host_is_misdirected(paced_stack: Stack) -> None:
    answer = httpx.get(f"{paced_stack.url}/", headers={"Host": "evil.example"})
    assert answer.status_code == 421


def test_a_large_upload_is_refused_before_it_is_sent(paced_stack: Stack) -> None:
    answer = httpx.post(
        f"{paced_stack.url}/v1/chat/completions",
        headers={**paced_stack.headers, "content-type": "application/json"},
        content=b"x" * (65 * 1024 * 1024),
        timeout=30,
    )
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:c2l:problem:too-large"
