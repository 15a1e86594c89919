"""`cloudtolocalllm certs run` as a process of its own, for tests."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "cloudtolocalllm", "certs"]


class Keeper:
    """`cloudtolocalllm certs run` as a process of its own."""

    def __init__(self, folder: Path, domain: str, **settings: object) -> None:
        self.folder = folder
        self._domain = domain
        given = {
            "domains": domain,
            "deploy_dir": folder / "certs",
            "state_dir": folder / "state",
            "poll": 0.2,
            "timeout": 60,
            **settings,
        }
        self.environ = {**os.environ, **{f"C2L_CERTS_{name.upper()}": str(value) for name, value in given.items()}}
        self.log = folder / "keeper.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def deployed(self) -> Path:
        return self.folder / "certs" / self._domain

    def start(self) -> None:
        with self.log.open("ab") as words:
            self._process = subprocess.Popen(
                [*COMMAND, "run"], env=self.environ, stdout=words, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)

    def status(self) -> dict[str, Any]:
        ran = subprocess.run([*COMMAND, "status", "--json"], env=self.environ, capture_output=True, timeout=20)
        value: dict[str, Any] = json.loads(ran.stdout)
        assert ran.returncode == (0 if value["good"] else 1)
        return value

    def attempts(self) -> list[dict[str, Any]]:
        files = list((self.folder / "state" / "acme").glob("*/*.attempts.json"))
        return json.loads(files[0].read_text())["attempts"] if files else []

    def wait(self, until: Callable[[], object], what: str, *, timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not until():
            assert self._process is not None
            if time.monotonic() > end or self._process.poll() is not None:
                raise AssertionError(f"expected {what}; the log says: {self.log.read_text()[-3000:]}")
            time.sleep(0.1)


@contextlib.contextmanager
def kept(folder: Path, domain: str, **settings: object) -> Iterator[Keeper]:
    keeper = Keeper(folder, domain, **settings)
    try:
        keeper.start()
        yield keeper
    finally:
        keeper.stop()
