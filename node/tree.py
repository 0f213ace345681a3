"""The Merkle tree of a log as it lies in the store: nodes that were kept, and leaves of segments where none was.

Rules
1. A kept node is believed: whoever proves with it checks the root at the end against a signed checkpoint, and when that
   does not hold makes the nodes again (`remake`): they are only a projection of the segments.
2. Where nodes were not kept (right above the leaves of long segments; a store older than the table) they are computed
   from the segments below: slower, and the same.
3. A verification looks at them as it comes by (`KeptNodes`): each is what its leaves make, or that is told, and it is
   put right.
4. Of the segments that were opened the last `RUNS_MAX` are kept in memory.

>>> # tree = LogTree(store, log_id)
>>> # path = proof.inclusion(tree.node, index=7_000_000, size=10_000_000); tree.segments_read
"""

from __future__ import annotations

from fednode.crypto import merkle
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.merkle import Frontier, TreeNode
from fednode.node.store import Store
from fednode.sync import segment as seg
from fednode.sync.errors import Refused

RUNS_MAX = 64
SPAN = 8192


def remake(store: Store, log_id: int) -> None:
    """Make the kept nodes of a log again from all of its segments. Raises Refused FN-3402 where this node may not read
    one of them, and what reading a segment raises."""
    frontier, kept, after = Frontier.EMPTY, list[TreeNode](), -1
    while places := store.places(log_id, after, RUNS_MAX):
        for _, first, _ in places:
            _, leaves = _read(store, log_id, first)
            frontier, nodes = frontier.grow(leaves)
            kept += nodes
        after = places[-1][1]
    with store.write() as tx:
        tx.execute("delete from tree where log_id = ? and (idx + 1) << level <= ?", log_id, frontier.size)
        tx.keep_nodes(log_id, kept)


def frontier_at(store: Store, log_id: int, size: int) -> Frontier | None:
    """The edge of a log's tree at a size, from kept nodes and what can be read; None where something before it is
    missing, damaged, or not readable here."""
    tree, peaks, at = LogTree(store, log_id), list[bytes](), 0
    try:
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                peaks.append(tree.node(level, at >> level))
                at += 1 << level
    except FednodeError:
        return None
    return Frontier(size, tuple(peaks))


def _read(store: Store, log_id: int, number: int) -> tuple[int, list[bytes]]:
    """The first number and the leaves of the segment that holds a change."""
    held = store.segment_at(log_id, number)
    if held is None:
        raise IntegrityError("FN-6602", log_id=log_id, first=number)
    columns = store.columns(held)
    if columns is None:
        raise Refused("FN-3402", log=str(held.name), first=held.first)
    return held.first, seg.leaf_hashes(columns, seg.parse(held.raw).header.suite)


class KeptNodes:
    """The kept nodes of one log against what its leaves make, segment by segment, in order. Nodes are read in advance,
    for `SPAN` leaves at a time: a query for each level and segment took longer than all else but the signatures."""

    def __init__(self, store: Store, log_id: int) -> None:
        self._store, self._log_id = store, log_id
        self._at = self._read_upto = 0
        self._waiting: list[
            tuple[int, int, int, bytes]
        ] = []  # (end of its leaves, level, index, hash), the next one last

    def wrong(self, first: int, end: int, known: dict[tuple[int, int], bytes]) -> list[TreeNode]:
        """What should stand in the place of nodes that the leaves [first, end) completed and that were altered.
        `known`: the roots of the subtrees that these leaves make up, and of those above (`Frontier.joined`); it is
        added to. What is kept below those is proved by hashing up to them; where a neighbour is missing, by its
        leaves."""
        kept = self._take(first, end)
        if not kept:
            return []
        wrong: list[TreeNode] = []
        for level, index in sorted(kept, reverse=True):
            if (level, index) not in known:
                self._prove(level, index, kept, known)
            if kept[level, index] != known[level, index]:
                wrong.append(TreeNode(level, index, known[level, index]))
        return wrong

    def _take(self, first: int, end: int) -> dict[tuple[int, int], bytes]:
        """The nodes that are kept of those that the leaves [first, end) completed."""
        if first != self._at:
            self._read_upto, self._waiting = first, []
        self._at = end
        while self._read_upto < end:
            self._read_on()
        taken: dict[tuple[int, int], bytes] = {}
        while self._waiting and self._waiting[-1][0] <= end:
            _, level, index, hash_ = self._waiting.pop()
            taken[level, index] = hash_
        return taken

    def _read_on(self) -> None:
        first, end = self._read_upto, self._read_upto + SPAN
        level = 0
        while first >> level != end >> level:
            rows = self._store.rows(
                "select idx, hash from tree where log_id = ? and level = ? and idx >= ? and idx < ?",
                *(self._log_id, level, first >> level, end >> level),
            )
            self._waiting += [((index + 1) << level, level, index, hash_) for index, hash_ in rows]
            level += 1
        self._waiting.sort(key=lambda one: one[:3], reverse=True)
        self._read_upto = end

    def _prove(
        self, level: int, index: int, kept: dict[tuple[int, int], bytes], known: dict[tuple[int, int], bytes]
    ) -> None:
        """Find out what a node is that lies within the segment."""
        left, right = kept.get((level, index & ~1)), kept.get((level, index | 1))
        above = known.get((level + 1, index >> 1))
        if isinstance(left, bytes) and isinstance(right, bytes) and above == merkle.node(left, right):
            known[level, index & ~1], known[level, index | 1] = left, right
            return
        first, leaves = _read(self._store, self._log_id, index << level)
        known[level, index] = merkle.root(leaves[(index << level) - first : ((index + 1) << level) - first])


class LogTree:
    """Reads for one proof, or for several of the same log. `segments_read` counts the segments that were opened."""

    def __init__(self, store: Store, log_id: int) -> None:
        self._store, self._log_id = store, log_id
        self._runs: list[tuple[int, list[bytes]]] = []
        self.segments_read = 0

    def node(self, level: int, index: int) -> bytes:
        """The root of a full subtree. Raises Refused FN-3402 where this node carries a segment that it may not read,
        IntegrityError FN-6602 where one is missing, and what reading a segment raises."""
        kept = self._store.rows(
            "select hash from tree where log_id = ? and level = ? and idx = ?", self._log_id, level, index
        )
        if kept:
            return bytes(kept[0][0])
        start, end = index << level, (index + 1) << level
        first, leaves = self._run(start)
        if end <= first + len(leaves):
            return merkle.root(leaves[start - first : end - first])
        return merkle.node(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def _run(self, number: int) -> tuple[int, list[bytes]]:
        """The first number and the leaves of the segment that holds a change."""
        for first, leaves in reversed(self._runs):
            if first <= number < first + len(leaves):
                return first, leaves
        self._runs = [*self._runs[1 - RUNS_MAX :], _read(self._store, self._log_id, number)]
        self.segments_read += 1
        return self._runs[-1]
