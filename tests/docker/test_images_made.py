"""How images are made: each lists what it holds, and the same sources give the same layers."""

import json
import os
import subprocess

import pytest
from tests.support.compose_stack import IMAGES, built_images
from tests.support.docker_engine import BASE_IMAGE, DOCKER, ROOT, docker, require_engine, require_image

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(400)]

MADE_OF = {
    "api-backend": ({"fastapi", "cryptography", "redis", "libc6"}, {"certbot", "nginx-light"}),
    "streaming-proxy-manager": ({"aiodocker", "cryptography", "libc6"}, {"certbot", "nginx-light"}),
    "web-app": ({"react", "cryptography", "libc6"}, {"certbot", "nginx-light"}),
    "nginx-proxy": ({"nginx-light", "cryptography", "libc6"}, {"certbot", "react"}),
    "streaming-proxy": ({"picows", "uvloop", "libc6"}, {"fastapi", "cryptography", "aiodocker", "redis"}),
    "certbot": ({"certbot", "certbot-dns-rfc2136", "cryptography", "libc6"}, {"fastapi", "aiodocker", "redis"}),
    "redis": ({"redis", "libc6"}, {"fastapi", "cryptography", "nginx-light"}),
    "ports": ({"libc6"}, {"fastapi", "cryptography", "redis", "nginx-light"}),
}
"""Some of what each image holds, and of what it must lack."""


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_lists_what_it_is_made_of(name: str) -> None:
    holds, lacks = MADE_OF[name]
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
    require_image(BASE_IMAGE)
    command = [str(ROOT / "scripts" / "check_reproducible"), "streaming-proxy"]
    environ = {**os.environ, "DOCKER": DOCKER}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=350, env=environ)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    assert ran.stdout.startswith("streaming-proxy: the same ")
