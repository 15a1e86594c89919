"""Bounds of the edge that other parts' bounds must fit into."""

from cloudtolocalllm.bridge.home_api.chats import MAX_IMPORT
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.sealed.limits import MAX_CHUNK
from cloudtolocalllm.sealed.padding import request_size

HEAD = 64 * 1024
"""Bytes of a sealed request besides its content, at most (sealed-format §6)."""
CHUNK = 16 + 4
"""Bytes of a sealed chunk besides its plaintext: tag and length."""


def test_the_largest_import_passes_sealed_and_padded() -> None:
    plain = request_size(MAX_IMPORT + HEAD)
    sealed = plain + (plain // MAX_CHUNK + 1) * CHUNK + 64
    assert sealed <= EdgeSettings(api=(Endpoint(host="127.0.0.1", port=1),)).data_body_limit
