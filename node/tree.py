"""The Merkle tree of a log as it lies in the store: nodes that were kept, and leaves of segments where none was.

Rules
1. A kept node is believed: whoever proves with it checks the root at the end against a signed checkpoint, and when that
   does not hold makes the nodes again (`remake`): they are only a projection of the segments.
2. Where nodes were not kept (right above the leaves of long segments; a store older than the table) they are computed
   from the segments below: slower, and the same.
3. Of the segments that were opened the last `RUNS_MAX` are kept in memory.

>>> # tree = LogTree(store, log_id)
>>> # path = proof.inclusion(tree.node, index=7_000_000, size=10_000_000); tree.segments_read
"""

from __future__ import annotations

from fednode.crypto import merkle
from fednode.crypto.errors import IntegrityError
from fednode.crypto.merkle import Frontier, TreeNode
from fednode.node.store import Store
from fednode.sync import segment as seg
from fednode.sync.errors import Refused

RUNS_MAX = 64


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


def _read(store: Store, log_id: int, number: int) -> tuple[int, list[bytes]]:
    """The first number and the leaves of the segment that holds a change."""
    held = store.segment_at(log_id, number)
    if held is None:
        raise IntegrityError("FN-6602", log_id=log_id, first=number)
    columns = store.columns(held)
    if columns is None:
        raise Refused("FN-3402", log=str(held.name), first=held.first)
    return held.first, seg.leaf_hashes(columns, seg.parse(held.raw).header.suite)


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
