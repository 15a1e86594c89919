"""The private file by which the owner's commands make links to the page of the bridge that runs.

It is there while the page is served, readable for its owner only, and anew at each start.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.bridge.page.sessions import SECRET_BYTES, make_token
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.runtime import files

SUFFIX = ".page"
MAX_FILE = 4096


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Where a page is served, and what its links are made of."""

    url: str
    """Such as http://127.0.0.1:8790."""
    secret: bytes

    def link(self, now: float) -> str:
        """Return a link that signs a browser in, once.

        Args:
            now: Seconds since the epoch.
        """
        return f"{self.url}/sign-in#token={make_token(self.secret, now)}"


def address_path(credential: Path) -> Path:
    """Return where the file of the bridge with this credential is."""
    return credential.with_suffix(SUFFIX)


def write_address(path: Path, address: PageAddress) -> None:
    """Write it.

    Raises:
        OSError: It cannot be written.
    """
    files.replace(path, json.dumps({"url": address.url, "secret": address.secret.hex()}).encode())


def read_address(path: Path) -> PageAddress | None:
    """Read it; None when there is none.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_FILE))
        address = PageAddress(str(document["url"]), bytes.fromhex(document["secret"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"expected the address of the page in {path}; start the bridge again") from None
    if len(address.secret) != SECRET_BYTES:
        raise StoreError(f"expected a whole secret in {path}; start the bridge again")
    return address
