"""The containers `ports` and `nginx-proxy` by themselves: nginx has no network, and serves the published port."""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from tests.support.compose_stack import built_images
from tests.support.docker_engine import RUN_LABEL, docker, process_of, remove, status
from tests.support.ports import free_port
from tests.support.stack import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]
DOMAIN = "llm.example"
CONFINED = ("--init", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")


def ask(port: int, timeout: float = 5.0) -> str:
    """Return the first line of an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(4096).partition(b"\r\n")[0].decode()


def served(port: int) -> bool:
    """Tell whether nginx answers at the port; a moment later if nothing listens there."""
    try:
        return " 308 " in ask(port, 1)
    except OSError:
        time.sleep(0.02)
        return False


@dataclass
class Pair:
    """A volume, who holds the ports, and nginx after nginx."""

    tag: str
    port: int
    name: str = field(default_factory=lambda: "c2l-test-" + secrets.token_hex(4))
    made: list[str] = field(default_factory=list)

    def ports(self) -> str:
        return self._run("ports", "--restart", "unless-stopped", "--memory", "16m", "--memory-swap", "16m",
                         "-p", f"127.0.0.1:{self.port}:8080", "-v", f"{self.name}:/run/c2l/ports")  # fmt: skip

    def nginx(self) -> str:
        environ = {
            "C2L_EDGE_API": "api-backend:8000",
            "C2L_EDGE_DOMAIN": DOMAIN,
            "C2L_EDGE_DRAIN_GRACE": "8",
            "C2L_NGINX_PORTS": "/run/c2l/ports/ports.sock",
            "C2L_NGINX_CERTIFICATE_DIR": "/etc/c2l/certs",
        }
        return self._run(
            "nginx-proxy", "--network", "none", "--memory", "256m", "--memory-swap", "256m",
            "-v", f"{self.name}:/run/c2l/ports:ro",
            "--tmpfs", "/run/c2l/nginx:uid=10050,gid=10050,mode=0750,size=96m",
            *(word for name, value in environ.items() for word in ("-e", f"{name}={value}")),
        )  # fmt: skip

    def await_healthy(self, container: str) -> None:
        def healthy() -> bool:
            time.sleep(0.2)
            return docker("inspect", "-f", "{{.State.Health.Status}}", container) == "healthy"

        wait_for(healthy, within=60, what="the container to be healthy")

    def _run(self, image: str, *options: str) -> str:
        name = f"{self.name}-{len(self.made)}"
        self.made.append(name)
        docker("run", "-d", "--name", name, "--label", RUN_LABEL, *CONFINED, *options,
               f"cloudtolocalllm/{image}:{self.tag}")  # fmt: skip
        return name

    def remove(self) -> None:
        remove(*self.made)
        docker("volume", "rm", self.name, check=False)


@pytest.fixture
def pair() -> Iterator[Pair]:
    found = Pair(built_images(), free_port())
    try:
        yield found
    finally:
        found.remove()


def test_one_container_follows_another(pair: Pair) -> None:
    ports = pair.ports()
    old = pair.nginx()
    pair.await_healthy(ports)
    pair.await_healthy(old)
    assert " 308 " in ask(pair.port)
    answers: list[str] = []
    enough = threading.Event()

    def again_and_again() -> None:
        while not enough.wait(0.01):
            try:
                answers.append(ask(pair.port, 30))
            except OSError as error:
                answers.append(repr(error))

    threads = [threading.Thread(target=again_and_again) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        new = pair.nginx()
        pair.await_healthy(new)
        docker("kill", "-s", "QUIT", old)
        assert docker("wait", old) == "0"
        # and by `docker stop` alone, with nobody there meanwhile: connections wait
        docker("stop", "-t", "20", new)
        pair.await_healthy(pair.nginx())
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    print(f"{len(answers)} answers")
    assert {answer for answer in answers if " 308 " not in answer} == set()
    assert len(answers) > 50
    usage = "cd /sys/fs/cgroup; cat memory.current 2>/dev/null || cat memory/memory.usage_in_bytes"  # v2, or v1
    print(f"ports uses {int(docker('exec', ports, 'sh', '-c', usage)) / 1e6:.1f} MB")


def test_a_killed_holder_comes_back(pair: Pair) -> None:
    ports, nginx = pair.ports(), pair.nginx()
    pair.await_healthy(nginx)
    os.kill(process_of(ports), signal.SIGKILL)
    began = time.monotonic()

    # for a moment the old network is still there, and nginx in it
    wait_for(lambda: docker("inspect", "-f", "{{.RestartCount}}", ports) == "1", within=30, what="another holder")

    wait_for(lambda: served(pair.port), within=30, what="nginx to serve the ports again")
    print(f"served again {time.monotonic() - began:.2f} s after the kill")
    assert docker("inspect", "-f", "{{.RestartCount}}", nginx) == "0"
    assert "nginx serves the sockets of a new holder" in status("logs", nginx)[1]


def test_nginx_follows_ports_that_move(pair: Pair) -> None:
    """As deploy/install does it for another --http or --https: by another container, which publishes others."""
    ports, nginx = pair.ports(), pair.nginx()
    pair.await_healthy(nginx)
    assert " 308 " in ask(pair.port)
    remove(ports)
    former, pair.port = pair.port, free_port()
    pair.await_healthy(pair.ports())

    wait_for(lambda: served(pair.port), within=30, what="nginx to serve the other port")
    with pytest.raises(ConnectionRefusedError):
        ask(former, 1)
    assert docker("inspect", "-f", "{{.RestartCount}} {{.State.Running}}", nginx) == "0 true"


def test_the_sockets_are_for_nginx_alone(pair: Pair) -> None:
    ports = pair.ports()
    pair.await_healthy(ports)
    code, said = status("exec", ports, "stat", "-c", "%a %u %g", "/run/c2l/ports", "/run/c2l/ports/ports.sock")
    assert (code, said.split("\n")[:2]) == (0, ["750 10051 10050", "660 10051 10050"])
    take = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/c2l/ports/ports.sock'); print(s.recv(9))"
    )
    options = ("--rm", "--network", "none", "-v", f"{pair.name}:/run/c2l/ports:ro", "--entrypoint", "python3")
    image = f"cloudtolocalllm/nginx-proxy:{pair.tag}"
    for user, expected in (("10050:10050", "b'c2l-ports'"), ("10060:10060", "PermissionError")):
        _, said = status("run", *options, "--user", user, image, "-c", take)
        assert expected in said, user
