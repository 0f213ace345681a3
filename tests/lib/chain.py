"""Five nodes in a row, with real stores, real verification, real cosignatures; what one sends is carried to the next
by hand, so that a test can stand between them or at a node's disk.

>>> # chain = Chain(tmp_path); chain.write(VILLAGE, "k1"); chain.up()
>>> # chain[PROVINCE].records()
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from fednode.crypto import checkpoint
from fednode.node import audit
from fednode.node.link import Link
from fednode.node.projection import Projector
from fednode.node.rows import Held
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync import segment as seg
from fednode.sync.change import Change, Columns, LogName
from fednode.sync.effects import Commit, Done
from fednode.sync.side import PULL_BYTES
from fednode.sync.strip import strip
from world import NOW_S, Stream, World, seed

PROVINCE, CITY, COUNTY, TOWNSHIP, VILLAGE = "13", "1301", "130102", "130102001", "130102001001"
PATH = (VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE)
SIBLING = "130104"  # a county under the same city
WORLD = World()


class Node:
    """A node of the world, with a store of its own that knows everyone."""

    def __init__(self, node: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        place = WORLD.places[node]
        self.node, self.folder, self.keys = node, folder, place.keys
        self.now_ms = NOW_S * 1000
        path, stash_key = folder / "log.db", seed("stash", node)
        if not path.exists():
            Store.create(path, store_id=seed(node)[:16], stash_key=stash_key).close()
        self.store = Store.open(path, stash_key=stash_key)
        self.trust = Trust(place.chain, node)
        self.trust.directory, self.trust.catalog = WORLD.directory(), WORLD.catalog
        self.writer = Writer(self.store, self.trust, place.keys, lambda: self.now_ms, Stream(node))  # type: ignore[arg-type]
        self._links: dict[str, Link] = {}

    def copy(self, folder: Path) -> Node:
        """A clone: a home copied as it is."""
        folder.mkdir()
        with closing(sqlite3.connect(folder / "log.db")) as target, self.disk() as source:
            source.backup(target)
        clone = Node(self.node, folder)
        clone.now_ms = self.now_ms
        return clone

    def write(self, *changes: Change, audience: str = "") -> list[int]:
        """Append changes of `shop` to this node's own log."""
        return self.writer.local("shop", audience or self.trust.area, list(changes))

    def link(self, peer: str) -> Link:
        """The running session with a peer."""
        if peer not in self._links:
            from_parent = self.trust.directory.parent_of(self.node) == peer
            with self.store.write() as tx:
                row = tx.ensure_peer(peer, "parent" if from_parent else "child")
            have = row.have.lsn
            self._links[peer] = Link(WORLD.identity(peer), row.id, seed(peer)[:16], from_parent, have, position=have)
        return self._links[peer]

    def take(self, peer: str, *commits: Commit) -> list[Done]:
        """What the writer says of what a peer sends."""
        return [done for _, done in self.writer.incoming([(self.link(peer), commit) for commit in commits])]

    def send(self, parent: Node) -> list[Done]:
        """Carry all that the parent has not acknowledged, and its acknowledgements back."""
        peer = self.link(parent.node).peer_id
        row = self.store.peer(parent.node)
        items, _ = self.store.feed_up(row.acked if row else 0, PULL_BYTES)
        done = parent.take(self.node, *(Commit(one.lsn, one.data, one.first_parent) for one in items))
        answered = [one for one in done if one.gap is None]
        if answered:
            outcomes = [(one.lsn, one.cosignature, one.refused) for one in answered]
            self.writer.acknowledged(peer, outcomes, WORLD.identity(parent.node), answered[-1].lsn)
        return done

    def records(self) -> dict[str, Any]:
        """Key -> payload of the records of `shop`, made anew from the log."""
        path = self.folder / "state.db"
        path.unlink(missing_ok=True)
        projector = Projector(path, self.store, self.trust)
        try:
            projector.catch_up()
            rows = """select key, payload from record r join dataset d on d.id = r.dataset
                where r.op = 1 and d.name = 'shop'"""
            return dict(projector.connection.execute(rows))
        finally:
            projector.close()

    def refusals(self) -> set[str]:
        return {row["code"] for row in self.store.refused()}

    def verified(self) -> set[str]:
        """The codes that `fednode audit verify` finds."""
        return {problem.code for problem in audit.verify_store(self.store, self.trust).problems}

    # ------------------------------------------------------------ at the disk

    @contextmanager
    def disk(self) -> Iterator[sqlite3.Connection]:
        """log.db as anybody with the disk has it, past all that the program would check."""
        with closing(sqlite3.connect(self.folder / "log.db", isolation_level=None)) as connection:
            yield connection

    def held(self, name: LogName, number: int) -> Held:
        """The segment of a log that holds a change."""
        log_id = next(log_id for log_id, held, _ in self.store.logs() if held == name)
        found = self.store.segment_at(log_id, number)
        assert found is not None
        return found

    def columns(self, held: Held) -> Columns:
        found = self.store.columns(held)
        assert found is not None
        return found

    def replace(self, lsn: int, raw: bytes, content_key: bytes = b"") -> None:
        """Other bytes in the place of a segment, with their right hash: what an insider would do."""
        stash = self.store.stash(content_key, lsn) if content_key else None
        with self.disk() as c:
            c.execute("update segment set data = ?, sha256 = ? where lsn = ?", (raw, hashlib.sha256(raw).digest(), lsn))
            if stash is not None:
                c.execute("update segment set content_key = ? where lsn = ?", (stash, lsn))


class Chain:
    """The five nodes between a village and the province, and a second county."""

    def __init__(self, folder: Path) -> None:
        self.nodes = {node: Node(node, folder / node) for node in (*PATH, SIBLING)}

    def __getitem__(self, node: str) -> Node:
        return self.nodes[node]

    def close(self) -> None:
        for node in self.nodes.values():
            node.store.close()

    def up(self, nodes: Sequence[str] = PATH) -> list[Done]:
        """Carry what there is from each to the next; what the last but one was told."""
        done: list[Done] = []
        for child, parent in pairwise(nodes):
            done = self[child].send(self[parent])
        return done


def forged(
    envelope: seg.Envelope,
    columns: Columns,
    *,
    by: str,
    signer: str = "",
    **header: Any,
) -> tuple[bytes, bytes]:
    """An envelope like another one, with other contents, signed and sealed by a node that is not its origin; and its
    content key. `signer`: whose key signs the checkpoint, where it is not the origin's old signature."""
    old = envelope.header
    root = header.pop("root", old.root)
    name, first = header.pop("log", old.log), header.pop("first", old.first)
    signature = old.checkpoint
    if signer:
        head = checkpoint.Checkpoint(str(name), first + len(columns), root)
        signature = checkpoint.signature(head, WORLD.places[signer].keys.sign)
    last = columns.hlcs[-1]
    draft = seg.Draft(old.suite, name, first, len(columns), root, signature, last, **header)
    readers = WORLD.readers(PROVINCE, COUNTY, TOWNSHIP, VILLAGE)
    return seg.seal_segment(
        draft, seg.encode_body(columns), readers, True, WORLD.places[by].keys.sign.sign, Stream("forged", by)
    )


def resealed(envelope: seg.Envelope, columns: Columns, *, by: str) -> tuple[bytes, bytes]:
    """An envelope with other contents, stripped of its last change, sealed by a node in its own name."""
    gone = strip(columns, [len(columns) - 1])
    readers = WORLD.readers(PROVINCE, COUNTY, TOWNSHIP, VILLAGE)
    sign = WORLD.places[by].keys.sign.sign
    return seg.seal_again(envelope, seg.encode_body(gone), readers, f"{by}/1", 1, sign, Stream("resealed", by))
