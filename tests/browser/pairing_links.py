"""Pairing links of a running platform."""

import json
import sqlite3
import time
from contextlib import closing

from tests.support.stack import Stack

from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.cli.bridge_devices import LocalHome
from cloudtolocalllm.cli.layout import Layout


def bridge_of(stack: Stack) -> str:
    """Return the id of the bridge at the server."""
    return str(json.loads(Layout(stack.data_dir).bridge_credential.read_text())["bridge_id"])


def pairing_link(stack: Stack, *, age: float = 0) -> str:
    """Offer a pairing as `cloudtolocalllm bridge pair-device` does, and return its link.

    Args:
        stack: A running one.
        age: Seconds for which it was offered already.
    """
    credential = Layout(stack.data_dir).bridge_credential
    link = LocalHome(credential, BridgeIdentity.load(credential)).offer()
    if age:
        with closing(sqlite3.connect(home_path(credential), timeout=5)) as db, db:
            db.execute("UPDATE pairing_offers SET made = ? WHERE secret = ?", (time.time() - age, link.secret))
    return f"{stack.url}/pair#{link.fragment}"
