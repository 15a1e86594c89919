"""Signing in by a link, and out."""

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Chat
from tests.browser.home import TOKEN, Answer, Server, tokens

SEEN = """async () => {
    const database = await new Promise((resolve) => {
        const request = indexedDB.open("c2l-chats");
        request.onsuccess = () => resolve(request.result);
    });
    const all = await new Promise((resolve) => {
        const request = database.transaction("seen").objectStore("seen").getAll();
        request.onsuccess = () => resolve(request.result);
    });
    database.close();
    return JSON.stringify(all);
}"""
"""What the browser keeps of conversations."""

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


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("fault", ["no contact", "too busy"])
def test_a_server_that_does_not_answer_is_asked_again(page: Page, server: Server, fault: str, link: bool) -> None:
    """A network that changes, too, makes a browser give up a request; a link that was opened then is not lost."""
    server.home.signed_in = not link
    if fault == "no contact":
        page.route("**/api/auth/*", lambda route: route.abort("connectionreset"), times=2)
    else:
        server.home.too_busy = 2
    page.goto(f"{server.url}/sign-in#token={TOKEN}" if link else server.url)
    expect(page.get_by_role("heading", name="The server does not answer")).to_be_visible()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert page.url == f"{server.url}/"


def test_a_server_that_does_not_answer_is_asked_at_once_on_demand(page: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.too_busy = 1
    page.clock.install(time=0)
    page.clock.pause_at(1_000)  # nothing that waits for a time goes on by itself
    page.goto(server.url)
    again = page.get_by_role("button", name="Try now")
    expect(again).to_be_visible()
    again.click()
    expect(again).not_to_be_visible()
    page.clock.resume()
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
    chat.page.wait_for_function(f"async () => (await ({SEEN})()).includes('A secret answer')")
    chat.page.get_by_role("button", name="Sign out").click()
    expect(chat.page.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()
    chat.page.wait_for_function(f"async () => !(await ({SEEN})()).includes('secret')")
    assert "#" not in chat.page.url
    assert "llama3.2" not in chat.page.evaluate("JSON.stringify({...localStorage})")
    assert not chat.home.signed_in


def test_a_session_that_ends_elsewhere_ends_the_page(chat: Chat) -> None:
    chat.home.signed_in = False
    chat.home.events(up=True)
    expect(chat.page.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()


def test_another_users_chat_is_not_shown(chat: Chat) -> None:
    page = chat.page
    chat.home.answers = [Answer(tokens(["Their words"]))]
    chat.ask("Hello")
    chat.expect_outcome("done")
    page.wait_for_function(f"async () => (await ({SEEN})()).includes('Their words')")
    # Somebody else is signed in, without the other one having signed out.
    chat.home.accounts.user = "u_other"
    chat.home.reachable(now=False)
    page.goto(chat.url)
    page.reload()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    page.wait_for_function(f"async () => !(await ({SEEN})()).includes('Their words')")
    expect(page.get_by_role("link", name="Hello")).to_have_count(0)


FORMER = """(user) => localStorage.setItem("c2l.conversation.v1", JSON.stringify({user, messages: [
    {id: "0123456789abcdef", role: "user", text: "Asked before"},
    {id: "fedcba9876543210", role: "assistant", text: "Answered before", thought: "", model: "old", outcome: "done",
     problem: null, figures: null}]}))"""


def test_what_an_earlier_version_kept_goes_to_the_home(chat: Chat) -> None:
    chat.page.evaluate(FORMER, "u_owner")
    chat.page.reload()
    chat.page.get_by_role("link", name="Asked before").click()
    expect(chat.page.locator(".markdown")).to_have_text("Answered before")
    chat.page.wait_for_function("() => localStorage.getItem('c2l.conversation.v1') === null")
    chat.page.evaluate(FORMER, "u_other")
    chat.page.reload()
    chat.page.wait_for_function("() => localStorage.getItem('c2l.conversation.v1') === null")
    expect(chat.page.get_by_role("link", name="Asked before")).to_have_count(1)
