"""docker-compose.yml: what a service can read that it should not."""

from pathlib import Path

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

FILE = Path(__file__).resolve().parents[3] / "deploy" / "compose" / "docker-compose.yml"


def test_what_watches_the_machine_shares_no_volume_that_holds_keys() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    watcher, certbot = services["node-exporter"], services["certbot"]
    shared = [one for one in watcher["volumes"] if not one.startswith("/")]
    assert shared == ["cert-metrics:/textfile:ro"]
    assert "user" not in watcher  # certbot's could read its keys on the host's disk, below /host
    (mount,) = (one for one in certbot["volumes"] if one.startswith("cert-metrics:"))
    assert certbot["environment"]["C2L_CERTS_METRICS_FILE"].startswith(mount.partition(":")[2] + "/")
    assert not any(one.endswith(mount.partition(":")[2]) for one in certbot["volumes"] if one != mount)
