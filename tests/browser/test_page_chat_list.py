"""The list of conversations: opening, naming, pinning, deleting, searching, taking out and in."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect
from tests.browser.chat_home import ChatHome
from tests.browser.conftest import Chat
from tests.browser.home import WAIT, Answer, tokens
from tests.support.stack import wait_for

pytestmark = pytest.mark.browser


def items(chat: Chat) -> Locator:
    return chat.page.get_by_role("list", name="All conversations").get_by_role("listitem")


def begin(chat: Chat, *questions: str) -> None:
    """Begin a conversation with each question."""
    for question in questions:
        chat.home.answers = [Answer(tokens([f"About {question}."]))]
        chat.page.get_by_role("button", name="New chat").click()
        chat.ask(question)
        chat.expect_outcome("done")


def more(chat: Chat, title: str) -> None:
    chat.page.get_by_role("button", name=f"More about {title}").click()


def test_what_changed_last_stands_first_and_each_is_opened(chat: Chat) -> None:
    begin(chat, "apples", "pears")
    expect(items(chat)).to_have_text(["pears", "apples"])
    expect(chat.page.get_by_role("link", name="pears")).to_have_attribute("aria-current", "page")
    chat.page.get_by_role("link", name="apples").click()
    expect(chat.page.locator(".markdown")).to_have_text("About apples.")
    chat.home.answers = [Answer(tokens(["More about apples."]))]
    chat.ask("More")
    chat.expect_outcome("done")
    expect(items(chat)).to_have_text(["apples", "pears"])


def test_renaming_and_pinning_are_kept_at_home(chat: Chat, chat_home: ChatHome) -> None:
    begin(chat, "apples", "pears")
    more(chat, "apples")
    chat.page.get_by_role("button", name="Rename").click()
    field = chat.page.get_by_label("New title")
    expect(field).to_be_focused()
    field.fill("Fruit")
    field.press("Enter")
    expect(items(chat)).to_have_text(["pears", "Fruit"])
    expect(chat.page.get_by_role("button", name="More about Fruit")).to_be_focused()
    more(chat, "Fruit")
    chat.page.get_by_role("button", name="Pin").click()
    expect(items(chat)).to_have_text(["Pinned: Fruit", "pears"])
    chat.page.reload()
    expect(items(chat)).to_have_text(["Pinned: Fruit", "pears"])
    heads = chat_home.get("GET", "/conversations")["conversations"]
    assert {(head["title"], head["pinned"]) for head in heads} == {("Fruit", True), ("pears", False)}


def test_deleting_asks_first_and_leaves_the_conversation(chat: Chat, chat_home: ChatHome) -> None:
    begin(chat, "apples", "pears")
    more(chat, "pears")
    chat.page.get_by_role("button", name="Delete").click()
    dialog = chat.page.get_by_role("dialog", name="Delete “pears”?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(items(chat)).to_have_count(2)
    more(chat, "pears")
    chat.page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(items(chat)).to_have_text(["apples"])
    expect(chat.page.get_by_role("heading", name="Your models, from anywhere")).to_be_visible()
    chat.page.reload()
    expect(items(chat)).to_have_text(["apples"])
    assert len(chat_home.get("GET", "/conversations")["conversations"]) == 1


def test_search_finds_words_in_answers_and_leads_there(chat: Chat) -> None:
    begin(chat, "apples", "pears")
    chat.page.get_by_label("Search conversations").fill("about app")
    expect(chat.page.get_by_text("1 found")).to_be_visible()
    expect(chat.page.locator("mark")).to_have_text(["About", "apples"])
    chat.page.get_by_role("listitem").filter(has=chat.page.locator("mark")).get_by_role("link").click()
    expect(chat.page.locator(".markdown")).to_have_text("About apples.")
    chat.page.get_by_label("Search conversations").fill("quinces")
    expect(chat.page.get_by_text("Nothing was found.")).to_be_visible()


def test_what_was_exported_is_imported_again(chat: Chat, tmp_path: Path) -> None:
    begin(chat, "apples", "pears")
    with chat.page.expect_download() as one:
        more(chat, "apples")
        chat.page.get_by_role("button", name="Export", exact=True).click()
    assert one.value.suggested_filename == "apples.json"
    single = tmp_path / "one.json"
    one.value.save_as(single)
    assert json.loads(single.read_text())["title"] == "apples"
    with chat.page.expect_download() as every:
        chat.page.get_by_role("button", name="Export all").click()
    whole = tmp_path / "all.jsonl"
    every.value.save_as(whole)
    expect(chat.page.get_by_text("2 conversations were exported.")).to_be_visible()
    assert len(whole.read_text().splitlines()) == 2
    more(chat, "apples")
    chat.page.get_by_role("button", name="Delete").click()
    chat.page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(items(chat)).to_have_text(["pears"])
    chat.page.get_by_test_id("import").set_input_files([whole, single])
    expect(chat.page.get_by_text("1 conversations were imported. 2 were there already.")).to_be_visible()
    expect(items(chat)).to_have_count(2)
    chat.page.get_by_role("link", name="apples").click()
    expect(chat.page.locator(".markdown")).to_have_text("About apples.")
    nonsense = tmp_path / "nonsense.json"
    nonsense.write_text("{")
    chat.page.get_by_test_id("import").set_input_files([nonsense])
    expect(chat.page.get_by_role("alert")).to_contain_text("nonsense.json is no export of conversations")


def test_without_the_home_it_can_be_read_and_not_changed(chat: Chat) -> None:
    begin(chat, "apples", "pears")
    chat.page.get_by_role("link", name="apples").click()
    expect(chat.page.locator(".markdown")).to_have_text("About apples.")
    wait_for(lambda: chat.kept("pears", "About apples."), within=WAIT, what="the browser to keep what was seen")
    chat.home.reachable(now=False)
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_have_text("About apples.")
    expect(items(chat)).to_have_text(["pears", "apples"])
    expect(chat.page.get_by_text("This machine cannot be reached")).to_be_visible()
    chat.page.get_by_label("Message").fill("And now?")
    expect(chat.page.get_by_role("button", name="Send")).to_be_disabled()
    expect(chat.page.get_by_role("button", name="Edit")).to_be_disabled()
    more(chat, "pears")
    expect(chat.page.get_by_role("button", name="Delete")).to_be_disabled()
    chat.page.get_by_label("Search conversations").fill("pea")
    expect(chat.page.get_by_text("1 found")).to_be_visible()
    chat.page.get_by_label("Search conversations").fill("")
    chat.home.reachable(now=True)
    chat.home.answers = [Answer(tokens(["Here."]))]
    expect(chat.page.get_by_role("button", name="Send")).to_be_enabled()
    chat.page.get_by_role("button", name="Send").click()
    expect(chat.page.locator(".markdown").last).to_have_text("Here.")


def test_a_narrow_page_has_the_list_in_a_drawer(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 360, "height": 700})
    expect(chat.page.get_by_role("navigation", name="Conversations")).to_have_count(0)
    begin(chat, "apples", "pears")
    chat.page.get_by_role("button", name="Conversations").click()
    chat.page.get_by_role("link", name="apples").click()
    expect(chat.page.get_by_role("dialog")).to_have_count(0)
    expect(chat.page.locator(".markdown")).to_have_text("About apples.")
    expect(chat.page.get_by_label("Message")).to_be_focused()
    opener = chat.page.get_by_role("button", name="Conversations")
    opener.click()
    chat.page.keyboard.press("Escape")
    expect(chat.page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()
    opener.click()
    chat.page.get_by_role("button", name="Close").click()
    expect(opener).to_be_focused()
