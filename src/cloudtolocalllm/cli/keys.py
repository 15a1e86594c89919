"""Commands of the local owner about API keys.

They sign with the cloud's own keys and write into the local bridge's list, whether `up` runs or not; what they change
holds at home at once and in the cloud within a second.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.revocations import Revocations, key_member
from cloudtolocalllm.api.secrets import SecretsError, load_pseudonym_key, load_signing_ring
from cloudtolocalllm.api.state import StateError, StateUnavailableError
from cloudtolocalllm.api.state.open import open_state
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.auth.keys import DAY, MAX_LIFETIME, KeyClaims, KeyScope, KeyVerifier, mint_key
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.bridge.keys import KeyList, KeyListError, KeyListFullError, ListedKey, key_list_path
from cloudtolocalllm.bridge.store.key_place import SETTING
from cloudtolocalllm.cli.audit import note
from cloudtolocalllm.cli.layout import Layout, write_private
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.settings import environment

OWNER_KEY_NAME = "Owner (owner.key)"
STATE_VARIABLE = "C2L_API_STATE"
"""As the API's own setting: where the cloud's state is, for a cloud with replicas."""


@contextmanager
def key_list(layout: Layout, clock: Clock) -> Iterator[KeyList]:
    """Open the local bridge's list of keys.

    Raises:
        KeyListError: It cannot be used.
    """
    keys = KeyList(key_list_path(layout.bridge_credential), clock, place=environment().get(SETTING, ""))
    try:
        yield keys
    finally:
        keys.close()


def owner_key(layout: Layout, ring: KeyRing, user: str, clock: Clock) -> str:
    """Return the owner's own API key, made anew when it is not valid, was revoked, or half of its time is over.

    Raises:
        KeyListError: The list of keys cannot be used.
    """
    text = layout.owner_key.read_text().strip() if layout.owner_key.exists() else ""
    claims = KeyVerifier(ring, clock).verify(text)
    with key_list(layout, clock) as keys:
        listed = None if claims is None else keys.find(claims.id)
        if (
            claims is None
            or claims.user != user
            or claims.expires - clock.wall() < MAX_LIFETIME / 2
            or (listed is not None and listed.revoked is not None)
        ):
            claims, text = mint_key(ring, user=user, scope=KeyScope(), lifetime=MAX_LIFETIME, now=clock.wall())
            write_private(layout.owner_key, text)
        _list(keys, claims, OWNER_KEY_NAME)
    return text


def keys_create(options: argparse.Namespace) -> int:
    """Make an API key and print it, alone on stdout."""
    clock = SystemClock()
    layout = Layout(options.data_dir.absolute())
    try:
        scope = KeyScope(
            tuple(options.route), tuple(options.model), options.rpm, options.tokens_per_day, options.bridge
        )
        layout.make()
        user = owner_of(load_pseudonym_key(layout.secrets))
        ring = load_signing_ring(layout.secrets)
        with key_list(layout, clock) as keys:
            claims, text = mint_key(ring, user=user, scope=scope, lifetime=options.days * DAY, now=clock.wall())
            _list(keys, claims, options.label or options.name or "unnamed")
    except (ValueError, SecretsError, KeyListError) as error:
        return _fail(error)
    except KeyListFullError:
        return _fail("expected room in the list of keys, which is full; wait until old ones expire")
    note(layout.audit, Event.KEY_MADE, user=user, about=claims.id)
    print(text)
    sys.stderr.write(f"Key {claims.id} was made; it expires on {_date(claims.expires)}. It is shown only now.\n")
    return 0


def keys_list(options: argparse.Namespace) -> int:
    """Print the keys that the local bridge knows."""
    clock = SystemClock()
    layout = Layout(options.data_dir.absolute())
    try:
        layout.make()
        with key_list(layout, clock) as keys:
            for key in keys:
                if key.created:
                    print(_line(key, clock.wall()))
    except KeyListError as error:
        return _fail(error)
    return 0


def keys_revoke(options: argparse.Namespace) -> int:
    """Revoke a key, at home and in the cloud; to be repeated when only the first came about."""
    clock = SystemClock()
    layout = Layout(options.data_dir.absolute())
    try:
        layout.make()
        with key_list(layout, clock) as keys:
            key = keys.find(options.id)
            if key is None:
                return _fail("expected the id of a key; see `cloudtolocalllm keys list`")
            if key.revoked is None:
                keys.revoke(key.id)
        user = owner_of(load_pseudonym_key(layout.secrets))
        asyncio.run(_revoke_in_cloud(layout, user, key, clock))
        note(layout.audit, Event.KEY_REVOKED, user=user, about=key.id)
    except (KeyListError, SecretsError) as error:
        return _fail(error)
    except (StateError, StateUnavailableError):
        return _fail("it is revoked at home, but the cloud's state cannot be written; try again")
    return 0


async def _revoke_in_cloud(layout: Layout, user: str, key: ListedKey, clock: Clock) -> None:
    # Nobody hears this process's bus; the mark that a revocation leaves in the state has every replica look.
    state = await open_state(environment().get(STATE_VARIABLE, ""), layout.state, clock)
    try:
        await Revocations(state, LocalBus(), clock).add(key_member(user, key.id), key.expires)
    finally:
        await state.close()


def _list(keys: KeyList, claims: KeyClaims, name: str) -> None:
    keys.add(claims.id, name, claims.scope, created=claims.issued, expires=claims.expires)


def _line(key: ListedKey, now: float) -> str:
    scope = key.scope
    limits = [*scope.routes, *scope.models]
    if scope.requests_per_minute is not None:
        limits.append(f"{scope.requests_per_minute} requests/min")
    if scope.tokens_per_day is not None:
        limits.append(f"{key.tokens_on(now)} of {scope.tokens_per_day} tokens today")
    if scope.bridge is not None:
        limits.append(f"bridge {scope.bridge}")
    if key.revoked is not None:
        state = f"revoked {_date(key.revoked)}"
    elif key.expires <= now:
        state = f"expired {_date(key.expires)}"
    else:
        state = f"until {_date(key.expires)}"
    used = "never used" if key.last_used is None else f"last used {_date(key.last_used)}"
    return "  ".join((key.id, _date(key.created), state, used, key.name or "-", "; ".join(limits) or "no limits"))


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm: {reason}\n")
    return 1
