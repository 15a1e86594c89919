"""The status is true, and says what to do."""

from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import Chat
from tests.browser.home import Answer, engine, problem, status, tokens

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("document", "label", "sentence"),
    [
        (status("no-bridge"), "No machine", "cloudtolocalllm bridge --server http://127.0.0.1:"),
        (status("bridge-offline", connected=False), "Machine offline", "tower is not connected; it was last seen"),
        (status("engine-down", engine(state="down")), "Engine down", "Start Ollama on that machine"),
    ],
)
def test_what_stands_in_the_way_is_told(chat: Chat, document: dict[str, Any], label: str, sentence: str) -> None:
    chat.home.show(document)
    expect(chat.page.get_by_test_id("status")).to_have_text(label)
    expect(chat.page.get_by_role("status").filter(has_text=sentence)).to_be_visible()
    chat.home.show(status("ready"))
    expect(chat.page.get_by_test_id("status")).to_have_text("Ready")
    expect(chat.page.get_by_text(sentence)).to_have_count(0)


def test_a_loading_model_is_told_where_the_answer_will_be(chat: Chat) -> None:
    answer = Answer(tokens(["Now."]), hold_after=0)
    chat.home.answers = [answer]
    chat.ask("Hello")
    expect(chat.page.get_by_test_id("status")).to_have_text("Working")
    chat.home.show(status("loading", engine(state="loading")))
    expect(chat.page.get_by_test_id("status")).to_have_text("Loading model")
    expect(chat.page.get_by_text("Loading the model into memory")).to_be_visible()
    answer.go.set()
    chat.expect_outcome("done")


def test_lost_contact_is_told_and_mends_itself(chat: Chat) -> None:
    chat.home.events(up=False)
    expect(chat.page.get_by_test_id("status")).to_have_text("No contact")
    expect(chat.page.get_by_role("main")).to_contain_text("This page has lost contact with the server")
    chat.home.events(up=True)
    expect(chat.page.get_by_test_id("status")).to_have_text("Ready")


def test_the_demo_is_labelled(chat: Chat) -> None:
    label = chat.page.get_by_text("This is the scripted demo engine, not a model.")
    expect(label).to_have_count(0)
    chat.home.show(status("ready", engine("demo")))
    expect(label).to_be_visible()


def test_the_panel_tells_of_each_machine(chat: Chat) -> None:
    chat.home.show(status("ready", engine(), engine("openai", "down")))
    chat.page.get_by_role("button", name="Status: Ready").click()
    panel = chat.page.get_by_role("region", name="Status")
    expect(panel).to_contain_text("tower")
    expect(panel).to_contain_text("Ollama answers")
    expect(panel).to_contain_text("OpenAI-compatible engine does not answer")
    chat.page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_models_are_asked_for_again_when_an_engine_comes(chat: Chat) -> None:
    chat.home.show(status("engine-down", engine(state="down")))
    expect(chat.page.get_by_test_id("status")).to_have_text("Engine down")
    chat.home.models = ["new:1b"]
    chat.home.show(status("ready"))
    expect(chat.page.get_by_label("Model", exact=True)).to_have_value("new:1b")


def test_a_refusal_is_shown_with_its_detail_and_retried(chat: Chat) -> None:
    refusal = problem("engine-unreachable", 502, "The model engine at home does not answer", "Start Ollama on tower.")
    chat.home.answers = [Answer(refusal=refusal), Answer(tokens(["Here I am."]))]
    chat.ask("Hello")
    chat.expect_outcome("failed")
    expect(chat.page.get_by_text("Start Ollama on tower.")).to_be_visible()
    chat.page.get_by_role("button", name="Try again").click()
    chat.expect_outcome("done")
    assert chat.answer == "Here I am."
    first, second = ({**asked, "seed": None} for asked in chat.home.asked)
    assert first == second
