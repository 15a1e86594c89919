"""One-time sign-in links: the token of one is used once and dies an hour after it was made."""

import re

from cloudtolocalllm.auth import tokens

LIFETIME = 3600.0
"""Seconds. Long enough to walk to another room; `cloudtolocalllm sign-in-link` makes a new one."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def mint_link_token() -> tuple[str, bytes]:
    """Return a new token and the hash of it that is kept."""
    text = tokens.new_secret()
    return text, tokens.digest(text)


def link_key(hash_: bytes) -> str:
    """Return under which key the state keeps whom a link signs in."""
    return f"link/{hash_.hex()}"


def parse_link_token(text: str) -> bytes | None:
    """Return the hash to look a token up by; None when it does not look like one."""
    return tokens.digest(text) if _TOKEN.fullmatch(text) else None
