"""Signing in by a link, and out."""

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Chat
from tests.browser.home import TOKEN, Answer, Server, tokens

pytestmark = pytest.mark.browser


def test_a_link_signs_in_and_leaves_no_token_behind(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/sign-in#token={TOKEN}")
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert page.url == f"{server.url}/"
    assert TOKEN not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    ((_, _, fields),) = [request for request in server.home.requests if request[1] == "/api/auth/sign-in"]
    assert fields["c2l-request"] == "1"
    assert TOKEN not in fields.get("referer", "")
    assert not any(TOKEN in path for _, path, _ in server.home.requests)
    expect(page.get_by_label("Message")).to_be_focused()
    # Neither does the browser's history hold it.
    page.goto("about:blank")
    page.go_back()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert page.url == f"{server.url}/"


def test_without_a_session_the_page_says_how_to_get_one(page: Page, server: Server) -> None:
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()
    expect(page.get_by_text("cloudtolocalllm sign-in-link")).to_be_visible()
    server.home.signed_in = True
    page.get_by_role("button", name="look again").click()
    expect(page.get_by_test_id("status")).to_have_text("Ready")


def test_a_used_link_is_explained(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/sign-in#token=used")
    expect(page.get_by_role("heading", name="This sign-in link does not work any more")).to_be_visible()
    assert page.url == f"{server.url}/"


def test_a_used_link_does_not_disturb_who_is_signed_in(page: Page, server: Server) -> None:
    server.home.signed_in = True
    page.goto(f"{server.url}/sign-in#token=used")
    expect(page.get_by_test_id("status")).to_have_text("Ready")


def test_signing_out_removes_the_chat_from_the_browser(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["A secret answer"]))]
    chat.ask("A secret question")
    chat.expect_outcome("done")
    assert "secret" in chat.page.evaluate("JSON.stringify({...localStorage})")
    chat.page.get_by_role("button", name="Sign out").click()
    expect(chat.page.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()
    assert "secret" not in chat.page.evaluate("JSON.stringify({...localStorage})")
    assert not chat.home.signed_in


def test_a_session_that_ends_elsewhere_ends_the_page(chat: Chat) -> None:
    chat.home.signed_in = False
    chat.home.events(up=True)
    expect(chat.page.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()


def test_another_users_chat_is_not_shown(page: Page, server: Server) -> None:
    server.home.signed_in = True
    page.goto(server.url)
    page.evaluate(
        """localStorage.setItem("c2l.conversation.v1", JSON.stringify(
            {user: "somebody", messages: [{id: "1", role: "user", text: "their words"}]}))"""
    )
    page.reload()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    expect(page.get_by_text("their words")).to_have_count(0)
    assert page.evaluate('localStorage.getItem("c2l.conversation.v1")') is None
