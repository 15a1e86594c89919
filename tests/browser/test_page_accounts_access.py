"""The pages for accounts are usable by everybody: axe-core finds nothing, nothing overflows, keys suffice."""

from typing import Literal

import pytest
from playwright.sync_api import Page, expect
from tests.browser.axe import check
from tests.browser.home import Server, engine, status
from tests.browser.home_accounts import AT, CODE, api_key, pairing_request, refusal

pytestmark = pytest.mark.browser

LONG = "a-machine-whose-name-has-no-place-to-break-and-goes-on-" * 2


@pytest.fixture(params=[(320, "light"), (320, "dark"), (1280, "light"), (1280, "dark")], ids=str)
def shown(request: pytest.FixtureRequest, page: Page) -> Page:
    width: int
    scheme: Literal["light", "dark"]
    width, scheme = request.param
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(color_scheme=scheme)
    return page


def test_signing_in(shown: Page, server: Server) -> None:
    server.home.accounts.providers = [{"id": "oidc", "name": LONG}]
    shown.goto(f"{server.url}/sign-in?error=provider-unavailable")
    expect(shown.get_by_role("heading", name="The sign-in service does not answer")).to_be_visible()
    check(shown)
    server.home.signed_in = True
    shown.reload()
    expect(shown.get_by_role("link", name="Go on")).to_be_visible()
    check(shown)


def test_pairing(shown: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.accounts.pairing = {CODE: pairing_request(name=LONG)}
    server.home.accounts.redirect_to = "http://example.com/"
    shown.goto(f"{server.url}/pair")
    expect(shown.get_by_label("Code")).to_be_visible()
    check(shown)
    shown.get_by_label("Code").fill("ZZZZ")
    shown.get_by_role("button", name="Continue").click()
    check(shown)
    shown.get_by_label("Code").fill("ZZZZ-ZZZZ")
    shown.get_by_role("button", name="Continue").click()
    expect(shown.get_by_role("heading", name="Nothing asks")).to_be_visible()
    check(shown)
    limited = refusal("rate-limited", 429, "Wait.", retry_after=100)
    server.home.accounts.scripted = {("POST", f"/api/bridge/pairing/requests/{CODE}/deny"): [limited]}
    shown.get_by_label("Code").fill(CODE)
    shown.get_by_role("button", name="Continue").click()
    shown.get_by_role("button", name="Deny").click()
    expect(shown.get_by_role("alert")).to_be_visible()
    check(shown)
    shown.reload()
    shown.get_by_role("button", name="Approve").click()
    expect(shown.get_by_role("heading", name="Approved")).to_be_visible()
    check(shown)


def test_the_settings(shown: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.accounts.admin = True
    document = status("ready", engine(), engine("openai", "down"))
    document["bridges"].append(
        {**document["bridges"][0], "id": "b2", "name": LONG, "connected": False, "engines": []}
    )
    server.home.show(document)
    server.home.accounts.keys = [api_key("ci", LONG, models=["m" * 120], expires=10), api_key("b", "B")]
    server.home.sealed.pair(shown, server.url)
    shown.goto(f"{server.url}/settings")
    expect(shown.get_by_role("button", name="Revoke B")).to_be_visible()
    shown.get_by_text("Add a machine").click()
    shown.get_by_role("button", name="Rename tower").click()
    shown.get_by_role("button", name="Make a key").click()
    shown.get_by_text("Limit what it may do").click()
    shown.get_by_label("Tokens a day").fill("x")
    shown.get_by_role("button", name="Make the key").click()
    expect(shown.get_by_label("Name", exact=True)).to_be_focused()
    check(shown)
    shown.get_by_label("Tokens a day").fill("")
    shown.get_by_label("Name", exact=True).fill("New")
    shown.get_by_role("button", name="Make the key").click()
    expect(shown.get_by_test_id("new-key")).to_be_visible()
    check(shown)
    shown.get_by_role("button", name="Revoke B").click()
    expect(shown.get_by_role("dialog")).to_be_visible()
    check(shown)


def test_the_settings_without_the_home(shown: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.show(status("no-bridge"))
    shown.goto(f"{server.url}/settings")
    expect(shown.get_by_text("The list cannot be read now")).to_be_visible()
    check(shown)


def test_the_overview(shown: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.accounts.admin = True
    event = {"time": AT, "event": "session.refused", "outcome": "failure", "user": "u_guq5pi4vzry6glg2sssi"}
    server.home.accounts.events = [{**event, "reason": "the account is not on the list of this server"}] * 40
    shown.goto(f"{server.url}/admin")
    expect(shown.get_by_role("row")).to_have_count(41)
    shown.get_by_role("button", name="Block", exact=True).click()
    check(shown)
    shown.get_by_role("button", name="Choose").first.click()
    shown.get_by_role("button", name="Block", exact=True).click()
    expect(shown.get_by_role("dialog")).to_be_visible()
    check(shown)


def test_pairing_needs_only_a_keyboard(page: Page, server: Server) -> None:
    server.home.signed_in = True
    server.home.accounts.pairing = {CODE: pairing_request()}
    page.goto(f"{server.url}/pair")
    expect(page.get_by_label("Code")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.type(CODE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Connect this machine")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Approve")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Approved")).to_be_visible()
