"""The page as the bridge itself serves it, in a real browser: nobody between, and nothing leaves the computer."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.home import DIST, tokens
from tests.support.home_parts import HomeClient
from tests.support.home_parts import home as running_home
from tests.support.scripted_engine import Asked, ScriptedEngine, scripted_engine

pytestmark = pytest.mark.browser

T = TypeVar("T")
WAIT = 20.0
PIECES = ["Grüße ", "aus ", "der ", "Nähe", "."]


class OwnPage:
    """A bridge that serves its page, in a thread of its own; it is never connected to a cloud."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.go = threading.Event()
        """Set, it lets the engine finish."""
        self.engine: ScriptedEngine
        self.home: HomeClient
        self.port = 0
        self.call(self._open())

    async def _open(self) -> None:
        self.engine = await self._stack.enter_async_context(scripted_engine(answer=self._answer))
        await self._open_home()

    async def _open_home(self) -> None:
        self.home = await self._stack.enter_async_context(
            running_home(self._folder, self.engine.url, page_port=self.port, page_root=DIST, name="Workshop")
        )
        self.port = urlsplit(self.url).port or 0

    async def _answer(self, asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        events = tokens(PIECES)
        for event in events[:2]:
            asked.chunk(event)
        await asked.writer.drain()
        await asyncio.to_thread(self.go.wait, WAIT)
        for event in events[2:]:
            asked.chunk(event)
        asked.last_chunk()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

    @property
    def url(self) -> str:
        page = self.home.bridge.page
        assert page is not None
        return page.address.url

    def link(self) -> str:
        page = self.home.bridge.page
        assert page is not None
        return page.link()

    def restart(self) -> None:
        """End the bridge and start it again on the same port."""
        self.call(self._stack.aclose())
        self._stack = AsyncExitStack()
        self.call(self._open())

    def close(self) -> None:
        self.go.set()
        self.call(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnPage]:
    served = OwnPage(tmp_path)
    yield served
    served.close()


@pytest.fixture
def asked_hosts(page: Page) -> set[str]:
    """Where the page has sent requests."""
    found: set[str] = set()
    page.on("request", lambda request: found.add(urlsplit(request.url).netloc))
    return found


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def expect_outcome(page: Page, outcome: str) -> None:
    expect(page.locator("article[data-outcome]").last).to_have_attribute("data-outcome", outcome)


def test_a_chat_that_is_reloaded_in_the_middle_of_an_answer(page: Page, own: OwnPage, asked_hosts: set[str]) -> None:
    page.goto(own.link())
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert "token" not in page.url
    expect(page.get_by_label("Model", exact=True)).to_have_value("tiny")
    ask(page, "Wie geht es?")
    expect(page.locator(".markdown")).to_have_text("Grüße aus")
    page.reload()
    expect(page.locator(".markdown")).to_have_text("Grüße aus")
    own.go.set()
    expect_outcome(page, "done")
    expect(page.locator(".markdown")).to_have_text("Grüße aus der Nähe.")
    assert len(own.engine.asked) == 1, "expected that it was asked once"
    assert asked_hosts == {urlsplit(own.url).netloc}, "expected that nothing leaves the computer"


def test_nothing_of_a_conversation_is_kept_in_the_browser(page: Page, own: OwnPage) -> None:
    own.go.set()
    page.goto(own.link())
    ask(page, "Wie geht es?")
    expect_outcome(page, "done")
    # While the bridge does not run, another user's program may be this very site.
    kept = page.evaluate("async () => JSON.stringify([localStorage, (await indexedDB.databases()).map(d => d.name)])")
    for said in ("Grüße", "Wie geht", "c2l-chats"):
        assert said not in kept
    cookies = page.context.cookies()
    assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]


def test_only_what_belongs_here_is_shown(page: Page, own: OwnPage) -> None:
    page.goto(own.link())
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="Devices at home")).to_be_visible()
    for absent in ("Machines", "API keys", "Account"):
        expect(page.get_by_role("heading", name=absent, exact=True)).to_have_count(0)
    page.get_by_role("button", name="Add a device").click()
    # Other devices come in by the server, whichever page made their link.
    expect(page.get_by_text("http://127.0.0.1:9/pair#c2l1.")).to_be_visible()
    page.goto(own.url + "/pair")
    expect(page.get_by_role("heading", name="There is nothing to pair here")).to_be_visible()
    page.goto(own.url + "/settings")
    page.get_by_role("button", name="Sign out here").click()
    expect(page.get_by_text("cloudtolocalllm bridge page")).to_be_visible()


def test_a_bridge_that_starts_again_asks_for_a_new_link(page: Page, own: OwnPage) -> None:
    own.go.set()
    page.goto(own.link())
    ask(page, "Wie geht es?")
    expect_outcome(page, "done")
    address = page.url
    own.restart()
    expect(page.get_by_text("cloudtolocalllm bridge page")).to_be_visible(timeout=25_000)
    page.goto(own.link())
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    page.goto(address)
    expect(page.locator(".markdown")).to_have_text("Grüße aus der Nähe.")


def test_a_page_of_another_port_gets_nothing(chromium: Browser, own: OwnPage) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(own.link())
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    other = context.new_page()
    # Same computer, another port: to a browser the same site, so it sends the cookie along.
    other.route("http://127.0.0.1:1/**", lambda route: route.fulfill(body="<p>other", content_type="text/html"))
    other.goto("http://127.0.0.1:1/")
    read = """async url => {
      const tries = [{}, {credentials: 'include'}, {credentials: 'include', mode: 'no-cors'},
        {credentials: 'include', method: 'POST', mode: 'no-cors', body: '{}'},
        {credentials: 'include', headers: {'C2L-Request': '1'}}];
      const texts = await Promise.all(tries.map(init => fetch(url, init).then(r => r.text(), () => '')));
      return texts.join('');
    }"""
    for path in ("/c2l/conversations", "/api/auth/session", "/v1/models", "/"):
        assert other.evaluate(read, own.url + path) == "", path
    assert own.call(own.home.get("GET", "/conversations"))["conversations"] == []
    context.close()
