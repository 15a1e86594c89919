"""Keeps the store within its quota and its time, a few conversations at a time.

What is pinned, and what an answer is being written in, is never deleted.
"""

from dataclasses import dataclass

from cloudtolocalllm.bridge.store import attachments, conversations, preferences
from cloudtolocalllm.bridge.store.errors import StoreFullError
from cloudtolocalllm.bridge.store.tx import Tx

DAY = 86_400.0
AT_ONCE = 20
"""Conversations deleted in one transaction, so that others do not wait long."""
VACUUM_PAGES = 2_000
"""Free pages given back to the disk at once: 8 MB."""

_FREE = """SELECT c.seq, c.id FROM conversations c WHERE c.pinned = 0 AND NOT EXISTS (
        SELECT 1 FROM runs r WHERE r.conversation = c.seq AND r.state IN ('queued', 'loading', 'streaming'))"""


@dataclass(frozen=True, slots=True)
class Room:
    """What the store takes, in bytes."""

    used: int
    quota: int
    """0 for no limit."""

    @property
    def over(self) -> bool:
        """Whether it is more than the quota."""
        return bool(self.quota) and self.used > self.quota


def room(tx: Tx) -> Room:
    """Return what the store takes, without pages that are free to be used again."""
    (pages,) = tx.one("PRAGMA page_count")
    (free,) = tx.one("PRAGMA freelist_count")
    (size,) = tx.one("PRAGMA page_size")  # of an encrypted store as text
    return Room((pages - free) * int(size), preferences.get(tx).quota_bytes)


def check_room(tx: Tx) -> None:
    """Refuse what would add to a store that is over its quota.

    Raises:
        StoreFullError: It is.
    """
    if (now := room(tx)).over:
        raise StoreFullError(
            f"expected at most {now.quota} bytes in the home store, got {now.used}, and what is left is pinned "
            "or being written; delete something, or raise the quota"
        )


def enforce(tx: Tx) -> bool:
    """Delete what is too old, and then the oldest while there is too much; return whether there is more to do."""
    deleted = attachments.sweep(tx)
    days = preferences.get(tx).retention_days
    if days:
        old = tx.all(f"{_FREE} AND c.updated < ? ORDER BY c.updated LIMIT ?", tx.now - days * DAY, AT_ONCE)
        for seq, id_ in old:
            conversations.erase(tx, seq, id_)
        deleted += len(old)
    for _ in range(AT_ONCE):
        if not room(tx).over:
            break
        oldest = tx.one(f"{_FREE} ORDER BY c.updated LIMIT 1")
        if oldest is None:
            break
        conversations.erase(tx, *oldest)
        deleted += 1
    (free,) = tx.one("PRAGMA freelist_count")
    for _ in range(min(free, VACUUM_PAGES)):
        tx.run("PRAGMA incremental_vacuum(1)")  # Python takes one step of a PRAGMA only, which is a page
    (left,) = tx.one("PRAGMA freelist_count")
    return deleted >= AT_ONCE or 0 < left < free  # a file that was made in another way gives no page back
