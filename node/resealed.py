"""Segments that were stripped and sealed again, as log.db keeps them: put in the old one's place, announced to whoever
had it.

Rules
1. The new bytes take the place of the old under the same arrival number, so nothing else in the store moves. The old
   bytes and their content key are overwritten (`secure_delete`), and what was wrapped of that key for readers that came
   later (`node.rewraps`).
2. An announcement has an arrival number of its own: the feeds come by it and send the segment again, to whoever gets
   its log. A peer that holds it stripped already just acknowledges. One that names a child (`back`) goes to that as
   well, although the log came from there: whoever carries it and cannot read forgets what is stripped above. What is
   held back goes nowhere, and is not announced either.
3. What a peer's cursor must show of a place here is the head of the root, which outlives a strip (`Store.checks_at`).
4. A content key is stashed under a number that was never used: an arrival number, drawn for it alone.

>>> # resealed.replace(tx, lsn, raw, content_key, announce=True)
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from fednode.crypto.suite import SUITE_1
from fednode.node import rewraps, sqlite
from fednode.sync import segment as seg
from fednode.sync.effects import Item
from fednode.sync.wire import Cosignature, Late

if TYPE_CHECKING:
    from fednode.node.transaction import Transaction

HANDED_BACK_SINCE = 2  # the protocol version from which a child takes from above what it carries


def replace(tx: Transaction, lsn: int, raw: bytes, content_key: bytes, *, announce: bool, back: str = "") -> None:
    """Put stripped bytes in the place of a segment's. `announce`: send them to whoever had the old ones; `back`: and to
    the child with this area."""
    c, store = tx.connection, tx.store
    number = tx.next_lsn()
    stash = store.stash(content_key, number) if content_key else None
    sha256 = SUITE_1.hash(raw)
    c.execute("update segment set data = ?, sha256 = ?, content_key = ? where lsn = ?", (raw, sha256, stash, lsn))
    rewraps.forget(tx, lsn, sha256)
    if announce or back:
        _announce(tx, lsn, back, number)


def announce(tx: Transaction, lsn: int, back: str) -> None:
    """Send a stripped segment again, also to the child with the area `back`."""
    _announce(tx, lsn, back, tx.next_lsn())


def _announce(tx: Transaction, lsn: int, back: str, number: int) -> None:
    if not tx.store.rows("select 1 from held_back where lsn = ?", lsn):
        tx.execute("insert into resealed (lsn, segment_lsn, back) values (?, ?, ?)", number, lsn, back)


def back_to(scope: tuple[str, ...]) -> tuple[str, list[str]]:
    """The condition that an announcement goes back to a child with this scope, and its parameters."""
    likes = " or ".join("(r.back >= ? and r.back < ?)" for _ in scope)
    return likes or "0", [edge for prefix in scope for edge in (prefix, prefix + ":")]  # ':' follows '9'


def items(
    connection: sqlite.Connection, where: str, parameters: list[Any], after: int, until: int, bytes_max: int
) -> tuple[list[Item], int]:
    """Announcements in (after, until] of the logs that `where` names, and up to where they are all: less than `until`
    when their bytes would be more than `bytes_max` (one always goes)."""
    rows = connection.execute(
        f"""select r.lsn, s.data, s.sha256, s.first_time, s.first_signature from resealed r
            join segment s on s.lsn = r.segment_lsn join log l on l.id = s.log_id
            where {where} and r.lsn > ? and r.lsn <= ? order by r.lsn""",
        (*parameters, after, until),
    )
    sound = (  # what is damaged is announced again when it was mended
        Item(lsn, data, None if time_s is None else Cosignature(time_s, signature), digest=sha256)
        for lsn, data, sha256, time_s, signature in rows
        if SUITE_1.hash(data) == sha256
    )
    with closing(rows):
        return rewraps.bounded(sound, until, bytes_max)


def late_items(connection: sqlite.Connection, log_ids: list[int], after: int, until: int) -> list[Item]:
    """Late cosignatures in (after, until] of these logs: they share the arrival order, too. It is the one that counts
    now, which may have come after this entry."""
    rows = connection.execute(
        f"""select t.lsn, l.name, s.first + s.count, s.data, s.first_time, s.first_signature from late t
            join segment s on s.lsn = t.segment_lsn join log l on l.id = t.log_id
            where t.log_id in ({",".join(map(str, log_ids))}) and t.lsn > ? and t.lsn <= ?""",
        (after, until),
    )
    items = []
    for lsn, name, size, data, time_s, signature in rows:
        root = seg.parse(data).header.root
        items.append(Item(lsn, b"", None, Late(lsn, name, size, root, Cosignature(time_s, signature))))
    return items
