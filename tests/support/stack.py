"""The whole platform as a user starts it: `cloudtolocalllm up` in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cloudtolocalllm.api.secrets import load_pseudonym_key, load_signing_ring
from cloudtolocalllm.auth.keys import DAY, KeyScope, mint_key
from cloudtolocalllm.auth.pseudonyms import owner_of, user_of
from cloudtolocalllm.cli.layout import Layout

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 40.0
STOP_TIMEOUT = 30.0
LIMITS = ("STREAMS", "REQUESTS_PER_MINUTE", "BYTES_PER_MINUTE")


@dataclass(slots=True)
class Stack:
    """A running platform."""

    url: str
    sign_in_url: str
    api_key: str
    data_dir: Path
    pid: int
    process: "subprocess.Popen[str]"
    errors: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The edge's port."""
        return int(self.url.rpartition(":")[2])

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def run_dir(self) -> Path:
        """The folder of the sockets."""
        return Layout(self.data_dir).run

    @property
    def secrets_dir(self) -> Path:
        """The cloud's keys."""
        return self.data_dir / "cloud" / "secrets"

    @property
    def owner(self) -> str:
        """The owner's user id."""
        return owner_of(load_pseudonym_key(self.secrets_dir))

    def new_user(self, name: str, scope: KeyScope | None = None) -> tuple[str, str]:
        """Return the id and an API key of another user, as signing in with a provider would make them."""
        user = user_of(load_pseudonym_key(self.secrets_dir), "https://issuer.test", name)
        ring = load_signing_ring(self.secrets_dir)
        _, key = mint_key(ring, user=user, scope=scope or KeyScope(), lifetime=DAY, now=time.time())
        return user, key

    def processes(self) -> dict[str, psutil.Process]:
        """The parts' processes by name; each proxy as its instance id."""
        found: dict[str, psutil.Process] = {}
        for record in json.loads((self.data_dir / "processes.json").read_text()):
            with contextlib.suppress(psutil.NoSuchProcess):
                found[record["name"]] = psutil.Process(record["pid"])
        for instance in self.instances():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[instance["id"]] = psutil.Process(instance["pid"])
        return found

    def instances(self) -> list[dict[str, Any]]:
        """What the manager's driver wrote of its proxies."""
        folder = self.data_dir / "run" / "proxies"
        found = []
        for path in folder.glob("*/instance.json"):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_text()))
        return found

    def kill_proxy(self) -> int:
        """SIGKILL the owner's proxy; return its process id once it has ended, so that what is asked next is later."""
        (owned,) = [instance for instance in self.instances() if instance["user"] == self.owner]
        proxy = psutil.Process(owned["pid"])
        proxy.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            wait_for(lambda: proxy.status() == psutil.STATUS_ZOMBIE, within=10, what="the proxy to end")
        return int(owned["pid"])

    def stop(self) -> int:
        """SIGTERM and wait; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)


@contextlib.contextmanager
def running_stack(
    data_dir: Path,
    *,
    engines: Sequence[str] = (),
    port: int = 0,
    arguments: Sequence[str] = (),
    limited: bool = False,
) -> Iterator[Stack]:
    """Start `up` and stop it at the end.

    Args:
        data_dir: Its data directory; keep the path short, sockets lie in it.
        engines: URLs; empty for the demo engine.
        port: 0 for any.
        arguments: More of the command line.
        limited: Whether each user is limited, as by default; else tests that ask much meet no limit.
    """
    command = [sys.executable, "-m", "cloudtolocalllm", "up", "--json", "--no-browser", "--port", str(port)]
    command += ["--data-dir", str(data_dir), *arguments]
    for engine in engines:
        command += ["--engine", engine]
    if not engines and "--no-demo" not in arguments:
        command.append("--demo")
    unlimited = {} if limited else {f"C2L_API_USER_{what}": "0" for what in LIMITS}
    environment = {**os.environ, **unlimited}
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    errors: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=_collect, args=(process.stderr, errors), daemon=True)
    reader.start()
    watchdog = threading.Timer(START_TIMEOUT, process.terminate)
    watchdog.start()
    try:
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            process.wait(STOP_TIMEOUT)
            reader.join(5)
            log = data_dir / "logs" / "up.log"
            tail = log.read_text()[-3000:] if log.exists() else ""
            raise RuntimeError(f"expected `up` to get ready; it said: {''.join(errors)}\n{tail}")
        ready = json.loads(line)
        yield Stack(
            url=ready["url"],
            sign_in_url=ready["sign_in_url"],
            api_key=ready["api_key"],
            data_dir=Path(ready["data_dir"]),
            pid=ready["pid"],
            process=process,
            errors=errors,
        )
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(5)
        process.stdout.close()
        process.stderr.close()


def _collect(stream: Any, into: list[str]) -> None:
    with contextlib.suppress(ValueError):
        into.extend(stream)


def wait_for(condition: Any, *, within: float, what: str) -> float:
    """Call a function until it returns something true.

    Returns:
        Seconds it took.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            raise AssertionError(f"expected {what} within {within} s")
        time.sleep(0.01)
    return time.monotonic() - began
