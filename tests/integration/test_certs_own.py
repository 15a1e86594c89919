"""Somebody's own certificate and the local authority, served by a real nginx: what is bad never reaches it."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.certs_keeper import COMMAND, Keeper, kept
from tests.support.certs_nginx import CertsNginx, running_certs_nginx
from tests.support.certs_parts import DAY, TestAuthority, pem

from cloudtolocalllm.certs.validate import Pair

DOMAIN = "example.org"
pytestmark = pytest.mark.nginx


def write(folder: Path, pair: Pair) -> None:
    (folder / "own.pem").write_bytes(pair.fullchain)
    (folder / "own-key.pem").write_bytes(pair.privkey)


class Served:
    """The supervisor in mode own, and nginx with what it deployed."""

    def __init__(self, folder: Path, keeper: Keeper, nginx: CertsNginx, authority: TestAuthority) -> None:
        self.folder, self.keeper, self.nginx, self.authority = folder, keeper, nginx, authority

    def serial(self) -> int:
        return self.nginx.serial(DOMAIN, roots=self.folder / "roots.pem")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    authority = TestAuthority(time.time())
    (tmp_path / "roots.pem").write_bytes(pem(authority.root.certificate))
    write(tmp_path, authority.pair((DOMAIN,)))
    settings = {
        "mode": "own",
        "own_certificate": tmp_path / "own.pem",
        "own_key": tmp_path / "own-key.pem",
        "roots": tmp_path / "roots.pem",
        "nginx_pid_file": tmp_path / "nginx.pid",
    }
    with kept(tmp_path, DOMAIN, **settings) as keeper:
        keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "the first certificate")
        with running_certs_nginx(tmp_path, keeper.deployed, tls=True) as nginx:
            yield Served(tmp_path, keeper, nginx, authority)


def test_bad_replacements_are_refused_and_a_good_one_is_served(served: Served) -> None:
    before = served.serial()
    authority, good = served.authority, served.authority.pair((DOMAIN,))
    bad = {
        "expired on": authority.pair((DOMAIN,), begins=90 * DAY, ends=-DAY),
        "expected a certificate for example.org, got one for example.net": authority.pair(("example.net",)),
        "expected the private key of this certificate, got another": Pair(
            good.fullchain, authority.pair((DOMAIN,)).privkey
        ),
        "breaks off": Pair(good.fullchain[:-200], good.privkey),
        "the chain is incomplete": TestAuthority(time.time(), "Foreign").pair((DOMAIN,)),
    }
    for words, pair in bad.items():
        write(served.folder, pair)
        served.keeper.wait(lambda w=words: w in served.keeper.status()["fault"], f"a refusal: {words}")  # type: ignore[misc] # the loop's word, bound now
        assert "the deployed one stays" in served.keeper.status()["fault"]
        served.nginx.reload()
        assert served.serial() == before
    write(served.folder, good)
    served.keeper.wait(lambda: served.serial() != before, "the good one")
    served.keeper.wait(lambda: served.keeper.status()["good"], "a good state")


def test_a_death_between_writing_and_telling_is_made_up_for(served: Served) -> None:
    before = served.serial()
    served.keeper.kill()
    write(served.folder, served.authority.pair((DOMAIN,)))
    (served.keeper.deployed / "stamp").unlink()
    served.keeper.start()
    served.keeper.wait(lambda: served.serial() != before, "the new certificate")
    served.keeper.wait(lambda: (served.keeper.deployed / "stamp").exists(), "a stamp")


def test_check_tells_before_anything_is_deployed(served: Served) -> None:
    run = [*COMMAND, "check", str(served.folder / "own.pem"), str(served.folder / "own-key.pem")]
    good = subprocess.run(run, env=served.keeper.environ, capture_output=True, text=True, timeout=20)
    assert (good.returncode, good.stdout[:20]) == (0, "fit: for example.org")
    (served.folder / "own-key.pem").write_bytes(served.authority.pair((DOMAIN,)).privkey)
    bad = subprocess.run(run, env=served.keeper.environ, capture_output=True, text=True, timeout=20)
    assert bad.returncode == 1
    assert "got another" in bad.stdout


def test_the_local_authority_is_served_and_trusted_by_its_root(tmp_path: Path) -> None:
    with kept(tmp_path, "localhost", mode="local-ca") as keeper:
        keeper.wait(lambda: (keeper.deployed / "stamp").exists(), "a certificate")
        with running_certs_nginx(tmp_path, keeper.deployed, tls=True) as nginx:
            assert nginx.serial("localhost", roots=tmp_path / "state" / "local-ca" / "ca.pem") > 0
        keeper.wait(lambda: keeper.status()["good"], "a good state")
        told = subprocess.run([*COMMAND, "status"], env=keeper.environ, capture_output=True, text=True, timeout=20)
        assert told.returncode == 0
        assert "state        good until" in told.stdout
        assert "trust " in told.stdout


def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, "bad name", mode="own", timeout="soon")
    for action in ("run", "status"):
        ran = subprocess.run([*COMMAND, action], env=keeper.environ, capture_output=True, text=True, timeout=20)
        assert ran.returncode == 2
        for words in ("C2L_CERTS_DOMAINS: expected names", "C2L_CERTS_TIMEOUT: expected a number"):
            assert words in ran.stderr
