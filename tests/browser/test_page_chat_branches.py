"""Versions of questions and answers, and what goes with a question."""

import base64
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.chat_home import ChatHome
from tests.browser.conftest import Chat
from tests.browser.home import Answer, tokens

pytestmark = pytest.mark.browser

DOT = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


def test_an_edited_question_stands_beside_the_first(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["Red."])), Answer(tokens(["Yellow."])), Answer(tokens(["Why not?"]))]
    chat.ask("What colour are apples?")
    chat.expect_outcome("done")
    chat.page.get_by_role("button", name="Edit").click()
    field = chat.page.get_by_label("Edited message")
    expect(field).to_be_focused()
    field.fill("What colour are lemons?")
    chat.page.get_by_role("button", name="Ask this instead").click()
    expect(chat.page.locator(".markdown")).to_have_text("Yellow.")
    assert [m["content"] for m in chat.home.asked[1]["messages"]] == ["What colour are lemons?"]
    chat.ask("Really?")
    expect(chat.page.locator(".markdown").last).to_have_text("Why not?")
    chat.page.get_by_role("button", name="Previous question").click()
    expect(chat.page.locator(".markdown")).to_have_text(["Red."])
    chat.page.get_by_role("button", name="Next question").click()
    # The way that was taken from there is taken again.
    expect(chat.page.locator(".markdown")).to_have_text(["Yellow.", "Why not?"])
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_have_text(["Yellow.", "Why not?"])


def test_escape_leaves_an_edit_and_stops_nothing(chat: Chat) -> None:
    answer = Answer(tokens(["One", " two"]), hold_after=1)
    chat.home.answers = [Answer(tokens(["Zero"])), answer]
    chat.ask("First")
    chat.expect_outcome("done")
    chat.page.get_by_role("button", name="Edit").click()
    chat.page.get_by_label("Edited message").press("Escape")
    expect(chat.page.get_by_role("button", name="Edit")).to_be_focused()
    chat.ask("Count")
    expect(chat.page.locator(".markdown").last).to_have_text("One")
    # While an answer is written, nothing is written anew.
    expect(chat.page.get_by_role("button", name="Edit").first).to_be_disabled()
    answer.go.set()
    chat.expect_outcome("done")


def test_an_answer_made_anew_by_another_model(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["First."])), Answer(tokens(["Second."]))]
    chat.ask("Tell")
    chat.expect_outcome("done")
    chat.page.get_by_label("Model", exact=True).select_option("qwen3:8b")
    chat.page.get_by_role("button", name="Answer anew").click()
    expect(chat.page.locator(".markdown")).to_have_text("Second.")
    assert [asked["model"] for asked in chat.home.asked] == ["llama3.2:3b", "qwen3:8b"]
    chat.page.get_by_role("button", name="Previous answer").click()
    expect(chat.page.locator(".markdown")).to_have_text("First.")
    expect(chat.page.get_by_role("article").last).to_contain_text("llama3.2:3b")


def test_pictures_and_texts_go_with_a_question(chat: Chat, chat_home: ChatHome, tmp_path: Path) -> None:
    picture, text = tmp_path / "dot.gif", tmp_path / "notes.md"
    picture.write_bytes(DOT)
    text.write_text("Remember the milk.")
    chat.home.answers = [Answer(tokens(["A dot."]))]
    chat.page.get_by_test_id("attach").set_input_files([picture, text])
    expect(chat.page.get_by_role("list", name="To be sent").get_by_role("listitem")).to_have_count(2)
    chat.ask("What is this?")
    chat.expect_outcome("done")
    expect(chat.page.get_by_role("img", name="dot.gif")).to_be_visible()
    assert chat.page.get_by_role("img", name="dot.gif").evaluate("image => image.naturalWidth") == 1
    (asked,) = chat.home.asked
    text_part, picture_part = asked["messages"][0]["content"]
    assert text_part == {"type": "text", "text": "What is this?\n\nnotes.md:\n```\nRemember the milk.\n```"}
    assert picture_part["image_url"]["url"] == "data:image/gif;base64," + base64.b64encode(DOT).decode()
    chat.page.reload()
    expect(chat.page.get_by_role("img", name="dot.gif")).to_be_visible()
    with chat.page.expect_download() as saved:
        chat.page.get_by_role("button", name="notes.md").click()
    assert saved.value.suggested_filename == "notes.md"


def test_what_no_model_can_read_is_not_attached(chat: Chat, tmp_path: Path) -> None:
    program = tmp_path / "program.bin"
    program.write_bytes(b"\x00\xff\x00")
    chat.page.get_by_test_id("attach").set_input_files([program])
    expect(chat.page.get_by_role("alert")).to_contain_text("program.bin cannot be attached")
    expect(chat.page.get_by_role("list", name="To be sent")).to_have_count(0)
