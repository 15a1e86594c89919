"""A Docker engine of the test's own, which it may kill."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.docker_engine import docker
from tests.support.require import require


class OwnEngine:
    """A dockerd that keeps its containers running while it is not there (live-restore).

    In a network namespace of its own: two daemons in one fight over the bridge docker0, and the second may remove it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "d.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        pidfile = self.folder / "pid"
        pidfile.unlink(missing_ok=True)
        command = [
            "unshare", "--net", "dockerd", "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"),
            "--pidfile", str(pidfile), "-H", self.url, "--live-restore", "--iptables=false",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if subprocess.run(["docker", "-H", self.url, "info"], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """As a crash would; what it started lives on."""
        assert self.process is not None
        pidfile = self.folder / "exec" / "containerd" / "containerd.pid"
        containerd = Path("/proc") / pidfile.read_text().strip()
        self.process.kill()
        self.process.wait(10)
        deadline = time.monotonic() + 5
        while containerd.exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # it is killed with its parent; a dockerd that still finds it there relies on it

    def end(self) -> None:
        """End it and all that it runs."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.start()
        if left := docker("ps", "-aq", host=self.url).split():
            docker("rm", "-f", *left, host=self.url)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@contextlib.contextmanager
def running_own_engine(*images: str) -> Iterator[OwnEngine]:
    """Start an engine that has some of the machine's images; end it and all that it runs afterwards."""
    require(
        shutil.which("dockerd") and shutil.which("unshare") and os.geteuid() == 0,
        "dockerd, as root",
        "apt-get install docker.io",
    )
    folder = Path(tempfile.mkdtemp(prefix="c2l-d-"))
    engine = OwnEngine(folder)
    try:
        engine.start()
        saved = folder / "images.tar"
        docker("save", "-o", str(saved), *images)
        docker("load", "-i", str(saved), host=engine.url)
        saved.unlink()
        yield engine
    finally:
        engine.end()
        shutil.rmtree(folder, ignore_errors=True)
