"""Puts the local endpoint together and runs it."""

import asyncio
import contextlib
import errno
import json
import logging
import secrets
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cloudtolocalllm import __version__
from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.connect.again import Repeats
from cloudtolocalllm.connect.home_client import HomeClient
from cloudtolocalllm.connect.homes import Home, Homes, key_name
from cloudtolocalllm.connect.household import HomeState, Household
from cloudtolocalllm.connect.local import LocalApp
from cloudtolocalllm.connect.outer import ServerLink
from cloudtolocalllm.connect.pairing import import_key
from cloudtolocalllm.connect.paths import Door
from cloudtolocalllm.connect.repeatable import MAX_SEED
from cloudtolocalllm.connect.settings import ConnectSettings
from cloudtolocalllm.connect.stops import Stops
from cloudtolocalllm.connect.vault import Vault, open_vault
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.http1 import HttpServer
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
LOOK_AGAIN = 2.0
"""Seconds between two looks whether homes were added or removed."""
STOP_GRACE = 3.0
"""Seconds for telling homes to stop when this ends."""
_VISIBLE = range(0x21, 0x7F)


class NoHomeError(Exception):
    """There is nothing to connect to. The text says how to mend it."""


class PortTakenError(Exception):
    """The port cannot be listened on, mostly because something else does."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was read of disk and keychain."""

    homes: list[Home]
    devices: dict[Home, ec.EllipticCurvePrivateKey]
    """This computer's keys at the homes that were not known yet."""
    seen: dict[Home, int]
    """The highest number of a key statement of theirs."""
    keys: dict[str, str]
    """API keys, by server."""


def homes_folder(data_dir: Path) -> Path:
    """Return where homes are kept."""
    return data_dir / "homes"


def keys_folder(data_dir: Path) -> Path:
    """Return where secrets are kept when no keychain keeps them."""
    return data_dir / "keys"


class Connect:
    """The local endpoint."""

    def __init__(self, settings: ConnectSettings, *, vault: Vault | None = None, clock: Clock | None = None) -> None:
        """Read which homes there are.

        Args:
            settings: Its settings.
            vault: Where secrets are; None for the one that the settings mean.
            clock: None for the machine's.

        Raises:
            NoHomeError: None is paired, or there is no API key for its server.
            StorageError: What is kept cannot be read, or a device's key is not there.
        """
        self._settings = settings
        self._clock = clock or SystemClock()
        self._homes = Homes(homes_folder(settings.data_dir))
        self._vault = vault or open_vault(keys_folder(settings.data_dir), use_keyring=settings.keyring)[0]
        self._seen = self._homes.changed()
        self._tasks = TaskSet()
        self._lists = TaskSet(limit=256)
        self._stopping = TaskSet(limit=256)
        self._links: dict[str, ServerLink] = {}
        self._states: list[HomeState] = []
        self._given = given_key(settings)
        self._kept = self._read(())
        if not self._kept.homes:
            raise NoHomeError(
                "this computer is paired with no home; make a link there, then: cloudtolocalllm connect add"
            )
        self.household = Household(self._current, self._lists, self._clock)
        self.stops = Stops(self._stopping, self._clock, settings.deadline)
        door = Door.of(settings.hosts, settings.origins)
        self._app = LocalApp(
            self.household, self.stops, self._tasks, self._clock, door, self.status,
            patience=settings.patience, deadline=settings.deadline,
            repeats=Repeats(settings.deadline, _draw_seed if settings.seed else None),
        )  # fmt: skip
        self._server = HttpServer(self._app)
        self.port = 0
        """On which it listens; 0 before `start`."""

    def _read(self, known: Collection[Home]) -> _Kept:
        """Read what is kept; that may take long, as a person may be asked to unlock the keychain."""
        homes = [home for home in self._homes.load() if self._settings.server in ("", home.server)]
        servers = {home.server for home in homes}
        if self._given and len(servers) > 1:
            raise NoHomeError("an API key was given, but the homes have several servers; name one with --server")
        new = [home for home in homes if home not in known]
        return _Kept(
            homes,
            {home: self._device_key(home) for home in new},
            {home: self._homes.seen(home) for home in new},
            {server: self._api_key(server) for server in servers},
        )

    def _device_key(self, home: Home) -> ec.EllipticCurvePrivateKey:
        secret = self._vault.get(home.secret_name)
        if secret is None:
            raise StorageError(
                f"expected this device's key for {home.name} in {self._vault.place}; "
                "pair this home again with a new link"
            )
        return import_key(secret)

    def _api_key(self, server: str) -> str:
        key = self._given or self._vault.get(key_name(server))
        if not key:
            raise NoHomeError(f"expected an API key for {server}: --key-file FILE, C2L_CONNECT_KEY, or a prompt")
        return key

    async def start(self) -> None:
        """Listen.

        Raises:
            PortTakenError: Something else does, or this user may not.
        """
        self.build()
        try:
            self.port = await self._server.listen_tcp(HOST, self._settings.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PortTakenError(
                    f"expected to listen on port {self._settings.port}, got {type(error).__name__}; "
                    "choose another with --port"
                ) from None
            raise PortTakenError(
                f"port {self._settings.port} is taken: does an engine run on this computer? Stop it, or choose "
                "another port with --port and set OLLAMA_HOST or the clients' base URL"
            ) from None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; homes that are added or removed meanwhile are noticed."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await stop.wait()
            await self._look()

    async def close(self) -> None:
        """End, and stop at home what runs for clients here; what comes after a cancelled step is ended, too."""
        async with contextlib.AsyncExitStack() as steps:  # the last one first
            for link in self._links.values():
                steps.push_async_callback(link.close)
            steps.push_async_callback(self._lists.close)
            steps.push_async_callback(self._stopping.close)
            steps.push_async_callback(self._stopped)
            steps.push_async_callback(self._tasks.close)
            steps.push_async_callback(self._server.close, 0.1)

    async def _stopped(self) -> None:
        """Give the stops under way some time."""
        with contextlib.suppress(TimeoutError):
            await self.stops.wait(STOP_GRACE)

    def status(self) -> dict[str, Any]:
        """Tell how everything stands."""
        return {
            "version": __version__,
            "requests": sum(state.running for state in self._states),
            "homes": [
                {
                    "id": state.home.id,
                    "name": state.home.name,
                    "server": state.home.server,
                    "bridge": state.home.bridge_id,
                    "priority": state.home.priority,
                    "up": state.up,
                    "why": state.why,
                    "models": None if (models := state.models()) is None else len(models),
                    "requests": state.running,
                }
                for state in self._states
            ],
        }

    # --- homes ---

    def _current(self) -> Sequence[HomeState]:
        return self._states

    async def _look(self) -> None:
        changed = self._homes.changed()
        if changed == self._seen:
            return
        self._seen = changed
        known = {state.home for state in self._states}
        try:
            self._kept = await asyncio.to_thread(self._read, known)
            self.build()
        except (StorageError, NoHomeError) as error:
            log.error("the homes cannot be read anew", extra={"cause": str(error)})  # noqa: TRY400 - says all there is
        else:
            log.info("the homes were read anew", extra={"homes": len(self._states)})

    def build(self) -> list[HomeState]:
        """Make the homes' clients; of those that stay as they are, the present ones stay."""
        known = {state.home: state for state in self._states}
        for server, key in self._kept.keys.items():
            self._link(server, key)
        self._states = [known.get(home) or self._state_of(home) for home in self._kept.homes]
        return self._states

    def _state_of(self, home: Home) -> HomeState:
        async def note(seq: int) -> None:
            await asyncio.to_thread(self._homes.note_seq, home, seq)

        client = HomeClient(
            self._links[home.server], home.bridge_id, home.fingerprint, self._kept.devices[home], self._clock,
            seen=self._kept.seen[home], note_seq=note,
        )  # fmt: skip
        return HomeState(home, client)

    def _link(self, server: str, key: str) -> None:
        link = self._links.get(server)
        if link is None:
            watch = Watch(self._lists, self._clock)
            self._links[server] = ServerLink(ServerAddress.parse(server), key, watch, self._clock)
        else:
            link.use_key(key)


def _draw_seed() -> int:
    return secrets.randbelow(MAX_SEED)


def given_key(settings: ConnectSettings) -> str:
    """Return the API key of the settings, "" for none.

    Raises:
        StorageError: Its file cannot be read, or it is none.
    """
    text = settings.key
    if settings.key_file is not None:
        try:
            text = settings.key_file.read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            raise StorageError(f"expected an API key in {settings.key_file}") from None
    return checked_key(text) if text.strip() else ""


def checked_key(text: str) -> str:
    """Return an API key as it may stand in a field.

    Raises:
        StorageError: It may not.
    """
    key = text.strip()
    if not key or len(key) > 8192 or any(ord(c) not in _VISIBLE for c in key):
        raise StorageError("expected an API key of visible ASCII characters")
    return key


async def serve(settings: ConnectSettings, stop: asyncio.Event) -> None:
    """Run until told to stop.

    Raises:
        NoHomeError: There is nothing to connect to.
        PortTakenError: The port is taken.
        StorageError: What is kept cannot be read.
    """
    connect = Connect(settings)
    try:
        await connect.start()
        log.info("ready", extra={"url": f"http://localhost:{connect.port}", "homes": len(connect.household.states())})
        if settings.json_ready:
            sys.stdout.write(json.dumps({"url": f"http://{HOST}:{connect.port}"}) + "\n")
            sys.stdout.flush()
        await connect.run(stop)
    finally:
        await connect.close()
