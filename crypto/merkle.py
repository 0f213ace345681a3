"""The Merkle tree of RFC 6962 / RFC 9162, and the leaf of a change (DESIGN.md section 5).

Rules
1. Leaf, version 1: SHA-256(0x00 || 0x01 || hlc:u64 || op:u8 || schema_version:u32 || len:u16 key || commitment),
   big-endian, with commitment = SHA-256(0x02 || salt || payload). A leaf stays when payload and salt are gone.
2. A node is SHA-256(0x01 || left || right). The root of nothing is SHA-256 of nothing.
3. A `Frontier` is the right edge of a tree: the roots of the full subtrees that its size is made of, largest first. It
   is all that is needed to go on, and to know the root.
4. `grow` also hands back the nodes that became complete, for whoever keeps them to prove from (`fednode.crypto.proof`):
   those from level 8 up (256 leaves), and after a run of fewer leaves those from level log2(run) up. A node that is not
   kept ends inside a run at least twice as long: so a proof needs to read O(log n) runs, however the log was cut.

>>> root([b"a" * 32, b"b" * 32, b"c" * 32]) == Frontier.EMPTY.extend([b"a" * 32]).extend([b"b" * 32, b"c" * 32]).root()
True
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256  # fixed by leaf version 1 and by C2SP; another hash would be leaf version 2
from struct import Struct, iter_unpack
from typing import ClassVar

from fednode.crypto.errors import IntegrityError

HASH_BYTES = 32
PROOF_HASHES_MAX = 65  # of a tree of 2^64 leaves
EMPTY_ROOT = sha256(b"").digest()
KEPT_LEVEL = 8
_HEAD = Struct(">QBIH")
_MAGIC = b"F1"
# Hashes that have taken in the first bytes: a copy costs less than a new one, and less than to join them to the rest.
_COMMITMENT, _LEAF, _NODE = sha256(b"\x02"), sha256(b"\x00\x01"), sha256(b"\x01")


def commitment(salt: bytes, payload: bytes) -> bytes:
    """What stands in the leaf for a payload; hides it for as long as the salt (32 bytes) is secret."""
    return sha256(b"\x02" + salt + payload).digest()


def leaf(hlc: int, op: int, schema_version: int, key: bytes, committed: bytes) -> bytes:
    """The leaf hash of one change."""
    return sha256(b"\x00\x01" + _HEAD.pack(hlc, op, schema_version, len(key)) + key + committed).digest()


def leaves(
    hlcs: Sequence[int],
    ops: bytes,
    schema_version: int,
    keys: Iterable[bytes],
    salts: bytes,
    payloads: Iterable[bytes],
) -> list[bytes]:
    """The leaf hashes of many changes. `salts`: 32 bytes for each, joined."""
    if len(salts) != 32 * len(hlcs):
        raise ValueError("one salt of 32 bytes for each change")  # a short one would be guessable
    commitments, hashers, pack = _COMMITMENT.copy, _LEAF.copy, _HEAD.pack
    found = []
    for hlc, op, key, (salt,), payload in zip(hlcs, ops, keys, iter_unpack("32s", salts), payloads, strict=True):
        commitment_ = commitments()
        commitment_.update(salt)
        commitment_.update(payload)
        leaf_ = hashers()
        leaf_.update(pack(hlc, op, schema_version, len(key)) + key + commitment_.digest())
        found.append(leaf_.digest())
    return found


def node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def _pairs(level: Sequence[bytes]) -> list[bytes]:
    """The parents of an even number of neighbours."""
    hashers, each = _NODE.copy, iter(level)
    found = []
    for left, right in zip(each, each, strict=True):
        node_ = hashers()
        node_.update(left + right)
        found.append(node_.digest())
    return found


def subtrees(first: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the full subtrees that the leaves [first, first + len(hashes)) of a tree make up by themselves, from
    left to right. With what stands before them, `Frontier.join` goes on."""
    left: list[bytes] = []
    right: list[bytes] = []
    level, at = list(hashes), first
    while level:
        if at & 1:  # its sibling is not among these
            left.append(level[0])
            del level[0]
            at += 1
        if len(level) & 1:
            right.append(level.pop())
        level = _pairs(level)
        at >>= 1
    return left + right[::-1]


@lru_cache(maxsize=64)  # of one head it is asked for several times: to sign, to compare, to store
def _root_over(peaks: tuple[bytes, ...]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    current = peaks[-1]
    for peak in reversed(peaks[:-1]):
        current = node(peak, current)
    return current


@dataclass(frozen=True, slots=True)
class TreeNode:
    """The root of the full subtree over the leaves [index << level, (index + 1) << level)."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """`peaks`: one hash for each bit that is set in `size`, from the highest to the lowest."""

    size: int
    peaks: tuple[bytes, ...]
    EMPTY: ClassVar[Frontier]

    def root(self) -> bytes:
        """The root of the tree (RFC 9162 section 2.1.1)."""
        return _root_over(self.peaks)

    def extend(self, hashes: Sequence[bytes]) -> Frontier:
        """The frontier after more leaves."""
        return self.grow(hashes)[0]

    def grow(self, hashes: Sequence[bytes]) -> tuple[Frontier, list[TreeNode]]:
        """The frontier after more leaves, and the nodes to keep that they completed (rule 4). Works level by level."""
        if not hashes:
            return self, []
        size = self.size + len(hashes)
        waiting = list(self.peaks)
        done: list[bytes] = []
        kept: list[TreeNode] = []
        level: list[bytes] = list(hashes)
        below, height, lowest = self.size, 0, min(KEPT_LEVEL, len(hashes).bit_length() - 1)
        while level:
            if height >= lowest:
                start = self.size >> height
                kept += [TreeNode(height, start + i, hash_) for i, hash_ in enumerate(level)]
            if below & 1:  # a peak of the old tree stands at the left of this level
                level.insert(0, waiting.pop())
            if len(level) & 1:
                done.append(level.pop())
            level = _pairs(level)
            below >>= 1
            height += 1
        return Frontier(size, (*waiting, *reversed(done))), kept  # what still waits stands above all that is new

    def join(self, count: int, parts: Sequence[bytes]) -> Frontier:
        """The frontier after `count` more leaves, which `subtrees` has made into `parts`."""
        return self.joined(count, parts)[0]

    def joined(self, count: int, parts: Sequence[bytes]) -> tuple[Frontier, dict[tuple[int, int], bytes]]:
        """As `join`; and the nodes that this completed, the parts and what stands above them, by (level, index)."""
        peaks, size, end = list(self.peaks), self.size, self.size + count
        done: dict[tuple[int, int], bytes] = {}
        for part in parts:
            width = 1 << ((end - size).bit_length() - 1) if size < end else 0
            if size:
                width = min(width, size & -size)
            if not width:
                raise ValueError("more parts than these leaves have")
            current, bit, level = part, width, width.bit_length() - 1
            done[level, size >> level] = current
            while size & bit:  # a peak of this width stands at the left: both are under one node
                current, bit, level = node(peaks.pop(), current), bit << 1, level + 1
                done[level, size >> level] = current
            peaks.append(current)
            size += width
        if size != end:
            raise ValueError("fewer parts than these leaves have")
        return Frontier(size, tuple(peaks)), done

    def to_bytes(self) -> bytes:
        return _MAGIC + self.size.to_bytes(8, "big") + b"".join(self.peaks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Raises IntegrityError FN-6207 for what `to_bytes` never made."""
        size = int.from_bytes(data[2:10], "big")
        if data[:2] != _MAGIC or len(data) != 10 + HASH_BYTES * size.bit_count():
            raise IntegrityError("FN-6207")
        return cls(size, tuple(data[at : at + HASH_BYTES] for at in range(10, len(data), HASH_BYTES)))


Frontier.EMPTY = Frontier(0, ())


def root(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    return Frontier.EMPTY.extend(hashes).root()


# ---------------------------------------------------------------- proofs (they are made in `fednode.crypto.proof`)


def _are_hashes(given: Sequence[bytes]) -> bool:
    """Two roots or a root and a leaf, and a proof no longer than any tree needs, all of the right length."""
    return len(given) <= 2 + PROOF_HASHES_MAX and all(len(each) == HASH_BYTES for each in given)


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises IntegrityError FN-6203."""
    if not 0 <= index < size or not _are_hashes([leaf_hash, expected, *proof]):
        raise IntegrityError("FN-6203", size=size)
    at, last, current = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise IntegrityError("FN-6203", size=size)
        if at & 1 or at == last:
            current = node(sibling, current)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            current = node(current, sibling)
        at, last = at >> 1, last >> 1
    if last != 0 or current != expected:
        raise IntegrityError("FN-6203", size=size)


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 section 2.1.4.2. Raises IntegrityError FN-6203."""
    failed = IntegrityError("FN-6203", size=new)
    if not 0 < old <= new or not _are_hashes([old_root, new_root, *proof]):
        raise failed
    if old == new:
        if proof or old_root != new_root:
            raise failed
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise failed
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise failed
        if at & 1 or at == last:
            first, second = node(sibling, first), node(sibling, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node(second, sibling)
        at, last = at >> 1, last >> 1
    if first != old_root or second != new_root or last != 0:
        raise failed
