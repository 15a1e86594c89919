"""Versions of questions and answers, and what goes with a question."""

import base64
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect
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
    search = chat.page.get_by_label("Search conversations")
    search.fill("first")
    search.press("Escape")
    expect(search).to_have_value("")
    answer.go.set()
    chat.expect_outcome("done")
    expect(chat.page.locator(".markdown").last).to_have_text("One two")


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


def test_a_message_with_files_goes_where_it_was_written(chat: Chat, tmp_path: Path) -> None:
    """However long the files take, and wherever one has gone meanwhile; what is written there stays."""
    text = tmp_path / "notes.md"
    text.write_text("Remember the milk.")
    chat.home.answers = [Answer(tokens(["Red."])), Answer(tokens(["Milk."]))]
    chat.ask("apples")
    chat.expect_outcome("done")
    held: list[Route] = []
    chat.page.route("**/c2l/attachments**", lambda route: held.append(route))
    chat.page.get_by_test_id("attach").set_input_files([text])
    chat.ask("What is this?")
    expect(chat.page.get_by_text("Storing the files at home")).to_be_visible()
    expect(chat.page.get_by_label("Message")).to_have_value("What is this?")
    expect(chat.page.get_by_label("Message")).not_to_be_editable()
    chat.page.get_by_role("button", name="New chat").click()
    chat.page.get_by_label("Message").fill("Something else")
    expect(chat.page.get_by_role("link", name="apples")).to_be_visible()
    for route in held:
        route.continue_()
    chat.page.get_by_role("link", name="apples").click()
    expect(chat.page.locator(".markdown")).to_have_text(["Red.", "Milk."])
    expect(chat.page.get_by_label("Message")).to_have_value("")
    assert "Remember the milk." in str(chat.home.asked[1]["messages"][-1])
    chat.page.get_by_role("button", name="New chat").click()
    expect(chat.page.get_by_label("Message")).to_have_value("Something else")


def test_a_message_with_files_waits_for_another_devices_answer(
    chat: Chat, chat_home: ChatHome, tmp_path: Path
) -> None:
    text = tmp_path / "notes.md"
    text.write_text("Remember the milk.")
    other = Answer(tokens(["It is", " red."]), hold_after=1)
    chat.home.answers = [Answer(tokens(["Red."])), other, Answer(tokens(["Milk."]))]
    chat.ask("apples")
    chat.expect_outcome("done")
    held: list[Route] = []
    chat.page.route("**/c2l/attachments**", lambda route: held.append(route))
    chat.page.get_by_test_id("attach").set_input_files([text])
    chat.ask("What is this?")
    expect(chat.page.get_by_text("Storing the files at home")).to_be_visible()
    conversation = chat.page.url.rpartition("/")[2]
    leaf = chat_home.get("GET", f"/conversations/{conversation}")["conversation"]["leaf"]
    said = chat_home.get(
        "POST", f"/conversations/{conversation}/messages", {"role": "user", "parent": leaf, "content": "Really?"}
    )
    chat_home.get("POST", f"/conversations/{conversation}/runs", {"model": "llama3.2:3b", "parent": said["id"]})
    expect(chat.page.locator(".markdown").last).to_have_text("It is")
    for route in held:
        route.continue_()
    expect(chat.page.get_by_role("alert")).to_contain_text("The message was not sent")
    expect(chat.page.get_by_label("Message")).to_have_value("What is this?")
    other.go.set()
    chat.expect_outcome("done")
    chat.page.unroute_all()
    chat.page.get_by_role("button", name="Send").click()
    expect(chat.page.locator(".markdown").last).to_have_text("Milk.")


def test_what_no_model_can_read_is_not_attached(chat: Chat, tmp_path: Path) -> None:
    program = tmp_path / "program.bin"
    program.write_bytes(b"\x00\xff\x00")
    chat.page.get_by_test_id("attach").set_input_files([program])
    expect(chat.page.get_by_role("alert")).to_contain_text("program.bin cannot be attached")
    expect(chat.page.get_by_role("list", name="To be sent")).to_have_count(0)
