"""Signing in at a provider: there, back to where one was, and what is said when it fails."""

import pytest
from playwright.sync_api import Page, expect
from tests.browser.home import TOKEN, Server
from tests.browser.home_accounts import CODE, Reply, pairing_request

pytestmark = pytest.mark.browser

PROVIDERS = [{"id": "oidc", "name": "Example ID"}]


@pytest.fixture
def server(server: Server) -> Server:
    server.home.accounts.providers = PROVIDERS
    server.home.accounts.sign_in = "oidc"
    return server


def starts(server: Server) -> list[str]:
    return [path for _, path, _ in server.home.requests if path.startswith("/api/auth/oidc/start")]


def test_the_provider_is_offered_by_its_name(page: Page, server: Server) -> None:
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()
    # Nobody but the server's owner could make a link.
    expect(page.get_by_text("cloudtolocalllm sign-in-link")).to_have_count(0)
    assert starts(server) == []
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert starts(server) == ["/api/auth/oidc/start?return_to=%2F"]


def test_link_and_providers_may_be_had_both(page: Page, server: Server) -> None:
    server.home.accounts.sign_in = "link"
    server.home.accounts.providers = [*PROVIDERS, {"id": "work", "name": "Work"}]
    page.goto(server.url)
    expect(page.get_by_role("button", name="Sign in with Example ID")).to_be_visible()
    expect(page.get_by_role("button", name="Sign in with Work")).to_be_visible()
    expect(page.get_by_text("cloudtolocalllm sign-in-link")).to_be_visible()


@pytest.mark.parametrize(
    ("path", "heading"),
    [("/settings", "Settings"), (f"/pair?code={CODE}", "Connect this machine to your account?")],
)
def test_one_comes_back_to_where_one_was(page: Page, server: Server, path: str, heading: str) -> None:
    server.home.accounts.pairing = {CODE: pairing_request()}
    page.goto(server.url + path)
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    assert page.url == server.url + path


def test_the_sign_in_page_itself_knows_where_to_go_back(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/sign-in?return_to=/settings")
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    assert page.url == f"{server.url}/settings"


def test_a_link_too_goes_on_to_where_one_wanted(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/sign-in?return_to=/settings#token={TOKEN}")
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    assert page.url == f"{server.url}/settings"
    page.goto("about:blank")
    page.go_back()
    assert TOKEN not in page.url


@pytest.mark.parametrize("target", ["//example.com/", "https://example.com/", "/%5Cexample.com", "/api/auth/session"])
def test_nobody_is_led_elsewhere(page: Page, server: Server, target: str) -> None:
    page.goto(f"{server.url}/sign-in?return_to={target}")
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert page.url == f"{server.url}/"
    assert starts(server) == ["/api/auth/oidc/start?return_to=%2F"]
    # And who is signed in already is not led there either.
    page.goto(f"{server.url}/sign-in?return_to={target}")
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert page.url == f"{server.url}/"


@pytest.mark.parametrize(
    ("code", "heading"),
    [
        ("provider-unavailable", "The sign-in service does not answer"),
        ("not-allowed", "This account may not sign in here"),
        ("expired", "That took too long"),
        ("refused", "The sign-in was cancelled"),
        ("rate-limited", "Too many sign-ins in too short a time"),
        ("failed", "Signing in failed"),
        ("Call+0900+to+unlock", "Signing in failed"),
    ],
)
def test_a_failure_is_explained_and_can_be_tried_again(page: Page, server: Server, code: str, heading: str) -> None:
    page.goto(f"{server.url}/sign-in?error={code}&return_to=/settings")
    expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert "0900" not in page.inner_text("body")
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()


def test_a_provider_that_fails_leads_back_with_the_reason(page: Page, server: Server) -> None:
    server.home.accounts.provider_error = "not-allowed"
    page.goto(f"{server.url}/settings")
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name="This account may not sign in here")).to_be_visible()
    server.home.accounts.provider_error = None
    page.get_by_role("button", name="Sign in with Example ID").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()


def test_a_failed_attempt_does_not_disturb_who_is_signed_in(page: Page, server: Server) -> None:
    server.home.signed_in = True
    page.goto(f"{server.url}/sign-in?error=not-allowed&return_to=/settings")
    expect(page.get_by_role("heading", name="This account may not sign in here")).to_be_visible()
    expect(page.get_by_text("still signed in as before")).to_be_visible()
    page.get_by_role("link", name="Go on").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()


@pytest.mark.parametrize("signed_in", [True, False])
def test_nothing_is_shown_before_it_is_known_who_is_there(page: Page, server: Server, signed_in: bool) -> None:
    server.home.signed_in = signed_in
    server.home.session_may_be_told.clear()
    page.add_init_script(
        """window.seen = [];
        new MutationObserver(() => {
            for (const e of document.querySelectorAll("h1, textarea")) {
                const text = e.textContent || e.id;
                if (e.checkVisibility({visibilityProperty: true}) && window.seen.at(-1) !== text) seen.push(text);
            }
        }).observe(document, {childList: true, subtree: true, attributes: true});"""
    )
    page.goto(f"{server.url}/settings", wait_until="commit")
    # Only after a while it is said that something is waited for.
    expect(page.get_by_role("heading", name="One moment")).to_be_visible()
    assert page.evaluate("seen") == []
    server.home.session_may_be_told.set()
    final = "Settings" if signed_in else "Sign in to see your settings"
    expect(page.get_by_role("heading", name=final)).to_be_visible()
    assert page.evaluate("seen.filter(text => text !== 'One moment')") == [final]


def test_signing_out_ends_the_providers_session_too(page: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.accounts.signed_out = Reply({"redirect_to": f"{server.url}/settings?from=provider"})
    page.goto(server.url)
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{server.url}/settings?from=provider")
    expect(page.get_by_role("heading", name="Sign in to see your settings")).to_be_visible()


@pytest.mark.parametrize("target", ["javascript:document.title='x'", "http://example.com/", "data:text/html,x"])
def test_signing_out_leads_to_no_bad_address(page: Page, server: Server, target: str) -> None:
    server.home.signed_in = True
    server.home.accounts.signed_out = Reply({"redirect_to": target})
    page.goto(f"{server.url}/settings")
    page.get_by_role("button", name="Sign out here").click()
    expect(page.get_by_role("button", name="Sign in with Example ID")).to_be_visible()
    assert page.url == f"{server.url}/"


def test_there_is_no_such_page(page: Page, server: Server) -> None:
    server.home.signed_in = True
    page.goto(f"{server.url}/nowhere")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    page.get_by_role("link", name="To the chat").click()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
