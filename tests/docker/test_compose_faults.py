"""Every container of the platform is killed in its turn while answers stream: what is cut, and what comes back."""

import time

import pytest
from tests.support.compose_answers import answering, ask_at_once
from tests.support.compose_faults import Asking, asking, await_back, kill, restart_count
from tests.support.compose_home import Home
from tests.support.docker_engine import docker
from tests.support.stack import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

STREAMS = 6
TOKENS, PACE = 300, 10.0
"""Of each answer: half a minute."""
FEWER = 100
"""Tokens of an answer where those that are cut are asked for again."""
SPARED = (
    ("api-backend", 0),
    ("api-backend", 1),
    ("api-backend", 2),
    ("redis", 0),
    ("streaming-proxy-manager", 0),
    ("web-app", 0),
    ("certbot", 0),
)
"""Which parts an answer under way does not need: service, and number of its container."""
WARM = 2
"""Spare proxies that the manager keeps."""


def row(part: str, back: float, asked: Asking, since: float, cut: int) -> str:
    """Return a line of the table."""
    return (
        f"| {part} | {back:.1f} | {asked.outage(since):.1f} | {asked.slowest(since):.1f} | {cut} | "
        f"{', '.join(asked.reasons(since))} |"
    )


def show(rows: list[str]) -> None:
    head = "| killed | healthy again, s | new requests fail for, s | slowest answered, s | answers cut | seen |"
    print("", head, *rows, sep="\n")


def await_answers(home: Home, within: float) -> float:
    """Wait until a new request is answered; return the seconds."""
    began = time.monotonic()

    def answered() -> bool:
        return not ask_at_once(home, 1, tokens=3, pace=0).faults("refused", "cut")

    wait_for(answered, within=within, what="an answer")
    return time.monotonic() - began


def test_no_answer_is_cut_by_any_part_that_it_does_not_need(home: Home) -> None:
    platform, rows = home.platform, []
    with answering(home, STREAMS, tokens=TOKENS, pace=PACE) as answers, asking(home) as asked:
        for service, number in SPARED:
            container = platform.containers(service)[number]
            restarts = restart_count(platform, container)
            wait_for(lambda: answers.streaming >= STREAMS - 1, within=30, what="the answers to stream")
            since = kill(platform, container)
            back = await_back(platform, container, restarts)
            time.sleep(1)
            cut = len(answers.faults("cut", "altered", since=since))
            rows.append(row(f"{service} {number + 1}", back, asked, since, cut))
    show(rows)
    print(answers.line(), answers.faults("refused", "cut", "altered")[:5])
    assert answers.faults("cut", "altered") == []
    assert answers.whole() >= 2 * STREAMS
    platform.await_healthy()


def test_nginx_is_back_soon_and_the_bridge_with_it(home: Home) -> None:
    platform = home.platform
    container = platform.containers("nginx-proxy")[0]
    restarts = restart_count(platform, container)
    with answering(home, STREAMS, tokens=FEWER, pace=PACE) as answers, asking(home) as asked:
        since = kill(platform, container)
        back = await_back(platform, container, restarts)
        again = await_answers(home, within=60)
        time.sleep(1)
    show([row("nginx-proxy", back, asked, since, len(answers.faults("cut", since=since)))])
    print(f"answers {again:.1f} s after it was healthy; {answers.line()}")
    assert answers.faults("altered") == []
    assert all("without a sign" not in fault for fault in answers.faults("cut"))


def test_a_killed_proxy_costs_its_answers_and_no_more(home: Home) -> None:
    """They break off visibly; the next request has a new proxy."""
    platform = home.platform
    ask_at_once(home, 1, tokens=3, pace=0)
    killed = home.proxy()
    with answering(home, STREAMS, tokens=FEWER, pace=PACE) as answers, asking(home) as asked:
        since = kill(platform, killed)
        again = await_answers(home, within=60)
        time.sleep(2)
    show([row("streaming-proxy", again, asked, since, len(answers.faults("cut", since=since)))])
    print(answers.line())
    assert answers.faults("altered") == []
    assert all("without a sign" not in fault for fault in answers.faults("cut"))
    assert home.proxy() != killed


def test_nothing_is_orphaned(home: Home) -> None:
    """Each container that the manager made is one that it knows, and nothing else is left of those that died."""
    platform = home.platform
    mine = platform.made_by_manager()

    def settled() -> bool:
        time.sleep(0.2)
        there = set(docker("ps", "-a", "--filter", mine, "--format", "{{.Names}}").split())
        known = platform.proxies()
        return there == set(known) and list(known.values()).count(None) == WARM

    wait_for(settled, within=30, what="the manager to know every proxy that is there")
    assert docker("network", "ls", "-q", "--filter", mine) == ""
    manager = platform.containers("streaming-proxy-manager")[0]
    folders = set(docker("exec", manager, "ls", "/run/c2l/proxies").split())
    assert {f"c2l-proxy-{name}" for name in folders} == set(platform.proxies())
    for name in platform.proxies():  # no volume of its own that would be left
        (mount,) = platform.inspect(name)["Mounts"]
        assert f"/{platform.project}_proxies/" in mount["Source"]
