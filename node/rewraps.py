"""Rewraps as log.db keeps them (`fednode.sync.rewrap`): beside the segments, with places of their own in the arrival
order.

Rules
1. The bytes are kept and passed on as they came. To a peer goes what is for a node beyond it: down by the area of that
   node, as logs go, or up. To a standby goes what is for itself: it passes nothing on.
2. A rewrap of a segment that is not here yet waits for it. One of other bytes than lie here is of no use and not kept.
3. With the bytes that it is for a rewrap goes as well: `forget`, whenever a segment is stripped. Where one has opened a
   segment its row stays, empty: the projection finds by it what became readable.
4. What was given to a key that was replaced since goes nowhere any more (`outdated`): its node could only refuse it.

>>> # rewraps.add(tx, lsn, found, up=False, down="130102"); rewraps.items(c, "down = '130102'", [], 0, 99, 1 << 20)
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite
from fednode.sync.change import LogName
from fednode.sync.effects import Item
from fednode.sync.rewrap import Rewrap

if TYPE_CHECKING:
    from fednode.node.transaction import Transaction

EVIDENCE = "#rewrap"  # after the log's name, in the evidence of what was refused: it says nothing of the log itself


def add(tx: Transaction, lsn: int, found: Rewrap, *, up: bool, down: str, opened: int | None = None) -> None:
    """Keep one. `opened`: the arrival number of the segment that it has opened here."""
    tx.execute(
        "insert into rewrap values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(lsn, str(found.log), found.first, found.node, found.key_id, found.sha256, int(up), down, opened, found.raw),
    )


def find(c: sqlite.Connection, log: LogName, first: int, node: str, key_id: bytes) -> tuple[int, bytes, bytes] | None:
    """(arrival number, SHA-256 of the envelope, bytes) of the one that is kept for a node's key; its bytes are empty
    where the segment was stripped since."""
    row = c.execute(
        "select lsn, sha256, data from rewrap where log = ? and first = ? and node = ? and key_id = ?",
        (str(log), first, node, key_id),
    ).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def remove(tx: Transaction, lsn: int) -> None:
    """Take one away."""
    tx.execute("delete from rewrap where lsn = ?", lsn)


def outdated(tx: Transaction, node: str, key_id: bytes) -> None:
    """A node has this key now (rule 4)."""
    tx.execute("delete from rewrap where node = ? and key_id <> ? and opened is null", node, key_id)


def forget(tx: Transaction, segment_lsn: int, sha256: bytes) -> None:
    """Other bytes lie in the place of a segment now (rule 3)."""
    c = tx.connection
    log, first = c.execute(
        "select l.name, s.first from segment s join log l on l.id = s.log_id where s.lsn = ?", (segment_lsn,)
    ).fetchone()
    c.execute("delete from rewrap where log = ? and first = ? and sha256 <> ? and opened is null", (log, first, sha256))
    c.execute("update rewrap set data = x'' where log = ? and first = ? and sha256 <> ?", (log, first, sha256))
    c.execute("update refused set data = x'' where log = ? and first = ?", (log + EVIDENCE, first))


def items(
    c: sqlite.Connection, where: str, parameters: list[Any], after: int, until: int, bytes_max: int
) -> tuple[list[Item], int]:
    """Rewraps in (after, until] that `where` names, and up to where they are all: less than `until` when their bytes
    would be more than `bytes_max` (one always goes)."""
    rows = c.execute(
        f"""select lsn, data from rewrap where ({where}) and lsn > ? and lsn <= ? and data <> x'' order by lsn""",
        (*parameters, after, until),
    )
    with closing(rows):
        return bounded((Item(lsn, data, digest=SUITE_1.hash(data)) for lsn, data in rows), until, bytes_max)


def bounded(items: Iterable[Item], until: int, bytes_max: int) -> tuple[list[Item], int]:
    """The first of these items, as many as `bytes_max` has room for but one at least, and up to where they are all."""
    found: list[Item] = []
    size = 0
    for one in items:
        if found and size + len(one.data) > bytes_max:
            return found, found[-1].lsn
        size += len(one.data)
        found.append(one)
    return found, until
