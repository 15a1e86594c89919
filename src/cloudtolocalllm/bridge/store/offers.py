"""Pairing links on their way from the owner's command to the bridge that runs: it takes them out of here."""

from cloudtolocalllm.bridge.store.errors import ConflictError
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.sealed.pairing import MAX_OFFERS, OFFER_LIFE


def add(tx: Tx, secret: bytes) -> None:
    """Offer a pairing.

    Raises:
        ConflictError: There are too many offers.
    """
    _forget(tx)
    (offers,) = tx.one("SELECT count(*) FROM pairing_offers")
    if offers >= MAX_OFFERS:
        raise ConflictError(f"expected at most {MAX_OFFERS} pairing links at once; wait for some minutes")
    tx.run("INSERT INTO pairing_offers (secret, made) VALUES (?, ?)", secret, tx.now)


def take_all(tx: Tx) -> list[tuple[bytes, float]]:
    """Take every offer that is good out; return the secrets and their ages in seconds."""
    _forget(tx)
    found = [(bytes(secret), max(0.0, tx.now - made)) for secret, made in tx.all("SELECT * FROM pairing_offers")]
    tx.run("DELETE FROM pairing_offers")
    return found


def _forget(tx: Tx) -> None:
    tx.run("DELETE FROM pairing_offers WHERE made <= ?", tx.now - OFFER_LIFE)
