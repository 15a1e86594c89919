"""The second place that records and checkpoints go to: a file, a syslog, or an HTTPS endpoint.

A log that its writer's machine holds alone can be rewritten by whoever takes that machine over, key and all. A copy
of the checkpoints that this machine cannot change afterwards shows it. A sink that fails is logged and counted; it
never holds up the log or the service, so what it did not get in time it never gets.
"""

import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cloudtolocalllm.runtime.backoff import Backoff

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

WAITING = 10_000
"""Lines that may wait for a sink, some 6 MB; beyond it the oldest are dropped."""
BATCH = 200
"""Lines delivered at once."""
ATTEMPTS = 8
"""Times that a batch is tried, over a minute or so, before it is dropped."""
TIMEOUT = 10.0
"""Seconds that one delivery may take."""
CLOSING = 3.0
"""Seconds that a sink has at the end."""
FACILITY_AUDIT = 13
"""RFC 5424 §6.2.1: log audit."""
SEVERITY_NOTICE = 5
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SinkError(Exception):
    """A delivery failed; the text is for the log."""


class Sink(Protocol):
    """Somewhere that lines go. Used by one thread."""

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Hand lines over, each a JSON object without a newline; blocks for about TIMEOUT seconds at most.

        Raises:
            SinkError: It did not work; the same lines may be given again.
        """
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class SinkRunner:
    """Delivers to one sink in a thread of its own."""

    def __init__(self, sink: Sink, *, attempts: int = ATTEMPTS, backoff: Backoff | None = None) -> None:
        """Start.

        Args:
            sink: Where to; closed with this.
            attempts: Times that a batch is tried.
            backoff: Waits between attempts; None for some from 0.5 to 15 s.
        """
        self._sink = sink
        self._attempts = attempts
        self._backoff = backoff or Backoff(first=0.5, maximum=15.0)
        self._waiting: deque[bytes] = deque()
        self._something = threading.Condition()
        self._closing = threading.Event()
        self.delivered = 0
        self.dropped = 0
        """Lines that this sink will never get."""
        self.failures = 0
        """Deliveries that failed."""
        self._thread = threading.Thread(target=self._run, name="audit sink", daemon=True)
        self._thread.start()

    def offer(self, lines: Sequence[bytes]) -> None:
        """Take lines to deliver; never waits."""
        with self._something:
            self._waiting.extend(lines)
            while len(self._waiting) > WAITING:
                self._waiting.popleft()
                self._drop(1)
            self._something.notify()

    def close(self, timeout: float = CLOSING) -> None:
        """Deliver what waits, if that works at once, and end."""
        with self._something:
            self._closing.set()
            self._something.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._deliver(batch)
        except Exception:
            log.exception("an audit sink ended")
        finally:
            self._sink.close()

    def _next(self) -> list[bytes]:
        """Return lines to deliver; none when it is over."""
        with self._something:
            while not self._waiting and not self._closing.is_set():
                self._something.wait()
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _deliver(self, batch: list[bytes]) -> None:
        for _ in range(self._attempts):
            try:
                self._sink.deliver(batch)
            except SinkError as error:
                self.failures += 1
                log.warning("an audit sink failed", extra={"fault": str(error)})
                if self._closing.wait(self._backoff.next()):
                    break
            else:
                self._backoff.reset()
                self.delivered += len(batch)
                return
        self._drop(len(batch))

    def _drop(self, number: int) -> None:
        if self.dropped == 0:
            log.error("an audit sink does not keep up: lines are dropped for it, the log itself has them")
        self.dropped += number


class FileSink:
    """Appends to a file; made with mode 0600. It is opened for each batch, so it may be moved away at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Append."""
        try:
            self._path.touch(mode=0o600)
            with self._path.open("ab") as file:
                file.write(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise SinkError(f"cannot append to the file: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open."""


class SyslogSink:
    """Sends RFC 5424 messages: by UDP (RFC 5426), TCP with counted octets (RFC 6587 §3.4.1), or a datagram socket."""

    def __init__(self, kind: str, address: tuple[str, int] | str) -> None:
        """Make a sink.

        Args:
            kind: "udp", "tcp" or "unix".
            address: Host and port, or the socket's path.
        """
        self._kind = kind
        self._address = address
        self._socket: socket.socket | None = None
        self._host = socket.gethostname().encode("ascii", "replace")[:255] or b"-"

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Send one message a line."""
        try:
            connected = self._socket or self._connect()
            self._socket = connected
            for line in lines:
                message = self._message(line)
                connected.sendall(b"%d %s" % (len(message), message) if self._kind == "tcp" else message)
        except OSError as error:
            self.close()
            raise SinkError(f"cannot send to the syslog: {error.strerror or type(error).__name__}") from None

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        if self._kind == "tcp":
            assert isinstance(self._address, tuple)  # noqa: S101 - as parse_sink made it
            return socket.create_connection(self._address, timeout=TIMEOUT)
        family = socket.AF_UNIX
        address: tuple[str, int] | str = self._address
        if isinstance(address, tuple):
            family, _, _, _, address = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]  # type: ignore[assignment] # of INET and INET6 only
        made = socket.socket(family, socket.SOCK_DGRAM)
        try:
            made.settimeout(TIMEOUT)
            made.connect(address)
        except OSError:
            made.close()
            raise
        return made

    def _message(self, line: bytes) -> bytes:
        value = json.loads(line)
        at = datetime.fromtimestamp(value.get("time", 0) / 1000, UTC).isoformat(timespec="milliseconds")
        kind = b"checkpoint" if "checkpoint" in value else b"event"
        priority = FACILITY_AUDIT * 8 + SEVERITY_NOTICE
        return b"<%d>1 %s %s cloudtolocalllm - %s - %s" % (
            priority, at.replace("+00:00", "Z").encode(), self._host, kind, line,
        )  # fmt: skip


class HttpsSink:
    """Posts batches as newline-delimited JSON; 2xx is success, redirects are not followed."""

    def __init__(self, url: str, token: str = "") -> None:
        """Make a sink.

        Args:
            url: Where to.
            token: Sent as a bearer token; empty for none.
        """
        self._url = url
        self._headers = {"content-type": "application/x-ndjson"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._client: httpx.Client | None = None

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Post."""
        import httpx  # only those who use this sink pay for it

        try:
            if self._client is None:
                self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=False)
            content = b"".join(line + b"\n" for line in lines)
            response = self._client.post(self._url, content=content, headers=self._headers)
        except httpx.HTTPError as error:
            raise SinkError(f"cannot post: {type(error).__name__}") from None
        if not response.is_success:
            raise SinkError(f"expected a status of success, got {response.status_code}")

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()


def check_sink(text: str) -> str:
    """Return the setting if it names a sink.

    Raises:
        ValueError: It does not; the text says what does.
    """
    parse_sink(text)
    return text


def parse_sink(text: str, token: str = "") -> Sink | None:
    """Return the sink that a setting names; None for an empty one.

    Args:
        text: "file:/PATH", "syslog+udp://HOST:PORT", "syslog+tcp://HOST:PORT", "syslog+unix:/PATH" or "https://URL".
        token: For HTTPS.

    Raises:
        ValueError: It names none.
    """
    if not text:
        return None
    wrong = ValueError(
        'expected "file:/PATH", "syslog+udp://HOST:PORT", "syslog+tcp://HOST:PORT", "syslog+unix:/PATH" or "https://URL"'
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return FileSink(Path(parts.path))
    if parts.scheme == "syslog+unix" and parts.path.startswith("/") and not parts.netloc:
        return SyslogSink("unix", parts.path)
    if parts.scheme in ("syslog+udp", "syslog+tcp") and parts.hostname and port and not parts.path:
        return SyslogSink(parts.scheme[7:], (parts.hostname, port))
    plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if (parts.scheme == "https" or plain) and parts.hostname and "@" not in parts.netloc:
        return HttpsSink(text, token)
    raise wrong
