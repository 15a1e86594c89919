"""The page in front of the real platform: edge, API, proxy, tunnel, bridge, engine."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.support.engines import EngineProcess, busy_slots, llama_server, slots_idle
from tests.support.gguf_model import SLOW
from tests.support.stack import Stack, running_stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def stack() -> Iterator[Stack]:
    """As a newcomer starts it: no engine, so the demo."""
    with tempfile.TemporaryDirectory(prefix="c2l-test-") as folder, running_stack(Path(folder) / "data") as running:
        yield running


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with llama_server(SLOW) as running:
        yield running


@pytest.fixture
def engine_stack(engine: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[engine.url]) as running,
    ):
        yield running


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_newcomer_sees_an_answer(page: Page, stack: Stack) -> None:
    page.goto(stack.sign_in_url)
    expect(page).to_have_url(f"{stack.url}/")
    expect(page.get_by_text("This is the scripted demo engine, not a model.")).to_be_visible()
    ask(page, "Hello there")
    answer = page.get_by_role("article").last
    expect(answer.get_by_role("heading").first).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=30_000)
    expect(answer).to_contain_text("tokens")
    page.reload()
    expect(page.get_by_role("article").first).to_contain_text("Hello there")


def test_the_link_works_once(page: Page, stack: Stack) -> None:
    page.goto(stack.sign_in_url)
    expect(page).to_have_url(f"{stack.url}/")
    page.context.clear_cookies()
    page.goto("about:blank")
    page.goto(stack.sign_in_url)
    expect(page.get_by_text("cloudtolocalllm sign-in-link").first).to_be_visible()


@pytest.mark.engine
def test_stop_frees_the_engine(page: Page, engine_stack: Stack, engine: EngineProcess) -> None:
    page.goto(engine_stack.sign_in_url)
    ask(page, "go")
    expect(page.get_by_role("article").last).to_contain_text("one two three", timeout=20_000)
    assert busy_slots(engine.url) == 1
    page.get_by_role("button", name="Stop").click()
    assert slots_idle(engine.url, within=1.0) is not None
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_the_status_is_true(page: Page, stack: Stack) -> None:
    page.goto(stack.sign_in_url)
    pill = page.get_by_test_id("status")
    expect(pill).to_have_text("Ready", timeout=15_000)
    processes = stack.processes()
    processes["demo-engine"].suspend()
    try:
        expect(pill).to_have_text("Engine down", timeout=45_000)
    finally:
        processes["demo-engine"].resume()
    expect(pill).to_have_text("Ready", timeout=30_000)
    processes["bridge"].suspend()
    try:
        expect(pill).to_have_text("Machine offline", timeout=20_000)
    finally:
        processes["bridge"].resume()
    expect(pill).to_have_text("Ready", timeout=30_000)


def test_an_answer_outlives_the_api(page: Page, stack: Stack) -> None:
    """The API is replaced in the middle of an answer: it is not in the way of a stream."""
    page.goto(stack.sign_in_url)
    ask(page, "Hello there")
    expect(page.get_by_role("article").last.get_by_role("heading").first).to_be_visible()
    stack.processes()["api"].kill()
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=40_000)
    expect(page.get_by_role("article").last).to_contain_text("tokens")
