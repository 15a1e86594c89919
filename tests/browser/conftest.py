"""Chromium, the built page, and a scripted home behind it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from tests.browser.chat_home import ChatHome
from tests.browser.home import DIST, TOKEN, Home, Server
from tests.support.loop_thread import LoopThread, loop_thread
from tests.support.require import require

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=20_000)

KEPT = """async () => {
    const database = await new Promise((resolve) => {
        const request = indexedDB.open("c2l-chats");
        request.onsuccess = () => resolve(request.result);
    });
    const all = await new Promise((resolve) => {
        const request = database.transaction("seen").objectStore("seen").getAll();
        request.onsuccess = () => resolve(request.result);
    });
    database.close();
    return [
        all.flatMap(({ heads }) => heads ?? []).map(({ title }) => title),
        all.flatMap(({ messages }) => messages ?? []).map(({ content }) => content),
    ];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one file: while Playwright runs, no asynchronous test could run on this thread."""
    require(CHROMIUM.exists(), "Chromium", "apt-get install chromium")
    require((DIST / "index.html").is_file(), "the built page", "cd web && npm ci && npm run build")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.close()


@pytest.fixture
def home(server: Server) -> Home:
    return server.home


@pytest.fixture
def faults() -> list[str]:
    """What the page's console complained of."""
    return []


@pytest.fixture
def page(chromium: Browser, faults: list[str]) -> Iterator[Page]:
    """A page in a profile of its own; errors in its scripts and breaches of its security policy fail the test."""
    context = chromium.new_context(viewport={"width": 1100, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = context.new_page()
    opened.on("pageerror", lambda error: faults.append(str(error)))

    def note(message: ConsoleMessage) -> None:
        # A refused request is told on the console as well; many tests mean it.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            faults.append(message.text)

    opened.on("console", note)
    yield opened
    context.close()
    assert faults == []


@dataclass
class Chat:
    """The page of somebody who is signed in."""

    page: Page
    home: Home
    url: str

    def ask(self, text: str) -> None:
        self.page.get_by_label("Message").fill(text)
        self.page.get_by_role("button", name="Send").click()

    def expect_outcome(self, outcome: str) -> None:
        expect(self.page.locator("article[data-outcome]").last).to_have_attribute("data-outcome", outcome)

    @property
    def answer(self) -> str:
        """The visible text of the last answer."""
        return self.page.locator(".markdown").last.inner_text()

    def kept(self, title: str, text: str) -> bool:
        """Tell whether the browser keeps a list with a conversation of this title, and a message with this text."""
        titles, texts = self.page.evaluate(KEPT)
        return title in titles and text in texts

    @property
    def markup(self) -> str:
        return self.page.locator(".markdown").last.inner_html()


@pytest.fixture
def chat_home(server: Server) -> ChatHome:
    """A home that serves the page itself."""
    server.home.chat = ChatHome(server.home.script)
    return server.home.chat


@pytest.fixture
def chat(page: Page, server: Server, chat_home: ChatHome) -> Chat:
    page.goto(f"{server.url}/sign-in#token={TOKEN}")
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    expect(page.get_by_label("Model", exact=True)).to_have_value("llama3.2:3b")
    return Chat(page, server.home, server.url)


@pytest.fixture
def beside() -> Iterator[LoopThread]:
    """A loop in a thread of its own: Playwright's has the test's."""
    with loop_thread() as running:
        yield running
