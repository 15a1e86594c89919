"""The browser's own key, pairing it, and the devices at home: Chromium through the real edge, proxy and bridge."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from tests.browser.axe import check
from tests.browser.pairing_links import bridge_of, pairing_link
from tests.support.stack import Stack, running_stack

from cloudtolocalllm.bridge.gateway.identity import identity_path, replace_identity
from cloudtolocalllm.cli.layout import Layout

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

QUESTION = "Pair this browser?"
KEYS = """async () => {
    const database = await new Promise((resolve, reject) => {
        const request = indexedDB.open("c2l");
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
    const all = await new Promise((resolve) => {
        const request = database.transaction("homes").objectStore("homes").getAll();
        request.onsuccess = () => resolve(request.result);
    });
    const exported = await Promise.all(all.map(({ device }) =>
        crypto.subtle.exportKey("jwk", device.privateKey).then(() => "exported", () => "refused")));
    database.close();
    return all.map(({ state, bridgeId, seq }, index) => ({ state, bridgeId, seq, exported: exported[index] }));
}"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="c2l-test-") as folder, running_stack(Path(folder) / "data") as running:
        yield running


@pytest.fixture(scope="module")
def cookies(chromium: Browser, stack: Stack) -> list[Any]:
    """Of somebody who is signed in; a sign-in link works once."""
    context = chromium.new_context()
    opened = context.new_page()
    opened.goto(stack.sign_in_url)
    expect(opened.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
    found = list(context.cookies())
    context.close()
    return found


@pytest.fixture
def signed_in(page: Page, cookies: list[Any]) -> Page:
    page.context.add_cookies(cookies)
    return page


@pytest.fixture
def other(chromium: Browser, cookies: list[Any]) -> Iterator[Page]:
    """Another browser of the same person."""
    context = chromium.new_context()
    context.add_cookies(cookies)
    yield context.new_page()
    context.close()


def pair(page: Page, stack: Stack, name: str) -> None:
    page.goto(pairing_link(stack))
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    page.get_by_label("Name of this browser").fill(name)
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_role("heading", name="This browser is paired")).to_be_focused(timeout=20_000)


def devices(page: Page, stack: Stack) -> Locator:
    """The list in the settings."""
    page.goto(f"{stack.url}/settings")
    found = page.get_by_role("region", name="Devices at home")
    expect(found).to_be_visible()
    return found


def item(found: Locator, name: str) -> Locator:
    return found.get_by_role("listitem").filter(has=found.page.get_by_role("heading", name=name, exact=True))


def test_a_link_pairs_this_browser_and_a_reload_keeps_it(signed_in: Page, stack: Stack) -> None:
    page = signed_in
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url + (request.post_data or "")))
    link = pairing_link(stack)
    secret = link.rpartition(".")[2]
    page.goto(f"{stack.url}/")
    page.goto(link)
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    # What was in the address is there no more, and a way back does not lead to it.
    assert page.url == f"{stack.url}/pair"
    page.go_back()
    page.go_forward()
    assert "#" not in page.url
    expect(page.get_by_label("Name of this browser")).to_have_value("Chrome on Linux")
    page.get_by_label("Name of this browser").fill("Test laptop")
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_role("heading", name="This browser is paired")).to_be_focused(timeout=20_000)
    assert page.evaluate("sessionStorage.length") == 0
    assert page.evaluate("localStorage.length") <= 1
    assert not [text for text in asked if secret in text]
    found = devices(page, stack)
    expect(item(found, "Test laptop")).to_contain_text("This browser")
    expect(item(found, "Test laptop")).to_contain_text("by a link")
    (key,) = page.evaluate(KEYS)
    assert key["state"] == "paired"
    assert key["bridgeId"] == bridge_of(stack)
    assert key["exported"] == "refused"
    assert key["seq"] > 1_700_000_000
    page.reload()
    expect(item(found, "Test laptop")).to_contain_text("This browser")


def test_a_link_comes_across_signing_in(page: Page, stack: Stack, cookies: list[Any]) -> None:
    page.goto(pairing_link(stack))
    expect(page.get_by_role("heading", name="Sign in to pair this browser")).to_be_visible()
    assert page.url == f"{stack.url}/pair"
    page.context.add_cookies(cookies)
    # As coming back from a sign-in does, wherever it comes back to.
    page.goto(f"{stack.url}/")
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Connect a machine")).to_be_visible()
    page.goto(f"{stack.url}/")
    expect(page.get_by_test_id("status")).to_be_visible()


def test_a_link_that_is_opened_in_this_very_tab_is_taken(signed_in: Page, stack: Stack) -> None:
    signed_in.goto(f"{stack.url}/pair")
    expect(signed_in.get_by_role("heading", name="Connect a machine")).to_be_visible()
    signed_in.evaluate("link => { location.href = link; }", pairing_link(stack))
    expect(signed_in.get_by_role("heading", name=QUESTION)).to_be_visible()
    assert signed_in.url == f"{stack.url}/pair"


def test_the_programs_own_sign_in_link_pairs_without_a_question(page: Page, stack: Stack) -> None:
    command = [sys.executable, "-m", "cloudtolocalllm", "sign-in-link", "--data-dir", str(stack.data_dir)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    (link,) = re.findall(r"http://\S+", said)
    assert "&pair=c2l1." in link
    page.goto(link)
    expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
    assert page.url == f"{stack.url}/"
    found = devices(page, stack)
    expect(found.get_by_role("listitem").filter(has_text="This browser")).to_contain_text("Chrome on Linux")


def test_a_used_link_says_so(signed_in: Page, other: Page, stack: Stack) -> None:
    link = pairing_link(stack)
    for page in (signed_in, other):
        page.goto(link)
        page.get_by_role("button", name="Pair this browser").click()
        if page is signed_in:
            expect(page.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    expect(other.get_by_role("alert")).to_contain_text("This pairing link is not good any more")
    expect(other.get_by_text("cloudtolocalllm bridge pair-device")).to_be_visible()


@pytest.mark.parametrize(("age", "text"), [(601, "is not good any more"), (0, "is paired")])
def test_a_link_is_good_for_ten_minutes(signed_in: Page, stack: Stack, age: float, text: str) -> None:
    signed_in.goto(pairing_link(stack, age=age))
    signed_in.get_by_role("button", name="Pair this browser").click()
    expect(signed_in.get_by_text(text).first).to_be_visible(timeout=20_000)


def test_a_link_of_another_account_says_so(signed_in: Page, stack: Stack) -> None:
    signed_in.goto(pairing_link(stack).replace(bridge_of(stack), "br_of-somebody-else"))
    signed_in.get_by_role("button", name="Pair this browser").click()
    expect(signed_in.get_by_role("alert")).to_contain_text("not one of your account's")


def test_a_link_that_was_not_copied_whole_says_so(signed_in: Page, stack: Stack) -> None:
    signed_in.goto(pairing_link(stack)[:-9])
    expect(signed_in.get_by_role("heading", name="This pairing link is not whole")).to_be_visible()
    signed_in.get_by_role("button", name="Go on without it").click()
    expect(signed_in.get_by_role("heading", name="Connect a machine")).to_be_visible()


def test_a_link_that_somebody_else_made_up_pairs_nothing(signed_in: Page, stack: Stack) -> None:
    """The fingerprint is another's: what the machine says is not believed, and nothing is sent to it."""
    good = pairing_link(stack)
    version, bridge, fingerprint, secret = good.partition("#")[2].split(".")
    forged = ".".join(
        (version, bridge, "A" + fingerprint[1:] if fingerprint[0] != "A" else "B" + fingerprint[1:], secret)
    )
    sent: list[str] = []
    signed_in.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    signed_in.goto(f"{stack.url}/pair#{forged}")
    signed_in.get_by_role("button", name="Pair this browser").click()
    expect(signed_in.get_by_role("alert")).to_contain_text("shows another identity")
    assert not [line for line in sent if line.startswith("POST") and "/e2e/" in line]


def test_a_wrong_clock_is_told(signed_in: Page, stack: Stack) -> None:
    signed_in.goto(pairing_link(stack))
    expect(signed_in.get_by_role("heading", name=QUESTION)).to_be_visible()
    signed_in.evaluate("() => { const now = Date.now; Date.now = () => now() - 400_000; }")
    signed_in.get_by_role("button", name="Pair this browser").click()
    expect(signed_in.get_by_role("alert")).to_contain_text("The clocks differ too much")


def test_after_its_storage_was_cleared_the_browser_is_not_paired(signed_in: Page, stack: Stack) -> None:
    page = signed_in
    pair(page, stack, "Forgetful")
    page.goto("about:blank")
    session = page.context.new_cdp_session(page)
    session.send("Storage.clearDataForOrigin", {"origin": stack.url, "storageTypes": "indexeddb,local_storage"})
    found = devices(page, stack)
    expect(found).to_contain_text("This browser is not paired with it.")
    found.get_by_role("link", name=re.compile("^Pair this browser with")).click()
    expect(page.get_by_text("Nothing at home is lost.")).to_be_visible()
    field = page.get_by_label("Or paste the link here")
    field.fill("https://example.com/")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("no whole pairing link")
    field.fill(f" {pairing_link(stack)} ")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)


def test_a_damaged_key_is_thrown_away_and_told(signed_in: Page, stack: Stack) -> None:
    pair(signed_in, stack, "Damaged")
    signed_in.evaluate(
        """() => new Promise((resolve) => {
            const request = indexedDB.open("c2l");
            request.onsuccess = () => {
                const store = request.result.transaction("homes", "readwrite").objectStore("homes");
                store.openCursor().onsuccess = ({ target }) => {
                    target.result.update({ ...target.result.value, fingerprint: new Uint8Array(31) });
                    store.transaction.oncomplete = () => { request.result.close(); resolve(); };
                };
            };
        })"""
    )
    signed_in.goto(f"{stack.url}/")
    expect(signed_in.get_by_role("alert")).to_contain_text("was damaged and had to be thrown away")


def test_a_removed_device_is_refused_at_once_and_says_so(signed_in: Page, other: Page, stack: Stack) -> None:
    pair(signed_in, stack, "Keeper")
    pair(other, stack, "Lost phone")
    theirs = devices(other, stack)
    expect(item(theirs, "Lost phone")).to_contain_text("This browser")
    found = devices(signed_in, stack)
    item(found, "Lost phone").get_by_role("button", name="Remove").click()
    dialog = signed_in.get_by_role("dialog", name="Remove Lost phone?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(item(found, "Lost phone")).to_be_visible()
    item(found, "Lost phone").get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove", exact=True).click()
    expect(found.get_by_text("Lost phone was removed.")).to_be_focused()
    expect(item(found, "Lost phone")).to_have_count(0)
    expect(theirs.get_by_role("alert")).to_contain_text("does not know this browser any more", timeout=20_000)
    other.get_by_role("link", name="Back to the chat").click()
    expect(other.get_by_role("alert")).to_contain_text("does not know this browser any more")
    # Pairing anew works, with another key.
    pair(other, stack, "Found phone")
    expect(item(devices(other, stack), "Found phone")).to_contain_text("This browser")


def test_a_device_is_renamed_and_removes_itself(signed_in: Page, stack: Stack) -> None:
    pair(signed_in, stack, "Old name")
    found = devices(signed_in, stack)
    item(found, "Old name").get_by_role("button", name="Rename").click()
    signed_in.get_by_label("New name").fill("New name")
    signed_in.keyboard.press("Enter")
    expect(item(found, "New name")).to_contain_text("This browser")
    item(found, "New name").get_by_role("button", name="Remove").click()
    expect(signed_in.get_by_role("dialog")).to_contain_text("the browser that you use now")
    signed_in.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
    expect(found).to_contain_text("This browser is not paired with it.")
    assert signed_in.evaluate(KEYS) == []


def words(place: Page | Locator) -> list[str]:
    shown = place.get_by_test_id("safety-words").get_by_role("listitem")
    expect(shown).to_have_count(8)
    return [text.strip() for text in shown.all_inner_texts()]


def test_without_a_link_words_are_compared_and_a_paired_device_lets_it_in(
    signed_in: Page, other: Page, stack: Stack
) -> None:
    pair(signed_in, stack, "Doorkeeper")
    pair(other, stack, "Visitor before")
    other.goto(f"{stack.url}/pair?home={bridge_of(stack)}")
    other.get_by_text("Without a link").click()
    other.get_by_label("Name of this browser").fill("Visitor")
    other.get_by_role("button", name="Ask to be let in").click()
    expect(other.get_by_role("heading", name="Compare these words")).to_be_visible(timeout=20_000)
    shown = words(other)
    # A reload goes on with the same key and the same words.
    other.reload()
    assert words(other) == shown
    found = devices(signed_in, stack)
    expect(item(found, "Visitor")).to_contain_text("Waits to be let in", timeout=20_000)
    item(found, "Visitor").get_by_role("button", name="Compare words").click()
    dialog = signed_in.get_by_role("dialog", name="Let Visitor in?")
    assert words(dialog) == shown
    dialog.get_by_role("button", name="The words are the same").click()
    expect(item(found, "Visitor")).to_contain_text("let in by Doorkeeper", timeout=20_000)
    # One end is not enough: nothing is pinned before somebody says so here as well.
    expect(other.get_by_text("Say here whether the words were the same.")).to_be_visible(timeout=20_000)
    other.get_by_role("button", name="The words are the same").click()
    expect(other.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    listed = devices(other, stack)
    expect(item(listed, "Visitor")).to_contain_text("This browser")
    # Its key of before is of no use any more.
    expect(item(listed, "Visitor before")).to_have_count(0)


def test_who_gives_up_waiting_waits_no_more(signed_in: Page, stack: Stack) -> None:
    signed_in.goto(f"{stack.url}/pair?home={bridge_of(stack)}")
    signed_in.get_by_text("Without a link").click()
    signed_in.get_by_role("button", name="Ask to be let in").click()
    expect(signed_in.get_by_role("heading", name="Compare these words")).to_be_visible(timeout=20_000)
    signed_in.get_by_role("button", name="Give up").click()
    expect(signed_in.get_by_role("heading", name="Pair this browser")).to_be_visible()
    assert signed_in.evaluate(KEYS) == []


def test_a_paired_device_makes_a_link_for_the_next_one(signed_in: Page, other: Page, stack: Stack) -> None:
    pair(signed_in, stack, "First")
    found = devices(signed_in, stack)
    found.get_by_role("button", name=re.compile("^Add a device")).click()
    expect(found.get_by_role("heading", name="A link for one device")).to_be_focused()
    expect(found.get_by_role("img", name="The link as a QR code")).to_be_visible()
    link = found.locator("code.prompt").inner_text()
    assert link.startswith(f"{stack.url}/pair#c2l1.{bridge_of(stack)}.")
    check(signed_in)
    other.goto(link)
    other.get_by_label("Name of this browser").fill("Second")
    other.get_by_role("button", name="Pair this browser").click()
    expect(other.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    found.get_by_role("button", name="Done").click()
    expect(found.get_by_role("button", name=re.compile("^Add a device"))).to_be_focused()
    expect(item(found, "Second")).to_be_visible(timeout=20_000)


def test_two_tabs_know_of_each_others_pairing(signed_in: Page, stack: Stack) -> None:
    context: BrowserContext = signed_in.context
    tab = context.new_page()
    found = devices(tab, stack)
    expect(found).to_contain_text("This browser is not paired with it.")
    pair(signed_in, stack, "Both tabs")
    expect(item(found, "Both tabs")).to_contain_text("This browser", timeout=20_000)


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_screen_is_accessible(
    signed_in: Page, stack: Stack, scheme: Literal["light", "dark"], width: int
) -> None:
    page = signed_in
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{stack.url}/pair?home={bridge_of(stack)}")
    expect(page.get_by_role("heading", name="Pair this browser")).to_be_visible()
    page.get_by_text("Without a link").click()
    check(page)
    page.get_by_role("button", name="Ask to be let in").click()
    words(page)
    check(page)
    page.get_by_role("button", name="Give up").click()
    page.goto(pairing_link(stack))
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    page.get_by_label("Name of this browser").fill("")
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_label("Name of this browser")).to_be_focused()
    check(page)
    page.get_by_label("Name of this browser").fill("a-name-without-a-place-to-break-" * 2)
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    check(page)
    found = devices(page, stack)
    expect(found.get_by_text("This browser").first).to_be_visible()
    check(page)


def test_a_new_identity_is_not_accepted_without_an_act(
    signed_in: Page, other: Page, stack: Stack, faults: list[str]
) -> None:
    """Last in this file: it gives the machine another identity."""
    pair(signed_in, stack, "Careful")
    found = devices(signed_in, stack)
    expect(item(found, "Careful")).to_contain_text("This browser")
    bridge = stack.processes()["bridge"]
    replace_identity(identity_path(Layout(stack.data_dir).bridge_credential))
    bridge.kill()
    expect(found.get_by_role("alert")).to_contain_text("shows another identity", timeout=40_000)
    signed_in.get_by_role("link", name="Back to the chat").click()
    expect(signed_in.get_by_role("alert")).to_contain_text("shows another identity")
    # It stays so, however often one looks.
    signed_in.reload()
    found = devices(signed_in, stack)
    expect(found.get_by_role("alert")).to_contain_text("shows another identity", timeout=40_000)
    signed_in.goto(pairing_link(stack))
    expect(signed_in.get_by_role("heading", name="This machine has a new identity")).to_be_visible()
    check(signed_in)
    signed_in.get_by_role("button", name="Pair with the new identity").click()
    expect(signed_in.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    expect(item(devices(signed_in, stack), "Chrome on Linux").first).to_be_visible()
