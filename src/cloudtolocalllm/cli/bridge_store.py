"""`cloudtolocalllm bridge encrypt-store`, `decrypt-store`, `change-store-key`: while the bridge does not run."""

import argparse
import sys
from collections.abc import Callable

from cloudtolocalllm.bridge.identity import PairingError
from cloudtolocalllm.bridge.store import encryption
from cloudtolocalllm.bridge.store.encryption import Done
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.bridge.store.key_place import SETTING
from cloudtolocalllm.cli.bridge_devices import LocalHome, home_of

_LINGERS = """\
The file that was there is deleted. What a disk wrote once it may keep for a while, an SSD out of anybody's reach;
against who takes it apart only the encryption of the whole disk helps."""


def encrypt_store(options: argparse.Namespace) -> int:
    """Encrypt the home store."""
    return _act(options, lambda home: encryption.encrypt(home.store, options.key))


def decrypt_store(options: argparse.Namespace) -> int:
    """Have the home store in the clear."""
    return _act(options, lambda home: encryption.decrypt(home.store, home.place))


def change_store_key(options: argparse.Namespace) -> int:
    """Give the home store another key."""
    return _act(options, lambda home: encryption.change_key(home.store, options.key, home.place))


def _act(options: argparse.Namespace, act: Callable[[LocalHome], Done]) -> int:
    try:
        home = home_of(options)
        done = act(home)
    except (PairingError, StoreError) as error:
        sys.stderr.write(f"cloudtolocalllm bridge: {error}\n")
        return 1
    print(f"{home.store} is encrypted; its key is in {done.place}." if done.place else
          f"{home.store} is in the clear.")  # fmt: skip
    if done.made:
        print(
            "The key was made now, and exists once. Without it nobody can read the store or its back-ups, you "
            "neither: keep a copy elsewhere."
        )
    if done.before:
        print(f"Earlier back-ups need the key in {done.before}; delete it when you need none of them.")
    if done.place and not done.before:
        print(_LINGERS)
    if done.clear:
        print("These copies are NOT encrypted; delete them, or move them to where only you can read them:")
        for file in done.clear:
            print(f"  {file}")
    if home.place and home.place != done.place:
        wanted = "set it to the new place" if done.place else "unset it"
        print(f"{SETTING} says {home.place}: {wanted}, here and where the bridge is started.")
    return 0
