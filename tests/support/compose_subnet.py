"""A range of addresses for each platform by Compose, so that several run side by side on one engine."""

import contextlib
import fcntl
import ipaddress
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.docker_engine import docker

SECOND = range(21, 32)
"""Of 172.N.0.0/16: 16 to 20 are the engine's own pool and the platform's default."""


@contextlib.contextmanager
def free_subnet() -> Iterator[str]:
    """Hold a range that no network of the engine lies in; as "172.21". Fails when all are taken."""
    for number in random.sample(SECOND, len(SECOND)):
        name = f"172.{number}"
        with (Path(tempfile.gettempdir()) / f"c2l-test-subnet-{number}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another test process starts or runs a platform there
            if not _overlaps(ipaddress.IPv4Network(f"{name}.0.0/16")):
                yield name
                return
    raise AssertionError("expected a free range of 172.21.0.0/16 to 172.31.0.0/16; remove left-over networks")


def _overlaps(wanted: ipaddress.IPv4Network) -> bool:
    ids = docker("network", "ls", "-q").split()
    # it tells of those that are there, though one of them may have gone meanwhile
    for network in json.loads(docker("network", "inspect", *ids, check=False)) if ids else []:
        for config in network["IPAM"]["Config"] or []:
            subnet = ipaddress.ip_network(config.get("Subnet", "0.0.0.0/32"))
            if subnet.version == 4 and subnet.overlaps(wanted):
                return True
    return False


def gateway() -> str | None:
    """Return this machine's address on the engine's own bridge, for containers with a way out; None without."""
    found = json.loads(docker("network", "inspect", "bridge", check=False) or "[]")
    configs = (found[0]["IPAM"]["Config"] or []) if found else []
    return next((str(config["Gateway"]) for config in configs if config.get("Gateway")), None)
