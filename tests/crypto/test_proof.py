"""Proofs from the roots of full subtrees: as RFC 9162 writes them, and asking for no more than they need.

tests/crypto/test_merkle.py holds the same functions to the published vectors and to the verifier."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import merkle, proof


def some(count: int) -> list[bytes]:
    """`count` leaf hashes."""
    return [hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(count)]


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, as it is written."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    cut = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + by_definition(leaves[:cut]) + by_definition(leaves[cut:])).digest()


def path_by_definition(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162 section 2.1.3.1, as it is written."""
    if len(leaves) == 1:
        return []
    cut = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < cut:
        return [*path_by_definition(leaves[:cut], index), by_definition(leaves[cut:])]
    return [*path_by_definition(leaves[cut:], index - cut), by_definition(leaves[:cut])]


def subproof_by_definition(leaves: Sequence[bytes], old: int, whole: bool) -> list[bytes]:
    """RFC 9162 section 2.1.4.1, as it is written."""
    if old == len(leaves):
        return [] if whole else [by_definition(leaves)]
    cut = 1 << ((len(leaves) - 1).bit_length() - 1)
    if old <= cut:
        return [*subproof_by_definition(leaves[:cut], old, whole), by_definition(leaves[cut:])]
    return [*subproof_by_definition(leaves[cut:], old - cut, False), by_definition(leaves[:cut])]


class Watched:
    """A tree over leaves that notes what it is asked for."""

    def __init__(self, leaves: Sequence[bytes], size: int) -> None:
        self._tree, self._size = proof.over(leaves), size
        self.asked: list[tuple[int, int]] = []

    def __call__(self, level: int, index: int) -> bytes:
        assert (index + 1) << level <= self._size
        self.asked.append((level, index))
        return self._tree(level, index)


@settings(deadline=None)
@given(st.integers(1, 600), st.data())
def test_inclusion(size: int, data: st.DataObject) -> None:
    leaves = some(size + 40)  # the log may have grown on
    index = data.draw(st.integers(0, size - 1))
    tree = Watched(leaves, size)
    assert proof.inclusion(tree, index, size) == path_by_definition(leaves[:size], index)
    assert len(tree.asked) <= 2 * size.bit_length()
    merkle.verify_inclusion(leaves[index], index, size, proof.inclusion(tree, index, size), proof.root(tree, size))


@settings(deadline=None)
@given(st.integers(1, 600), st.data())
def test_consistency(size: int, data: st.DataObject) -> None:
    leaves = some(size + 40)
    old = data.draw(st.integers(1, size))
    tree = Watched(leaves, size)
    assert proof.consistency(tree, old, size) == subproof_by_definition(leaves[:size], old, True)
    assert len(tree.asked) <= 3 * size.bit_length()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 257, 600])
def test_root(size: int) -> None:
    assert proof.root(Watched(some(700), size), size) == by_definition(some(size))


@pytest.mark.parametrize("new", [*range(1, 70), 1000])
def test_whoever_has_only_the_edge_proves_the_same(new: int) -> None:
    leaves = some(new)
    for old in range(1, new + 1) if new < 70 else (1, 511, 512, 513, 999):
        edge = merkle.Frontier.EMPTY.extend(leaves[:old])
        assert proof.extension(edge, leaves[old:]) == proof.consistency(proof.over(leaves), old, new)
    with pytest.raises(ValueError, match="outside"):
        proof.extension(merkle.Frontier.EMPTY, leaves)
