"""The page on the format says what is done."""

import re
from pathlib import Path

from tests.support.sealed_parts import VECTORS

from cloudtolocalllm.sealed import (
    device,
    errors,
    key_config,
    key_ring,
    limits,
    ohttp,
    padding,
    pairing,
    replay,
    safety_words,
    statement,
)

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "sealed-format.md").read_text()
EVERY_VECTOR = "".join(path.read_text() for path in sorted((VECTORS / "sealed").glob("*.json"))).replace(
    '",\n  "', ""
)


def test_every_example_is_in_a_vector() -> None:
    examples = re.findall(r"\b[0-9a-f]{24,}\b", PAGE) + re.findall(r"#(c2l1\.\S+)", PAGE)
    examples += re.findall(r"as (\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT)", PAGE)
    assert len(examples) == 16
    for example in examples:
        assert example in EVERY_VECTOR, example


def test_the_names_labels_and_numbers_are_those_in_use() -> None:
    policy = padding.DEFAULT_POLICY
    values = [
        ohttp.REQUEST_TYPE,
        ohttp.RESPONSE_TYPE,
        pairing.REQUEST_TYPE,
        statement.TYPE,
        padding.CODING.decode(),
        *(label.decode() for label in (device.EXPORT, device.LABEL[:-1], device.DEVICE_FIELD, device.PROOF_FIELD)),
        *(
            label.decode()
            for labels in (ohttp.EXCHANGE, ohttp.PAIRING)
            for label in (labels.request, labels.response)
        ),
        pairing.PATH.decode(),
        f"{limits.MAX_CHUNK:,} bytes",
        f"{limits.MAX_SKEW} s",
        f"{key_config.MAX_BYTES:,} bytes",
        f"{key_ring.PERIOD // 3600} h",
        f"{key_ring.LIFE // 3600} h",
        f"{replay.MAX_REMEMBERED:,}",
        f"{2 * limits.MAX_SKEW} s at most",
        f"{safety_words.ROUNDS:,} rounds",
        f"{policy.interval * 1000:.0f} ms",
        f"multiple of {policy.multiple} bytes, at least {policy.floor}",
        f"{policy.ceiling:,}",
        f"every chunk has {policy.stream_size:,} bytes",
        *(f"`{each.decode()}`" for each in padding.STREAM_TYPES),
        f"{policy.headroom} times",
        f"{policy.request_floor:,} bytes",
        f"{limits.DEFAULT_LIMITS.fields} lines",
        f"{limits.DEFAULT_LIMITS.informational} informational heads",
    ]
    assert pairing.OFFER_LIFE == 600  # ten minutes
    assert [value for value in values if value not in PAGE] == []


def test_every_error_is_on_the_page() -> None:
    names = [name for name in vars(errors) if name.endswith("Error") and name != "SealedError"]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
