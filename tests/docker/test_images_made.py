"""How images are made: each lists what it holds, and the same sources give the same layers."""

import json
import os
import subprocess

import pytest
from tests.support.compose_stack import built_images
from tests.support.docker_engine import BASE_IMAGE, DOCKER, ROOT, docker, require_engine
from tests.support.require import require

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("name", "holds", "lacks"),
    [
        ("streaming-proxy", {"picows", "uvloop", "libc6"}, {"fastapi", "cryptography", "aiodocker", "redis"}),
        ("certbot", {"certbot", "certbot-dns-rfc2136", "cryptography", "libc6"}, {"fastapi", "aiodocker", "redis"}),
    ],
)
def test_an_image_lists_what_it_is_made_of(name: str, holds: set[str], lacks: set[str]) -> None:
    image = f"cloudtolocalllm/{name}:{built_images()}"
    text = docker(
        "run", "--rm", "--network", "none", "--entrypoint", "cat", image, f"/usr/share/sbom/{name}.cdx.json"
    )
    listed = json.loads(text)
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    assert listed["metadata"]["component"]["name"] == name
    names = {component["name"] for component in listed["components"]}
    assert holds <= names
    assert not lacks & names
    assert all(component["version"] and component["purl"] for component in listed["components"])


def test_a_users_proxy_is_made_alike_each_time() -> None:
    """The smallest image, since it is made twice from nothing; `scripts/check_reproducible` does so with others."""
    require_engine()
    found = subprocess.run([DOCKER, "image", "inspect", BASE_IMAGE], capture_output=True, timeout=20).returncode == 0
    require(found, f"the image {BASE_IMAGE}", f"docker pull {BASE_IMAGE}, or scripts/base_images")
    command = [str(ROOT / "scripts" / "check_reproducible"), "streaming-proxy"]
    environ = {**os.environ, "DOCKER": DOCKER}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=350, env=environ)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    assert ran.stdout.startswith("streaming-proxy: the same ")
