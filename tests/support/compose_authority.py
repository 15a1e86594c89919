"""An authority that the certbot of a platform by Compose reaches, and that reaches the platform's nginx."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.compose_subnet import gateway
from tests.support.pebble import Pebble, running_dns, running_pebble
from tests.support.require import require


@contextlib.contextmanager
def authority(folder: Path, own: Path, http_port: int) -> Iterator[tuple[Pebble, dict[str, str]]]:
    """Run pebble on the engine's own bridge; return it and what .env says of it.

    Args:
        folder: For its files.
        own: The folder `own` beside the platform's docker-compose.yml.
        http_port: Where nginx is published on 127.0.0.1, as which the authority's DNS knows every name.
    """
    address = gateway()
    require(address, "the engine's network bridge with an address", "start dockerd without --bridge=none")
    assert address is not None
    with (
        running_dns(folder) as dns,
        running_pebble(folder, dns_port=dns.port, http_port=http_port, address=address) as pebble,
    ):
        own.mkdir(exist_ok=True)
        shutil.copy(pebble.ca_bundle, own / "acme-ca.pem")
        (own / "acme-ca.pem").chmod(0o644)
        yield pebble, {"C2L_CERT_SERVER": pebble.directory, "C2L_CERT_CA_BUNDLE": "/run/own/acme-ca.pem"}
