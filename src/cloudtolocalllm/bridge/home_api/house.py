"""Devices, API keys, settings and changes."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from cloudtolocalllm import __version__
from cloudtolocalllm.bridge.home_api.home import ROUTES, Home
from cloudtolocalllm.bridge.home_api.messages import Caller, Nothing
from cloudtolocalllm.bridge.keys import ListedKey
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store import changes, devices, preferences, retention
from cloudtolocalllm.bridge.store.changes import Changes
from cloudtolocalllm.bridge.store.devices import Device
from cloudtolocalllm.bridge.store.preferences import Preferences
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.sealed.pairing import OFFER_LIFE

QUIET = 15.0
"""Seconds without a change after which an event says that there is none."""


@dataclass(frozen=True, slots=True)
class State:
    """The home as a whole."""

    version: str
    epoch: str
    """Numbers of changes of another epoch mean something else."""
    newest: int
    """Number of the newest change."""
    notice: str
    """What people are to be told; "" for nothing."""
    used_bytes: int
    quota_bytes: int
    """0 for no limit."""


@dataclass(frozen=True, slots=True)
class Devices:
    """All devices, the oldest first."""

    devices: tuple[Device, ...]
    own: str | None
    """The one that asks; null at the machine itself."""


@dataclass(frozen=True, slots=True)
class PairingOffer:
    """A link that pairs one more device."""

    link_fragment: str
    """What follows the # of `/pair` at the server; it holds a secret, which is shown only now."""
    expires: int
    """Seconds for which it is good."""


@dataclass(frozen=True, slots=True)
class Name:
    """A new name."""

    name: str


@dataclass(frozen=True, slots=True)
class Key:
    """An API key. Times are seconds since the epoch."""

    id: str
    name: str
    created: int
    expires: int
    last_used: float | None
    revoked: bool
    routes: tuple[str, ...]
    """Empty for all."""
    models: tuple[str, ...]
    """Patterns; empty for all."""
    requests_per_minute: int | None
    tokens_per_day: int | None
    tokens_today: int
    bridge: str | None
    """Id of the only bridge it opens; None for all."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The API keys that this home knows."""

    keys: tuple[Key, ...]


@ROUTES.add("GET", "/home")
async def get_home(home: Home, caller: Caller) -> State:
    """Tell how the home is."""
    epoch, newest, room = await home.store.read(
        lambda tx: (changes.epoch(tx), changes.newest(tx), retention.room(tx))
    )
    return State(__version__, epoch, newest, home.store.notice, room.used, room.quota)


@ROUTES.add("GET", "/devices")
async def list_devices(home: Home, caller: Caller) -> Devices:
    """List the devices that may use this home, and those that wait."""
    return Devices(tuple(await home.store.read(devices.all_of)), caller.device)


@ROUTES.add("PATCH", "/devices/{device}")
async def rename_device(home: Home, caller: Caller, device: str, body: Name) -> Device:
    """Rename a device."""
    return await home.store.write(lambda tx: devices.rename(tx, device, body.name))


@ROUTES.add("POST", "/devices/{device}/approve")
async def approve_device(home: Home, caller: Caller, device: str) -> Device:
    """Let a device in that waits."""
    return await home.store.approve(device, approved_by=caller.name)


@ROUTES.add("DELETE", "/devices/{device}")
async def remove_device(home: Home, caller: Caller, device: str) -> Nothing:
    """Remove a device; it is refused at once, and for good."""
    await home.store.remove_device(device)
    return Nothing()


@ROUTES.add("POST", "/pairings")
async def offer_pairing(home: Home, caller: Caller) -> PairingOffer:
    """Make a link that pairs one more device."""
    return PairingOffer(home.offers.make(caller.device or "").fragment, OFFER_LIFE)


@ROUTES.add("GET", "/keys")
async def list_keys(home: Home, caller: Caller) -> Keys:
    """List the API keys."""
    home.keys.refresh()
    now = home.clock.wall()
    # Of a key that was never met there is nothing to tell but that it is revoked.
    return Keys(tuple(_key(key, now) for key in home.keys if key.created))


def _key(key: ListedKey, now: float) -> Key:
    scope = key.scope
    return Key(
        key.id, key.name or key.id, key.created, key.expires, key.last_used, key.revoked is not None,
        tuple(scope.routes), tuple(scope.models), scope.requests_per_minute, scope.tokens_per_day, key.tokens_on(now),
        scope.bridge,
    )  # fmt: skip


@ROUTES.add("DELETE", "/keys/{key}")
async def revoke_key(home: Home, caller: Caller, key: str) -> Nothing:
    """Revoke an API key at home, for good; what was asked for with it is stopped."""
    home.keys.refresh()
    if home.keys.find(key) is None:
        raise RefusalError(Problem.NOT_FOUND, "This home knows no API key of that id.")
    home.keys.revoke(key)
    await home.store.read(changes.newest)  # the store does things in turn, so the revocation is through
    if not home.keys.is_written(key):
        raise RefusalError(Problem.INTERNAL, "It is revoked until the bridge ends, but could not be written down.")
    return Nothing()


@ROUTES.add("GET", "/settings")
async def get_settings(home: Home, caller: Caller) -> Preferences:
    """Get this home's settings."""
    return await home.store.read(preferences.get)


@ROUTES.add("PUT", "/settings")
async def put_settings(home: Home, caller: Caller, body: Preferences) -> Preferences:
    """Set this home's settings, all of them."""
    return await home.store.write(lambda tx: preferences.put(tx, body))


@ROUTES.add("GET", "/changes")
async def list_changes(home: Home, caller: Caller, epoch: str, since: int) -> Changes:
    """List what changed after a change; 410 (reload) when that is not known any more."""
    return await home.store.read(lambda tx: changes.since(tx, since, epoch))


@ROUTES.add("GET", "/changes/events")
async def watch_changes(home: Home, caller: Caller, epoch: str, since: int) -> AsyncGenerator[Changes, None]:
    """Watch what changes after a change; 410 (reload) when that is not known any more."""
    seen = since
    while True:
        wanted = seen
        found = await home.store.read(lambda tx: changes.since(tx, wanted, epoch))  # noqa: B023 - awaited here
        yield found
        if found.changes:
            seen = found.changes[-1].n
        if seen >= found.newest:
            await home.store.bell.wait(seen, QUIET)
