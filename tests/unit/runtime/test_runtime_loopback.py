"""Which host is this computer."""

import pytest

from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.runtime.loopback import is_loopback


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.5.0.1", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("relay.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("127.evil", False),
    ],
)
def test_only_this_computer_is(host: str, here: bool) -> None:
    """By this a bridge decides whether it serves what the server could read."""
    assert is_loopback(host) is here
    authority = f"[{host}]" if ":" in host else host
    assert EngineAddress.parse(f"http://{authority}:8080").is_local is here
