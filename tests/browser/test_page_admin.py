"""The overview for admins, and nobody else."""

import pytest
from playwright.sync_api import Page, expect
from tests.browser.home import Server
from tests.browser.home_accounts import AT, refusal

pytestmark = pytest.mark.browser

USER = "u_guq5pi4vzry6glg2sssi"


@pytest.fixture
def admin(page: Page, server: Server) -> Page:
    server.home.signed_in = True
    server.home.accounts.admin = True
    server.home.accounts.events = [
        {"time": AT, "event": "session.refused", "outcome": "failure", "user": USER, "reason": "not on the list"},
        {"time": AT, "event": "bridge.paired", "outcome": "success", "user": None, "reason": None, "extra": 1},
    ]
    page.goto(f"{server.url}/settings")
    page.get_by_role("link", name="Overview of this server").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_focused()
    return page


def test_the_server_and_its_events(admin: Page, server: Server) -> None:
    figures = admin.get_by_role("region", name="This server")
    for text in ["Machines connected12", "Streaming proxies3", "Active users7", "Example ID", "on the list", "0.1.0"]:
        expect(figures).to_contain_text(text)
    rows = admin.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("session.refused")
    expect(rows.nth(1)).to_contain_text("failure: not on the list")
    expect(rows.nth(2)).to_contain_text("bridge.paired")
    server.home.accounts.events = []
    admin.get_by_role("button", name="Look again").click()
    expect(admin.get_by_text("There are none yet.")).to_be_visible()
    assert ("GET", "/api/admin/audit", None) in server.home.accounts.asked
    assert any(path == "/api/admin/audit?limit=100" for _, path, _ in server.home.requests)


@pytest.mark.parametrize(
    ("action", "path", "done"),
    [
        ("Sign out everywhere", "sign-out", "was signed out everywhere."),
        ("Block", "block", "is blocked."),
        ("Unblock", "unblock", "is not blocked any more."),
    ],
)
def test_a_user_of_the_events_is_acted_on_after_a_question(
    admin: Page, server: Server, action: str, path: str, done: str
) -> None:
    admin.get_by_role("button", name=f"Choose {USER}").click()
    expect(admin.get_by_label("Pseudonym")).to_be_focused()
    expect(admin.get_by_label("Pseudonym")).to_have_value(USER)
    admin.get_by_role("button", name=action, exact=True).click()
    dialog = admin.get_by_role("dialog")
    expect(dialog).to_contain_text(USER)
    assert server.home.accounts.calls("POST") == []
    dialog.get_by_role("button", name=action).click()
    expect(admin.get_by_text(f"{USER} {done}")).to_be_visible()
    assert server.home.accounts.calls("POST") == [(f"/api/admin/users/{USER}/{path}", {})]


def test_what_is_no_pseudonym_is_not_sent(admin: Page, server: Server) -> None:
    admin.get_by_label("Pseudonym").fill("ada@example.com")
    admin.get_by_role("button", name="Block", exact=True).click()
    expect(admin.get_by_role("alert")).to_contain_text("Write a pseudonym")
    expect(admin.get_by_label("Pseudonym")).to_be_focused()
    assert server.home.accounts.calls("POST") == []


def test_refusals_are_told_where_they_happen(admin: Page, server: Server) -> None:
    server.home.accounts.scripted = {
        ("POST", f"/api/admin/users/{USER}/block"): [refusal("not-found", 404, "Nobody is called so.")],
        ("GET", "/api/admin/audit"): [refusal("internal", 500, "The log cannot be read.")],
    }
    admin.get_by_role("button", name=f"Choose {USER}").click()
    admin.get_by_role("button", name="Block", exact=True).click()
    admin.get_by_role("dialog").get_by_role("button", name="Block").click()
    expect(admin.get_by_role("dialog").get_by_role("alert")).to_contain_text("Nobody is called so.")
    admin.get_by_role("button", name="Cancel").click()
    admin.get_by_role("button", name="Look again").click()
    expect(admin.get_by_role("region", name="Security events").get_by_role("alert")).to_contain_text(
        "The log cannot be read."
    )


def test_who_is_no_admin_sees_and_asks_nothing(page: Page, server: Server) -> None:
    server.home.signed_in = True
    page.goto(f"{server.url}/admin")
    expect(page.get_by_role("heading", name="This page is for admins")).to_be_visible()
    assert server.home.accounts.asked == []
