"""Several devices of one person at one home, and the models there."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from tests.browser.chat_home import ChatHome
from tests.browser.conftest import Chat
from tests.browser.home import WAIT, Answer, Server, tokens
from tests.support.stack import wait_for

PATIENCE = 1_500.0
"""Milliseconds."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def other(chromium: Browser, chat: Chat) -> Iterator[Page]:
    """Another browser of the same person."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(chat.url)
    expect(page.get_by_label("Model", exact=True)).to_have_value("llama3.2:3b")
    yield page
    context.close()


def test_another_device_sees_it_all_and_may_stop_it(chat: Chat, other: Page) -> None:
    answer = Answer(tokens(["One ", "two ", "three"]), hold_after=2)
    chat.home.answers = [answer]
    chat.ask("Count")
    other.get_by_role("link", name="Count").click()
    expect(other.locator(".markdown")).to_have_text("One two")
    other.get_by_role("button", name="Stop").click()
    chat.expect_outcome("stopped")
    assert answer.left.wait(WAIT)
    expect(other.locator("article[data-outcome=stopped] .markdown")).to_have_text("One two")
    other.get_by_role("button", name="More about Count").click()
    other.get_by_role("button", name="Delete").click()
    other.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(chat.page.get_by_role("heading", name="This conversation is not there any more")).to_be_visible()


def path_of(page: Page) -> list[str]:
    """What a page shows of the conversation."""
    texts: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('article')].map("
        "article => (article.querySelector('.markdown') ?? article.querySelector('p')).innerText)"
    )
    return texts


def act(page: Page, chance: random.Random, step: int) -> None:
    """Do anything that can be done just now."""
    what = chance.choice(["say", "say", "edit", "anew", "choose", "choose"])
    names = {"edit": "Edit", "anew": "Answer anew", "choose": "Previous"}
    if what == "say":
        page.get_by_label("Message").fill(f"Question {step}", timeout=PATIENCE)
        page.get_by_role("button", name="Send").click(timeout=PATIENCE)
        return
    buttons = page.locator("article button:enabled").and_(page.get_by_role("button", name=names[what]))
    if (count := buttons.count()) > 0:
        buttons.nth(chance.randrange(count)).click(timeout=PATIENCE)
        if what == "edit":
            page.get_by_label("Edited message").last.fill(f"Edited {step}", timeout=PATIENCE)
            page.get_by_role("button", name="Ask this instead").last.click(timeout=PATIENCE)


def test_two_devices_stay_equal(chat: Chat, chat_home: ChatHome, other: Page) -> None:
    """Whatever each of them does, and however often the way is lost."""
    chance = random.Random(7)
    chat.home.answers = [Answer(tokens([f"Answer {n}."])) for n in range(200)]
    chat.ask("Begin")
    chat.expect_outcome("done")
    other.get_by_role("link", name="Begin").click()
    pages = [chat.page, other]
    for step in range(40):
        if chance.random() < 0.2:
            chat_home.break_streams()
        # What the other one does may take from under the hand what is reached for just then.
        with suppress(PlaywrightTimeoutError):
            act(chance.choice(pages), chance, step)
    conversation = chat.page.url.rpartition("/")[2]
    for page in pages:
        expect(page.locator("article[data-outcome=streaming]")).to_have_count(0)
        for cancel in page.get_by_role("button", name="Cancel").all():
            cancel.click()

    def equal() -> bool:
        truth = path_at_home(chat_home, conversation)
        return [path_of(page) for page in pages] == [truth, truth]

    wait_for(equal, within=30, what="both to show what is at home")
    assert len(chat_home.get("GET", f"/conversations/{conversation}")["messages"]) > 20


def path_at_home(home: ChatHome, conversation: str) -> list[str]:
    whole = home.get("GET", f"/conversations/{conversation}")
    by_id = {message["id"]: message for message in whole["messages"]}
    path: list[str] = []
    at = whole["conversation"]["leaf"]
    while at is not None:
        path.insert(0, by_id[at]["content"])
        at = by_id[at]["parent"]
    return path


@pytest.fixture
def pulling(server: Server) -> None:
    server.home.script.ollama = True


def line(**members: object) -> bytes:
    return json.dumps(members).encode() + b"\n"


@pytest.mark.usefixtures("pulling")
class TestModels:
    """With an engine that fetches models, and a home that allows it."""

    def test_a_model_is_fetched_with_its_progress(self, chat: Chat) -> None:
        pull = Answer(
            [line(status="pulling abc", completed=40_000_000, total=100_000_000), line(status="success")],
            hold_after=1,
        )
        chat.home.script.pulls = [pull]
        chat.page.get_by_role("button", name="Models").click()
        chat.page.get_by_label("Fetch a model").fill("tiny:1b")
        chat.page.get_by_role("button", name="Fetch", exact=True).click()
        expect(chat.page.get_by_text("pulling abc (40 of 100 MB)")).to_be_visible()
        # It goes on whoever watches.
        chat.page.get_by_role("button", name="Close").click()
        expect(chat.page.get_by_role("button", name="Models")).to_be_focused()
        chat.page.get_by_role("button", name="Models").click()
        expect(chat.page.get_by_text("pulling abc (40 of 100 MB)")).to_be_visible()
        chat.home.models = [*chat.home.models, "tiny:1b"]
        pull.go.set()
        expect(chat.page.get_by_role("list", name="Models of").get_by_text("tiny:1b")).to_be_visible()
        chat.page.get_by_role("button", name="Close").click()
        chat.page.get_by_label("Model", exact=True).select_option("tiny:1b")

    def test_fetching_is_stopped(self, chat: Chat) -> None:
        pull = Answer([line(status="pulling abc", completed=1, total=9), line(status="success")], hold_after=1)
        chat.home.script.pulls = [pull]
        chat.page.get_by_role("button", name="Models").click()
        chat.page.get_by_label("Fetch a model").fill("tiny:1b")
        chat.page.get_by_label("Fetch a model").press("Enter")
        chat.page.get_by_role("button", name="Stop fetching tiny:1b").click()
        expect(chat.page.get_by_text("Stopped. What is there already is kept")).to_be_visible()
        assert pull.left.wait(WAIT)

    def test_a_model_is_deleted_after_a_question(self, chat: Chat) -> None:
        chat.page.get_by_role("button", name="Models").click()
        chat.page.get_by_role("button", name="Delete qwen3:8b").click()
        dialog = chat.page.get_by_role("dialog", name="Delete qwen3:8b?")
        dialog.get_by_role("button", name="Delete", exact=True).click()
        expect(chat.page.get_by_text("qwen3:8b was deleted.")).to_be_focused()
        assert chat.home.models == ["llama3.2:3b"]


def test_a_home_that_does_not_allow_it_says_so(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Models").click()
    expect(chat.page.get_by_role("button", name="Delete llama3.2:3b")).to_have_count(0)
    chat.page.get_by_label("Fetch a model").fill("tiny:1b")
    chat.page.get_by_role("button", name="Fetch", exact=True).click()
    expect(chat.page.get_by_role("alert")).to_contain_text("The bridge does not serve this route")
