"""A streamed conversation: asking, stopping, losing the connection, coming back."""

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import Chat
from tests.browser.home import LOST, Answer, event, problem, tokens

pytestmark = pytest.mark.browser

PIECES = ["Grüße ", "aus ", "der ", "Ferne", ": 🦙 ", "**fett**", ".\n\n", "- eins\n", "- zwei\n"]


def test_an_answer_streams_in_with_its_figures(chat: Chat) -> None:
    answer = Answer(tokens(PIECES), hold_after=5)
    chat.home.answers = [answer]
    chat.ask("Wie geht es?")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der Ferne: 🦙")
    expect(chat.page.get_by_test_id("status")).to_have_text("Answering")
    node = chat.page.locator(".markdown").element_handle()
    answer.go.set()
    chat.expect_outcome("done")
    assert chat.answer.split() == ["Grüße", "aus", "der", "Ferne:", "🦙", "fett.", "eins", "zwei"]
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


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_closes_the_request_and_keeps_what_came(chat: Chat, how: str) -> None:
    answer = Answer(tokens(PIECES), hold_after=2)
    chat.home.answers = [answer, Answer(tokens(["Again."]))]
    chat.ask("Go on for long")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus")
    if how == "button":
        chat.page.get_by_role("button", name="Stop").click()
    else:
        chat.page.keyboard.press("Escape")
    assert answer.left.wait(5)
    chat.expect_outcome("stopped")
    assert chat.answer.strip() == "Grüße aus"
    chat.page.get_by_role("button", name="Try again").click()
    expect(chat.page.locator(".markdown")).to_have_text("Again.")


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
    chunks = tokens(PIECES)
    body = b"".join(chunks)
    llama = body.index("🦙".encode())
    chat.home.answers = [Answer(chunks, breaks_at=[llama + 1, llama + 3, len(body) - 5])]
    chat.ask("Hello")
    chat.expect_outcome("done")
    assert chat.answer.split() == ["Grüße", "aus", "der", "Ferne:", "🦙", "fett.", "eins", "zwei"]
    attached = [path for _, path, _ in chat.home.requests if path.startswith("/c2l/exchanges/")]
    assert len(attached) == 3
    assert len(chat.home.asked) == 1


@pytest.mark.parametrize("how", ["broken", "ended"])
def test_an_answer_without_its_end_is_called_cut_short(chat: Chat, how: str) -> None:
    chunks = tokens(PIECES[:3], done=False)
    # Chromium drops what it has not handed over when a connection breaks: the break waits until it is shown.
    cut = Answer([*chunks, b": "], hold_after=3, attach_refusal=LOST)
    if how == "broken":
        cut.breaks_at = [len(b"".join(cut.chunks))]
    chat.home.answers = [cut, Answer(tokens(["Whole."]))]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    cut.go.set()
    chat.expect_outcome("cut-short")
    expect(chat.page.get_by_text("This answer was cut short")).to_be_visible()
    assert chat.answer.strip() == "Grüße aus der"
    chat.page.get_by_role("button", name="Try again").click()
    chat.expect_outcome("done")
    expect(chat.page.locator(".markdown")).to_have_text("Whole.")


def test_stop_while_the_connection_is_broken_is_told_home(chat: Chat) -> None:
    offline = problem("bridge-offline", 503, "The machine at home is not connected", "It may come back.")
    answer = Answer(tokens(PIECES), breaks_at=[200], attach_refusal=offline)
    chat.home.answers = [answer]
    chat.ask("Hello")
    expect(chat.page.get_by_text("Picking the answer up where it broke off")).to_be_visible()
    expect(chat.page.get_by_test_id("status")).to_have_text("Reconnecting")
    chat.page.keyboard.press("Escape")
    chat.expect_outcome("stopped")
    assert answer.left.wait(5)


def test_a_page_closed_meanwhile_does_not_pass_off_a_part_as_the_whole(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(PIECES), hold_after=3)]
    chat.ask("Hello")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")
    chat.page.reload()
    chat.expect_outcome("cut-short")
    expect(chat.page.locator(".markdown")).to_have_text("Grüße aus der")


def test_an_error_in_the_stream_is_shown(chat: Chat) -> None:
    chunks = [*tokens(["Half"], done=False), event({"error": {"message": "ran out of memory", "code": 500}})]
    chat.home.answers = [Answer(chunks)]
    chat.ask("Hello")
    chat.expect_outcome("cut-short")
    expect(chat.page.get_by_text("ran out of memory")).to_be_visible()


def test_thoughts_stand_apart_from_the_answer(chat: Chat) -> None:
    chat.home.answers = [Answer(tokens(["Forty-two."], thought="Let me count.")), Answer(tokens(["Sure."]))]
    chat.ask("How many?")
    chat.expect_outcome("done")
    assert chat.answer == "Forty-two."
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


def test_spoilt_storage_does_no_harm(chat: Chat) -> None:
    chat.page.evaluate(
        """localStorage.setItem("c2l.conversation.v1", '{"user":"u_owner","messages":[{"role":7}]}')"""
    )
    chat.page.evaluate("""localStorage.setItem("c2l.model.v1", '{')""")
    chat.page.reload()
    expect(chat.page.get_by_role("heading", name="Your models, from anywhere")).to_be_visible()
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
