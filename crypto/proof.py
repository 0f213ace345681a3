"""Proofs from a tree that is not in memory: from a function that knows the roots of full subtrees.

Rules
1. A tree is a function `(level, index) -> hash`: the root over the leaves [index << level, (index + 1) << level). It is
   asked only for subtrees that lie whole within the size that is proved for: O(log n) of them.
2. Inclusion and consistency proofs are those of RFC 9162 sections 2.1.3.1 and 2.1.4.1, hash by hash.

>>> leaves = [bytes((n,)) * 32 for n in range(7)]
>>> path = inclusion(over(leaves), 5, 7)
>>> merkle.verify_inclusion(leaves[5], 5, 7, path, merkle.root(leaves))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fednode.crypto import merkle

Tree = Callable[[int, int], bytes]


def over(leaves: Sequence[bytes]) -> Tree:
    """The tree over leaves that are in memory."""
    return lambda level, index: merkle.root(leaves[index << level : (index + 1) << level])


def root(tree: Tree, size: int) -> bytes:
    """The root over the first `size` leaves."""
    return _root(tree, 0, size) if size else merkle.EMPTY_ROOT


def inclusion(tree: Tree, index: int, size: int) -> list[bytes]:
    """The audit path of a leaf in the tree over the first `size` leaves, from the bottom."""
    if not 0 <= index < size:
        raise ValueError("index outside the tree")
    return _path(tree, index, 0, size)


def consistency(tree: Tree, old: int, size: int) -> list[bytes]:
    """The proof that the tree over the first `old` leaves is a prefix of the one over the first `size`."""
    if not 0 < old <= size:
        raise ValueError("old size outside the tree")
    return _subproof(tree, old, 0, size, True)


def extension(edge: merkle.Frontier, leaves: Sequence[bytes]) -> list[bytes]:
    """The proof that the tree of `edge` is a prefix of the one with more leaves, for whoever holds no older leaf: each
    subtree that such a proof names is a peak of the old tree, or made of new leaves alone."""
    peaks: dict[int, bytes] = {}
    start = edge.size
    for peak in reversed(edge.peaks):
        start &= start - 1  # where the peak that ends here begins: its size is the lowest bit that is left
        peaks[start] = peak
    old = edge.size

    def tree(level: int, index: int) -> bytes:
        first = index << level
        return peaks[first] if first < old else merkle.root(leaves[first - old : first - old + (1 << level)])

    return consistency(tree, old, old + len(leaves))


def _split(size: int) -> int:
    """The largest power of two below a size."""
    return 1 << ((size - 1).bit_length() - 1)


def _root(tree: Tree, first: int, size: int) -> bytes:
    """The root over `size` leaves from `first`, which is a multiple of the power of two at or above the size."""
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return tree(level, first >> level)
    cut = _split(size)
    return merkle.node(_root(tree, first, cut), _root(tree, first + cut, size - cut))


def _path(tree: Tree, index: int, first: int, size: int) -> list[bytes]:
    if size == 1:
        return []
    cut = _split(size)
    middle, rest = first + cut, size - cut
    if index < middle:
        return [*_path(tree, index, first, cut), _root(tree, middle, rest)]
    return [*_path(tree, index, middle, rest), _root(tree, first, cut)]


def _subproof(tree: Tree, old: int, first: int, size: int, whole: bool) -> list[bytes]:
    """`old` counts from `first`; `whole`: the old tree begins where this subtree does, so its root is known."""
    if old == size:
        return [] if whole else [_root(tree, first, size)]
    cut = _split(size)
    middle, rest = first + cut, size - cut
    if old <= cut:
        return [*_subproof(tree, old, first, cut, whole), _root(tree, middle, rest)]
    return [*_subproof(tree, old - cut, middle, rest, False), _root(tree, first, cut)]
