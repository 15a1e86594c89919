"""What bridges are told of API keys, for their lists at home."""

import json
from collections.abc import Iterable

from cloudtolocalllm.api.authorize import home_scope
from cloudtolocalllm.api.bus import Message
from cloudtolocalllm.auth.keys import KeyClaims
from cloudtolocalllm.contracts.control import KeyAdded

ADDED = "key-added"
"""Value of `do` in a message of the topic CONTROL."""
MAX_TOLD = 1000
"""Revoked keys that a bridge is told of when it comes; the cloud refuses all of them anyway."""


def added(bridge: str, claims: KeyClaims, name: str) -> dict[str, str]:
    """Return the message by which the replica that holds a bridge learns of a new key.

    Args:
        bridge: Who is to be told.
        claims: The key's.
        name: For people; kept nowhere but at home.
    """
    key = KeyAdded(claims.id, name, claims.issued, claims.expires, home_scope(claims))
    value = [key.key_id, key.name, key.created, key.expires, key.scope]
    return {"do": ADDED, "bridge": bridge, "key": json.dumps(value)}


def read_added(message: Message) -> KeyAdded:
    """Return what to tell the bridge."""
    return KeyAdded(*json.loads(message["key"]))


def keys_by_user(members: Iterable[str]) -> dict[str, list[str]]:
    """Return the ids of the keys among revoked members, by user."""
    found: dict[str, list[str]] = {}
    for member in members:
        kind, _, rest = member.partition(":")
        user, _, key = rest.partition(":")
        if kind == "key" and key:
            found.setdefault(user, []).append(key)
    return found
