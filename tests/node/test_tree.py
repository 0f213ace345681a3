"""The stored tree: kept with the segments, proofs out of it, and what it does where nodes are missing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.crypto import merkle, proof
from fednode.crypto.errors import IntegrityError
from fednode.crypto.merkle import Frontier, TreeNode
from fednode.node import sqlite
from fednode.node.store import Store
from fednode.node.tree import KeptNodes, LogTree
from fednode.sync import segment as seg
from fednode.sync.errors import Refused
from fednode.sync.feed import EVERY_CHILD, Route
from fednode.sync.log import OwnSegment
from world import NOW_S, World, seed, shop

WORLD = World()
VILLAGE, TOWNSHIP = "130102001001", "130102001"
COUNTS = [1, 1, 1, 5, 1, 40, 1, 1, 300, 2, 700, 1, 1, 1, 90, 1, 1000, 3, 1, 17, 1, 1, 1, 1, 260]


def history(counts: list[int]) -> list[OwnSegment]:
    """A village's log, cut into segments of these counts."""
    made: list[OwnSegment] = []
    hlc = (NOW_S * 1000) << 16
    for i, count in enumerate(counts):
        state = made[-1].after if made else None
        changes = [shop(f"k{i}.{n}", VILLAGE) for n in range(count)]
        made.append(WORLD.segment(VILLAGE, changes, state=state, hlc=hlc, readers=(TOWNSHIP,)))
        hlc += count
    return made


HISTORY = history(COUNTS)
LEAVES = [leaf for own in HISTORY for leaf in seg.leaf_hashes(own.columns)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "log.db", store_id=bytes(16), stash_key=seed("stash"))
    with made.write() as tx:
        for own in HISTORY:
            tx.append_own(own, Route(True, EVERY_CHILD))
    yield made
    made.close()


def kept(store: Store) -> list[TreeNode]:
    connection = sqlite.connect(store.path, synchronous="FULL")
    rows = connection.execute("select level, idx, hash from tree where log_id = 1 order by level, idx").fetchall()
    connection.close()
    return [TreeNode(*row) for row in rows]


def test_nodes_are_kept_with_their_segments(store: Store) -> None:
    wanted = [node for own in HISTORY for node in own.nodes]
    assert kept(store) == sorted(wanted, key=lambda node: (node.level, node.index))
    assert len(wanted) < 2 * len(COUNTS) + len(LEAVES) // 64


def test_proofs_out_of_the_store_are_those_of_the_leaves(store: Store) -> None:
    rng = random.Random(1)
    everything = proof.over(LEAVES)
    for _ in range(150):
        size = rng.randint(1, len(LEAVES))
        index, old = rng.randrange(size), rng.randint(1, size)
        tree = LogTree(store, 1)
        assert proof.inclusion(tree.node, index, size) == proof.inclusion(everything, index, size)
        assert tree.segments_read <= size.bit_length()
        assert proof.consistency(tree.node, old, size) == proof.consistency(everything, old, size)
        assert proof.root(tree.node, size) == merkle.root(LEAVES[:size])


def test_a_log_of_single_changes_is_proved_without_reading_any_other(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "log.db", store_id=bytes(16), stash_key=seed("stash"))
    with store.write() as tx:
        for own in history([1] * 300):
            tx.append_own(own, Route(True, EVERY_CHILD))
    for index in (0, 7, 255, 256, 299):
        tree = LogTree(store, 1)
        proof.inclusion(tree.node, index, 300)
        assert tree.segments_read == 0
    store.close()


def test_missing_nodes_are_computed_from_the_segments(store: Store) -> None:
    """A store that is older than the table, or was filled by a program that is."""
    connection = sqlite.connect(store.path, synchronous="FULL")
    connection.execute("delete from tree")
    connection.close()
    tree, everything = LogTree(store, 1), proof.over(LEAVES)
    for index in (0, 5, 1000, len(LEAVES) - 1):
        assert proof.inclusion(tree.node, index, len(LEAVES)) == proof.inclusion(everything, index, len(LEAVES))


def test_an_altered_node_makes_a_proof_that_does_not_hold(store: Store) -> None:
    connection = sqlite.connect(store.path, synchronous="FULL")
    connection.execute("update tree set hash = zeroblob(32) where level = 9 and idx = 1")
    connection.close()
    size = len(LEAVES)
    path = proof.inclusion(LogTree(store, 1).node, 0, size)
    with pytest.raises(IntegrityError) as caught:
        merkle.verify_inclusion(LEAVES[0], 0, size, path, merkle.root(LEAVES))
    assert caught.value.code == "FN-6203"


def audited(store: Store) -> list[TreeNode]:
    """What a verification says of the kept nodes: what should stand in the place of those that were altered."""
    kept_nodes, edge, found = KeptNodes(store, 1), Frontier.EMPTY, list[TreeNode]()
    for own in HISTORY:
        parts = merkle.subtrees(edge.size, seg.leaf_hashes(own.columns))
        first, (edge, made) = edge.size, edge.joined(len(own.columns), parts)
        found += kept_nodes.wrong(first, edge.size, made)
    return found


def test_kept_nodes_are_what_the_leaves_make(store: Store) -> None:
    assert audited(store) == []


def test_each_node_that_is_altered_is_found_and_what_it_should_be(store: Store) -> None:
    """Whichever it is: alone, with its neighbour, with all, or where a neighbour is missing."""
    everything = kept(store)
    rng = random.Random(2)
    connection = sqlite.connect(store.path, synchronous="FULL")

    def alter(*nodes: TreeNode) -> None:
        for one in nodes:
            values = (rng.randbytes(32), one.level, one.index)
            connection.execute("update tree set hash = ? where log_id = 1 and level = ? and idx = ?", values)

    def remake(*nodes: TreeNode) -> None:
        rows = [(one.level, one.index, one.hash) for one in nodes]
        connection.executemany("insert or replace into tree values (1, ?, ?, ?)", rows)

    for one in everything:
        neighbour = [other for other in everything if (other.level, other.index) == (one.level, one.index ^ 1)]
        alter(one)
        assert one in audited(store)
        assert set(audited(store)) <= {one, *neighbour, *everything}
        alter(*neighbour)
        assert {one, *neighbour} <= set(audited(store))
        for other in neighbour:
            connection.execute("delete from tree where level = ? and idx = ?", (other.level, other.index))
        assert audited(store) == [one]
        remake(one, *neighbour)
        assert audited(store) == []
    alter(*everything)
    assert sorted(audited(store), key=lambda one: (one.level, one.index)) == everything
    connection.close()


def test_a_node_where_none_is_kept_is_judged_by_its_leaves(store: Store) -> None:
    """A proof would use it all the same."""
    connection = sqlite.connect(store.path, synchronous="FULL")
    right = merkle.root(LEAVES[1200:1204])
    connection.execute("insert into tree values (1, 2, 300, zeroblob(32))")
    assert audited(store) == [TreeNode(2, 300, right)]
    connection.execute("update tree set hash = ? where level = 2 and idx = 300", (right,))
    assert audited(store) == []
    connection.close()


def test_what_is_not_there_or_cannot_be_read_is_said(store: Store) -> None:
    connection = sqlite.connect(store.path, synchronous="FULL")
    connection.execute("update segment set content_key = null where first = 1147")
    connection.execute("delete from segment where first = 353")
    connection.close()
    with pytest.raises(Refused) as refused:
        LogTree(store, 1).node(2, 1200 >> 2)
    assert refused.value.code == "FN-3402"
    with pytest.raises(IntegrityError) as damaged:
        LogTree(store, 1).node(2, 400 >> 2)
    assert damaged.value.code == "FN-6602"
