"""Certificates from a real ACME authority by the real certbot, served by a real nginx that is never cut."""

import asyncio
import contextlib
import hashlib
import http.client
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.certs_keeper import COMMAND, Keeper, kept
from tests.support.certs_nginx import DOWNLOAD, CertsNginx, running_certs_nginx, tls_context
from tests.support.pebble import (
    FakeDns,
    Pebble,
    require_certbot,
    running_bind,
    running_dns,
    running_pebble,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DOMAIN = "example.org"


@contextlib.contextmanager
def place(folder: Path, *, seconds: int = 90 * 86_400) -> Iterator[tuple[Pebble, CertsNginx, FakeDns]]:
    require_certbot()
    with (
        running_dns(folder) as dns,
        running_certs_nginx(folder, folder / "certs" / DOMAIN, tls=False) as nginx,
        running_pebble(folder, dns_port=dns.port, http_port=nginx.http_port, seconds=seconds) as pebble,
    ):
        yield pebble, nginx, dns


def http01(pebble: Pebble, nginx: CertsNginx) -> dict[str, object]:
    return {
        "certbot": require_certbot(),
        "server": pebble.directory,
        "ca_bundle": pebble.ca_bundle,
        "webroot": nginx.webroot,
        "nginx_pid_file": nginx.pid_file,
    }


def test_issue_and_renew_without_cutting_anybody(tmp_path: Path) -> None:
    with place(tmp_path, seconds=30) as (pebble, nginx, _):
        roots = tmp_path / "roots.pem"
        roots.write_bytes(pebble.root())
        settings = {**http01(pebble, nginx), "roots": roots, "webroot_url": f"http://127.0.0.1:{nginx.http_port}"}
        with kept(tmp_path, DOMAIN, **settings) as keeper:
            keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "a certificate")
            nginx.configure(tls=True)
            nginx.reload()
            nginx.wait_for_tls()
            before = nginx.serial(DOMAIN, roots=roots)
            assert before > 0
            asyncio.run(_renewed_under_load(keeper, nginx, before))
            keeper.wait(lambda: keeper.status()["usable"] and not keeper.status()["fault"], "a usable state")
            metrics = (tmp_path / "state" / "metrics.prom").read_text()
            assert f'c2l_certificate_usable{{name="{DOMAIN}"}} 1\n' in metrics
            assert f'c2l_certificate_failures_total{{name="{DOMAIN}"}} 0\n' in metrics
        assert all(a["outcome"] == "issued" for a in keeper.attempts())
        left = list(nginx.webroot.rglob("*"))
        assert not [path for path in left if path.is_file()], "challenges are removed"


async def _renewed_under_load(keeper: Keeper, nginx: CertsNginx, before: int) -> None:
    """A download and two clients that began before a renewal go on through it."""
    await asyncio.to_thread(keeper.wait, lambda: len(keeper.attempts()) > 1, "a renewal to begin")
    done = threading.Event()
    async with asyncio.TaskGroup() as group:
        body = group.create_task(asyncio.to_thread(_download, nginx, done))
        kept = group.create_task(asyncio.to_thread(_ask_on_and_on, nginx, done))
        fresh = group.create_task(asyncio.to_thread(_ask_anew, nginx, done))
        try:
            await asyncio.to_thread(keeper.wait, lambda: nginx.serial(DOMAIN) != before, "a renewed certificate")
            await asyncio.sleep(0.5)
            assert not body.done()
        finally:
            done.set()
    digest, size = body.result()
    assert size == DOWNLOAD
    assert digest == hashlib.sha256((nginx.folder / "files" / "download").read_bytes()).hexdigest()
    assert kept.result() > 10
    assert fresh.result() > 10


def _ask_on_and_on(nginx: CertsNginx, done: threading.Event) -> int:
    """Return how many requests were answered over one kept connection, opened anew when the server ended it."""
    connection = http.client.HTTPSConnection("127.0.0.1", nginx.tls_port, context=tls_context(None), timeout=20)
    answered = 0
    while not done.wait(0.02):
        for last in (False, True):
            try:
                connection.request("GET", "/serial")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"here")
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                # RFC 9112 section 9.3.1: a server may end an idle connection; the client asks again on a new one.
                connection.close()
                if last:
                    raise
        answered += 1
    connection.close()
    return answered


def _ask_anew(nginx: CertsNginx, done: threading.Event) -> int:
    """Return how many requests were answered, each over a connection of its own; no failure is forgiven."""
    answered = 0
    while not done.wait(0.02):
        connection = http.client.HTTPSConnection("127.0.0.1", nginx.tls_port, context=tls_context(None), timeout=20)
        connection.request("GET", "/serial", headers={"Connection": "close"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"here")
        connection.close()
        answered += 1
    return answered


def _download(nginx: CertsNginx, done: threading.Event) -> tuple[str, int]:
    """Read slowly until `done`, then the rest; return the digest and size of it all."""
    connection = http.client.HTTPSConnection("127.0.0.1", nginx.tls_port, context=tls_context(None), timeout=30)
    connection.request("GET", "/download")
    answer = connection.getresponse()
    seen, size = hashlib.sha256(), 0
    while data := answer.read(8192):
        seen.update(data)
        size += len(data)
        if not done.is_set():
            done.wait(0.05)
    connection.close()
    return seen.hexdigest(), size


def test_a_wildcard_by_a_dns_record(tmp_path: Path) -> None:
    require_certbot()
    with running_bind(tmp_path, DOMAIN) as bind, running_pebble(tmp_path, dns_port=bind.port, http_port=1) as pebble:
        settings = {
            "domains": f"{DOMAIN},*.{DOMAIN}",
            "server": pebble.directory,
            "ca_bundle": pebble.ca_bundle,
            "certbot": require_certbot(),
            "challenge": "dns-01",
            "dns_credentials": bind.credentials,
            "dns_propagation": 1,
        }
        with kept(tmp_path, DOMAIN, **settings) as keeper:
            keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "a certificate")
            keeper.wait(lambda: keeper.status()["good"], "a good state")
            status = keeper.status()
            assert sorted(status["names"]) == [f"*.{DOMAIN}", DOMAIN]
            assert 89 < status["days_left"] <= 90


def test_a_rehearsal_is_replaced_by_the_real_thing(tmp_path: Path) -> None:
    """As with C2L_CERTS_STAGING set and then removed: two authorities, the second asked at once."""
    (tmp_path / "real").mkdir()
    with (
        place(tmp_path) as (rehearsal, nginx, dns),
        running_pebble(tmp_path / "real", dns_port=dns.port, http_port=nginx.http_port) as real,
    ):
        with kept(tmp_path, DOMAIN, **http01(rehearsal, nginx)) as keeper:
            keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "the rehearsal's certificate")
            first = (keeper.deployed / "fullchain.pem").read_bytes()
            keeper.stop()
            keeper.environ |= {"C2L_CERTS_SERVER": real.directory, "C2L_CERTS_CA_BUNDLE": str(real.ca_bundle)}
            keeper.start()
            keeper.wait(lambda: (keeper.deployed / "fullchain.pem").read_bytes() != first, "the real certificate")
            keeper.wait(lambda: keeper.status()["good"], "a good state")
        roots = tmp_path / "roots.pem"
        roots.write_bytes(real.root())
        nginx.configure(tls=True)
        nginx.reload()
        nginx.wait_for_tls()
        assert nginx.serial(DOMAIN, roots=roots) > 0


def test_a_failure_says_what_to_mend_and_no_restart_asks_again(tmp_path: Path) -> None:
    with place(tmp_path) as (pebble, nginx, dns):
        dns.fail(DOMAIN)
        with kept(tmp_path, DOMAIN, **http01(pebble, nginx)) as keeper:
            keeper.wait(lambda: "certbot failed" in keeper.status()["fault"], "a fault")
            status = keeper.status()
            assert "check that A and AAAA records lead to this machine" in status["fault"]
            assert not status["usable"]
            assert status["failures_in_a_row"] == 1
            for _ in range(3):
                keeper.kill()
                (tmp_path / "state" / "status.json").unlink()
                keeper.start()
                keeper.wait(lambda: keeper.status()["next_why"].startswith("an earlier attempt"), "a look")
            assert len(keeper.attempts()) == 1
            dns.mend(DOMAIN)
            assert subprocess.run([*COMMAND, "retry"], env=keeper.environ, timeout=20).returncode == 0
            keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "a certificate after `retry`")
            keeper.wait(lambda: keeper.status()["good"], "a good state")
            assert [a["outcome"] for a in keeper.attempts()] == ["failed", "issued"]


def test_a_death_during_an_attempt_counts_as_a_failure(tmp_path: Path) -> None:
    with place(tmp_path) as (pebble, nginx, _):
        slow = tmp_path / "slow-certbot"
        slow.write_text("#!/bin/sh\nexec sleep 30\n")
        slow.chmod(0o755)
        with kept(tmp_path, DOMAIN, **{**http01(pebble, nginx), "certbot": slow}) as keeper:
            keeper.wait(keeper.attempts, "an attempt")
            keeper.kill()
            keeper.environ["C2L_CERTS_CERTBOT"] = require_certbot()
            keeper.start()
            keeper.wait(lambda: keeper.status()["next_why"].startswith("an earlier attempt"), "a pause")
            assert [a["outcome"] for a in keeper.attempts()] == ["pending"]
            assert not keeper.deployed.exists()


def test_no_attempt_is_made_before_nginx_serves_the_webroot(tmp_path: Path) -> None:
    with place(tmp_path) as (pebble, nginx, _):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        url = f"http://127.0.0.1:{nginx.http_port}"
        settings = {**http01(pebble, nginx), "webroot": elsewhere, "webroot_url": url}
        with kept(tmp_path, DOMAIN, **settings) as keeper:
            keeper.wait(lambda: "waiting until" in keeper.status()["fault"], "it to wait")
            assert keeper.attempts() == []
            shutil.rmtree(elsewhere)
            elsewhere.symlink_to(nginx.webroot)
            keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "a certificate")


def test_one_state_directory_has_one_supervisor(tmp_path: Path) -> None:
    with place(tmp_path) as (pebble, nginx, _), kept(tmp_path, DOMAIN, **http01(pebble, nginx)) as keeper:
        keeper.wait(lambda: (tmp_path / "state" / "lock").exists() and keeper.log.stat().st_size, "a start")
        second = subprocess.run([*COMMAND, "run"], env=keeper.environ, capture_output=True, timeout=20)
        assert second.returncode == 1
        assert b"another supervisor uses" in second.stderr
