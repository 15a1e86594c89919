"""Commands of the local owner, who may read and write the data directory: sign-in links. For keys see `cli.keys`."""

import argparse
import asyncio
import sys

from cloudtolocalllm.api.secrets import load_pseudonym_key
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.auth.links import LIFETIME, link_key, mint_link_token
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.cli.audit import note
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.cli.lock import read_running
from cloudtolocalllm.runtime.clock import SystemClock


async def make_link(layout: Layout, user: str) -> str:
    """Return the token of a new one-time sign-in link."""
    token, hash_ = mint_link_token()
    state = SqliteState(layout.state, clock=SystemClock())
    try:
        await state.put(link_key(hash_), user.encode(), LIFETIME)
    finally:
        await state.close()
    return token


def sign_in_link(options: argparse.Namespace) -> int:
    """Print a link that signs the owner in once."""
    layout = Layout(options.data_dir.absolute())
    running = read_running(layout.lock)
    if running is None or not running.url:
        return _fail("expected `cloudtolocalllm up` to run on this data directory; start it first")
    user = owner_of(load_pseudonym_key(layout.secrets))
    print(f"{running.url}/sign-in#token={asyncio.run(make_link(layout, user))}")
    note(layout, Event.SIGN_IN_LINK_MADE, user=user)
    return 0


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm: {reason}\n")
    return 1
