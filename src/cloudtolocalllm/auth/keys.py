"""API keys: `c2l_ID_SECRET`, sent as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.tokens import Minted, Presented

PREFIX = "c2l"


def mint_key() -> Minted:
    """Make a new API key."""
    return tokens.mint(PREFIX)


def parse_key(text: str) -> Presented | None:
    """Read an API key as it was sent; None when it does not look like one."""
    return tokens.parse(PREFIX, text)
