"""Parts that are replaced in the middle of an answer: nginx, and all of the API. See `test_page_faults`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.browser.watched_answer import SEVERAL, WatchedAnswer, engine_says, now, pair, sign_in_link
from tests.support.deployment import Deployment, paired, running_deployment, sign_in
from tests.support.engines import EngineProcess, llama_server, ollama_standin
from tests.support.fault_proxy import FaultProxy
from tests.support.loop_thread import LoopThread
from tests.support.nginx_server import NginxServer, running_nginx
from tests.support.second_bridge import second_bridge
from tests.support.stack import Stack, running_stack

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.site import web_root

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(180)]

PACE = 30
"""Words a second: some 20 seconds an answer."""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with llama_server(SEVERAL) as real, ollama_standin(real, pace=PACE) as running:
        yield running


@pytest.fixture(scope="module")
def expected(engine: EngineProcess) -> str:
    return engine_says(engine, "go")


@pytest.fixture
def stack(engine: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[engine.url]) as running,
    ):
        yield running


@pytest.mark.nginx
def test_nginx_is_restarted(
    page: Page, stack: Stack, engine: EngineProcess, expected: str, beside: LoopThread
) -> None:
    """It holds the page's connections and the tunnel's: all end with it."""
    api = Endpoint(path=str(stack.run_dir / "api.sock"))
    with running_nginx(EdgeSettings(api=(api,), web_root=web_root())) as nginx:
        url = f"http://127.0.0.1:{nginx.port}"
        beside.enter(second_bridge(stack, engine, cast("FaultProxy", SimpleNamespace(port=nginx.port))))
        page.goto(sign_in_link(stack.data_dir).replace(stack.url, url))
        expect(page).to_have_url(f"{url}/")
        bridge = stack.data_dir / "second"
        pair(page, url, bridge, "Test")
        answer = WatchedAnswer(page, engine, bridge, expected)
        answer.ask()
        back = restart(page, nginx)
        answer.expect_whole()
        print(f"nginx restarted: new text {answer.gap_after(back):.2f} s after it was back")
        answer.is_shown_anew()
        page.goto("about:blank")  # its connections end before nginx does


def restart(page: Page, nginx: NginxServer) -> float:
    """Stop it and start it a second later; return when it was back."""
    nginx.stop()
    page.wait_for_timeout(1_000)
    nginx.start()
    return now()


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with running_deployment(3) as running:
        yield running


@pytest.fixture(scope="module")
def cookies(deployment: Deployment, engine: EngineProcess) -> list[Any]:
    """Of somebody who is signed in, with a machine that runs."""
    with sign_in(deployment, "alice") as client:
        paired(deployment, client, "tower", engine.url)
        return [cookie_of(deployment, cookie) for cookie in client.cookies.jar]


def cookie_of(deployment: Deployment, cookie: Any) -> dict[str, Any]:
    return {"name": cookie.name, "value": cookie.value, "url": deployment.url}


@pytest.mark.parametrize("how", ["one after the other", "at once"])
def test_all_replicas_of_the_api_are_replaced(
    page: Page, deployment: Deployment, engine: EngineProcess, cookies: list[Any], expected: str, how: str
) -> None:
    page.context.add_cookies(cookies)
    bridge = deployment.homes / "tower"
    pair(page, deployment.url, bridge, f"Test {how}")
    answer = WatchedAnswer(page, engine, bridge, expected)
    answer.ask()
    deployment.replace_apis(at_once=how == "at once")
    before = len(answer.seen[-1][1])
    answer.expect_whole()
    assert before < len(expected.strip()), "expected the answer to outlive them"
    print(f"all API replicas replaced {how}: longest gap {answer.longest_gap():.2f} s")
    answer.is_shown_anew()
    assert httpx.get(f"{deployment.url}/readyz", timeout=10).status_code == 200
