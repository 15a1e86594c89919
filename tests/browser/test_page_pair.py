"""Connecting a machine: who asks is shown, nothing happens without a click, and every end is explained."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from tests.browser.home import Server
from tests.browser.home_accounts import CODE, Reply, pairing_request, refusal

pytestmark = pytest.mark.browser

REQUEST = "rq_loopback-1"
REQUESTS = "/api/bridge/pairing/requests/"
QUESTION = "Connect this machine to your account?"


@pytest.fixture
def server(server: Server) -> Server:
    server.home.signed_in = True
    server.home.accounts.pairing = {CODE: pairing_request(), REQUEST: pairing_request("loopback")}
    return server


@pytest.fixture
def program() -> Iterator[Server]:
    """Stands for the program on this computer that waits for the answer."""
    served = Server()
    yield served
    served.close()


def decisions(server: Server) -> list[str]:
    return [path.removeprefix(REQUESTS) for path, _ in server.home.accounts.calls("POST")]


def test_a_typed_code_shows_who_asks_and_a_click_approves(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair")
    page.get_by_label("Code").fill(" bcdf ghjk ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=QUESTION)).to_be_focused()
    for fact in ["attic tower", "203.0.113.7", "0.9.1", "2026", CODE]:
        expect(page.get_by_role("main")).to_contain_text(fact)
    expect(page.get_by_text("Approve only what you began yourself")).to_be_visible()
    expect(page.get_by_text("An approved machine is one of yours")).to_be_visible()
    assert decisions(server) == []
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Approved")).to_be_focused()
    assert decisions(server) == [f"{CODE}/approve"]
    page.get_by_role("link", name="See your machines").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()


def test_following_a_link_alone_approves_nothing(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair?code={CODE}")
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    # Enter, as somebody presses it who expects the next step, decides nothing either.
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    page.reload()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    assert decisions(server) == []
    assert CODE in server.home.accounts.pairing


def test_a_request_is_denied(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair?code={CODE}")
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="Denied")).to_be_visible()
    assert decisions(server) == [f"{CODE}/deny"]


def test_a_program_on_this_computer_gets_its_answer(page: Page, server: Server, program: Server) -> None:
    back = f"{program.url}/callback?code=abc&state=xyz"
    server.home.accounts.redirect_to = back
    page.goto(f"{server.url}/pair?request={REQUEST}")
    expect(page.get_by_text("A program on this computer opened this page.")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    expect(page).to_have_url(back)
    assert decisions(server) == [f"{REQUEST}/approve"]
    (fields,) = [fields for _, path, fields in program.home.requests if path.startswith("/callback")]
    assert "referer" not in fields


def test_a_program_on_this_computer_hears_of_a_denial(page: Page, server: Server, program: Server) -> None:
    back = f"{program.url}/callback?error=access_denied&state=xyz"
    server.home.accounts.redirect_to = back
    page.goto(f"{server.url}/pair?request={REQUEST}")
    page.get_by_role("button", name="Deny").click()
    expect(page).to_have_url(back)


@pytest.mark.parametrize(
    "target", ["http://example.com/callback?code=abc", "https://127.0.0.1/?code=abc", "javascript:document.title='x'"]
)
def test_the_answer_goes_nowhere_but_to_this_computer(page: Page, server: Server, target: str) -> None:
    server.home.accounts.redirect_to = target
    page.goto(f"{server.url}/pair?request={REQUEST}")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text("an address that is not on this computer")
    assert page.url == f"{server.url}/pair?request={REQUEST}"


def test_who_is_signed_out_signs_in_first_and_comes_back(page: Page, server: Server) -> None:
    server.home.signed_in = False
    server.home.accounts.providers = [{"id": "oidc", "name": "Example ID"}]
    server.home.accounts.sign_in = "oidc"
    page.goto(f"{server.url}/pair?request={REQUEST}")
    expect(page.get_by_role("heading", name="Sign in to connect a machine")).to_be_visible()
    assert server.home.accounts.asked == []
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()


def test_a_session_that_ends_meanwhile_comes_back_to_the_code(page: Page, server: Server) -> None:
    server.home.accounts.providers = [{"id": "oidc", "name": "Example ID"}]
    page.goto(f"{server.url}/pair")
    page.get_by_label("Code").fill(CODE)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    server.home.signed_in = False
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()


def test_what_is_no_code_is_not_asked_for(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair?code=../../x")
    field = page.get_by_label("Code")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("eight letters")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert server.home.accounts.asked == []


def test_an_unknown_code_is_explained_and_the_next_one_taken(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair?code=ZZZZ-ZZZZ")
    expect(page.get_by_role("alert")).to_contain_text("mistyped, used already, or is older than five minutes")
    page.get_by_label("Code").fill(CODE)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()


def test_an_unknown_request_is_explained(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair?request=nothing")
    expect(page.get_by_role("heading", name="Nothing asks to be connected here")).to_be_visible()
    expect(page.get_by_label("Code")).to_have_count(0)


@pytest.mark.parametrize("button", ["Approve", "Deny"])
def test_a_request_that_expires_meanwhile_is_explained(page: Page, server: Server, button: str) -> None:
    page.goto(f"{server.url}/pair?code={CODE}")
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    server.home.accounts.pairing.clear()
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("heading", name="This request is over")).to_be_visible()


def test_too_many_attempts_have_to_wait(page: Page, server: Server) -> None:
    limited = refusal("rate-limited", 429, "Wait a little.", retry_after=2)
    server.home.accounts.scripted = {("GET", REQUESTS + CODE): [limited]}
    page.goto(f"{server.url}/pair?code={CODE}")
    expect(page.get_by_role("heading", name="Too many attempts")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("Try again in 2 seconds.")
    expect(page.get_by_role("button", name="Continue")).to_be_disabled()
    page.get_by_label("Code").press("Enter")
    assert len(server.home.accounts.asked) == 1
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (refusal("rate-limited", 429, "Wait.", retry_after=120), "Try again in 2 minutes."),
        (refusal("bad-request", 400, "You have as many machines as one may have."), "as many machines"),
        (refusal("internal", 500, "Something broke."), "Something broke."),
    ],
)
def test_a_decision_that_is_not_taken_is_explained(page: Page, server: Server, reply: Reply, text: str) -> None:
    server.home.accounts.scripted = {("POST", f"{REQUESTS}{CODE}/approve"): [reply]}
    page.goto(f"{server.url}/pair?code={CODE}")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text(text)
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    approve = page.get_by_role("button", name="Approve")
    if "minutes" in text:
        expect(approve).to_be_disabled()
        return
    approve.click()
    expect(page.get_by_role("heading", name="Approved")).to_be_visible()


def test_a_double_click_decides_once(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/pair?code={CODE}")
    page.get_by_role("button", name="Approve").dblclick()
    expect(page.get_by_role("heading", name="Approved")).to_be_visible()
    assert decisions(server) == [f"{CODE}/approve"]


def test_what_a_machine_calls_itself_is_only_text(page: Page, server: Server) -> None:
    name = "<img src=x onerror=alert(1)>" + "w" * 60
    server.home.accounts.pairing = {CODE: pairing_request(name=name)}
    page.set_viewport_size({"width": 320, "height": 700})
    page.goto(f"{server.url}/pair?code={CODE}")
    expect(page.get_by_text(name)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
