"""Key configurations: which public key a message is sealed to (RFC 9458 §3, `application/ohttp-keys`).

list of    length (2)  key configuration
each       key id (1)  KEM (2)  public key (32)  algorithms' length (2)  { KDF (2)  AEAD (2) }

Numbers are big endian.
"""

from dataclasses import dataclass
from typing import Final

from cloudtolocalllm.sealed import hpke
from cloudtolocalllm.sealed.errors import MalformedError, MisuseError

MEDIA_TYPE: Final = "application/ohttp-keys"
MAX_BYTES: Final = 4096
"""Of a list. One configuration of ours has 43."""

_KEM: Final = hpke.KEM_ID.to_bytes(2, "big")
_ALGORITHMS: Final = hpke.SUITE_IDS.pack(hpke.KEM_ID, hpke.KDF_ID, hpke.AEAD_ID)[2:]


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One public key of the suite in use."""

    key_id: int
    public: bytes

    def __post_init__(self) -> None:
        """Refuse what is no configuration.

        Raises:
            MisuseError: The id or the key is out of its range.
        """
        if not 0 <= self.key_id <= 255 or len(self.public) != hpke.KEY_BYTES:
            raise MisuseError(f"expected a key id of 0 to 255 and a key of {hpke.KEY_BYTES} bytes")

    @property
    def header(self) -> bytes:
        """The seven bytes that a message sealed to it begins with."""
        return bytes((self.key_id,)) + hpke.SUITE_IDS.pack(hpke.KEM_ID, hpke.KDF_ID, hpke.AEAD_ID)


def encode_config(config: KeyConfig) -> bytes:
    """Return one configuration, without its length."""
    return b"".join(
        (bytes((config.key_id,)), _KEM, config.public, len(_ALGORITHMS).to_bytes(2, "big"), _ALGORITHMS),
    )


def encode_configs(configs: tuple[KeyConfig, ...]) -> bytes:
    """Return a list, the preferred configuration first."""
    encoded = [encode_config(config) for config in configs]
    return b"".join(len(each).to_bytes(2, "big") + each for each in encoded)


def decode_configs(data: bytes) -> tuple[KeyConfig, ...]:
    """Read a list; configurations for other suites are passed over, so that another one can be added some day.

    Raises:
        MalformedError: It is not such a list, names a key twice, or has none that can be used.
    """
    if len(data) > MAX_BYTES:
        raise MalformedError(f"expected key configurations of at most {MAX_BYTES} bytes, got {len(data)}")
    configs: dict[int, KeyConfig | None] = {}
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        each = data[at + 2 : at + 2 + size]
        at += 2 + size
        if at > len(data) or size < 3:
            raise MalformedError("expected whole key configurations")
        if each[0] in configs:
            raise MalformedError("expected key configurations with different ids")
        configs[each[0]] = _decode(each)
    usable = tuple(config for config in configs.values() if config is not None)
    if not usable:
        raise MalformedError("expected a key configuration for X25519, HKDF-SHA256 and AES-128-GCM")
    return usable


def _decode(data: bytes) -> KeyConfig | None:
    """Return a configuration, or None when it is for another suite."""
    if data[1:3] != _KEM:
        return None
    algorithms = data[3 + hpke.KEY_BYTES :]
    size = int.from_bytes(algorithms[:2], "big")
    if len(algorithms) != 2 + size or not size or size % 4:
        raise MalformedError("expected the algorithms of a key configuration in whole pairs")
    pairs = [algorithms[at : at + 4] for at in range(2, len(algorithms), 4)]
    return KeyConfig(data[0], data[3 : 3 + hpke.KEY_BYTES]) if _ALGORITHMS in pairs else None
