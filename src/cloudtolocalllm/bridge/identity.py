"""Who this bridge is: its credential, the key that proves it, and the file that holds both."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cloudtolocalllm.auth.dpop import SCHEME, ProofKey
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import Clock, SystemClock

MAX_SECRET = 8192
"""Characters of a credential."""
MAX_NONCE = 256


class PairingError(Exception):
    """There is no usable credential, or none was given. The text says how to mend it and holds no secret."""


@dataclass(frozen=True, slots=True)
class BridgeIdentity:
    """As whom a bridge dials. Times are seconds since the epoch."""

    server: str
    """URL of the cloud side that it is paired with."""
    bridge_id: str
    credential: str = field(repr=False)
    key: ProofKey = field(repr=False)
    """Made here; only its public half was ever sent."""
    issued: float
    expires: float
    revoked: bool = False
    """Whether the server said that it is void."""

    @property
    def renew_at(self) -> float:
        """When it is to be renewed: at half of its life."""
        return self.issued + (self.expires - self.issued) / 2

    @classmethod
    def load(cls, path: Path) -> "BridgeIdentity":
        """Read the file that `save` wrote.

        Raises:
            PairingError: It is missing, malformed or revoked.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise PairingError(
                f"expected a credential in {path}; pair this bridge first: cloudtolocalllm bridge login"
            ) from None
        except ValueError:
            raise PairingError(f"expected JSON in {path}; pair this bridge again") from None
        found = _read(value, path)
        if found.revoked:
            raise PairingError("this bridge was revoked at the server; pair it again: cloudtolocalllm bridge login")
        return found

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only; it is replaced whole or not at all."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        value = {
            "server": self.server,
            "bridge_id": self.bridge_id,
            "credential": self.credential,
            "key": self.key.private_jwk(),
            "issued": self.issued,
            "expires": self.expires,
            "revoked": self.revoked,
        }
        files.replace(path, json.dumps(value, indent=1).encode())

    def void(self, path: Path) -> None:
        """Note in the file that the server has revoked it, unless the file is another pairing's by now."""
        with contextlib.suppress(PairingError, OSError):
            if BridgeIdentity.load(path).bridge_id == self.bridge_id:
                replace(self, revoked=True).save(path)


class Prover:
    """Makes the fields by which the server knows us, a new proof for each request."""

    def __init__(self, server: str, load: Callable[[], BridgeIdentity], clock: Clock | None = None) -> None:
        """Make a prover that knows no nonce yet; its first request then takes two round trips.

        Args:
            server: URL of the cloud side.
            load: Asked each time, so that a new pairing takes effect.
            clock: None for the machine's.
        """
        self._base = base_url(server)
        self._load = load
        self._clock = clock or SystemClock()
        self._nonce = ""

    @property
    def identity(self) -> BridgeIdentity:
        """Who we are now.

        Raises:
            PairingError: Nobody.
        """
        return self._load()

    def fields(self, method: str, target: str) -> dict[str, str]:
        """Return the fields of a request.

        Args:
            method: Of the request.
            target: Its path at the server.

        Raises:
            PairingError: There is no usable credential.
        """
        identity = self._load()
        proof = identity.key.prove(
            method,
            self._base + target,
            now=self._clock.wall(),
            nonce=self._nonce,
            credential=identity.credential,
        )
        return {"Authorization": f"{SCHEME} {identity.credential}", SCHEME: proof}

    def learn(self, nonce: str | None) -> bool:
        """Use this nonce from now on; return whether it is a new one."""
        if not nonce or len(nonce) > MAX_NONCE or not is_visible(nonce) or nonce == self._nonce:
            return False
        self._nonce = nonce
        return True

    def may_retry(self, headers: Mapping[str, str]) -> bool:
        """Take what a 401 says; return whether the same request may hold with the nonce that came with it."""
        wanted = error_code(headers) == "use_dpop_nonce"
        return self.learn(headers.get("dpop-nonce")) and wanted


def base_url(server: str) -> str:
    """Return a server's http or https URL without user information and without a slash at its end."""
    parts = urlsplit(server)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def error_code(headers: Mapping[str, str]) -> str:
    """Return the error in a DPoP challenge (RFC 9449 §7.1); "" when there is none."""
    scheme, _, parameters = (headers.get("www-authenticate") or "").partition(" ")
    if scheme.lower() != SCHEME.lower():
        return ""
    _, found, rest = parameters.partition('error="')
    return rest.partition('"')[0][:64] if found else ""


def is_visible(value: object) -> bool:
    """Tell whether something can stand in a header field: visible ASCII."""
    return isinstance(value, str) and 0 < len(value) <= MAX_SECRET and all("!" <= c <= "~" for c in value)


def _read(value: Any, path: Path) -> BridgeIdentity:
    try:
        found = BridgeIdentity(
            server=str(value["server"]),
            bridge_id=value["bridge_id"],
            credential=value["credential"],
            key=ProofKey.from_jwk(value["key"]),
            issued=float(value["issued"]),
            expires=float(value["expires"]),
            revoked=value.get("revoked") is True,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PairingError(
            f"expected server, bridge_id, credential, key, issued and expires in {path}; pair this bridge again"
        ) from None
    if not is_visible(found.bridge_id) or not is_visible(found.credential):
        raise PairingError(f"expected bridge_id and credential to be texts in {path}; pair this bridge again")
    return found
