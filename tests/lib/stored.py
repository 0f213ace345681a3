"""A store as it comes about at a county, on a real SQLite file, and ways to damage it.

county 130102: its own log (4 segments of 2), one for the village (1 of 1), the village's (5 of 3, 1, 4, 2, 5)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fednode.node import sqlite
from fednode.node.link import Link
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync.effects import Commit
from fednode.sync.identity import Directory
from fednode.sync.log import OwnSegment
from fednode.sync.wire import Cosignature
from world import NOW_S, Stream, World, seed, shop

WORLD = World()
PROVINCE, CITY, COUNTY, TOWNSHIP, VILLAGE = "13", "1301", "130102", "130102001", "130102001001"
OWN, FOR_VILLAGE, THEIRS = f"hebei/{COUNTY}/1/shop", f"hebei/{COUNTY}/1/shop@{VILLAGE}", f"hebei/{VILLAGE}/1/shop"
COUNTS = (3, 1, 4, 2, 5)  # changes in each of the village's segments: they begin at 0, 3, 4, 8, 10 and end at 15
FIRSTS = (0, 3, 4, 8, 10)
STASH = seed("stash")


def village(count: int, before: OwnSegment | None, **more: Any) -> OwnSegment:
    state = before.after if before else None
    at = state.size if state else 0
    changes = [shop(f"k{at + i}", VILLAGE) for i in range(count)]
    given: dict[str, Any] = {
        "state": state,
        "hlc": (NOW_S * 1000 - 50_000 + at) << 16,
        "readers": (PROVINCE, COUNTY, TOWNSHIP, VILLAGE),
    }
    return WORLD.segment(VILLAGE, changes, **{**given, **more})


def history() -> list[OwnSegment]:
    """The village's log."""
    made: list[OwnSegment] = []
    for count in COUNTS:
        made.append(village(count, made[-1] if made else None))
    return made


def known(node: str, directory: Directory | None = None) -> Trust:
    trust = Trust(WORLD.places[node].chain, node)
    trust.directory, trust.catalog = directory or WORLD.directory(), WORLD.catalog
    return trust


def link(store: Store, trust: Trust, peer: str) -> Link:
    with store.write() as tx:
        row = tx.ensure_peer(peer, "x")
    return Link(WORLD.identity(peer), row.id, bytes(16), trust.directory.parent_of(trust.node) == peer, 0)


def fill(path: Path, node: str = COUNTY) -> None:
    """A store as it comes about: own changes and their acknowledgements, what came from below, a late cosignature."""
    trust = known(node)
    store = Store.create(path, store_id=seed(node)[:16], stash_key=STASH)
    writer = Writer(store, trust, WORLD.places[node].keys, lambda: NOW_S * 1000, Stream(node))  # type: ignore[arg-type]
    from_below = link(store, trust, TOWNSHIP if node == COUNTY else COUNTY)
    for lsn, own in enumerate(history(), 1):
        writer.incoming([(from_below, Commit(lsn, own.raw, WORLD.cosignature(TOWNSHIP, own.raw)))])
    if node == COUNTY:
        lsns = [
            lsn for i in range(4) for lsn in writer.local("shop", COUNTY, [shop(f"a{i}", COUNTY), shop("b", COUNTY)])
        ]
        lsns += writer.local("shop", VILLAGE, [shop("c", VILLAGE)])
        parent = link(store, trust, CITY)
        for lsn in (2, 4, *lsns):
            held = store.segments(lsn - 1, 1)[0]
            time_s = NOW_S - 10 if lsn == lsns[1] else NOW_S  # the second lowers a stamp
            given = WORLD.cosignature(CITY, held.raw, time_s)
            writer.acknowledged(parent.peer_id, [(lsn, given, "")], WORLD.identity(CITY), lsn)
    store.close()


@dataclass
class Bench:
    """A copy of the store, to be damaged."""

    path: Path

    def __post_init__(self) -> None:
        self.c = sqlite.connect(self.path, synchronous="FULL")
        self.c.execute("pragma foreign_keys=off")

    def lsn(self, log: str, first: int) -> int:
        sql = "select s.lsn from segment s join log l on l.id = s.log_id where l.name = ? and s.first = ?"
        return int(self.c.execute(sql, (log, first)).fetchone()[0])

    def flip(self, column: str, log: str, first: int, at: int = 0) -> None:
        lsn = self.lsn(log, first)
        value = bytearray(self.c.execute(f"select {column} from segment where lsn = ?", (lsn,)).fetchone()[0])
        value[at] ^= 1
        self.c.execute(f"update segment set {column} = ? where lsn = ?", (bytes(value), lsn))

    def put(self, first: int, own: OwnSegment, *, cosigned: bool = True) -> None:
        """Another segment in the place of one of the village's, with all that belongs to it."""
        lsn = self.lsn(THEIRS, first)
        store = Store.read(self.path, stash_key=STASH)
        given = WORLD.cosignature(TOWNSHIP, own.raw) if cosigned else Cosignature(0, bytes(64))
        self.sql(
            """update segment set data = ?, sha256 = ?, content_key = ?, last_hlc = ?, first_time = ?,
               first_signature = ? where lsn = ?""",
            *(own.raw, hashlib.sha256(own.raw).digest(), store.stash(own.content_key, lsn), own.after.last_hlc),
            *(given.time_s, given.signature, lsn),
        )
        store.close()

    def delete(self, log: str, *firsts: int) -> None:
        for first in firsts:
            self.c.execute("delete from segment where lsn = ?", (self.lsn(log, first),))

    def sql(self, statement: str, *values: Any) -> None:
        assert self.c.execute(statement, values).rowcount > 0, statement
