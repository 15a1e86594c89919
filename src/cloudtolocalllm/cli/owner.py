"""Commands of the local owner, who may read and write the data directory: keys and sign-in links.

They work on the store itself, whether `up` runs or not; what they change holds at once.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cloudtolocalllm.api.store import Store, StoreError
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.cli.lock import read_running


@contextmanager
def _store(options: argparse.Namespace) -> Iterator[Store]:
    layout = Layout(options.data_dir.absolute())
    layout.make()
    store = Store(layout.cloud / "cloud.db")
    try:
        yield store
    finally:
        store.close()


def keys_create(options: argparse.Namespace) -> int:
    """Make an API key and print it, alone on stdout."""
    try:
        with _store(options) as store:
            record, text = store.create_key(store.owner(), options.name)
    except StoreError as error:
        return _fail(error)
    print(text)
    sys.stderr.write(f"Key {record.id} was made. It is shown only now.\n")
    return 0


def keys_list(options: argparse.Namespace) -> int:
    """Print the keys, without their secrets."""
    with _store(options) as store:
        for key in store.list_keys(store.owner()):
            used = "never used" if key.last_used is None else f"last used {_date(key.last_used)}"
            print(f"{key.id}  {_date(key.created)}  {used}  {key.name}")
    return 0


def keys_delete(options: argparse.Namespace) -> int:
    """Delete a key."""
    with _store(options) as store:
        if store.delete_key(store.owner(), options.id):
            return 0
    return _fail("expected the id of a key; see `cloudtolocalllm keys list`")


def sign_in_link(options: argparse.Namespace) -> int:
    """Print a link that signs the owner in once."""
    running = read_running(Layout(options.data_dir.absolute()).lock)
    if running is None or not running.url:
        return _fail("expected `cloudtolocalllm up` to run on this data directory; start it first")
    with _store(options) as store:
        token, _ = store.create_sign_in_link(store.owner())
    print(f"{running.url}/sign-in#token={token}")
    return 0


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm: {reason}\n")
    return 1
