"""A streamed conversation: asking, stopping, losing the connection, coming back."""

import json

import pytest
from playwright.sync_api import Dialog, Route, expect
from tests.browser.conftest import Chat
from tests.browser.home import WAIT, Answer, event, problem, tokens
from tests.support.stack import wait_for

pytestmark = pytest.mark.browser

PIECES = ["Grüße ", "aus ", "der ", "Ferne", ": 🦙 ", "**fett**", ".\n\n", "- eins\n", "- zwei\n"]
WORDS = ["Grüße", "aus", "der", "Ferne:", "🦙", "fett.", "eins", "zwei"]


def test_an_answer_streams_in_with_its_figures(chat: Chat) -> None:
    answer = Answer(tokens(PIECES), hold_after=5)
    chat.home.answers = [answer]
    chat.ask("Wie geht es?")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der Ferne: 🦙")
    expect(chat.page.get_by_test_id("status")).to_have_text("Answering")
    node = chat.page.locator(".markdown").element_handle()
    answer.go.set()
    chat.expect_outcome("done")
    assert chat.answer.split() == WORDS
    expect(chat.page.locator(".markdown strong")).to_have_text("fett")
    assert chat.page.locator(".markdown").element_handle().evaluate("(node, other) => node === other", node)
    expect(chat.page.get_by_text("· 9 tokens", exact=True)).to_be_visible()
    expect(chat.page.get_by_text("tokens/s")).to_be_visible()
    expect(chat.page.get_by_text("first after")).to_be_visible()
    expect(chat.page.get_by_text("Answer complete.")).to_be_attached()
    (asked,) = chat.home.asked
    assert asked["model"] == "llama3.2:3b"
    assert asked["stream"] is True
    assert asked["messages"] == [{"role": "user", "content": "Wie geht es?"}]


def test_the_conversation_goes_on_and_survives_a_reload(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["One."])), Answer(tokens(["Two."]))]
    chat.ask("First")
    chat.expect_outcome("done")
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_have_text("One.")
    chat.ask("Second")
    expect(chat.page.locator(".markdown").last).to_have_text("Two.")
    assert [message["content"] for message in chat.home.asked[1]["messages"]] == ["First", "One.", "Second"]
    chat.page.get_by_role("button", name="New chat").click()
    expect(chat.page.locator("article")).to_have_count(0)
    chat.page.reload()
    expect(chat.page.get_by_role("heading", name="Your models, from anywhere")).to_be_visible()
    chat.page.go_back()
    expect(chat.page.locator(".markdown").last).to_have_text("Two.")


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_is_said_to_the_home_and_keeps_what_came(chat: Chat, how: str) -> None:
    answer = Answer(tokens(PIECES), hold_after=2)
    chat.home.answers = [answer, Answer(tokens(["Again."]))]
    chat.ask("Go on for long")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus")
    if how == "button":
        chat.page.get_by_role("button", name="Stop").click()
    else:
        chat.page.keyboard.press("Escape")
    assert answer.left.wait(WAIT)
    chat.expect_outcome("stopped")
    assert chat.answer.strip() == "Grüße aus"
    chat.page.get_by_role("button", name="Try again").click()
    expect(chat.page.locator(".markdown")).to_have_text("Again.")
    chat.page.get_by_role("button", name="Previous answer").click()
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus")


def test_keys(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["Yes."]))]
    field = chat.page.get_by_label("Message")
    field.press_sequentially("one")
    field.press("Shift+Enter")
    field.press_sequentially("two")
    field.press("Enter")
    chat.expect_outcome("done")
    assert chat.home.asked[0]["messages"][0]["content"] == "one\ntwo"
    expect(field).to_have_value("")
    field.press("Enter")
    assert len(chat.home.asked) == 1


def test_a_broken_connection_is_taken_up_byte_for_byte(chat: Chat) -> None:
    whole = Answer(tokens(PIECES), hold_after=5)
    chat.home.answers = [whole]
    chat.home.cuts = [1, 2, 2]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der Ferne: 🦙")
    whole.go.set()
    chat.expect_outcome("done")
    assert chat.answer.split() == WORDS
    assert chat.home.cuts == []
    assert len(chat.home.asked) == 1


def test_an_answer_goes_on_at_home_while_there_is_no_way(chat: Chat) -> None:
    answer = Answer(tokens(PIECES), hold_after=3)
    chat.home.answers = [answer]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    chat.home.reachable(now=False)
    expect(chat.page.get_by_text("The answer goes on at home")).to_be_visible()
    expect(chat.page.get_by_test_id("status")).to_have_text("Reconnecting")
    answer.go.set()
    chat.home.reachable(now=True)
    chat.expect_outcome("done")
    assert chat.answer.split() == WORDS


def test_stop_while_there_is_no_way_is_told_home_once_there_is(chat: Chat) -> None:
    answer = Answer(tokens(PIECES), hold_after=3)
    chat.home.answers = [answer]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    chat.home.reachable(now=False)
    expect(chat.page.get_by_text("The answer goes on at home")).to_be_visible()
    chat.page.keyboard.press("Escape")
    chat.home.reachable(now=True)
    assert answer.left.wait(WAIT)
    chat.expect_outcome("stopped")


def test_an_answer_goes_on_while_its_page_is_closed(chat: Chat) -> None:
    answer = Answer(tokens(PIECES), hold_after=3)
    chat.home.answers = [answer]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    address = chat.page.url
    chat.page.goto("about:blank")
    answer.go.set()
    chat.page.goto(address)
    chat.expect_outcome("done")
    assert chat.answer.split() == WORDS
    assert len(chat.home.asked) == 1
    assert not answer.left.is_set()


def test_a_reload_meanwhile_goes_on_where_it_was(chat: Chat) -> None:
    answer = Answer(tokens(PIECES), hold_after=3)
    chat.home.answers = [answer]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    chat.expect_outcome("streaming")
    expect(chat.page.get_by_role("button", name="Stop")).to_be_visible()
    answer.go.set()
    chat.expect_outcome("done")
    assert chat.answer.split() == WORDS


def test_a_bridge_that_starts_anew_goes_on_with_the_answer(chat: Chat) -> None:
    first = Answer(tokens(PIECES), hold_after=3)
    # Asked the same with the same seed, the engine says the same.
    chat.home.answers = [first, Answer(tokens(PIECES))]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    home = chat.home.chat
    assert home is not None
    wait_for(home.has_stored("Grüße aus der "), within=WAIT, what="the home to write down what it has")
    home.restart()
    chat.expect_outcome("done")
    assert chat.answer.split() == WORDS
    assert chat.home.asked[0] == chat.home.asked[1]


def test_what_was_not_sent_yet_is_sent_after_a_reload(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["One."]))]
    chat.page.route("**/c2l/conversations", lambda route: lose(route, "POST"))
    chat.ask("Hello")
    expect(chat.page.get_by_role("article").first).to_contain_text("Hello")
    expect(chat.page.get_by_text("Sending…")).to_be_visible()
    expect(chat.page.get_by_test_id("status")).to_have_text("Ready")
    asked: list[str] = []

    def agree(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    chat.page.on("dialog", agree)
    chat.page.reload()
    # A tab that is closed would take it along, so the browser asks.
    assert asked == ["beforeunload"]
    expect(chat.page.get_by_role("article").first).to_contain_text("Hello")
    chat.page.unroute_all()
    expect(chat.page.locator(".markdown")).to_have_text("One.")
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_have_text("One.")
    assert asked == ["beforeunload"]
    assert len(chat.home.asked) == 1


def lose(route: Route, method: str) -> None:
    if route.request.method == method:
        route.abort()
    else:
        route.continue_()


def test_what_a_home_refuses_is_told_wherever_one_is_by_then(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["Red."]))]
    chat.ask("apples")
    chat.expect_outcome("done")
    chat.page.get_by_role("button", name="New chat").click()
    held: list[Route] = []
    chat.page.route("**/c2l/conversations", lambda route: held.append(route))
    chat.ask("pears")
    expect(chat.page.get_by_role("article").first).to_contain_text("pears")
    chat.page.get_by_role("link", name="apples").click()
    expect(chat.page.locator(".markdown")).to_have_text("Red.")
    full = json.dumps(problem("home-full", 507, "The home store has no room", "Delete something."))
    for route in held:
        route.fulfill(status=507, content_type="application/problem+json", body=full)
    expect(chat.page.get_by_text("In another conversation:")).to_be_visible()
    expect(chat.page.get_by_role("alert")).to_contain_text("Delete something.")
    chat.page.get_by_role("button", name="New chat").click()
    chat.page.get_by_label("Message").fill("begun")
    chat.page.get_by_role("button", name="Put the message back").click()
    expect(chat.page.get_by_label("Message")).to_have_value("pears\n\nbegun")


def test_what_was_begun_to_be_written_is_not_left_to_who_signs_in_next(chat: Chat) -> None:
    chat.page.get_by_label("Message").fill("between us")
    chat.page.get_by_role("button", name="Sign out").click()
    expect(chat.page.get_by_role("heading", name="Sign in to chat")).to_be_visible()
    chat.home.accounts.user = "u_somebody"
    chat.home.signed_in = True
    chat.page.get_by_role("button", name="look again").click()
    expect(chat.page.get_by_test_id("status")).to_have_text("Ready")
    expect(chat.page.get_by_label("Message")).to_have_value("")


def test_an_engine_that_breaks_off_is_not_taken_for_the_whole(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(PIECES[:3], done=False), breaks=True), Answer(tokens(["Whole."]))]
    chat.ask("Hello")
    chat.expect_outcome("failed")
    expect(chat.page.get_by_text("This answer was cut short", exact=True)).to_be_visible()
    assert chat.answer.strip() == "Grüße aus der"
    chat.page.get_by_role("button", name="Try again").click()
    chat.expect_outcome("done")
    expect(chat.page.locator(".markdown")).to_have_text("Whole.")


def test_an_error_in_the_stream_is_shown(chat: Chat) -> None:
    chunks = [*tokens(["Half"], done=False), event({"error": {"message": "ran out of memory", "code": 500}})]
    chat.home.answers = [Answer(chunks)]
    chat.ask("Hello")
    chat.expect_outcome("failed")
    expect(chat.page.get_by_text("ran out of memory")).to_be_visible()


def test_thoughts_stand_apart_from_the_answer(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["Forty-two."], thought="Let me count.")), Answer(tokens(["Sure."]))]
    chat.ask("How many?")
    chat.expect_outcome("done")
    assert chat.answer == "Forty-two."
    chat.page.get_by_text("Thoughts before the answer").click()
    expect(chat.page.get_by_text("Let me count.")).to_be_visible()
    chat.page.reload()
    chat.page.get_by_text("Thoughts before the answer").click()
    expect(chat.page.get_by_text("Let me count.")).to_be_visible()
    chat.ask("Sure?")
    expect(chat.page.locator(".markdown").last).to_have_text("Sure.")
    assert "count" not in str(chat.home.asked[1])


def test_the_chosen_model_is_asked_and_remembered(chat: Chat) -> None:
    picker = chat.page.get_by_label("Model", exact=True)
    picker.select_option("qwen3:8b")
    chat.page.reload()
    expect(picker).to_have_value("qwen3:8b")
    chat.home.answers = [Answer(tokens(["Hi."]))]
    chat.ask("Hello")
    chat.expect_outcome("done")
    assert chat.home.asked[0]["model"] == "qwen3:8b"


SPOIL = """async () => {
    const database = await new Promise((resolve) => {
        const request = indexedDB.open("c2l-chats");
        request.onsuccess = () => resolve(request.result);
    });
    const store = database.transaction("seen", "readwrite").objectStore("seen");
    const keys = await new Promise((resolve) => {
        const request = store.getAllKeys();
        request.onsuccess = () => resolve(request.result);
    });
    for (const key of keys) store.put({form: 1, epoch: 7, heads: [{}], messages: "none", runs: 5}, key);
    await new Promise((resolve) => { store.transaction.oncomplete = resolve; });
    database.close();
    return keys.length;
}"""


def test_spoilt_storage_does_no_harm(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["One."]))]
    chat.ask("First")
    chat.expect_outcome("done")
    wait_for(lambda: chat.kept("First", "One."), within=WAIT, what="the browser to keep what was seen")
    assert chat.page.evaluate(SPOIL) >= 2
    chat.page.evaluate("""for (const key of ["c2l.model.v2", "c2l.models.v1"]) localStorage.setItem(key, '{')""")
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_have_text("One.")
    expect(chat.page.get_by_label("Model", exact=True)).to_have_value("llama3.2:3b")


def test_reading_above_is_not_disturbed_by_what_arrives(chat: Chat) -> None:
    lines = [f"line {number}\n\n" for number in range(120)]
    answer = Answer(tokens(lines), hold_after=60)
    chat.home.answers = [answer]
    chat.ask("Count")
    log = chat.page.get_by_role("log")
    expect(chat.page.get_by_text("line 59")).to_be_in_viewport()
    log.hover()
    chat.page.mouse.wheel(0, -600)
    jump = chat.page.get_by_role("button", name="Jump to the end")
    expect(jump).to_be_visible()
    before = log.evaluate("box => box.scrollTop")
    answer.go.set()
    chat.expect_outcome("done")
    assert log.evaluate("box => box.scrollTop") == before
    jump.click()
    expect(chat.page.get_by_text("line 119")).to_be_in_viewport()
    expect(jump).to_have_count(0)
