"""From what is said in the log of a refused credential to the audit log's fixed reasons."""

from cloudtolocalllm.audit.events import Reason

_WORDS = (
    ("unknown key", Reason.UNKNOWN_KEY),
    ("another kind", Reason.WRONG_TYPE),
    ("audience", Reason.WRONG_AUDIENCE),
    ("issuer", Reason.WRONG_ISSUER),
    ("expired", Reason.EXPIRED),
    ("too long", Reason.EXPIRED),
    ("revoked", Reason.REVOKED),
    ("nonce", Reason.STALE_NONCE),
    ("used before", Reason.REPLAYED),
    ("replay", Reason.REPLAYED),
    ("proof", Reason.PROOF_FAILED),
    ("forged", Reason.FORGED),
)


def reason_of(error: Exception) -> Reason:
    """Return the reason that the text of an exception such as TokenRefusedError stands for."""
    text = str(error)
    return next((reason for words, reason in _WORDS if words in text), Reason.MALFORMED)
