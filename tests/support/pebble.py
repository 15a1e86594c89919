"""Pebble, Let's Encrypt's small authority for tests, with the DNS server that it asks; and bind9 for dns-01."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.certs_parts import TestAuthority, key_pem, pem
from tests.support.ports import free_port
from tests.support.require import require

START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0


def require_certbot() -> str:
    """Return certbot's command."""
    found = shutil.which("certbot")
    require(found, "certbot", "apt-get install certbot python3-certbot-dns-rfc2136")
    assert found is not None
    return found


@dataclass(frozen=True)
class Pebble:
    """A running authority."""

    port: int
    management_port: int
    http_port: int
    """Where it looks for http-01."""
    ca_bundle: Path
    """What its own HTTPS is checked with."""
    address: str = "127.0.0.1"
    """Where it listens."""

    @property
    def directory(self) -> str:
        return f"https://{'localhost' if self.address == '127.0.0.1' else self.address}:{self.port}/dir"

    def root(self) -> bytes:
        """Return the root that ends the chains that it issues: another at each start."""
        context = ssl.create_default_context(cafile=str(self.ca_bundle))
        url = f"https://127.0.0.1:{self.management_port}/roots/0"
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            data: bytes = answer.read()
        return data


@contextlib.contextmanager
def running_pebble(
    folder: Path, *, dns_port: int, http_port: int, seconds: int = 90 * 86_400, address: str = "127.0.0.1"
) -> Iterator[Pebble]:
    """Start an authority and end it afterwards; the test is skipped where there is none.

    Args:
        folder: For its files.
        dns_port: Of the DNS server on 127.0.0.1 that it asks.
        http_port: Where it looks for http-01.
        seconds: For which its certificates are valid.
        address: Where it listens: another one for who asks from inside a container.
    """
    require(shutil.which("pebble"), "pebble", "apt-get install pebble")
    authority = TestAuthority(time.time(), "Pebble's own")
    leaf, key = authority.leaf(tuple(dict.fromkeys(("localhost", "127.0.0.1", address))))
    (folder / "pebble.pem").write_bytes(pem(leaf) + pem(authority.intermediate.certificate))
    (folder / "pebble-key.pem").write_bytes(key_pem(key))
    (folder / "pebble-ca.pem").write_bytes(pem(authority.root.certificate))
    port, management = free_port(), free_port()
    config = {
        "listenAddress": f"{address}:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "pebble.pem"),
        "privateKey": str(folder / "pebble-key.pem"),
        "httpPort": http_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "certificateValidityPeriod": seconds,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    environ = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    command = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns_port}"]
    with running(command, folder / "pebble.log", listens=(management, (address, port)), environ=environ):
        yield Pebble(port, management, http_port, folder / "pebble-ca.pem", address)


@dataclass(frozen=True)
class FakeDns:
    """A DNS server that answers what it is told."""

    port: int
    management_port: int

    def fail(self, name: str) -> None:
        """Answer SERVFAIL for a name."""
        self._tell("/set-servfail", name)

    def mend(self, name: str) -> None:
        """End that."""
        self._tell("/clear-servfail", name)

    def _tell(self, path: str, name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=5)
        connection.request("POST", path, json.dumps({"host": f"{name}."}))
        assert connection.getresponse().status == 200
        connection.close()


@contextlib.contextmanager
def running_dns(folder: Path) -> Iterator[FakeDns]:
    """Start a DNS server that knows every name as 127.0.0.1."""
    require(shutil.which("pebble-challtestsrv"), "pebble-challtestsrv", "apt-get install pebble")
    port, management = free_port(), free_port()
    command = ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{port}", "-management", f"127.0.0.1:{management}"]
    command += ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"]
    with running(command, folder / "dns.log", listens=(port, management)):
        yield FakeDns(port, management)


@dataclass(frozen=True)
class Bind:
    """A running bind9 with one zone that takes signed updates."""

    port: int
    credentials: Path
    """For certbot-dns-rfc2136."""


@contextlib.contextmanager
def running_bind(folder: Path, zone: str) -> Iterator[Bind]:
    """Start an authoritative server of one zone."""
    named = shutil.which("named", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    require(named, "bind9", "apt-get install bind9")
    assert named is not None
    port = free_port()
    secret = "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvbmx5LCAzMiBieXRlcw=="
    (folder / "zone.db").write_text(
        f"$TTL 1\n@ IN SOA ns.{zone}. ops.{zone}. 1 60 60 600 1\n@ IN NS ns.{zone}.\n"
        "ns IN A 127.0.0.1\n@ IN A 127.0.0.1\n"
    )
    (folder / "named.conf").write_text(
        f"""
        options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
          recursion no; pid-file none; session-keyfile none; allow-query {{ any; }}; dnssec-validation no; }};
        controls {{ }};
        key "certs" {{ algorithm hmac-sha512; secret "{secret}"; }};
        zone "{zone}" {{ type primary; file "{folder}/zone.db";
          update-policy {{ grant certs name _acme-challenge.{zone}. TXT; }}; }};
        """
    )
    credentials = folder / "rfc2136.ini"
    credentials.write_text(
        f"dns_rfc2136_server = 127.0.0.1\ndns_rfc2136_port = {port}\ndns_rfc2136_name = certs\n"
        f"dns_rfc2136_secret = {secret}\ndns_rfc2136_algorithm = HMAC-SHA512\n"
    )
    credentials.chmod(0o600)
    command = [named, "-g", "-n", "1", "-c", str(folder / "named.conf")]
    with running(command, folder / "named.log", listens=(port,)):
        yield Bind(port, credentials)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    listens: Sequence[int | tuple[str, int]],
    environ: dict[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program, wait until it listens, and end it afterwards.

    Args:
        command: What to start.
        log: Where its words go.
        listens: TCP ports of 127.0.0.1, or addresses and ports.
        environ: None for the test's own.
    """
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, env=environ)
    try:
        end = time.monotonic() + START_TIMEOUT
        for port in listens:
            while not _open(port):
                if process.poll() is not None or time.monotonic() > end:
                    said = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"expected {command[0]} to listen on {port}; it said: {said}")
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _open(where: int | tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(where if isinstance(where, tuple) else ("127.0.0.1", where)) == 0
