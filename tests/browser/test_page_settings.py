"""The settings: machines, API keys, the account."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.browser.axe import check
from tests.browser.conftest import Chat
from tests.browser.home import Answer, Server, engine, status, tokens
from tests.browser.home_accounts import KEY, Reply, api_key, refusal

pytestmark = pytest.mark.browser


@pytest.fixture
def settings(page: Page, server: Server) -> Page:
    server.home.signed_in = True
    page.goto(f"{server.url}/settings")
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    expect(page.get_by_text("Asking your machines for the list…")).to_have_count(0)
    return page


@pytest.fixture
def paired(page: Page, server: Server) -> Page:
    """A page whose browser is paired with the home, which has the list of keys."""
    server.home.signed_in = True
    server.home.sealed.pair(page, server.url)
    return page


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name)


def two_machines() -> dict[str, Any]:
    document = status("ready", engine(), engine("openai", "down"))
    away = {
        **document["bridges"][0],
        "id": "b2",
        "name": "laptop",
        "connected": False,
        "version": None,
        "engines": [],
    }
    document["bridges"].append(away)
    return document


# machines


def test_machines_are_listed_as_they_are_just_now(settings: Page, server: Server) -> None:
    devices = section(settings, "Machines")
    expect(devices.get_by_role("heading", name="tower")).to_be_visible()
    server.home.show(two_machines())
    tower = devices.get_by_role("listitem").filter(has_text="tower")
    laptop = devices.get_by_role("listitem").filter(has_text="laptop")
    for text in ["Connected", "Version 0.1.0", "Ollama answers", "engine does not answer"]:
        expect(tower).to_contain_text(text)
    expect(laptop).to_contain_text("days ago")
    expect(laptop).to_contain_text("Version unknown")
    server.home.show(status("no-bridge"))
    expect(devices).to_contain_text("No machine is connected to this account yet.")
    server.home.events(up=False)
    expect(devices).to_contain_text("this is the last known state")


def test_a_machine_is_renamed(settings: Page, server: Server) -> None:
    settings.get_by_role("button", name="Rename tower").click()
    field = settings.get_by_label("New name")
    expect(field).to_be_focused()
    field.fill("  ")
    settings.keyboard.press("Enter")
    expect(field).to_be_focused()
    field.fill("attic")
    settings.keyboard.press("Enter")
    expect(section(settings, "Machines").get_by_role("heading", name="attic")).to_be_visible()
    expect(settings.get_by_role("button", name="Rename attic")).to_be_focused()
    assert server.home.accounts.calls("PATCH") == [("/api/bridge/b1", {"name": "attic"})]


def test_a_refused_name_is_told_and_may_be_given_up(settings: Page, server: Server) -> None:
    server.home.accounts.scripted = {("PATCH", "/api/bridge/b1"): [refusal("bad-request", 400, "Too long a name.")]}
    settings.get_by_role("button", name="Rename tower").click()
    settings.get_by_label("New name").fill("attic")
    settings.get_by_role("button", name="Save").click()
    expect(settings.get_by_role("alert")).to_contain_text("Too long a name.")
    settings.get_by_label("New name").press("Escape")
    expect(section(settings, "Machines").get_by_role("heading", name="tower")).to_be_visible()
    expect(settings.get_by_role("button", name="Rename tower")).to_be_focused()


def test_revoking_a_machine_asks_first(settings: Page, server: Server) -> None:
    revoke = settings.get_by_role("button", name="Revoke tower")
    revoke.click()
    dialog = settings.get_by_role("dialog", name="Revoke tower?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    settings.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(revoke).to_be_focused()
    assert server.home.accounts.calls("DELETE") == []
    revoke.click()
    dialog.get_by_role("button", name="Revoke", exact=True).click()
    said = section(settings, "Machines").get_by_text("tower was revoked.")
    expect(said).to_be_focused()
    expect(section(settings, "Machines").get_by_role("heading", name="tower")).to_have_count(0)
    assert server.home.accounts.calls("DELETE") == [("/api/bridge/b1", None)]


def test_a_machine_that_is_gone_already_counts_as_revoked(settings: Page, server: Server) -> None:
    server.home.accounts.scripted = {
        ("DELETE", "/api/bridge/b1"): [refusal("internal", 500, "Not now."), refusal("not-found", 404, "None.")]
    }
    settings.get_by_role("button", name="Revoke tower").click()
    dialog = settings.get_by_role("dialog")
    dialog.get_by_role("button", name="Revoke", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("Not now.")
    dialog.get_by_role("button", name="Revoke", exact=True).click()
    expect(settings.get_by_text("tower was revoked.")).to_be_visible()


def test_adding_a_machine_tells_the_command(settings: Page, server: Server) -> None:
    settings.get_by_text("Add a machine").click()
    command = f"cloudtolocalllm bridge login --server {server.url}"
    expect(settings.get_by_text(command)).to_be_visible()
    settings.get_by_role("button", name="Copy the command", exact=True).click()
    expect(settings.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    assert settings.evaluate("navigator.clipboard.readText()") == command


def test_the_preferred_machine_answers_a_new_chat(paired: Page, server: Server) -> None:
    page, home = paired, server.home
    document = two_machines()
    document["bridges"][1] |= {"connected": True, "version": "0.1.0"}
    home.show(document)
    model = {"name": "small:3b", "engine": "e", "kind": "ollama", "state": "up", "loaded": False, "cloud": False}
    for each in (home.sealed, home.second):
        each.documents["GET", "/c2l/models"] = {"models": [model], "pulls": []}
    home.second.pair(page, server.url)
    machine = page.get_by_label("Machine", exact=True)
    page.goto(server.url)
    expect(machine).to_have_value("b1")
    page.goto(f"{server.url}/settings")
    priority = page.get_by_label("Priority of laptop")
    expect(priority).to_have_value("1")
    priority.focus()
    page.keyboard.press("ArrowUp")
    expect(priority).to_have_value("0")
    expect(priority).to_be_focused()
    expect(page.get_by_label("Priority of tower")).to_have_value("1")
    check(page)
    page.goto(server.url)
    expect(machine).to_have_value("b2")
    page.reload()
    expect(machine).to_have_value("b2")


# keys


def test_a_key_is_made_and_shown_once(paired: Page, server: Server) -> None:
    settings = paired
    settings.goto(f"{server.url}/settings")
    expect(section(settings, "API keys")).to_contain_text("There are no keys yet.")
    settings.get_by_role("button", name="Make a key").click()
    expect(settings.get_by_label("Name", exact=True)).to_be_focused()
    settings.keyboard.type("Laptop")
    settings.keyboard.press("Enter")
    expect(settings.get_by_role("heading", name="Your new key")).to_be_focused()
    expect(settings.get_by_test_id("new-key")).to_have_text(KEY)
    settings.get_by_role("button", name="Copy the key").click()
    expect(settings.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    assert settings.evaluate("navigator.clipboard.readText()") == KEY
    settings.get_by_role("button", name="I have stored it").click()
    expect(settings.get_by_role("button", name="Make a key")).to_be_focused()
    expect(settings.get_by_role("heading", name="Laptop")).to_be_visible()
    assert server.home.accounts.calls("POST") == [("/api/auth/keys", {"name": "Laptop", "days": 90})]
    settings.reload()
    expect(settings.get_by_role("heading", name="Laptop")).to_be_visible()
    assert KEY not in settings.content()
    assert KEY not in settings.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, history.state])")


def test_a_key_with_every_limit(settings: Page, server: Server) -> None:
    settings.get_by_role("button", name="Make a key").click()
    settings.get_by_label("Name", exact=True).fill("CI")
    settings.get_by_label("Lifetime").select_option("7 days")
    settings.get_by_text("Limit what it may do").click()
    settings.get_by_label("Ollama").uncheck()
    settings.get_by_label("Anthropic-compatible").uncheck()
    settings.get_by_label("Sealed, by connect").uncheck()
    settings.get_by_label("Models").fill("qwen*, llama3.2:3b")
    settings.get_by_label("Requests a minute").fill("60")
    settings.get_by_label("Tokens a day").fill("100000")
    settings.get_by_label("Machine", exact=True).select_option("Only tower")
    settings.get_by_role("button", name="Make the key").click()
    expect(settings.get_by_test_id("new-key")).to_be_visible()
    limits = {"models": ["qwen*", "llama3.2:3b"], "requests_per_minute": 60, "tokens_per_day": 100_000}
    assert server.home.accounts.calls("POST") == [
        ("/api/auth/keys", {"name": "CI", "days": 7, "routes": ["/v1/"], **limits, "bridge": "b1"})
    ]
    item = section(settings, "API keys").get_by_role("listitem")
    for text in ["Only OpenAI-compatible", "Models qwen*, llama3.2:3b", "60 requests a minute", "Only tower"]:
        expect(item).to_contain_text(text)


def test_faults_in_the_form_are_told_at_their_fields(settings: Page, server: Server) -> None:
    settings.get_by_role("button", name="Make a key").click()
    settings.get_by_text("Limit what it may do").click()
    settings.get_by_label("Requests a minute").fill("many")
    settings.get_by_text("Limit what it may do").click()
    settings.get_by_role("button", name="Make the key").click()
    name = settings.get_by_label("Name", exact=True)
    expect(name).to_be_focused()
    expect(name).to_have_accessible_description(
        re.compile(r"know it again\. Give it a name of 1 to 100 characters\.$")
    )
    name.fill("CI")
    settings.get_by_role("button", name="Make the key").click()
    # What is wrong is unfolded.
    expect(settings.get_by_label("Requests a minute")).to_be_focused()
    expect(settings.get_by_text("Write a whole number above 0")).to_be_visible()
    assert server.home.accounts.calls("POST") == []
    settings.get_by_role("button", name="Cancel").click()
    expect(settings.get_by_role("button", name="Make a key")).to_be_focused()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (refusal("bad-request", 400, "You have as many keys as one may have."), "as many keys"),
        (refusal("rate-limited", 429, "Wait.", retry_after=30), "Try again in 30 seconds."),
    ],
)
def test_a_key_that_is_refused_is_explained(settings: Page, server: Server, reply: Reply, text: str) -> None:
    server.home.accounts.scripted = {("POST", "/api/auth/keys"): [reply]}
    settings.get_by_role("button", name="Make a key").click()
    settings.get_by_label("Name", exact=True).fill("CI")
    settings.get_by_role("button", name="Make the key").click()
    expect(settings.get_by_role("alert")).to_contain_text(text)
    expect(settings.get_by_label("Name", exact=True)).to_have_value("CI")
    make = settings.get_by_role("button", name="Make the key")
    if "seconds" in text:
        expect(make).to_be_disabled()
    else:
        make.click()
        expect(settings.get_by_test_id("new-key")).to_be_visible()


def test_without_a_paired_machine_the_list_says_so(settings: Page, server: Server) -> None:
    keys = section(settings, "API keys")
    expect(keys).to_contain_text("This browser is paired with none of them")
    expect(keys).to_contain_text("This browser has not seen the list yet.")
    asked = {path for _, path, _ in server.home.requests}
    assert not {path for path in asked if path.startswith(("/c2l/", "/e2e/"))}


def test_the_homes_list_is_shown_and_a_key_revoked(paired: Page, server: Server) -> None:
    page = paired
    server.home.accounts.keys = [
        api_key("old", "Old laptop", expires=10, last_used=1_767_323_045),
        api_key("ci", "CI", models=["qwen*"]),
        api_key("gone", "Gone", revoked=True),
    ]
    page.goto(f"{server.url}/settings")
    keys = section(page, "API keys")
    expect(keys.get_by_role("listitem")).to_have_count(2)
    expect(keys.get_by_role("listitem").filter(has_text="Old laptop")).to_contain_text("Expired on")
    expect(keys.get_by_role("listitem").filter(has_text="Old laptop")).to_contain_text("last used:")
    expect(keys.get_by_role("listitem").filter(has_text="CI")).to_contain_text("last used: never · Models qwen*")
    page.get_by_role("button", name="Revoke CI").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert server.home.accounts.calls("DELETE") == []
    page.get_by_role("button", name="Revoke CI").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(keys.get_by_text("CI was revoked")).to_be_focused()
    expect(keys.get_by_role("listitem")).to_have_count(1)
    assert server.home.accounts.calls("DELETE") == [("/api/auth/keys/ci", None)]
    assert ("GET", "/c2l/keys") in server.home.sealed.asked
    assert not [path for _, path, _ in server.home.requests if path.startswith("/c2l/")], "asked in the clear"


def test_without_the_home_the_list_says_so_and_keys_can_be_revoked(paired: Page, server: Server) -> None:
    page = paired
    server.home.accounts.keys = [api_key("ci", "CI"), api_key("lost", "Lost phone")]
    page.goto(f"{server.url}/settings")
    keys = section(page, "API keys")
    expect(keys.get_by_role("listitem")).to_have_count(2)
    server.home.sealed.offline = True
    page.reload()
    expect(keys).to_contain_text("The list cannot be read now")
    expect(keys).to_contain_text("Wake the machine.")
    expect(keys).to_contain_text("Below is what this browser saw last, on")
    expect(keys.get_by_role("listitem")).to_have_count(2)
    # When a key was last used only the home knows.
    expect(keys).not_to_contain_text("last used")
    page.get_by_role("button", name="Revoke Lost phone").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(keys.get_by_text("Lost phone was revoked")).to_be_visible()
    assert server.home.accounts.calls("DELETE") == [("/api/auth/keys/lost", None)]
    server.home.sealed.offline = False
    keys.get_by_role("button", name="Ask again").click()
    expect(keys.get_by_text("cannot be read now")).to_have_count(0)
    expect(keys.get_by_role("listitem")).to_have_count(1)


def test_a_key_made_without_the_home_can_be_revoked_later(paired: Page, server: Server) -> None:
    page = paired
    server.home.sealed.offline = True
    page.goto(f"{server.url}/settings")
    keys = section(page, "API keys")
    expect(keys).to_contain_text("This browser has not seen the list yet.")
    page.get_by_role("button", name="Make a key").click()
    page.get_by_label("Name", exact=True).fill("Made offline")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_test_id("new-key")).to_be_visible()
    # The home comes back and was told nothing of it.
    server.home.accounts.keys = []
    server.home.sealed.offline = False
    page.reload()
    expect(keys.get_by_role("listitem")).to_contain_text("Your machines that answered do not know it yet")
    page.get_by_role("button", name="Revoke Made offline").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(keys.get_by_role("listitem")).to_have_count(0)
    page.reload()
    expect(keys).to_contain_text("There are no keys yet.")


def test_another_users_keys_are_not_shown(page: Page, server: Server) -> None:
    server.home.signed_in = True
    page.goto(server.url)
    page.evaluate(
        """localStorage.setItem("c2l.keys.v1", JSON.stringify(
            {user: "somebody", heard: 1, keys: [{id: "theirs", name: "Their key", at_home: true}]}))"""
    )
    page.reload()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    assert page.evaluate('localStorage.getItem("c2l.keys.v1")') is None
    page.get_by_role("link", name="Settings").click()
    expect(section(page, "API keys")).to_contain_text("The list cannot be read now")
    expect(page.get_by_text("Their key")).to_have_count(0)


# the account


def test_the_account_and_signing_out(paired: Page, server: Server) -> None:
    settings = paired
    settings.goto(f"{server.url}/settings")
    account = section(settings, "Account")
    for text in ["Ada Example", "ada@example.com", "u_owner", "2096"]:
        expect(account).to_contain_text(text)
    expect(account.get_by_role("link", name="Overview of this server")).to_have_count(0)
    server.home.accounts.keys = [api_key("ci", "CI")]
    settings.reload()
    expect(settings.get_by_role("heading", name="CI")).to_be_visible()
    settings.get_by_role("button", name="Sign out here").click()
    expect(settings.get_by_role("heading", name="Sign in to chat with your models")).to_be_visible()
    assert settings.url == f"{server.url}/"
    assert settings.evaluate("JSON.stringify({...localStorage})") == "{}"


def test_a_sign_out_that_fails_is_told(settings: Page, server: Server) -> None:
    server.home.accounts.signed_out = refusal("internal", 500, "Not now.")
    settings.get_by_role("button", name="Sign out here").click()
    expect(settings.get_by_role("alert")).to_contain_text("Not now.")


def test_a_session_that_ended_asks_to_sign_in_and_comes_back(settings: Page, server: Server) -> None:
    server.home.accounts.providers = [{"id": "oidc", "name": "Example ID"}]
    server.home.signed_in = False
    settings.get_by_role("button", name="Make a key").click()
    settings.get_by_label("Name", exact=True).fill("CI")
    settings.get_by_role("button", name="Make the key").click()
    expect(settings.get_by_role("heading", name="Sign in to see your settings")).to_be_visible()
    settings.get_by_role("button", name="Sign in with Example ID").click()
    expect(settings.get_by_role("heading", name="Settings")).to_be_visible()


def test_from_the_chat_and_back_an_answer_goes_on(chat: Chat, server: Server) -> None:
    page = chat.page
    streams = sum(path == "/api/streaming/events" for _, path, _ in server.home.requests)
    answer = Answer(tokens(["Half ", "and ", "half."]), hold_after=1)
    server.home.answers = [answer]
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".markdown").last).to_have_text("Half")
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_focused()
    expect(page).to_have_title(re.compile("^Settings .* CloudToLocalLLM$"))
    page.go_back()
    expect(page.get_by_label("Message")).to_be_focused()
    expect(page).to_have_title(re.compile("^Hello .* CloudToLocalLLM$"))
    expect(page.locator(".markdown").last).to_have_text("Half")
    page.go_forward()
    expect(page.get_by_role("heading", name="Settings")).to_be_focused()
    answer.go.set()
    page.get_by_role("link", name="Back to the chat").click()
    expect(page.locator("article[data-outcome=done] .markdown")).to_have_text("Half and half.")
    # The way home was followed all the time.
    assert sum(path == "/api/streaming/events" for _, path, _ in server.home.requests) == streams


def test_a_page_that_cannot_be_loaded_says_so(page: Page, server: Server, faults: list[str]) -> None:
    server.home.signed_in = True
    page.route("**/assets/account-pages-*.js", lambda route: route.abort())
    page.goto(f"{server.url}/settings")
    expect(page.get_by_role("heading", name="This page could not be shown")).to_be_visible()
    page.unroute("**/assets/account-pages-*.js")
    page.get_by_role("button", name="Load again").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    # It is told on the console as well, as it should be.
    faults.clear()
