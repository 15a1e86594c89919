"""Containers of a platform killed as by a crash, and what clients that come meanwhile notice."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
from tests.support.compose_home import Home
from tests.support.compose_stack import Platform
from tests.support.docker_engine import process_of
from tests.support.stack import wait_for

PAUSE = 0.1
"""Seconds between two requests of who asks all the time."""
PATIENCE = 20.0
"""Seconds that it waits for an answer."""


def kill(platform: Platform, container: str) -> float:
    """SIGKILL a container's first process, upon which the kernel kills the rest; return when, by the monotonic clock.

    By the process, not by `docker kill`: after that one the engine leaves it dead, as the operator wanted.
    """
    os.kill(process_of(container), signal.SIGKILL)
    return time.monotonic()


def restart_count(platform: Platform, container: str) -> int:
    """Return how often the engine has restarted a container."""
    return int(platform.inspect(container)["RestartCount"])


def await_back(platform: Platform, container: str, restarts: int, within: float = 90.0) -> float:
    """Wait until a killed container was restarted and is healthy.

    Args:
        platform: Whose.
        container: Which.
        restarts: Its `restart_count` before.
        within: Seconds.

    Returns:
        Seconds it took.
    """

    def back() -> bool:
        time.sleep(0.05)
        found = platform.inspect(container)
        state = found["State"]
        healthy = state.get("Health", {}).get("Status") == "healthy"
        return int(found["RestartCount"]) > restarts and bool(state["Running"]) and healthy

    return wait_for(back, within=within, what=f"{container[:12]} to be back and healthy")


@dataclass
class Asking:
    """What somebody noticed who asks all the time, each time by a new connection."""

    failed: list[tuple[float, float, str]] = field(default_factory=list)
    """When each request that failed began and ended, and why."""
    good: list[tuple[float, float]] = field(default_factory=list)

    def outage(self, since: float) -> float:
        """Return the seconds from the first failure after a time until the next success; 0 without any failure."""
        failures = [began for began, ended, _ in self.failed if ended >= since]
        if not failures:
            return 0.0
        last = max(failures)
        return min((ended for began, ended in self.good if began > last), default=float("inf")) - min(failures)

    def slowest(self, since: float) -> float:
        """Return the seconds of the slowest good answer after a time."""
        return max((ended - began for began, ended in self.good if ended >= since), default=0.0)

    def reasons(self, since: float) -> list[str]:
        """Return why requests failed, each reason once."""
        return sorted({reason for _, ended, reason in self.failed if ended >= since})


@contextlib.contextmanager
def asking(home: Home, path: str = "/v1/models") -> Iterator[Asking]:
    """Ask for something all the time until the block ends."""
    told, stop = Asking(), threading.Event()

    def run() -> None:
        while not stop.is_set():
            began = time.monotonic()
            reason = _ask(home, path)
            ended = time.monotonic()
            if reason:
                told.failed.append((began, ended, reason))
            else:
                told.good.append((began, ended))
            stop.wait(PAUSE)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join(PATIENCE + 5)


def _ask(home: Home, path: str) -> str:
    try:
        with home.client() as client:
            answer = client.get(path, timeout=PATIENCE)
    except httpx.HTTPError as error:
        return type(error).__name__
    if answer.status_code == 200:
        return ""
    kind = answer.headers.get("content-type", "")
    return f"{answer.status_code} {answer.json()['type'].rpartition(':')[2] if 'problem' in kind else kind}"
