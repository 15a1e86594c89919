"""The running log: killed in the midst of writing, on a disk that refuses, and with sinks on real sockets."""

import asyncio
import http.server
import json
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.support.ports import free_port

from cloudtolocalllm.audit.config import AuditConfig
from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.audit.folder import notes_in
from cloudtolocalllm.audit.log import QUEUE, AuditLog, CheckpointPolicy
from cloudtolocalllm.audit.recent import recent
from cloudtolocalllm.audit.service import auditing
from cloudtolocalllm.audit.sinks import SinkError, SinkRunner, parse_sink
from cloudtolocalllm.audit.verify import records, verify
from cloudtolocalllm.audit.writer import Writer
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import SystemClock

WRITES_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
from cloudtolocalllm.audit.log import AuditLog, CheckpointPolicy
from cloudtolocalllm.audit.writer import Writer
from cloudtolocalllm.runtime.clock import SystemClock
clock = SystemClock()
writer = Writer(Path(sys.argv[1]), "example.org/api", now=clock.wall(), segment_bytes=20_000)
log = AuditLog(writer, clock, policy=CheckpointPolicy(records=50, seconds=0.02))
start = writer.size
for n in itertools.count(start):
    while not log.append(b'{"n":%d,"text":"%s"}' % (n, b"x" * (n % 90))):
        pass
    if n % 500 == 0:
        log.flush()
        print(n, flush=True)
    if n > start + 200_000:
        break
"""


def open_log(folder: Path, **options: Any) -> AuditLog:
    clock = SystemClock()
    return AuditLog(Writer(folder, "example.org/api", now=clock.wall()), clock, **options)


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_a_killed_writer_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    rng = random.Random(7)
    promised = -1
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, str(folder)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            for _ in range(rng.randint(1, 4)):
                promised = int(process.stdout.readline())
            time.sleep(rng.random() * 0.05)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()
        assert verify(folder).faults == []
    last = Writer(folder, "example.org/api", now=0.0)
    assert not last.damaged
    last.close(0.0)
    report = verify(folder)
    assert report.faults == report.notes == []
    numbers = [json.loads(line)["n"] for line in records(folder)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > promised
    assert len(list(folder.glob("*.jsonl"))) > 1


def test_what_is_flushed_is_signed_and_close_signs_the_rest(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", policy=CheckpointPolicy(records=10_000, seconds=1e6))
    assert log.append(b'{"n":0}')
    assert log.flush()
    assert verify(tmp_path / "log").covered == 1
    for n in range(1, 1000):
        assert log.append(b'{"n":%d}' % n)
    log.close()
    assert not log.append(b"{}")
    report = verify(tmp_path / "log")
    assert (report.covered, report.notes) == (1000, [])


def test_time_alone_brings_a_checkpoint(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", policy=CheckpointPolicy(records=10_000, seconds=0.05))
    log.append(b"{}")
    until(lambda: verify(tmp_path / "log").covered == 1)
    log.close()


def test_many_threads_write_one_log(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")

    def write(name: int) -> None:
        for n in range(500):
            assert log.append(b'{"t":%d,"n":%d}' % (name, n))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert verify(tmp_path / "log").covered == 2000
    seen = [json.loads(line) for line in records(tmp_path / "log")]
    for name in range(4):
        assert [one["n"] for one in seen if one["t"] == name] == list(range(500))


def test_a_disk_that_refuses_for_a_while_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = threading.Event()
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if refuse.is_set() and threading.current_thread().name == "audit log":
            real(fd, bytes(data)[:5])  # a part arrives before the disk is full
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("os.write", write)
    log = open_log(tmp_path / "log")
    refuse.set()
    for n in range(QUEUE):
        log.append(b'{"n":%d}' % n)
    until(lambda: log.failures >= 2)
    accepted = sum(log.append(b'{"more":%d}' % n) for n in range(QUEUE))
    assert accepted < QUEUE, "the queue has a bound"
    refuse.clear()
    assert log.flush(20)
    log.close()
    assert verify(tmp_path / "log").faults == []
    assert verify(tmp_path / "log").covered >= QUEUE


# --- sinks


def runner(text: str, token: str = "", **options: Any) -> SinkRunner:
    sink = parse_sink(text, token)
    assert sink is not None
    return SinkRunner(sink, **options)


def test_a_file_gets_records_and_checkpoints_that_prove(tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    log = open_log(tmp_path / "log", sinks=[runner(f"file:{copy}")])
    for n in range(30):
        log.append(b'{"n":%d}' % n)
    log.close()
    lines = copy.read_text().splitlines()
    assert [line for line in lines if '"n"' in line] == [f'{{"n":{n}}}' for n in range(30)]
    assert notes_in(copy.read_text())[-1] == (tmp_path / "log" / "checkpoint").read_text()
    report = verify(tmp_path / "log", given=[copy.read_text()])
    assert report.good
    assert report.given >= 1
    assert copy.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def short_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="c2l-") as name:
        yield Path(name)


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_syslog_by_datagrams(tmp_path: Path, short_dir: Path, kind: str) -> None:
    if kind == "udp":
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        text = f"syslog+udp://127.0.0.1:{server.getsockname()[1]}"
    else:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(str(short_dir / "log"))
        text = f"syslog+unix:{short_dir}/log"
    with server:
        server.settimeout(5)
        log = open_log(tmp_path / "log", sinks=[runner(text)])
        log.append(b'{"time":1800000000123,"n":1}')
        log.close()
        messages = [server.recv(65536).decode() for _ in range(2)]
    host = socket.gethostname()
    assert (
        messages[0]
        == f'<109>1 2027-01-15T08:00:00.123Z {host} cloudtolocalllm - event - {{"time":1800000000123,"n":1}}'
    )
    assert messages[1].startswith("<109>1 2")
    assert " cloudtolocalllm - checkpoint - {" in messages[1]
    report = verify(tmp_path / "log", given=["\n".join(messages)])
    assert (report.good, report.given) == (True, 1)


class Frames(socketserver.StreamRequestHandler):
    """Reads counted octets (RFC 6587)."""

    seen: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        while True:
            length = b""
            while (byte := self.rfile.read(1)) not in (b" ", b""):
                length += byte
            if not byte:
                return
            Frames.seen.append(self.rfile.read(int(length)))


def test_syslog_by_tcp_comes_back_when_its_server_does(tmp_path: Path) -> None:
    Frames.seen = []
    port = free_port()
    sink = runner(f"syslog+tcp://127.0.0.1:{port}", attempts=1000, backoff=Backoff(first=0.01, maximum=0.05))
    log = open_log(tmp_path / "log", sinks=[sink])
    log.append(b'{"time":1,"n":1}')
    assert log.flush(), "a sink that is away holds nothing up"
    until(lambda: sink.failures > 1)
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Frames) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        until(lambda: len(Frames.seen) == 2)
        log.close()
        server.shutdown()
        thread.join()
    assert b'{"time":1,"n":1}' in Frames.seen[0]
    assert b"checkpoint" in Frames.seen[1]
    assert sink.dropped == 0


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes posts, after it has refused some."""

    refuse = 0
    bodies: ClassVar[list[bytes]] = []
    fields: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if Collector.refuse:
            Collector.refuse -= 1
            self.send_response(503)
        else:
            Collector.bodies.append(body)
            Collector.fields.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[str]:
    Collector.refuse, Collector.bodies, Collector.fields = 0, [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/audit"
        server.shutdown()
        thread.join()


def test_https_posts_batches_and_tries_again(tmp_path: Path, collector: str) -> None:
    Collector.refuse = 3
    sink = runner(collector, "secret-of-the-sink", backoff=Backoff(first=0.01, maximum=0.05))
    log = open_log(tmp_path / "log", sinks=[sink])
    for n in range(500):
        log.append(b'{"n":%d}' % n)
    assert log.flush()
    until(lambda: sink.delivered >= 501)
    log.close()
    lines = b"".join(Collector.bodies).splitlines()
    assert [json.loads(line)["n"] for line in lines if b'"n"' in line] == list(range(500))
    assert len(Collector.bodies) < 50
    assert Collector.fields[0]["authorization"] == "Bearer secret-of-the-sink"
    assert Collector.fields[0]["content-type"] == "application/x-ndjson"
    assert sink.failures == 3
    assert verify(tmp_path / "log", given=[b"".join(Collector.bodies).decode()]).given >= 1


def test_a_sink_that_never_works_loses_its_lines_and_stops_nobody(
    tmp_path: Path, collector: str, caplog: pytest.LogCaptureFixture
) -> None:
    Collector.refuse = 10**9
    sink = runner(collector, attempts=2, backoff=Backoff(first=0.001, maximum=0.002))
    log = open_log(tmp_path / "log", sinks=[sink])
    for n in range(1000):
        assert log.append(b'{"n":%d}' % n)
    assert log.flush()
    until(lambda: sink.dropped > 0)
    log.close()
    assert sink.delivered == 0
    assert verify(tmp_path / "log").covered == 1000
    assert "lines are dropped" in caplog.text


class Stuck:
    """A sink that answers nothing until it is let."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def deliver(self, lines: object) -> None:
        self.free.wait(20)
        raise SinkError("told to")

    def close(self) -> None: ...


def test_what_waits_for_a_sink_has_a_bound(tmp_path: Path) -> None:
    stuck = Stuck()
    sink = SinkRunner(stuck, attempts=1)
    sink.offer([b"{}"] * 50_000)
    assert sink.dropped >= 50_000 - 10_000 - 200
    stuck.free.set()
    sink.close()


# --- a service's


async def test_a_service_has_its_start_settings_and_end_in_the_log(tmp_path: Path) -> None:
    config = AuditConfig(tmp_path / "audit" / "api", "example.org/api", f"file:{tmp_path}/copy")
    clock = SystemClock()
    for setting in ("a", "a", "b"):
        async with auditing(config, service="api", clock=clock, settings=AuditConfig(None, setting)) as auditor:
            auditor.record(Event.SIGN_OUT, user="u_a", reason=Reason.BY_USER)
            async with auditing(config, service="api", clock=clock) as replica:
                replica.record(Event.SIGN_IN, user="u_b")
    assert verify(tmp_path / "audit" / "api").faults == verify(tmp_path / "audit" / "api-2").faults == []
    written = [json.loads(line) for line in records(tmp_path / "audit" / "api")]
    codes = [one["metadata"]["event_code"] for one in written]
    once = ["service-started", "sign-out", "service-stopped"]
    assert codes == [*once, *once, once[0], "configuration-changed", *once[1:]]
    told = [one["unmapped"] for one in written if "unmapped" in one]
    assert told[0]["settings"] == ["folder", "origin"]
    assert told[0]["digest"] == told[1]["digest"] != told[2]["digest"] == told[3]["digest"]
    newest = recent(tmp_path / "audit", 100)
    assert len(newest) == len(written) + 9
    assert [one.time for one in newest] == sorted((one.time for one in newest), reverse=True)
    assert {one.service for one in newest} == {"api", "api-2"}
    assert [one.event for one in recent(tmp_path / "audit", 1)] == ["service-stopped"]


@pytest.mark.parametrize(("damage", "first"), [(False, "audit-recovered"), (True, "audit-damaged")])
async def test_a_start_tells_what_it_found(tmp_path: Path, damage: bool, first: str) -> None:
    folder = tmp_path / "log"
    writer = Writer(folder, "example.org/api", now=0.0)
    writer.append([b'{"n":0}'])
    writer.checkpoint(0.0)
    writer.append([b'{"n":1}'])
    writer.abandon()
    if damage:
        (segment,) = folder.glob("*.jsonl")
        segment.write_bytes(segment.read_bytes().replace(b'"n":0', b'"n":7'))
    async with auditing(AuditConfig(folder, "example.org/api"), service="api", clock=SystemClock()):
        pass
    codes = [json.loads(line).get("metadata", {}).get("event_code") for line in records(folder)]
    assert codes == [*([] if damage else [None, None]), first, "service-started", "service-stopped"]
    assert verify(folder).good is not damage


async def test_a_cancelled_service_still_closes_its_log(tmp_path: Path) -> None:
    async def serve() -> None:
        async with auditing(AuditConfig(tmp_path / "log"), service="api", clock=SystemClock()):
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve())
        await asyncio.sleep(0.05)
        task.cancel()
    report = verify(tmp_path / "log")
    assert (report.faults, report.notes, report.covered) == ([], [], 2)


@pytest.mark.parametrize(
    "text",
    ["nonsense", "file:relative", "file://host/x", "http://example.org/", "syslog+udp://host", "syslog+tcp://:1",
     "https://", "https://user@host/", "ftp://x/", "syslog+unix:x"],
)  # fmt: skip
def test_a_sink_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_sink(text)
