"""The foreign tools that `make audit` runs: where they are, what they are told, and how their reports are read."""

import csv
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.audit_target import RESULTS, TOOLS, Target
from tests.support.require import require

SCAN = Path(__file__).resolve().parents[1] / "audit" / "observatory" / "scan.mjs"
UNMADE = "WARN"
"""What testssl.sh calls a check that it could not make."""
ABOVE_LOW = frozenset({"MEDIUM", "HIGH", "CRITICAL", "FATAL", UNMADE})
"""Its severities that count."""
_OFTEN_UNMADE = frozenset({"sessionresumption_ticket", "sessionresumption_ID"})
"""Checks that may stay unmade, as whether sessions are resumed is no fault either way: its openssl hangs up before
the ticket that follows a handshake of TLS 1.3 is there, unless it is lucky."""


def program(name: str, package: str) -> str:
    """Return a program's path; skip the test where it is not installed."""
    path = shutil.which(name)
    require(path, name, f"apt-get install {package}")
    assert path is not None
    return path


def result(name: str) -> Path:
    """Return where a report goes; one of an earlier run is removed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / name
    path.unlink(missing_ok=True)
    return path


# --- sslyze ---


def sslyze(target: Target, profile: str) -> tuple[int, str]:
    """Scan with sslyze; the reports are sslyze.json and sslyze.txt.

    Args:
        target: What to scan.
        profile: Mozilla's: "modern", "intermediate" or "old".

    Returns:
        Its exit status, 0 for a server that complies, and what it printed.
    """
    path = TOOLS / "sslyze" / "bin" / "sslyze"
    require(path.exists(), "sslyze", "make audit installs it (scripts/audit_tools)")
    there = f":{target.tls_port}" + (f"{{{target.address}}}" if target.address else "")
    trusted = ["--certinfo_ca_file", str(target.root)] if target.root else []
    name = "sslyze" if profile == "intermediate" else f"sslyze-{profile}"
    command = [str(path), "--mozilla_config", profile, "--certinfo", *trusted]
    command += ["--json_out", str(result(f"{name}.json")), *(f"{host}{there}" for host in target.hosts)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    result(f"{name}.txt").write_text(ran.stdout + ran.stderr)
    return ran.returncode, ran.stdout


# --- Mozilla's HTTP Observatory ---


def observatory(target: Target, host: str) -> dict[str, Any]:
    """Scan one host and return the report, which observatory-HOST.json has too."""
    folder = TOOLS / "observatory"
    require((folder / ".lock").exists(), "Mozilla's Observatory", "make audit installs it (scripts/audit_tools)")
    command = [program("node", "nodejs, 20 or newer"), str(SCAN), str(folder), host]
    environment = dict(os.environ)
    if target.address:
        command += [target.address, str(target.plain_port), str(target.tls_port)]
    if target.root:
        environment["NODE_EXTRA_CA_CERTS"] = str(target.root)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ran.returncode == 0, f"expected a scan of {host}, got: {ran.stderr[-2000:]}"
    result(f"observatory-{host}.json").write_text(ran.stdout)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


# --- testssl.sh ---


class TlsScan:
    """testssl.sh under way: it takes a minute or two, mostly waiting, so other tests go on beside it."""

    def __init__(self, target: Target) -> None:
        """Start it on the first host of a target; the reports are testssl.json and testssl.txt."""
        self.report = result("testssl.json")
        self.log = result("testssl.txt")
        host = f"https://{target.hosts[0]}:{target.tls_port}"
        where = ["--ip", target.address, "--nodns", "none"] if target.address else ["--ip", address_of(target)]
        trusted = ["--add-ca", str(target.root)] if target.root else []
        command = [program("testssl", "testssl.sh"), "--warnings", "batch", "--color", "0", "--quiet"]
        command += ["--severity", "LOW", "--jsonfile-pretty", str(self.report), *where, *trusted, host]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, timeout: float) -> dict[str, Any]:
        """Return its report.

        Args:
            timeout: Seconds to wait for it at most.
        """
        self._process.wait(timeout)
        found: dict[str, Any] = json.loads(self.report.read_text())
        return found

    def close(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


def address_of(target: Target) -> str:
    """Return an address of a host that is looked up; testssl.sh itself would scan all, one after the other."""
    found = socket.getaddrinfo(target.hosts[0], target.tls_port, socket.AF_INET, socket.SOCK_STREAM)
    return str(found[0][4][0])


def findings(report: Mapping[str, Any], reserved: Mapping[str, str]) -> list[str]:
    """Return what testssl.sh found above LOW, but for what is reserved.

    Args:
        report: As `--jsonfile-pretty` writes it.
        reserved: Ids that are no fault of the server here, each with the reason.

    Raises:
        ValueError: No host was scanned to the end, so no findings mean nothing.
    """
    scanned = report.get("scanResult") or []
    if not scanned or any("vulnerabilities" not in host for host in scanned) or "scanTime" not in report:
        said = "; ".join(str(item["finding"]) for item in scanned if "finding" in item)
        raise ValueError(f"expected a scan to its end, got a report of less: {said or 'of nothing'}")
    items = [item for host in scanned for section in host.values() if isinstance(section, list) for item in section]
    return [
        f"{item['severity']} {item['id']}: {item['finding']}"
        for item in items
        if item["severity"] in ABOVE_LOW and item["id"] not in reserved
        if not (item["severity"] == UNMADE and item["id"] in _OFTEN_UNMADE)
    ]


# --- slowhttptest ---


@dataclass(frozen=True, slots=True)
class Second:
    """The attacker's connections in one second of an attack."""

    closed: int
    pending: int
    connected: int


class Attack:
    """slowhttptest under way."""

    def __init__(self, name: str, target: Target, path: str, arguments: tuple[str, ...]) -> None:
        """Start it; the reports are slowhttptest-NAME.csv, .html and .txt.

        Args:
            name: For its reports.
            target: Whom to attack: a server of our own.
            path: What to ask for.
            arguments: Which attack, how often and how long.
        """
        assert target.local, "expected a server of our own to attack, got somebody's"
        prefix = RESULTS / f"slowhttptest-{name}"
        self._csv = result(f"{prefix.name}.csv")
        url = f"https://{target.address}:{target.tls_port}{path}"
        command = [program("slowhttptest", "slowhttptest"), "-g", "-o", str(prefix), "-u", url, *arguments]
        self._log = result(f"{prefix.name}.txt")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def over(self) -> bool:
        """Tell whether it has ended."""
        return self._process.poll() is not None

    def seconds(self) -> list[Second]:
        """Return what it wrote of each second but the last, once it is over."""
        assert self._process.returncode == 0, self._log.read_text()[-2000:]
        return seconds_of(self._csv.read_text())

    def turned_off(self) -> bool:
        """Tell whether it ended before its time because the server had closed every connection."""
        return "No open connections left" in self._log.read_text()

    def stop(self) -> None:
        """End it if it still runs."""
        if not self.over():
            self._process.terminate()
            self._process.wait(10)


def seconds_of(text: str) -> list[Second]:
    """Read the CSV of slowhttptest."""
    rows = csv.DictReader(text.splitlines())
    found = [Second(int(row["Closed"]), int(row["Pending"]), int(row["Connected"])) for row in rows]
    if not found:
        raise ValueError("expected a line for each second of the attack, got none")
    return found
