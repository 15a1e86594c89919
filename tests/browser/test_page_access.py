"""The page is usable by everybody: axe-core finds nothing, nothing overflows, keys suffice; and it is small."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect
from tests.browser.axe import check
from tests.browser.chat_home import ChatHome
from tests.browser.conftest import Chat
from tests.browser.home import DIST, Answer, Server, engine, problem, status, tokens
from tests.support.require import require

pytestmark = pytest.mark.browser

FIRST_LOAD_LIMIT = 150_000
"""Bytes of JavaScript and CSS, gzip."""

SMALL = 1024
"""Bytes below which a compressed copy would save no packet."""

MARKDOWN = """## Merging intervals

Sort by start, then **extend or append**. It runs in `O(n log n)`.

1. Sort the list.
2. Walk it once:
   - extend the last interval, or
   - append a new one.

```python
def merge(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
```

| Case | Input | Output |
|---|---|--:|
| overlap | `[(1, 3), (2, 6)]` | `[(1, 6)]` |
| apart | `[(1, 2), (4, 5)]` | unchanged |

> Intervals that only touch are merged as well.

- [x] sorted
- [ ] tested, see [the manual](https://docs.python.org/3/)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100, 3840])
def test_every_screen_is_accessible(
    page: Page, server: Server, chat_home: ChatHome, scheme: Literal["light", "dark"], width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(color_scheme=scheme)
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Sign in to chat")).to_be_visible()
    check(page)
    server.home.signed_in = True
    server.home.show(status("ready", engine("demo")))
    page.get_by_role("button", name="look again").click()
    expect(page.get_by_test_id("status")).to_have_text("Ready")
    expect(page.get_by_label("Model", exact=True)).to_have_value("llama3.2:3b")
    check(page)
    chat = Chat(page, server.home, server.url)
    refusal = problem("engine-error", 502, "The model engine broke off", "Look at its log.")
    answer = Answer(tokens([MARKDOWN], thought="Let me think."), hold_after=2)
    server.home.answers = [answer, Answer(refusal=refusal)]
    chat.ask("Merge overlapping intervals")
    expect(page.get_by_test_id("status")).to_have_text("Answering")
    check(page)
    answer.go.set()
    chat.expect_outcome("done")
    chat.ask("And now fail")
    chat.expect_outcome("failed")
    page.get_by_role("button", name="Edit").first.click()
    check(page)
    page.keyboard.press("Escape")
    if width < 1024:
        page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="More about Merge").click()
    expect(page.get_by_role("button", name="Rename")).to_be_visible()
    check(page)
    page.get_by_role("button", name="Models").click()
    expect(page.get_by_role("list", name="Models of")).to_be_visible()
    check(page)
    page.get_by_role("button", name="Close").click()
    server.home.show(status("engine-down", engine("ollama", "down")))
    expect(page.get_by_test_id("status")).to_have_text("Engine down")
    page.get_by_role("button", name="Status:").click()
    check(page)


def test_everything_is_reached_by_keyboard(chat: Chat) -> None:
    names: list[str] = []
    chat.page.evaluate("document.activeElement.blur()")
    for _ in range(20):
        chat.page.keyboard.press("Tab")
        names.append(
            chat.page.evaluate(
                "(e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent)"
                "(document.activeElement)"
            )
        )
    for name in [
        "Conversations", "Status: Ready", "New chat", "Settings", "Sign out", "Search conversations", "Models",
        "Conversation", "Message", "Attach pictures or texts", "Model",
    ]:  # fmt: skip
        assert name in names


def long_conversation(questions: int) -> dict[str, Any]:
    """Return a document to be imported."""
    messages: list[dict[str, Any]] = []
    for n in range(questions):
        for role, text in (("user", f"question {n}"), ("assistant", f"answer **{n}**\n\n{MARKDOWN}")):
            parent = messages[-1]["id"] if messages else None
            made = {"id": f"{role}-{n:012}", "parent": parent, "role": role, "content": text, "created": 1.0 + n}
            messages.append({**made, "thinking": "", "tool_calls": [], "model": "m", "attachments": []})
    head = {"format": "cloudtolocalllm-conversation", "version": 1, "id": "long-conversation", "title": "A long one"}
    times = {"pinned": False, "created": 1.0, "updated": 2.0, "leaf": messages[-1]["id"]}
    return {**head, **times, "messages": messages, "runs": [], "attachments": {}}


def test_a_long_conversation_opens_with_its_end(chat: Chat, chat_home: ChatHome) -> None:
    chat_home.get("POST", "/import", json.dumps(long_conversation(200)).encode())
    chat.page.get_by_role("link", name="A long one").click()
    articles = chat.page.locator("article")
    expect(chat.page.get_by_text("answer 199")).to_be_visible()
    chat.page.wait_for_timeout(300)
    assert articles.count() < 60
    log = chat.page.get_by_role("log")
    assert log.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 50
    # Somebody who reads upwards finds what came before, and stays where they are.
    before = articles.count()
    log.hover()
    chat.page.mouse.wheel(0, -3000)
    expect(chat.page.get_by_text("question 199")).to_have_count(1)
    chat.page.wait_for_function("n => document.querySelectorAll('article').length > n", arg=before)
    chat.page.get_by_role("button", name="Show all earlier messages").click()
    expect(articles).to_have_count(400)
    expect(chat.page.get_by_role("button", name="Show all earlier messages")).to_have_count(0)


def test_the_first_load_is_small_and_compressed_beforehand() -> None:
    require((DIST / "index.html").is_file(), "the built page", "cd web && npm ci && npm run build")
    names = re.findall(r'(?:src|href)="/(assets/[^"]+)"', (DIST / "index.html").read_text())
    assert {Path(name).suffix for name in names} == {".js", ".css"}
    total = 0
    for name in names:
        raw, gz, br = (DIST / f"{name}{kind}" for kind in ("", ".gz", ".br"))
        if raw.stat().st_size < SMALL:
            total += raw.stat().st_size
            continue
        assert br.stat().st_size < gz.stat().st_size
        total += gz.stat().st_size
    assert total <= FIRST_LOAD_LIMIT
    assert not list(DIST.glob("index.html.*")), "scanners would take a compressed page for open to BREACH"
    assert not list(DIST.rglob("*.map"))


def test_the_licences_of_what_is_in_it_are_passed_on() -> None:
    require((DIST / "index.html").is_file(), "the built page", "cd web && npm ci && npm run build")
    told = (DIST / "licenses.txt").read_text()
    packages = json.loads((DIST.parent / "package.json").read_text())["dependencies"]
    assert [name for name, version in packages.items() if f"{name} - {version}" not in told] == []


def test_the_page_has_nothing_inline() -> None:
    require((DIST / "index.html").is_file(), "the built page", "cd web && npm ci && npm run build")
    text = (DIST / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "<style" not in text
    assert not re.search(r"\s(?:style|on\w+)=", text)
    assert "://" not in re.sub(r'xmlns="[^"]+"', "", text)
