"""certbot's image as Compose runs it: read-only, without capabilities, within 128 MB and a tenth of a processor."""

import contextlib
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.certs_nginx import running_certs_nginx
from tests.support.compose_stack import built_images
from tests.support.pebble import running_dns, running_pebble

DOMAIN = "example.org"
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(240)]


def docker(*arguments: str, timeout: float = 60) -> str:
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)
    assert ran.returncode == 0, f"docker {arguments[0]}: {ran.stderr}"
    return ran.stdout.strip()


class Certbot:
    """A container of the image."""

    def __init__(self, image: str, folder: Path, environ: dict[str, object]) -> None:
        self.folder = folder
        self.name = f"c2l-test-certs-{secrets.token_hex(4)}"
        volumes = {"certs": "/etc/c2l/certs", "state": "/var/lib/c2l-certs", "webroot": "/var/www/acme"}
        line = [
            "run",
            "--detach",
            "--name",
            self.name,
            "--network",
            "host",
            "--read-only",
            "--tmpfs",
            "/tmp:size=16m",
        ]
        line += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init", "--pids-limit", "64"]
        line += ["--memory", "128m", "--memory-swap", "128m", "--cpus", "0.1"]
        for host, inside in volumes.items():
            (folder / host).mkdir(exist_ok=True)
            shutil.chown(folder / host, 10030, 10030)
            line += ["--volume", f"{folder / host}:{inside}"]
        for name, value in {"domains": DOMAIN, "poll": 0.5, **environ}.items():
            line += ["--env", f"C2L_CERTS_{name.upper()}={value}"]
        docker(*line, image)

    @property
    def deployed(self) -> Path:
        return self.folder / "certs" / DOMAIN

    def log(self) -> str:
        ran = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, timeout=20)
        return ran.stdout[-3000:] + ran.stderr[-3000:]

    def wait(self, until: Callable[[], bool], what: str, *, timeout: float = 150) -> None:
        end = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < end, f"expected {what}; the log says: {self.log()}"
            time.sleep(0.5)


@contextlib.contextmanager
def container(folder: Path, **environ: object) -> Iterator[Certbot]:
    image = f"cloudtolocalllm/certbot:{built_images()}"
    folder.chmod(0o755)
    started = Certbot(image, folder, environ)
    try:
        yield started
    finally:
        docker("rm", "--force", started.name)


def test_it_gets_a_certificate_within_its_limits(tmp_path: Path) -> None:
    for above in tmp_path.parents[:2]:
        above.chmod(above.stat().st_mode | 0o011)  # the container's user must pass
    with (
        running_dns(tmp_path) as dns,
        running_certs_nginx(tmp_path, tmp_path / "certs" / DOMAIN, tls=False) as nginx,
        running_pebble(tmp_path, dns_port=dns.port, http_port=nginx.http_port) as pebble,
    ):
        (tmp_path / "state").mkdir()
        shutil.copy(pebble.ca_bundle, tmp_path / "state" / "ca.pem")
        settings = {"server": pebble.directory, "ca_bundle": "/var/lib/c2l-certs/ca.pem"}
        url = f"http://127.0.0.1:{nginx.http_port}"
        with container(tmp_path, **settings, webroot_url=url) as certbot:
            certbot.wait(lambda: (certbot.deployed / "stamp").exists(), "a certificate")
            nginx.configure(tls=True)
            nginx.reload()
            nginx.wait_for_tls()
            assert nginx.serial(DOMAIN) > 0
            key = (certbot.deployed / "privkey.pem").stat()
            assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (10030, 10030, 0o640)
            state = json.loads(docker("inspect", "--format", "{{json .State}}", certbot.name))
            assert not state["OOMKilled"]
            docker("exec", certbot.name, "healthy")
            told = docker("exec", certbot.name, "python3", "-m", "cloudtolocalllm", "certs", "status", "--json")
            assert json.loads(told)["usable"]


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    image = f"cloudtolocalllm/certbot:{built_images()}"
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10030:10030"
    assert config["Healthcheck"]["Test"] == ["CMD", "healthy"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    assert config["Entrypoint"][0] == "python3"
