"""Bridge credentials: `c2lb_BRIDGE-ID_SECRET`, sent as `Authorization: Bearer CREDENTIAL` by a bridge alone."""

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.tokens import Minted, Presented

PREFIX = "c2lb"


def mint_credential() -> Minted:
    """Make a new bridge with its credential; `Minted.id` is the bridge's id."""
    return tokens.mint(PREFIX)


def parse_credential(text: str) -> Presented | None:
    """Read a bridge credential as it was sent; None when it does not look like one."""
    return tokens.parse(PREFIX, text)
