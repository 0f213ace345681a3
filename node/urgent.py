"""What goes ahead of its turn: which segments are urgent, and what of a feed may be sent before the rest of it.

Rules
1. Urgent are who is who and who is revoked (`sys.nodes`), the catalog, alerts, receipts and cases; erases; and
   segments of few changes in logs with an audience: corrections. Bulk is what is left.
2. A log keeps its order: with an urgent segment goes all that precedes it in its log and is not sent yet. Where that is
   more than `HURRY_BYTES`, it waits for its turn, and all that is urgent after it, too.
3. Whatever a segment needs to be verified (certificates, the catalog) is urgent itself and older, so it goes first: of
   what is urgent a beginning is taken, in arrival order, each with what precedes it.
4. Nodes that only carry a dataset cannot see its erases: there they keep their turn.
5. What is held back goes nowhere: segments of an earlier life that are made again in this one. Where those say who is
   who, what came since from the nodes that they enrol, or give a new life, stands before what says it again: that goes
   ahead of all else, however little waits (`who_is_who`); to children, too, for what standbys write of themselves goes
   down.

>>> by_log(LogName.parse("hebei/13/1/sys.nodes"), 5000), by_log(LogName.parse("hebei/13/1/shop"), 1)
(True, False)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fednode.crypto.certs import Identity
from fednode.crypto.suite import SUITE_1
from fednode.sync.change import ALERTS, CATALOG, NODES, RECEIPTS, SYSTEM_PREFIX, LogName
from fednode.sync.effects import Item
from fednode.sync.wire import Cosignature

if TYPE_CHECKING:
    from fednode.node.store import Store
    from fednode.node.transaction import Transaction

DATASETS = (NODES, CATALOG, ALERTS, RECEIPTS, f"{SYSTEM_PREFIX}cases")
CORRECTION_CHANGES_MAX = 20
HURRY_BYTES = 1024 * 1024
LOOK_MAX = 500
Found = tuple[list[Item], int, bool]


def by_log(name: LogName, count: int) -> bool:
    """Whether a segment of so many changes is urgent by its log alone."""
    if name.is_system:
        return name.dataset in DATASETS
    return bool(name.audience) and count <= CORRECTION_CHANGES_MAX


def mark(tx: Transaction, lsn: int) -> None:
    """The segment at this arrival number is urgent."""
    tx.execute("insert or ignore into urgent values (?)", lsn)


def pending(store: Store, after: int) -> int:
    """The last arrival number of what is urgent in the feed to the parent after one; 0 where nothing is."""
    rows = store.rows(
        """select max(u.lsn) from urgent u join segment s on s.lsn = u.lsn join log l on l.id = s.log_id
           where u.lsn > ? and l.up = 1 and u.lsn not in (select lsn from held_back)""",
        after,
    )
    return int(rows[0][0] or 0)


def find(store: Store, where: str, after: int, beyond: int) -> Found:
    """What of a feed is to go ahead: of the logs that `where` names, what is urgent beyond an arrival number, each with
    what precedes it in its log after another one; in arrival order. And up to where it was looked, and whether
    there is more."""
    seen, until = max(after, beyond), store.lsn
    rows = store.rows(
        f"""select u.lsn, s.log_id from urgent u join segment s on s.lsn = u.lsn join log l on l.id = s.log_id
            where {where} and u.lsn > ? and u.lsn <= ? and u.lsn not in (select lsn from held_back)
            order by u.lsn limit ?""",
        seen,
        until,
        LOOK_MAX,
    )
    chosen: dict[int, int] = {}
    size, more = 0, len(rows) == LOOK_MAX
    for lsn, log_id in rows:
        if lsn in chosen:
            continue
        needed = {one: length for one, length in _preceding(store, log_id, after, lsn) if one not in chosen}
        if size + sum(needed.values()) > HURRY_BYTES:
            more = bool(chosen)
            break
        chosen |= needed
        size += sum(needed.values())
        seen = lsn
    else:
        seen = seen if more else max(seen, until)
    items, whole = _items(store, sorted(chosen))
    return items, seen, more and whole


def who_is_who(store: Store, me: Identity, after: int) -> tuple[Item, ...]:
    """This life's `sys.nodes` after an arrival number, as far as it goes ahead, where an earlier one is held back."""
    rows = store.rows(
        """select s.lsn, sum(length(s.data)) over (order by s.lsn) from segment s join log l on l.id = s.log_id
           where l.origin = ?1 and l.incarnation = ?2 and l.dataset = ?3 and s.lsn > ?4
           and exists (select 1 from held_back h join segment o on o.lsn = h.lsn join log e on e.id = o.log_id
                       where e.origin = ?1 and e.dataset = ?3)""",
        *(me.node, me.incarnation, NODES, after),
    )
    return tuple(_items(store, [lsn for lsn, size in rows if size <= HURRY_BYTES])[0])


def _preceding(store: Store, log_id: int, after: int, lsn: int) -> list[tuple[int, int]]:
    """(arrival number, bytes) of a log's segments after one arrival number up to another."""
    return [
        (one, length)
        for one, length in store.rows(
            """select lsn, length(data) from segment where log_id = ? and lsn > ? and lsn <= ?
               and lsn not in (select lsn from held_back) order by lsn""",
            log_id,
            after,
            lsn,
        )
    ]


def _items(store: Store, lsns: list[int]) -> tuple[list[Item], bool]:
    """The items, up to the first that is damaged (it is for the feed to say so), and whether none is."""
    items: list[Item] = []
    for lsn in lsns:
        rows: list[tuple[Any, ...]] = store.rows(
            "select data, sha256, first_time, first_signature from segment where lsn = ?", lsn
        )
        if not rows or SUITE_1.hash(rows[0][0]) != rows[0][1]:
            return items, False
        data, sha256, time_s, signature = rows[0]
        items.append(Item(lsn, data, None if time_s is None else Cosignature(time_s, signature), digest=sha256))
    return items, True
