"""Every service replaced while answers stream and a client asks all the time: nothing cut, altered or refused."""

import contextlib
import fcntl
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import openai
import pytest
from tests.support.compose_answers import answering
from tests.support.compose_home import Home
from tests.support.compose_stack import Platform
from tests.support.docker_engine import DOCKER, ROOT, docker
from tests.support.engines import MODEL, EngineProcess
from tests.support.long_answer import question
from tests.support.stack import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]

STREAMS = 50
TOKENS, PACE = 60, 4.0
"""Of each answer: 15 seconds, and 200 tokens a second in all."""
PAUSE = 0.15
"""Seconds between two requests of a client of the loop."""
ROLLED = ("streaming-proxy-manager", "api-backend", "web-app", "certbot", "nginx-proxy")
HURRY = {"nginx-proxy": ("--drain", "5")}
"""What still holds the old nginx after that are bridges, whose tunnels move and lose nothing."""
NEXT, BAD = "next", "bad"
UNFIT = "HEALTHCHECK --interval=1s --retries=2 CMD false"
QUESTION: Any = [{"role": "user", "content": "go"}]


@pytest.fixture(scope="module")
def tags(acme_platform: Platform) -> Iterator[dict[str, str]]:
    """Make further versions of the images: the same with another label, and ones that never get healthy."""
    now, project = _tag(acme_platform), acme_platform.project
    versions = {NEXT: (*ROLLED, "streaming-proxy", "redis"), BAD: ("api-backend", "nginx-proxy")}
    names = []
    for version, services in versions.items():
        for service in services:
            lines = [f"FROM cloudtolocalllm/{service}:{now}", f"LABEL test.version={version}"]
            lines += [UNFIT] if version == BAD else []
            name = f"cloudtolocalllm/{service}:{project}-{version}"
            subprocess.run([DOCKER, "build", "-q", "-t", name, "-"], input="\n".join(lines).encode(), check=True,
                           capture_output=True, timeout=60, env={"DOCKER_BUILDKIT": "1"})  # fmt: skip
            names.append(name)
    yield {version: f"{project}-{version}" for version in versions}
    _set(acme_platform, now)
    docker("rmi", "-f", *names, check=False)  # what runs goes on


def _tag(platform: Platform) -> str:
    found = re.search(r"^C2L_TAG=(.*)$", (platform.folder / ".env").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _set(platform: Platform, tag: str) -> None:
    path = platform.folder / ".env"
    path.write_text(re.sub(r"(?m)^C2L_TAG=.*$", f"C2L_TAG={tag}", path.read_text()))


def rollout(platform: Platform, *arguments: str) -> tuple[int, str]:
    """Run deploy/rollout, and return its exit status and what it said."""
    done = subprocess.run(
        [str(ROOT / "deploy" / "rollout"), *arguments, "--project-dir", str(platform.folder)],
        capture_output=True, text=True, timeout=240, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    print(done.stdout + done.stderr)
    return done.returncode, done.stdout + done.stderr


@dataclass
class Loop:
    """Clients that ask small things all the time."""

    asked: int = 0
    real: int = 0
    """Answers of the real engine that were as it says them."""
    slowest: float = 0.0
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, began: float, fault: str) -> None:
        took = time.monotonic() - began
        with self.lock:
            self.asked += 1
            self.slowest = max(self.slowest, took)
            if fault:
                self.failed.append(f"{time.monotonic():.1f} {what} after {took:.2f} s: {fault}")


@contextlib.contextmanager
def asking(home: Home, real_engine: EngineProcess | None = None) -> Iterator[Loop]:
    """Ask for the models and for short answers, over kept connections and over new ones, until the block ends."""
    loop, stop = Loop(), threading.Event()
    body = {**question(2, 0), "stream": False}

    def once(client: httpx.Client, what: str) -> None:
        began, fault = time.monotonic(), ""
        try:
            if what.startswith("GET"):
                response = client.get("/v1/models")
            else:
                response = client.post("/ollama/api/chat", json=body)
            if response.status_code != 200:
                fault = f"{response.status_code} {response.text[:200]}"
        except httpx.HTTPError as error:
            fault = f"{type(error).__name__} {error}"
        loop.note(what, began, fault)

    def kept(method: str) -> None:
        with home.client() as client:
            while not stop.wait(PAUSE):
                once(client, f"{method} on a kept connection")

    def fresh(method: str) -> None:
        while not stop.wait(PAUSE):
            with home.client() as client:
                once(client, f"{method} on a new connection")

    def real(engine: EngineProcess) -> None:
        while not stop.wait(1):
            began, fault = time.monotonic(), ""
            try:
                with httpx.Client(timeout=60, transport=home.transport()) as http:
                    client = openai.OpenAI(
                        base_url=f"{home.url}/v1", api_key=home.api_key, http_client=cast("Any", http), max_retries=0
                    )
                    stream = client.chat.completions.create(
                        model=MODEL, messages=QUESTION, stream=True, temperature=0
                    )
                    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
                    fault = "" if text.strip() == engine.text.strip() else "altered"
                    loop.real += not fault
            except (openai.OpenAIError, httpx.HTTPError) as error:
                fault = f"{type(error).__name__} {error}"
            loop.note("the real engine", began, fault)

    threads = [threading.Thread(target=run, args=(m,)) for run in (kept, fresh) for m in ("GET", "POST")]
    if real_engine is not None:
        threads.append(threading.Thread(target=real, args=(real_engine,)))
    for thread in threads:
        thread.start()
    try:
        yield loop
    finally:
        stop.set()
        for thread in threads:
            thread.join(70)


def versions(platform: Platform, service: str) -> set[str]:
    """Return the versions that a service's containers run."""
    labels = [platform.inspect(one)["Config"]["Labels"] for one in platform.containers(service)]
    return {str(one.get("test.version", "now")) for one in labels}


def run_next(platform: Platform, tags: dict[str, str], *services: str) -> None:
    """Have services run the next version, whether or not a test before did it."""
    _set(platform, tags[NEXT])
    for service in services:
        if versions(platform, service) != {NEXT}:
            status, said = rollout(platform, service, "--wait", *HURRY.get(service, ()))
            assert status == 0, said


def test_nothing_is_cut_altered_or_refused_while_every_service_is_replaced(
    home: Home, real_engine: EngineProcess, tags: dict[str, str]
) -> None:
    platform = home.platform
    counts = {service: len(platform.containers(service)) for service in ROLLED}
    before = {one for service in ROLLED for one in platform.containers(service)}
    _set(platform, tags[NEXT])
    print("\n| replaced | s | small requests | slowest, s | failed |")
    with answering(home, STREAMS, tokens=TOKENS, pace=PACE) as answers, asking(home, real_engine) as loop:
        for service in ROLLED:
            began, asked, failed = time.monotonic(), loop.asked, len(loop.failed)
            loop.slowest = 0.0
            status, said = rollout(platform, service, "--wait", *HURRY.get(service, ()))
            took = time.monotonic() - began
            time.sleep(2)
            faults = loop.failed[failed:]
            print(f"| {service} | {took:.1f} | {loop.asked - asked} | {loop.slowest:.2f} | {len(faults)} |", *faults)
            assert status == 0, said
    print(f"{answers.line()}; {loop.real} answers of the real engine")
    assert loop.failed == []
    assert answers.faults("refused", "cut", "altered") == []
    assert answers.whole() >= 2 * STREAMS
    assert loop.real > 10
    assert {service: len(platform.containers(service)) for service in ROLLED} == counts
    assert not before & {one for service in ROLLED for one in platform.containers(service)}
    assert {service: versions(platform, service) for service in ROLLED} == {service: {NEXT} for service in ROLLED}


def test_compose_finds_nothing_to_do_afterwards(home: Home, tags: dict[str, str]) -> None:
    platform = home.platform
    run_next(platform, tags, *ROLLED)
    before = {one for service in ROLLED for one in platform.containers(service)}
    platform.compose("up", "-d", "--no-build", "--no-deps", *ROLLED)
    assert {one for service in ROLLED for one in platform.containers(service)} == before
    status, said = rollout(platform, "api-backend")
    assert (status, "nothing to do" in said) == (0, True)


def test_what_never_gets_healthy_is_taken_back(home: Home, tags: dict[str, str]) -> None:
    platform = home.platform
    with answering(home, 5, tokens=TOKENS, pace=PACE) as answers, asking(home) as loop:
        _set(platform, tags[BAD])
        try:
            for service in ("api-backend", "nginx-proxy"):
                before = platform.containers(service)
                status, said = rollout(platform, service)
                assert status == 1
                assert "What is new was removed; what ran before goes on untouched." in said
                assert "the end of what" in said
                assert platform.containers(service) == before
        finally:  # the tests after it start what fits
            _set(platform, tags[NEXT])
    assert loop.failed == []
    assert answers.faults("refused", "cut", "altered") == []


def test_a_new_image_reaches_the_users_proxies_when_they_are_idle(home: Home, tags: dict[str, str]) -> None:
    platform = home.platform
    wanted = docker("image", "inspect", "-f", "{{.Id}}", f"cloudtolocalllm/streaming-proxy:{tags[NEXT]}")

    def spares_are_new() -> bool:
        spares = [name for name, user in platform.proxies().items() if user is None]
        images = [docker("inspect", "-f", "{{.Image}}", name, check=False) for name in spares]  # or it has just gone
        return bool(spares) and set(images) == {wanted}

    with answering(home, 1, tokens=20, pace=4.0) as answers:
        run_next(platform, tags, "streaming-proxy-manager")
        wait_for(spares_are_new, within=60, what="the spares to run the new image")
        status, said = rollout(platform, "streaming-proxy")
    assert status == 0
    assert re.search(r"streaming-proxy: 1 of \d+ run an older image", said)  # the one in use
    assert answers.faults("refused", "cut", "altered") == []


def test_an_answer_survives_compose_alone(home: Home, tags: dict[str, str]) -> None:
    """One that begins while a service is away may have to wait, or to end with nginx's grace."""
    platform = home.platform
    _set(platform, tags[NEXT])
    with answering(home, 3, tokens=40, pace=4.0) as answers:
        for service in ("streaming-proxy-manager", "api-backend", "web-app", "nginx-proxy"):
            began = time.monotonic()
            platform.compose("up", "-d", "--no-deps", "--no-build", "--force-recreate", service)
    before = [one for one in answers.done if one.began < began]
    print(f"\n{len(before)} answers began before nginx was told to end")
    assert [one.fault for one in before if one.fault.startswith(("cut", "altered"))] == []
    assert len(before) >= 3
    platform.await_healthy()


def test_redis_is_made_anew(home: Home, tags: dict[str, str]) -> None:
    platform = home.platform
    _set(platform, tags[NEXT])
    before = platform.containers("redis")
    with answering(home, 5, tokens=40, pace=4.0) as answers, asking(home) as loop:
        status, said = rollout(platform, "redis")
        time.sleep(2)
    print(f"redis: {loop.asked} small requests, slowest {loop.slowest:.2f} s, {len(loop.failed)} failed")
    assert status == 0, said
    assert platform.containers("redis") != before
    assert answers.faults("cut", "altered") == []
    assert [fault for fault in loop.failed if ": 503 " not in fault] == []  # with Retry-After


def test_one_rollout_at_a_time(home: Home) -> None:
    with (home.platform.folder / ".rollout.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = rollout(home.platform, "web-app")
    assert status == 1
    assert "expected no other rollout" in said


def test_the_service_must_be_one(home: Home) -> None:
    status, said = rollout(home.platform, "web")
    assert status == 2
    assert "expected one of redis" in said
