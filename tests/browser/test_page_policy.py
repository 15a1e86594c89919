"""The real edge's policy in a real browser: the page works under it, and what it forbids does not happen."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.home import DIST, POLICY
from tests.support.stack import wait_for

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.headers import CONTENT_SECURITY_POLICY
from cloudtolocalllm.edge.service import serve
from cloudtolocalllm.edge.settings import EdgeSettings

pytestmark = pytest.mark.browser

TRIES = {
    "markup from text": "document.createElement('div').innerHTML = '<b>x</b>'",
    "a script's text": "document.createElement('script').text = 'x'",
    "a script's address": "document.createElement('script').src = '/assets/x.js'",
    "a policy of another name": "trustedTypes.createPolicy('mine', {createHTML: text => text})",
    "an event handler's text": "document.createElement('div').setAttribute('onclick', 'x')",
    "a worker of another origin": "new Worker('https://evil.example/x.js')",
}


@dataclass
class Served:
    """The edge in a thread of its own, without an API behind it."""

    port: int
    stop: "threading.Event"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def edge() -> Iterator[Served]:
    started, ports = threading.Event(), list[int]()
    stop = threading.Event()

    async def run() -> None:
        ended = asyncio.Event()
        made = EdgeSettings(
            api=(Endpoint(path="/nonexistent/api.sock"),), listen_port=0, web_root=DIST, drain_grace=0.1
        )

        def ready(port: int) -> None:
            ports.append(port)
            started.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(serve(made, ended, ready=ready))
            await asyncio.to_thread(stop.wait)
            ended.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(30)
    yield Served(ports[0], stop)
    stop.set()
    thread.join(10)


@pytest.fixture
def blocked(page: Page, edge: Served) -> list[str]:
    """What the browser says that the policy forbade; the page itself is open."""
    found: list[str] = []
    page.expose_function("noteBreach", lambda directive: found.append(directive))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => noteBreach(e.effectiveDirective))"
    )
    page.goto(edge.url)
    expect(page.locator("#root > *").first).to_be_visible()
    return found


def test_the_page_breaks_no_rule(page: Page, blocked: list[str]) -> None:
    page.wait_for_timeout(300)
    assert blocked == []


@pytest.mark.parametrize("attempt", TRIES.values(), ids=list(TRIES))
def test_what_is_forbidden_fails(page: Page, blocked: list[str], faults: list[str], attempt: str) -> None:
    assert blocked == []
    failed = page.evaluate(f"() => {{ try {{ {attempt}; return ''; }} catch (error) {{ return String(error); }} }}")
    assert failed
    faults.clear()  # the console told of it, as it should


def test_inline_scripts_do_not_run(page: Page, blocked: list[str], faults: list[str]) -> None:
    page.evaluate(
        "() => { const script = document.createElement('script'); script.append('window.ran = 1');"
        "document.body.append(script); }"
    )
    forbidden = {"script-src-elem", "require-trusted-types-for"}
    wait_for(lambda: page.evaluate("() => window.ran") or forbidden & set(blocked), within=20, what="it to be told")
    assert page.evaluate("() => window.ran") is None
    faults.clear()


def test_no_page_frames_ours(chromium: Browser, edge: Served) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.set_content(f'<iframe src="{edge.url}/" title="x"></iframe>')
    # What the browser refuses to frame becomes a page of its own that says so.
    wait_for(lambda: page.evaluate("1") and page.frames[1].url.startswith("chrome-error:"), within=20, what="it")
    context.close()


def test_another_origins_page_reads_nothing(chromium: Browser, edge: Served) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"http://localhost:{edge.port}/")  # another origin than 127.0.0.1
    page.route("**/other", lambda route: route.fulfill(body="<p>other", content_type="text/html"))
    page.goto(f"http://localhost:{edge.port}/other")
    for target in ("/v1/models", "/api/auth/session", "/"):
        assert page.evaluate("url => fetch(url).then(() => 'read', () => 'failed')", edge.url + target) == "failed", (
            target
        )
    context.close()


def test_the_scripted_homes_policy_is_no_weaker() -> None:
    ours = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.decode().split(";"))
    theirs = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    for name, value in ours.items():
        if name not in theirs:
            assert name in ("manifest-src", "worker-src")  # none there, by default-src
        else:
            assert theirs[name] in (value, "'none'")
