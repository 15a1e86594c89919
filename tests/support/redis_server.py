"""A real Redis for tests: a process of its own on loopback, in a folder of its own, that keeps nothing on disk."""

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.ports import free_port
from tests.support.require import require

START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0


class RedisServer:
    """One server, which can go away and come back at the same address."""

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        """Prepare a server.

        Args:
            folder: Where its socket lies; keep the path short.
            options: More of its command line, such as "--requirepass", "secret".
        """
        require(shutil.which("redis-server"), "Redis", "apt-get install redis-server")
        self.port = free_port()
        self.socket = folder / "redis.sock"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Its address for a client without a password."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Its socket's address."""
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert self._process is None
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket)]
        command += ["--dir", str(self._folder), "--save", "", "--appendonly", "no", "--daemonize", "no"]
        process = subprocess.Popen([*command, *self._options], stdout=subprocess.PIPE, text=True)
        self._process = process
        assert process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT, process.kill)
        watchdog.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if "eady to accept connections" in line:
                break
        else:
            self.stop()
            raise RuntimeError(f"expected redis-server to get ready; it said: {''.join(said)[-2000:]}")
        watchdog.cancel()
        # what it says from now on is read and forgotten, for a full pipe would stop it
        threading.Thread(target=_drain, args=(process,), daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Have it answer nobody, with its connections open, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def _drain(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    with process.stdout as stdout, contextlib.suppress(ValueError):
        for _ in stdout:
            pass


@contextlib.contextmanager
def running_redis(folder: Path, *, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Start a server and end it afterwards; the test is skipped where there is none (see `require`)."""
    server = RedisServer(folder, options=options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
