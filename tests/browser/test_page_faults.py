"""Parts that go away in the middle of an answer: Chromium, the whole platform, and a real engine behind it.

Each prints how long it took until new text was there (`pytest -s`); the tests are about the text.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.watched_answer import SEVERAL, WatchedAnswer, engine_says, now, pair, sign_in_link
from tests.support.engines import EngineProcess, demo_stats, llama_server, ollama_standin
from tests.support.fault_proxy import FaultProxy
from tests.support.loop_thread import LoopThread
from tests.support.stack import Stack, running_stack, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(180)]

QUICK, LONG = 50, 20
"""Words a second: some 12 and 30 seconds an answer."""
OFF = 20.0
"""Seconds without a network."""


@pytest.fixture(scope="module")
def real_engine() -> Iterator[EngineProcess]:
    with llama_server(SEVERAL) as running:
        yield running


@pytest.fixture(scope="module")
def quick(real_engine: EngineProcess) -> Iterator[EngineProcess]:
    with ollama_standin(real_engine, pace=QUICK) as running:
        yield running


@pytest.fixture(scope="module")
def expected(quick: EngineProcess) -> str:
    found = engine_says(quick, "go")
    assert found.split() == SEVERAL.words
    return found


@pytest.fixture(scope="module")
def stack(quick: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[quick.url]) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def long(real_engine: EngineProcess) -> Iterator[EngineProcess]:
    with ollama_standin(real_engine, pace=LONG) as running:
        yield running


@pytest.fixture(scope="module")
def long_stack(long: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[long.url]) as running,
    ):
        yield running


def watched(page: Page, stack: Stack, engine: EngineProcess, expected: str, *, port: int = 0) -> WatchedAnswer:
    """Sign a page in and pair it; `port` is another way to the platform."""
    url = f"http://127.0.0.1:{port}" if port else stack.url
    page.goto(sign_in_link(stack.data_dir).replace(stack.url, url))
    expect(page).to_have_url(f"{url}/")
    bridge = stack.data_dir / "bridge"
    pair(page, url, bridge, "Test")
    return WatchedAnswer(page, engine, bridge, expected)


def test_the_tab_is_reloaded(page: Page, stack: Stack, quick: EngineProcess, expected: str) -> None:
    answer = watched(page, stack, quick, expected)
    answer.ask()
    for words in (150, 300):
        page.reload()
        back = now()
        answer.wait_for_words(words)
        print(f"tab reloaded: text {answer.seen[1][0] - back:.2f} s after it was loaded")
    answer.expect_whole()
    answer.is_shown_anew()


@pytest.mark.parametrize("how", ["offline", "silent"])
def test_the_network_is_off(
    page: Page, long_stack: Stack, long: EngineProcess, expected: str, beside: LoopThread, how: str
) -> None:
    network = beside.enter(FaultProxy("127.0.0.1", long_stack.port))
    answer = watched(page, long_stack, long, expected, port=network.port)
    answer.ask()
    switch_network(page, network, beside, how, off=True)
    page.wait_for_timeout(OFF * 1000)
    at_the_end = answer.seen[-1][1]
    assert len(at_the_end.split()) < 150, "expected it to be off"
    switch_network(page, network, beside, how, off=False)
    back = now()
    answer.wait_for_words(len(at_the_end.split()) + 1)
    print(f"network off for 20 s ({how}): new text {answer.gap_after(back):.2f} s after it was back")
    answer.expect_whole()


def switch_network(page: Page, network: FaultProxy, beside: LoopThread, how: str, *, off: bool) -> None:
    if how == "offline":  # the browser knows; what it has open already, Chromium leaves alone
        page.context.set_offline(off)
        if off:
            beside.call(cut(network))
    else:
        network.up.blackhole = network.down.blackhole = off


def test_the_proxy_is_killed(page: Page, stack: Stack, quick: EngineProcess, expected: str) -> None:
    answer = watched(page, stack, quick, expected)
    answer.ask()
    stack.kill_proxy()
    answer.expect_whole()
    print(f"proxy killed: longest gap {answer.longest_gap():.2f} s")


@pytest.mark.parametrize("part", ["api", "edge"])
def test_a_part_of_the_cloud_is_killed(
    page: Page, stack: Stack, quick: EngineProcess, expected: str, part: str
) -> None:
    answer = watched(page, stack, quick, expected)
    answer.ask()
    stack.processes()[part].kill()
    answer.expect_whole()
    print(f"{part} killed: longest gap {answer.longest_gap():.2f} s")


def test_the_bridge_is_killed(page: Page, stack: Stack, quick: EngineProcess, expected: str) -> None:
    answer = watched(page, stack, quick, expected)
    answer.ask(words=50)
    killed: psutil.Process = stack.processes()["bridge"]
    killed.kill()
    had = len(answer.seen[-1][1].split())
    back = until_connected(stack)
    answer.expect_whole(asked=2)
    gap = answer.gap_after(back)
    print(f"bridge killed: new text {gap:.2f} s after it was back; {had / QUICK:.2f} s for the engine to get there")
    answer.is_shown_anew()


def test_the_bridge_is_killed_twice(page: Page, stack: Stack, quick: EngineProcess, expected: str) -> None:
    """The second time while the engine says once more what is there already."""
    answer = watched(page, stack, quick, expected)
    answer.ask(words=200)
    stack.processes()["bridge"].kill()
    until_connected(stack)
    stack.processes()["bridge"].kill()
    answer.expect_whole(asked=3)


@pytest.mark.parametrize("network", ["kept", "lost"])
def test_a_phone_is_locked(
    page: Page, stack: Stack, quick: EngineProcess, expected: str, beside: LoopThread, network: str
) -> None:
    """The page is frozen, as by a phone that is locked, until the answer has long ended."""
    way = beside.enter(FaultProxy("127.0.0.1", stack.port))
    answer = watched(page, stack, quick, expected, port=way.port)
    answer.ask()
    done = demo_stats(quick.url)["completed"]
    phone = renderers()
    for process in phone:
        process.suspend()
    if network == "lost":
        beside.call(cut(way))
    wait_for(lambda: demo_stats(quick.url)["completed"] > done, within=40, what="the answer to end")
    time.sleep(6)
    for process in phone:
        process.resume()
    back = now()
    answer.expect_whole()
    assert answer.longest_gap() > 6, "expected it to be frozen"
    print(f"phone locked (network {network}): all the text {answer.seen[-1][0] - back:.2f} s after it was unlocked")


def renderers() -> list[psutil.Process]:
    """Chromium's processes in which pages run. Frozen by DevTools, a page that has the focus goes on."""
    return [one for one in psutil.Process().children(recursive=True) if "--type=renderer" in one.cmdline()]


async def cut(way: FaultProxy) -> None:
    way.cut("rst")


def test_somebody_else_finds_it_whole(
    chromium: Browser, page: Page, stack: Stack, quick: EngineProcess, expected: str
) -> None:
    """The laptop is closed for good; a phone that is paired later finds the answer."""
    answer = watched(page, stack, quick, expected)
    answer.ask()
    address = page.url
    page.goto("about:blank")
    context: Any = chromium.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    phone = watched(context.new_page(), stack, quick, expected)
    phone.page.goto(address)
    phone.asked = answer.asked
    phone.page.evaluate("() => { window.c2lSeen = []; }")
    phone.expect_whole()
    context.close()


def until_connected(stack: Stack) -> float:
    """Wait until the bridge that was killed is back; return when it was (seconds since 1970)."""
    gone = False

    def back() -> bool:
        nonlocal gone
        (bridge,) = httpx.get(f"{stack.url}/api/bridge", headers=stack.headers, timeout=10).json()
        gone = gone or not bridge["connected"]
        return gone and bool(bridge["connected"])

    wait_for(back, within=40, what="the bridge to be back")
    return now()
