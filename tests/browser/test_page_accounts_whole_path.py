"""The pages for accounts in front of the real platform: pairing, revoking, API keys."""

import asyncio
import queue
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.support.stack import Stack, running_stack, wait_for

from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError
from cloudtolocalllm.bridge.login import Invitation, Login

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

QUESTION = "Connect this machine to your account?"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="c2l-test-") as folder, running_stack(Path(folder) / "data") as running:
        yield running


@pytest.fixture
def signed_in(page: Page, stack: Stack) -> Page:
    command = [sys.executable, "-m", "cloudtolocalllm", "sign-in-link", "--data-dir", str(stack.data_dir)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    page.goto(next(word for word in said.split() if word.startswith("http")))
    expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)
    return page


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as running:
        yield running


def by_code(pool: ThreadPoolExecutor, stack: Stack, name: str) -> tuple[Invitation, Future[BridgeIdentity]]:
    """Begin as `bridge login --no-browser` does; return what it shows, and its end."""
    shown: queue.Queue[Invitation] = queue.Queue()
    waiting = pool.submit(lambda: asyncio.run(Login(stack.url, name).by_code(shown.put)))
    return shown.get(timeout=20), waiting


def by_browser(pool: ThreadPoolExecutor, stack: Stack, name: str) -> tuple[str, Future[BridgeIdentity]]:
    """Begin as `bridge login` does; return the page that it opens, and its end."""
    shown: queue.Queue[str] = queue.Queue()
    waiting = pool.submit(lambda: asyncio.run(Login(stack.url, name).by_browser(shown.put)))
    return shown.get(timeout=20), waiting


def test_a_typed_code_pairs_a_machine_which_is_then_revoked(
    signed_in: Page, stack: Stack, pool: ThreadPoolExecutor
) -> None:
    page = signed_in
    invitation, waiting = by_code(pool, stack, "attic")
    page.goto(invitation.url)
    page.get_by_label("Code").fill(invitation.code.lower().replace("-", " "))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("attic")
    expect(page.get_by_role("main")).to_contain_text("127.0.0.1")
    assert not waiting.done()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Approved")).to_be_visible()
    assert waiting.result(20).bridge_id
    page.get_by_role("link", name="See your machines").click()
    page.get_by_role("button", name="Rename attic").click()
    page.get_by_label("New name").fill("cellar")
    page.get_by_role("button", name="Save").click()
    page.reload()
    page.get_by_role("button", name="Revoke cellar").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_text("cellar was revoked.")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Rename").first).to_be_visible()
    expect(page.get_by_role("heading", name="cellar")).to_have_count(0)


def test_a_machine_that_is_denied_is_told(signed_in: Page, stack: Stack, pool: ThreadPoolExecutor) -> None:
    invitation, waiting = by_code(pool, stack, "stranger")
    signed_in.goto(invitation.complete_url)
    signed_in.get_by_role("button", name="Deny").click()
    expect(signed_in.get_by_role("heading", name="Denied")).to_be_visible()
    with pytest.raises(PairingError, match="denied"):
        waiting.result(20)
    # The code is used up.
    signed_in.goto(invitation.complete_url)
    expect(signed_in.get_by_role("heading", name="Nothing asks to be connected here")).to_be_visible()


def test_the_machines_own_browser_pairs_it(signed_in: Page, stack: Stack, pool: ThreadPoolExecutor) -> None:
    address, waiting = by_browser(pool, stack, "study")
    signed_in.goto(address)
    expect(signed_in.get_by_text("A program on this computer opened this page.")).to_be_visible()
    signed_in.get_by_role("button", name="Approve").click()
    expect(signed_in.get_by_text("Confirmed. You can close this window")).to_be_visible()
    assert waiting.result(20).bridge_id


def test_a_denial_reaches_the_machines_own_browser(signed_in: Page, stack: Stack, pool: ThreadPoolExecutor) -> None:
    address, waiting = by_browser(pool, stack, "study")
    signed_in.goto(address)
    signed_in.get_by_role("button", name="Deny").click()
    expect(signed_in.get_by_text("The pairing was not granted.")).to_be_visible()
    with pytest.raises(PairingError, match="denied"):
        waiting.result(20)


def test_a_key_is_made_listed_at_home_and_revoked(signed_in: Page, stack: Stack) -> None:
    page = signed_in
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("button", name="Make a key").click()
    page.get_by_label("Name", exact=True).fill("Only models")
    page.get_by_text("Limit what it may do").click()
    page.get_by_label("Ollama").uncheck()
    page.get_by_label("Anthropic-compatible").uncheck()
    page.get_by_label("Sealed, by connect").uncheck()
    page.get_by_role("button", name="Make the key").click()
    key = page.get_by_test_id("new-key").inner_text()

    def status(path: str) -> int:
        return httpx.get(f"{stack.url}{path}", headers={"authorization": f"Bearer {key}"}, timeout=20).status_code

    assert status("/v1/models") == 200
    assert status("/ollama/api/tags") == 403
    page.evaluate("localStorage.clear()")  # so that only the home can know it
    page.reload()
    item = page.get_by_role("region", name="API keys").get_by_role("listitem").filter(has_text="Only models")
    expect(item).to_contain_text("Only OpenAI-compatible")
    expect(item).to_contain_text("last used: just now")
    page.get_by_role("button", name="Revoke Only models").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_text("Only models was revoked")).to_be_visible()
    wait_for(lambda: status("/v1/models") == 401, within=10, what="the key to be refused")
    page.evaluate("localStorage.clear()")
    page.reload()
    expect(page.get_by_text("Asking your machines for the list…")).to_have_count(0)
    expect(item).to_have_count(0)


def test_the_owner_sees_the_overview(signed_in: Page, stack: Stack) -> None:
    signed_in.get_by_role("link", name="Settings").click()
    signed_in.get_by_role("link", name="Overview of this server").click()
    expect(signed_in.get_by_role("region", name="This server")).to_contain_text("Machines connected")
    expect(signed_in.get_by_role("row").nth(1)).to_be_visible()
    expect(signed_in.get_by_role("alert")).to_have_count(0)
