"""How a bridge gets its credential, and where it keeps it."""

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch

PAIR_TARGET = "/api/bridge"
PAIR_TIMEOUT = 15.0
"""Seconds for the whole request."""


class PairingError(Exception):
    """There is no usable credential, or none was given. The text says how to mend it and holds no secret."""


@dataclass(frozen=True, slots=True)
class Credential:
    """As whom a bridge dials."""

    bridge_id: str
    credential: str = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "Credential":
        """Read the file that `save` wrote.

        Raises:
            PairingError: It is missing or malformed.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            found = cls(value["bridge_id"], value["credential"])
        except OSError:
            raise PairingError(f"expected a credential in {path}; pair this bridge first") from None
        except (ValueError, KeyError, TypeError):
            raise PairingError(
                f"expected JSON with bridge_id and credential in {path}; pair this bridge again"
            ) from None
        if not _is_secret(found.bridge_id) or not _is_secret(found.credential):
            raise PairingError(f"expected bridge_id and credential to be texts in {path}; pair this bridge again")
        return found

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only; it is replaced whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file with mode 0600.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".credential-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"bridge_id": self.bridge_id, "credential": self.credential}, file)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise


def _is_secret(value: object) -> bool:
    """Whether it can stand in a header field: visible ASCII."""
    return isinstance(value, str) and 0 < len(value) <= 8192 and all("!" <= character <= "~" for character in value)


async def pair(server: str, api_key: str, name: str) -> Credential:
    """Make this machine a bridge of the account that an API key belongs to.

    Args:
        server: URL of the cloud side.
        api_key: The account's; used for this one request and not kept.
        name: Under which people see this machine.

    Raises:
        PairingError: The server cannot be reached, or refuses.
    """
    try:
        address = EngineAddress.parse(server)
    except ValueError:
        raise PairingError("expected the server's URL, such as https://example.org") from None
    if not _is_secret(api_key):
        raise PairingError("expected an API key of visible ASCII characters")
    pool = Pool(address.authority, connect_timeout=PAIR_TIMEOUT, tls=address.tls)
    headers = (
        (b"host", address.authority.encode()),
        (b"authorization", b"Bearer " + api_key.encode()),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json"),
    )
    content = json.dumps({"name": name}).encode()
    try:
        response = await fetch(
            pool, "POST", address.prefix + PAIR_TARGET, headers, content, timeout=PAIR_TIMEOUT, max_content=64 * 1024
        )
    except (HttpError, OSError, TimeoutError):
        raise PairingError("the server does not answer; see that its URL is right and that it runs") from None
    finally:
        await pool.close()
    if response.status in (401, 403):
        raise PairingError("the server refuses the API key; make one with `cloudtolocalllm keys create`")
    if response.status != 201:
        raise PairingError(f"expected status 201 from the server, got {response.status}")
    try:
        value = json.loads(response.body)
        credential = Credential(value["bridge_id"], value["credential"])
    except (ValueError, KeyError, TypeError):
        raise PairingError("expected bridge_id and credential in the server's answer") from None
    if not _is_secret(credential.bridge_id) or not _is_secret(credential.credential):
        raise PairingError("expected bridge_id and credential to be texts in the server's answer")
    return credential
