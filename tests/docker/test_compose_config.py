"""docker-compose.yml is one that Compose 1.29 and v2 both take, and asks for nothing that only one of them knows."""

import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
from tests.support.compose_stack import COMPOSE_DIR, IMAGES, compose_words
from tests.support.docker_engine import ROOT
from tests.support.require import require

pytestmark = pytest.mark.docker

SETTINGS = "C2L_DOMAIN=llm.example\nC2L_CERT_NAMES=llm.example\n"


def resolved(folder: Path, *options: str, settings: str = SETTINGS, override: str = "") -> dict[str, Any]:
    require(
        shutil.which("docker-compose") or shutil.which("docker"), "Docker Compose", "apt-get install docker-compose"
    )
    target = folder / "deploy" / "compose"
    shutil.copytree(COMPOSE_DIR, target, ignore=shutil.ignore_patterns(".env", "secrets"), dirs_exist_ok=True)
    (target / ".env").write_text(settings)
    if override:
        (target / "docker-compose.override.yml").write_text(override)
    (target / "secrets").mkdir(exist_ok=True)
    for name in ("redis-url", "redis-auth", "oidc-client-secret"):
        (target / "secrets" / name).write_text("x")
    done = subprocess.run(
        [*compose_words(), *options, "config"], cwd=target, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


@pytest.mark.parametrize("profile", ["", "monitoring", "dev", "build"])
def test_it_is_valid(tmp_path: Path, profile: str) -> None:
    options = ["--profile", profile] if profile else []
    assert set(resolved(tmp_path, *options)["services"]) >= {"nginx-proxy", "api-backend"}


def test_a_line_below_counts_instead_of_one_above(tmp_path: Path) -> None:
    """As docs/reference/compose.md says of what stands below the installer's mark."""
    found = resolved(tmp_path, settings=SETTINGS + "C2L_SIGN_UP=open\n# mark\nC2L_SIGN_UP=closed\n")
    assert found["services"]["api-backend"]["environment"]["C2L_API_SIGN_UP"] == "closed"


def test_all_addresses_move_with_the_setting(tmp_path: Path) -> None:
    found = resolved(tmp_path, settings=SETTINGS + "C2L_SUBNET=10.77\n")
    subnets = [one["ipam"]["config"][0]["subnet"] for one in found["networks"].values()]
    subnets.append(found["services"]["streaming-proxy-manager"]["environment"]["C2L_MANAGER_SUBNETS"])
    assert len(subnets) > 5
    assert all(subnet.startswith("10.77.") for subnet in subnets)


@pytest.mark.parametrize("page", ["dns-providers", "run-behind-another-proxy"])
def test_the_manuals_override_files_are_valid(tmp_path: Path, page: str) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    blocks = re.findall(r"^( *)```\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    found = [textwrap.dedent(block) for _, block in blocks if textwrap.dedent(block).startswith("services:")]
    assert found
    for number, override in enumerate(found):
        services = resolved(tmp_path / str(number), override=override)["services"]
        for name, changes in yaml.safe_load(override)["services"].items():
            for variable, value in changes.get("environment", {}).items():
                assert services[name]["environment"][variable] == value


def test_it_uses_nothing_that_one_compose_lacks() -> None:
    raw = yaml.safe_load((COMPOSE_DIR / "docker-compose.yml").read_text())
    assert not {"name", "version", "configs"} & set(raw)
    for name, service in raw["services"].items():
        assert not {"develop", "models", "provider"} & set(service), name
        assert "start_interval" not in service.get("healthcheck", {}), name
        # both ways at once are refused by v2 where they differ, and swap has only the first
        assert "resources" not in service.get("deploy", {}), name
    assert all("file" in secret for secret in raw["secrets"].values())


def test_networks_lie_apart_in_the_platforms_range() -> None:
    import ipaddress

    raw = yaml.safe_load((COMPOSE_DIR / "docker-compose.yml").read_text().replace("${C2L_SUBNET:-172.20}", "172.20"))
    subnets = [ipaddress.IPv4Network(one["ipam"]["config"][0]["subnet"]) for one in raw["networks"].values()]
    proxies = raw["services"]["streaming-proxy-manager"]["environment"]["C2L_MANAGER_SUBNETS"]
    subnets.append(ipaddress.IPv4Network(proxies))
    whole = ipaddress.IPv4Network("172.20.0.0/16")
    assert all(one.subnet_of(whole) for one in subnets)
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[i + 1 :])


def test_every_service_has_its_image_and_limits() -> None:
    raw = yaml.safe_load((COMPOSE_DIR / "docker-compose.yml").read_text())
    for name in IMAGES:
        assert (ROOT / "deploy" / "images" / name / "Dockerfile").is_file()
    for name, service in raw["services"].items():
        if name == "streaming-proxy":
            continue  # never started by Compose
        assert service["mem_limit"] == service["memswap_limit"], name
        assert {"cpus", "pids_limit", "logging", "read_only", "cap_drop"} <= set(service), name


def test_promtool_accepts_what_prometheus_is_given() -> None:
    promtool = shutil.which("promtool")
    require(promtool, "promtool", "apt-get install prometheus")
    folder = COMPOSE_DIR / "monitoring"
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([str(promtool), *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
