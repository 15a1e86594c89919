"""A laptop and a phone of one person, each paired and on a network of its own, on one conversation at one home.

Random edits, stops, branches and disconnects; whenever they have settled, both show what the home has. What was said
is there once, and each answer is what the engine says to its question, or the beginning of that when it was stopped.
"""

import collections
import itertools
import random
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from tests.browser.pairing_links import bridge_of
from tests.browser.test_page_chat_devices import PATIENCE, act, path_of
from tests.browser.watched_answer import pair, sign_in_link
from tests.support.engines import EngineProcess, demo_engine
from tests.support.fault_proxy import FaultProxy
from tests.support.loop_thread import LoopThread
from tests.support.stack import Stack, running_stack, wait_for

from cloudtolocalllm.bridge.store import conversations, messages
from cloudtolocalllm.bridge.store.messages import Message
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.demo.request import Generate
from cloudtolocalllm.demo.script import lengthened, write
from cloudtolocalllm.demo.settings import Pace

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, ROUND = 200, 20
"""Steps in all, and after how many of them the devices are left to settle."""
TOKENS, SPEED = 40, 80
"""An answer of half a second, in which its question is quoted."""
SETTLED = 30.0
"""Seconds within which both show the same."""
SUBMITTED = """() => {
    window.c2lSaid = [];
    document.addEventListener('submit', (event) => {
        const field = event.target.querySelector('textarea');
        if (field !== null) window.c2lSaid.push(field.value);
    }, true);
}"""
"""Notes what was sent off with a button."""


@dataclass
class Device:
    """A browser with its own way to the platform."""

    page: Page
    network: FaultProxy
    beside: LoopThread
    faults: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """What the home did not take, and the page gave back."""

    def note(self, error: Error) -> None:
        """Keep an error of the page's scripts."""
        self.faults.append(str(error))

    def lose_network(self, chance: random.Random) -> None:
        """Break connections, or switch the network off for what comes next."""
        match chance.choice(["cut", "cut", "offline", "silent"]):
            case "cut":
                self.beside.call(self._cut())
            case "offline":
                self.page.context.set_offline(True)
            case "silent":
                self.network.up.blackhole = self.network.down.blackhole = True

    def regain_network(self) -> None:
        """Have it on again; what it swallowed is lost, and the connections with it."""
        if self.network.up.blackhole:
            self.network.up.blackhole = self.network.down.blackhole = False
            self.beside.call(self._cut())
        self.page.context.set_offline(False)

    async def _cut(self) -> None:
        self.network.cut("rst")

    def stop(self) -> None:
        """Stop the answer, if one is being written."""
        with suppress(PlaywrightTimeoutError):
            self.page.get_by_role("button", name="Stop", exact=True).click(timeout=300)

    def close_forms(self) -> None:
        """Give up what was begun and not sent."""
        for cancel in self.page.get_by_role("button", name="Cancel").all():
            cancel.click()

    def take_refusals(self) -> None:
        """Read what the home would not do; words that were not taken are given back."""
        for _ in range(self.page.get_by_role("button", name="Dismiss").count()):
            print("refused:", self.page.locator("main").get_by_role("alert").first.inner_text().replace("\n", ": "))
            back = self.page.get_by_role("button", name="Put the message back").first
            if back.count() > 0:
                self.page.get_by_label("Message").fill("")
                back.click()
                self.refused.append(self.page.get_by_label("Message").input_value())
            else:
                self.page.get_by_role("button", name="Dismiss").first.click()

    def said(self) -> list[str]:
        """Return what was sent off."""
        return [str(text) for text in self.page.evaluate("() => window.c2lSaid")]

    def path(self) -> list[tuple[str, str]]:
        """Return the id and the words of each message that is shown."""
        everything: Locator = self.page.get_by_role("button", name="Show all earlier messages")
        if everything.count() > 0:
            with suppress(PlaywrightTimeoutError):  # a few are shown by themselves
                everything.click(timeout=PATIENCE)
        ids = self.page.evaluate("() => [...document.querySelectorAll('article')].map(a => a.dataset.message)")
        return list(zip(ids, map(words, path_of(self.page)), strict=False))


def words(text: str) -> str:
    """Return a text without what Markdown makes of it."""
    return " ".join(re.findall(r"\w+", text))


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with demo_engine(load_seconds=0, prefill_seconds=0, tokens=TOKENS, tokens_per_second=SPEED) as running:
        yield running


@pytest.fixture
def stack(engine: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[engine.url]) as running,
    ):
        yield running


@pytest.fixture
def devices(chromium: Browser, stack: Stack, beside: LoopThread) -> Iterator[list[Device]]:
    made = []
    for name in ("Laptop", "Phone"):
        network = beside.enter(FaultProxy("127.0.0.1", stack.port))
        url = f"http://127.0.0.1:{network.port}"
        page = chromium.new_context().new_page()
        device = Device(page, network, beside)
        made.append(device)
        page.on("pageerror", device.note)
        page.goto(sign_in_link(stack.data_dir).replace(stack.url, url))
        expect(page).to_have_url(f"{url}/")
        pair(page, url, stack.data_dir / "bridge", name)
    yield made
    for device in made:
        device.page.context.close()
        assert device.faults == []


@dataclass
class Truth:
    """What the home has of a conversation."""

    path: list[Message]
    tree: list[Message]
    running: int


def at_home(stack: Stack, conversation: str) -> Truth:
    """Read what the home API answers from."""
    (store,) = (stack.data_dir / "bridge").glob("*.home.db")
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5, isolation_level=None)) as db:
        db.execute("BEGIN")
        tx = Tx(db, 0)
        leaf = conversations.get(tx, conversation).leaf
        (running,) = db.execute("SELECT count(*) FROM runs WHERE ended IS NULL").fetchone()
        return Truth(messages.path(tx, conversation, leaf), messages.tree(tx, conversation), running)


def test_they_stay_equal(devices: list[Device], stack: Stack) -> None:
    chance = random.Random(20)
    laptop, phone = devices
    for device in devices:
        device.page.evaluate(SUBMITTED)
    laptop.page.get_by_label("Message").fill("Begin")
    laptop.page.get_by_role("button", name="Send").click()
    expect(laptop.page.locator("article[data-outcome=done]")).to_have_count(1)
    conversation = laptop.page.url.rpartition("/")[2]
    phone.page.evaluate("place => { location.hash = place; }", f"#c={bridge_of(stack)}/{conversation}")
    expect(phone.page.locator("article")).to_have_count(2)
    for step in range(STEPS):
        with suppress(PlaywrightTimeoutError):  # what the other one does may take it from under the hand
            take_step(devices, chance, step)
        if step % ROUND == ROUND - 1:
            settle(devices, stack, conversation)
    truth = at_home(stack, conversation)
    said = collections.Counter(text for device in devices for text in device.said())
    said.subtract(collections.Counter(text for device in devices for text in device.refused))
    check_tree(truth.tree, +said)
    print(f"{len(truth.tree)} messages, {len(truth.path)} of them on the path")
    assert len(truth.tree) > STEPS / 3


def take_step(devices: list[Device], chance: random.Random, step: int) -> None:
    device = chance.choice(devices)
    match chance.choices(["act", "stop", "lose", "regain"], [12, 3, 2, 3])[0]:
        case "act":
            act(device.page, chance, step)
        case "stop":
            device.stop()
        case "lose":
            device.lose_network(chance)
        case "regain":
            device.regain_network()


def settle(devices: list[Device], stack: Stack, conversation: str) -> None:
    """Let everything arrive; both show what is at home then."""
    for device in devices:
        device.regain_network()
        device.close_forms()
    different: list[object] = []

    def equal() -> bool:
        truth = at_home(stack, conversation)
        wanted = [(message.id, words(message.content)) for message in truth.path]
        different[:] = [truth.running] if truth.running else []
        different.extend(one for device in devices for one in differences(wanted, device.path()))
        return not different

    try:
        wait_for(equal, within=SETTLED, what="both to show what is at home")
    except AssertionError:
        raise AssertionError(f"expected both to show what is at home; at home, and shown: {different}") from None
    for device in devices:
        device.take_refusals()


def differences(wanted: list[tuple[str, str]], shown: list[tuple[str, str]]) -> list[object]:
    """Return what is at home and what is shown in its place, where that is not the same."""
    return [pair for pair in itertools.zip_longest(wanted, shown) if pair[0] != pair[1]]


def check_tree(tree: list[Message], said: collections.Counter[str]) -> None:
    """Compare the home with what was done: the model is a tree in which each question is there once."""
    by_id = {message.id: message for message in tree}
    questions = [message.content for message in tree if message.role == "user"]
    assert collections.Counter(questions) == said
    answers: collections.Counter[str] = collections.Counter()
    for message in tree:
        parent = by_id[message.parent] if message.parent else None
        if message.role == "user":  # its parent may be a question of the other device whose answer was not begun yet
            continue
        assert parent is not None
        assert parent.role == "user"
        answers[parent.id] += 1
        whole = "".join(lengthened(write(Generate("", parent.content, Pace())).tokens, TOKENS))
        assert whole.startswith(message.content)
    assert set(answers) == {message.id for message in tree if message.role == "user"}, "expected an answer to each"
