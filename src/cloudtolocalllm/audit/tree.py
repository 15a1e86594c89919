"""The Merkle tree of RFC 6962 §2.1: hashes, the growing edge of a tree, and proofs.

No input or output, no state but what the caller keeps. RFC 9162 §2.1 defines the same tree; its algorithms for
verifying proofs are used, being the clearer ones. Why this is own code: docs/decisions/0005-audit-log.md.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EMPTY = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""
HASH_BYTES = 32


class ProofError(ValueError):
    """A proof does not prove what it is for."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Edge:
    """A tree's compact range: the roots of its perfect subtrees, the largest first. It is all that growing needs.

    A tree of `size` leaves has one for each 1 in the binary of `size`.
    """

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is none."""
        if self.size < 0 or len(self.roots) != self.size.bit_count() or any(len(r) != HASH_BYTES for r in self.roots):
            raise ValueError(f"expected {max(0, self.size).bit_count()} hashes for a tree of {self.size} leaves")

    def appended(self, leaf: bytes) -> "Edge":
        """Return the edge with one more leaf, given by its hash."""
        roots, size = list(self.roots), self.size
        node = leaf
        while size & 1:
            node = node_hash(roots.pop(), node)
            size >>= 1
        return Edge(self.size + 1, (*roots, node))

    def root(self) -> bytes:
        """Return the tree's root."""
        if not self.roots:
            return EMPTY
        node = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            node = node_hash(left, node)
        return node


def edge_of(leaves: Iterable[bytes], start: Edge | None = None) -> Edge:
    """Return the edge after more leaves, given by their hashes."""
    edge = start or Edge()
    for leaf in leaves:
        edge = edge.appended(leaf)
    return edge


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree of these leaf hashes."""
    return edge_of(leaves).root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the path from a leaf to the root (RFC 6962 §2.1.1).

    Args:
        leaves: All leaf hashes.
        index: Which leaf.

    Raises:
        IndexError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"expected an index below {len(leaves)}, got {index}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root_of(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root_of(leaves[:split])]


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Return the proof that the tree of the first `old` leaves is a beginning of this one (RFC 6962 §2.1.2).

    Raises:
        IndexError: `old` is not from 1 to the number of leaves.
    """
    if not 0 < old <= len(leaves):
        raise IndexError(f"expected a size from 1 to {len(leaves)}, got {old}")
    return _consistency(leaves, old, whole=True)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash is in the tree (RFC 9162 §2.1.3.2).

    Raises:
        ProofError: It is not proved.
    """
    if not 0 <= index < size:
        raise ProofError(f"expected an index below {size}, got {index}")
    fn, sn, node = index, size - 1, leaf
    for step in proof:
        if sn == 0:
            raise ProofError("the proof is too long")
        if fn & 1 or fn == sn:
            node = node_hash(step, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, step)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0 or node != root:
        raise ProofError("the leaf is not in the tree")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that one tree is a beginning of another (RFC 9162 §2.1.4.2).

    Raises:
        ProofError: It is not proved.
    """
    if not 0 < old <= new:
        raise ProofError(f"expected sizes with 0 < old <= new, got {old} and {new}")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError("the trees differ")
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise ProofError("the proof is too short")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for step in path[1:]:
        if sn == 0:
            raise ProofError("the proof is too long")
        if fn & 1 or fn == sn:
            first, second = node_hash(step, first), node_hash(step, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, step)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0 or first != old_root or second != new_root:
        raise ProofError("the old tree is not a beginning of the new one")


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _consistency(leaves: Sequence[bytes], old: int, *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2; `whole` says whether the verifier has this subtree's root already."""
    if old == len(leaves):
        return [] if whole else [root_of(leaves)]
    split = _split(len(leaves))
    if old <= split:
        return [*_consistency(leaves[:split], old, whole=whole), root_of(leaves[split:])]
    return [*_consistency(leaves[split:], old - split, whole=False), root_of(leaves[:split])]
