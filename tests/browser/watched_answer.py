"""What a paired page shows of an answer while things break, and what its home has kept of it."""

import itertools
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from tests.support.engines import EngineProcess, demo_stats
from tests.support.gguf_model import ModelSpec
from tests.support.stack import ROOT

WORDS = 600
SEVERAL = ModelSpec(" ".join(("one", "über", "шаг", "語", "🦙")[n % 5] + str(n) for n in range(WORDS)))
"""An answer in which every word is another, of characters of one to four bytes: what is lost, comes twice or is cut
inside a character shows. It is one paragraph without Markdown, so that what is shown is what was said."""

RECORDER = """() => {
    const seen = window.c2lSeen = [];
    const look = () => {
        const all = document.querySelectorAll('article[data-outcome] .markdown');
        const text = all.length === 0 ? '' : all[all.length - 1].textContent;
        if (seen.length === 0 || seen[seen.length - 1][1] !== text) seen.push([Date.now() / 1000, text]);
    };
    const begin = () => new MutationObserver(look).observe(
        document.documentElement, {subtree: true, childList: true, characterData: true});
    if (document.documentElement) begin(); else document.addEventListener('readystatechange', begin, {once: true});
}"""
"""Notes each text of the last answer that is shown, and when."""


def sign_in_link(data_dir: Path) -> str:
    """Return a fresh sign-in link of a platform that `up` runs."""
    found = re.search(r"http://\S+?(?=&pair=|\s)", _said("sign-in-link", "--data-dir", str(data_dir)))
    assert found is not None
    return found.group()


def invitation(bridge_folder: Path) -> str:
    """Return a pairing link's fragment, as the owner of a bridge gets it."""
    found = re.search(r"/pair#(c2l1\.\S+)", _said("bridge", "pair-device", "--data-dir", str(bridge_folder)))
    assert found is not None
    return found.group(1)


def _said(*arguments: str) -> str:
    command = [sys.executable, "-m", "cloudtolocalllm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=40, check=True).stdout


def pair(page: Page, url: str, bridge_folder: Path, name: str) -> None:
    """Pair a page that is signed in, by its link, and go to the chat."""
    page.goto(f"{url}/pair#{invitation(bridge_folder)}")
    page.get_by_label("Name of this browser").fill(name)
    page.get_by_role("button", name="Pair this browser").click()
    expect(page.get_by_role("heading", name="This browser is paired")).to_be_visible(timeout=20_000)
    page.goto(f"{url}/")
    expect(page.get_by_test_id("status")).to_have_text("Ready", timeout=20_000)


def messages_at(bridge_folder: Path, conversation: str) -> list[tuple[str, str]]:
    """Return role and text of all messages of a conversation that a home has kept, in their order."""
    (store,) = bridge_folder.glob("*.home.db")
    question = """SELECT role, content FROM messages
        WHERE conversation = (SELECT seq FROM conversations WHERE id = ?) ORDER BY seq"""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5)) as db:
        return db.execute(question, (conversation,)).fetchall()


def engine_says(engine: EngineProcess, question: str) -> str:
    """Return what the engine answers when it is asked directly."""
    body = {"model": "tiny:latest", "messages": [{"role": "user", "content": question}], "temperature": 0}
    answer = httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=60).json()
    return str(answer["choices"][0]["message"]["content"])


@dataclass
class WatchedAnswer:
    """One question of a paired page, and its answer."""

    page: Page
    engine: EngineProcess
    bridge_folder: Path
    expected: str
    """What the engine says."""
    asked: int = 0
    """How often the engine was asked before."""

    def ask(self, *, words: int = 40) -> None:
        """Ask, and wait until so many words of the answer are there."""
        self.asked = demo_stats(self.engine.url)["started"]
        self.page.add_init_script(f"({RECORDER})()")
        self.page.evaluate(RECORDER)
        self.page.get_by_label("Message").fill("go")
        self.page.get_by_role("button", name="Send").click()
        self.wait_for_words(words)

    def wait_for_words(self, words: int) -> None:
        """Wait until so many words of the answer are shown."""
        self.page.wait_for_function(
            "count => ([...document.querySelectorAll('article[data-outcome] .markdown')].at(-1)?.textContent ?? '')"
            ".trim().split(/\\s+/).length >= count",
            arg=words,
            timeout=60_000,
        )

    @property
    def seen(self) -> list[tuple[float, str]]:
        """Each text that was shown since the page was loaded, and when (seconds since 1970)."""
        return [(at, text) for at, text in self.page.evaluate("() => window.c2lSeen")]

    def expect_whole(self, *, asked: int = 1, within: float = 90) -> None:
        """Wait for the end; check that all of it is there, and once.

        Args:
            asked: How often the engine was asked for it.
            within: Seconds.
        """
        last = self.page.locator("article[data-outcome]")
        expect(last).to_have_count(1)
        expect(last).to_have_attribute("data-outcome", "done", timeout=within * 1000)
        shown = self.page.locator("article[data-outcome] .markdown").text_content()
        assert shown is not None
        assert shown.strip() == self.expected.strip()
        assert copied(self.page) == self.expected
        assert messages_at(self.bridge_folder, self.page.url.rpartition("/")[2]) == [
            ("user", "go"),
            ("assistant", self.expected),
        ]
        for _, text in self.seen:
            assert self.expected.strip().startswith(text.strip()), "expected no text that is not the engine's"
        assert demo_stats(self.engine.url)["started"] - self.asked == asked

    def is_shown_anew(self) -> None:
        """A page that is loaded anew shows the same."""
        self.page.reload()
        expect(self.page.locator("article[data-outcome=done]")).to_have_count(1, timeout=20_000)
        assert copied(self.page) == self.expected

    def gap_after(self, back: float) -> float:
        """Return the seconds from a moment (seconds since 1970) to the first new text."""
        length = max((len(text) for at, text in self.seen if at <= back), default=0)
        return next(at for at, text in self.seen if at > back and len(text) > length) - back

    def longest_gap(self) -> float:
        """Return the seconds between two texts that were furthest apart."""
        times = [at for at, text in self.seen if text]
        return max(late - early for early, late in itertools.pairwise(times))


def copied(page: Page) -> str:
    """Return what "Copy answer" gives: the text as the home sent it."""
    page.evaluate("() => navigator.clipboard.writeText('nothing was copied')")
    page.get_by_role("button", name="Copy answer").last.click()
    expect(page.get_by_role("button", name="Copied").last).to_be_visible()
    text: Any = page.evaluate("() => navigator.clipboard.readText()")
    return str(text)


def now() -> float:
    """Seconds since 1970, as the page counts them."""
    return time.time()
