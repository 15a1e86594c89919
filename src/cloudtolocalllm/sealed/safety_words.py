"""Safety words: eight words that two people, or one at two screens, compare to see that nobody stands between.

They are for a pairing without a link. Both sides show the words for the bridge's and the device's fingerprint; if the
cloud gave either side a key of its own, the words differ. Eight words are 88 bits. Whoever stands between has keys of
its own to choose for each side, and so needs about 2^44 tries for a match, each of 2^17 rounds of PBKDF2: 2^62 hashes
in the minutes of one pairing, for which a million graphics cards would not do.
"""

from hashlib import pbkdf2_hmac
from typing import Final

from cloudtolocalllm.sealed.errors import MisuseError
from cloudtolocalllm.sealed.fingerprint import FINGERPRINT_BYTES
from cloudtolocalllm.sealed.word_list import WORDS

COUNT: Final = 8
ROUNDS: Final = 1 << 17
_SALT: Final = b"c2l safety words v1"
_BITS: Final = 11


def safety_words(bridge: bytes, device: bytes) -> tuple[str, ...]:
    """Return the words for two fingerprints; takes some 50 ms.

    Args:
        bridge: Of the bridge's identity.
        device: Of the device's key.

    Raises:
        MisuseError: One of them is no fingerprint.
    """
    if len(bridge) != FINGERPRINT_BYTES or len(device) != FINGERPRINT_BYTES:
        raise MisuseError(f"expected two fingerprints of {FINGERPRINT_BYTES} bytes")
    bits = COUNT * _BITS
    number = int.from_bytes(pbkdf2_hmac("sha256", bridge + device, _SALT, ROUNDS, bits // 8), "big")
    return tuple(WORDS[number >> shift & (1 << _BITS) - 1] for shift in range(bits - _BITS, -1, -_BITS))
