"""Commands of the owner, who may read and write the data directory: sign-in links. For keys see `cli.keys`.

A link is made where the cloud's keys and state are: on the data directory of a running `up`, or with the settings of
the service `api`, as inside its container (`docker compose exec api-backend cloudtolocalllm sign-in-link`).
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cloudtolocalllm.api.secrets import SecretsError, load_pseudonym_key
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.state import StateError, StateUnavailableError
from cloudtolocalllm.api.state.open import open_state
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.auth.links import LIFETIME, link_key, mint_link_token
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.cli.audit import note
from cloudtolocalllm.cli.bridge_devices import LocalHome
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.cli.lock import read_running
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.settings import SettingsError, environment, load

PREFIX = "C2L_API_"


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where a cloud keeps what, and under which address people find it."""

    url: str
    secrets: Path
    audit: Path
    """The folder of all audit logs."""
    database: Path
    """The embedded state's file."""
    state: str = ""
    """The configured state; empty for the embedded one."""

    @property
    def host(self) -> str:
        """The name in its address."""
        return urlsplit(self.url).hostname or "localhost"


def _of_up(layout: Layout, url: str) -> Cloud:
    return Cloud(url, layout.secrets, layout.audit, layout.state)


def _of_service(environ: Mapping[str, str]) -> Cloud:
    """Return the cloud that the service `api` serves with these variables.

    Raises:
        SettingsError: It would not start with them.
    """
    config = load(ApiSettings, PREFIX, environ)
    logs = config.data_dir / "audit" if config.audit.folder is None else config.audit.folder.parent
    return Cloud(config.public_url, config.secrets_dir, logs, config.database, config.state)


async def make_link(cloud: Cloud, user: str) -> str:
    """Return the address of a new one-time sign-in link.

    Raises:
        StateError: The state cannot be used as it is.
        StateUnavailableError: It does not answer.
    """
    token, hash_ = mint_link_token()
    state = await open_state(cloud.state, cloud.database, SystemClock())
    try:
        await state.put(link_key(hash_), user.encode(), LIFETIME)
    finally:
        await state.close()
    return f"{cloud.url}/sign-in#token={token}"


async def make_local_link(layout: Layout, url: str, user: str) -> str:
    """Return the address of a new link for the cloud of an `up`.

    Whoever may read it on this machine may use its home: so it pairs the browser that opens it, too, within the ten
    minutes of a pairing link.
    """
    link = await make_link(_of_up(layout, url), user)
    try:
        credential = layout.bridge_credential
        pair = LocalHome(credential, BridgeIdentity.load(credential)).offer()
    except (PairingError, StoreError):
        return link  # no bridge, or too many links at once: it signs in all the same
    return f"{link}&pair={pair.fragment}"


def sign_in_link(options: argparse.Namespace) -> int:
    """Print a link that signs the owner in once."""
    layout = Layout(options.data_dir.absolute())
    environ = environment()
    running = read_running(layout.lock)
    try:
        local = running.url if running is not None else ""
        if local:
            cloud = _of_up(layout, local)
        elif f"{PREFIX}DATA_DIR" in environ:
            cloud = _of_service(environ)
        else:
            return _fail(
                "expected `cloudtolocalllm up` to run on this data directory, or the settings C2L_API_* of the "
                "service; start it first, or run this in the container: docker compose exec api-backend "
                "cloudtolocalllm sign-in-link"
            )
        user = owner_of(load_pseudonym_key(cloud.secrets))
        link = asyncio.run(make_local_link(layout, local, user) if local else make_link(cloud, user))
    except (SettingsError, SecretsError, StateError) as error:
        return _fail(str(error))
    except StateUnavailableError:
        return _fail("the cloud's state cannot be written now; see that Redis runs, and try again")
    print(link)
    note(cloud.audit, Event.SIGN_IN_LINK_MADE, host=cloud.host, user=user)
    return 0


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm: {reason}\n")
    return 1
