"""The tree against the vectors of Certificate Transparency's reference code for RFC 6962."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.audit.tree import (
    EMPTY,
    Edge,
    ProofError,
    consistency_proof,
    edge_of,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {  # of the leaf with this index in the tree of this size
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {  # from one size to the other
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Edge().root() == EMPTY == root_of([])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_known_ones(size: int) -> None:
    assert root_of(LEAVES[:size]).hex() == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_inclusion_proofs_are_the_known_ones(index: int, size: int) -> None:
    proof = inclusion_proof(LEAVES[:size], index)
    assert proof == hashes(PATHS[index, size])
    verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_are_the_known_ones(old: int, new: int) -> None:
    proof = consistency_proof(LEAVES[:new], old)
    assert proof == hashes(CONSISTENCY[old, new])
    verify_consistency(old, new, proof, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]))


def leaves(size: int) -> list[bytes]:
    return [leaf_hash(str(n).encode()) for n in range(size)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 70))
def test_every_proof_holds_and_none_holds_for_something_else(data: st.DataObject, size: int) -> None:
    all_ = leaves(size)
    root = root_of(all_)
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(all_, index)
    verify_inclusion(all_[index], index, size, path, root)
    old = data.draw(st.integers(1, size))
    proof = consistency_proof(all_, old)
    verify_consistency(old, size, proof, root_of(all_[:old]), root)
    wrong = leaf_hash(b"another")
    attempts: list[Callable[[], None]] = [
        lambda: verify_inclusion(wrong, index, size, path, root),
        lambda: verify_inclusion(all_[index], index, size, path, wrong),
        lambda: verify_inclusion(all_[index], index, size, [*path, wrong], root),
        lambda: verify_inclusion(all_[index], size, size, path, root),
        lambda: verify_consistency(old, size, proof, wrong, root),
        lambda: verify_consistency(old, size, proof, root_of(all_[:old]), wrong),
        lambda: verify_consistency(old, size, [*proof, wrong], root_of(all_[:old]), root),
        lambda: verify_consistency(0, size, proof, EMPTY, root),
    ]
    for attempt in attempts:
        with pytest.raises(ProofError):
            attempt()
    if path:
        with pytest.raises(ProofError):
            verify_inclusion(all_[index], index, size, path[:-1], root)
    if proof:
        with pytest.raises(ProofError):
            verify_consistency(old, size, proof[:-1], root_of(all_[:old]), root)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_growing_from_an_edge_is_the_same_as_from_the_start(first: int, more: int) -> None:
    all_ = leaves(first + more)
    assert edge_of(all_[first:], edge_of(all_[:first])) == edge_of(all_)


def test_an_edge_that_cannot_be_is_refused() -> None:
    for size, roots in ((1, ()), (2, (EMPTY, EMPTY)), (-1, ()), (1, (b"short",))):
        with pytest.raises(ValueError, match="expected"):
            Edge(size, roots)
    assert Edge(2, (node_hash(EMPTY, EMPTY),)).size == 2


@pytest.mark.parametrize("index", [-1, 3])
def test_proofs_of_what_is_not_there_are_refused(index: int) -> None:
    with pytest.raises(IndexError):
        inclusion_proof(leaves(3), index)
    with pytest.raises(IndexError):
        consistency_proof(leaves(3), index + 1 if index == 3 else 0)
