"""Sums over those rows of log.db that nothing else proves: cursors of peers, invitations, settings of `meta`, the order
of arrival. A flipped bit in one of them is noticed by them alone.

Rules
1. The sum of a table is that of a hash of each of its rows (`row_hash`), modulo 2^64, so a row is added or taken away
   without a look at the others. It lies in `meta` under `sum/<table>`. Of the tables that are ordered by arrival each
   row counts in the sum of its `RUN` arrival numbers, `sum/#<n>`.
2. What a transaction changes is noted by triggers that the writing connection alone has (TEMP: the schema of the file
   is as it was), and its sums are written in the same transaction (`Noted.settle`, by `Store.write`). Whatever writes
   past `Store.write` is noticed like a flipped bit.
3. The last arrival number and the clock change with every transaction: they have a sum of their own, `sum/now`, which
   is written anew and not kept up.
4. Left out is what is proved otherwise: the bytes of a segment and what its header says, the state of a log, nodes of
   trees, half a segment.
5. A store without sums, and one with a new shape, gets them when it is opened, the order of arrival from there on
   (`begin`). One that does not hold is told (`holds`) and made again by whoever may write (`take`): what is there
   counts.

>>> row_hash("held_back", (7,)).to_bytes(8, "big").hex()
'6b7c1ac8b0f8a11b'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite

if TYPE_CHECKING:
    from fednode.node.store import Store

SUM, SINCE = "sum/", "sums_since"  # keys of `meta`; the second: from which arrival number on
RUN = 1024
BYTES = 8
BY_ARRIVAL = ("segment", "chain", "late", "resealed", "rewrap", "urgent", "held_back")
TABLES = (
    *("_sqlite_migrations", "meta", "log", "peer", "invite", "refused", "witness", "erased", "withheld", "rewrap_key"),
    *("came_again", "refused_at", "early", "made_again", "verified"),
)
LEFT_OUT = {
    "log": ("size", "root", "frontier", "last_hlc"),
    "segment": ("last_hlc", "sha256", "content_key", "first_time", "first_signature", "data"),
}
NOW = ("lsn", "hlc")  # keys of `meta` (rule 3)
_FUNCTION, _PLUS = "fednode_row", "fednode_plus"
_NOW = SUM + "now"
_OTHERS = f"key not glob '{SUM}*' and {{0}}key not in {NOW}"  # of `meta`


def without(table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows of a table without sums: those are of one store alone, and another one makes its own."""
    if table != "meta":
        return list(rows)
    at = columns.index("key")
    return [row for row in rows if row[at] != SINCE and not str(row[at]).startswith(SUM)]


def row_hash(table: str, values: Iterable[Any]) -> int:
    """The hash of one row, as a number."""
    packed = msgspec.msgpack.encode([table, *values])
    return int.from_bytes(SUITE_1.hash(packed)[:BYTES], "big")


def _key(table: str, values: tuple[Any, ...]) -> str:
    """In which sum a row counts."""
    return f"{SUM}#{values[0] // RUN}" if table in BY_ARRIVAL else SUM + table


def _columns(connection: sqlite.Connection, table: str) -> list[str]:
    there = [row[1] for row in connection.execute(f'pragma table_info("{table}")')]
    return [name for name in there if name not in LEFT_OUT.get(table, ())]


def _note(changes: Counter[str], table: str, sign: int, *values: Any) -> None:
    changes[_key(table, values)] += sign * row_hash(table, values)


class Noted:
    """What transactions of one connection change, until their sums are written."""

    def __init__(self, connection: sqlite.Connection) -> None:
        self._c = connection
        self._changes: Counter[str] = Counter()
        self._now: object = None  # as its sum has it
        self._next: object = None
        # of the counts alone: a connection that held what holds it would not be closed when nobody has it any more
        connection.create_function(_FUNCTION, -1, partial(_note, self._changes))
        connection.create_function(_PLUS, 2, _plus)
        connection.execute("pragma recursive_triggers=on")  # else who replaces a row is told nothing of the old one
        for table in (*TABLES, *BY_ARRIVAL):
            self._watch(table, _columns(connection, table))

    def _watch(self, table: str, columns: list[str]) -> None:
        def call(row: str, sign: int) -> str:
            values = ", ".join(f'{row}."{name}"' for name in columns)
            only = f" where {row}." + _OTHERS.format(f"{row}.") if table == "meta" else ""
            return f"select {_FUNCTION}('{table}', {sign}, {values}){only};"

        of = ", ".join(f'"{name}"' for name in columns)
        for event, calls in (
            ("insert", call("new", 1)),
            ("delete", call("old", -1)),
            (f"update of {of}", call("old", -1) + call("new", 1)),
        ):
            name = f"sum_{table}_{event[:6]}"
            # a script: else these push what is used all the time out of the connection's prepared statements
            self._c.executescript(f'create temp trigger "{name}" after {event} on main."{table}" begin {calls} end')

    def forget(self) -> None:
        """A transaction begins: what another one would have changed was rolled back."""
        self._changes.clear()

    def settle(self) -> None:
        """Write the sums of what was changed, in the running transaction."""
        changes = {key: change for key, change in self._changes.items() if change}
        self._changes.clear()
        rows = dict(self._c.execute("select key, value from meta where key in (?, ?, ?)", (*NOW, SINCE)))
        since = rows.pop(SINCE, None)
        self._next = rows if since is not None else None
        if since is None:
            return
        if rows != self._now:
            _put(self._c, _NOW, sum(row_hash("meta", row) for row in rows.items()))
        for key, change in changes.items():
            if not key.startswith(f"{SUM}#") or int(key[len(SUM) + 1 :]) >= since // RUN:
                _add(self._c, key, change)

    def stand(self) -> None:
        """What was settled last is on disk."""
        self._now = self._next


def _bytes(total: int) -> bytes:
    return (total % (1 << 8 * BYTES)).to_bytes(BYTES, "big")


def _plus(there: bytes, change: bytes) -> bytes:
    return _bytes(int.from_bytes(there, "big") + int.from_bytes(change, "big"))


def _add(connection: sqlite.Connection, key: str, change: int) -> None:
    added = _bytes(change)
    if not connection.execute(f"update meta set value = {_PLUS}(value, ?) where key = ?", (added, key)).rowcount:
        _put(connection, key, change)


def _put(connection: sqlite.Connection, key: str, total: int) -> None:
    sql = "insert into meta values (?1, ?2) on conflict do update set value = ?2"
    connection.execute(sql, (key, _bytes(total)))


def begin(connection: sqlite.Connection, path: Any, *, anew: bool) -> None:
    """Make the sums of a store that has none; `anew`: of one that has got another shape. Raises StoreError."""
    with sqlite.told(path):
        there = connection.execute("select 1 from meta where key = ?", (SINCE,)).fetchone()
    if there and not anew:
        return
    with sqlite.transaction(connection, path) as c:
        c.execute(f"delete from meta where key = ? or key glob '{SUM}*'", (SINCE,))
        lsn = c.execute("select value from meta where key = 'lsn'").fetchone()[0]
        c.execute("insert into meta values (?, ?)", (SINCE, lsn // RUN * RUN))
        for key in (*(SUM + table for table in TABLES), _NOW, f"{SUM}#{lsn // RUN}"):
            _put(c, key, _total(c, key))


def _total(connection: sqlite.Connection, key: str) -> int:
    """The sum of the rows that are there."""
    name = "meta" if key == _NOW else key.removeprefix(SUM)
    total = 0
    for table in BY_ARRIVAL if name.startswith("#") else (name,):
        columns = _columns(connection, table)
        where, some = "", tuple[int, ...]()
        if name.startswith("#"):
            where, some = (
                f'where "{columns[0]}" >= ? and "{columns[0]}" < ?',
                (int(name[1:]) * RUN, int(name[1:]) * RUN + RUN),
            )
        elif name == "meta":
            where = f"where key in {NOW}" if key == _NOW else "where " + _OTHERS.format("")
        listed = ", ".join(f'"{one}"' for one in columns)
        for row in connection.execute(f'select {listed} from "{table}" {where}', some):
            total += row_hash(table, row)
    return total


# ---------------------------------------------------------------- looking


def keys(store: Store) -> list[str]:
    """The sums of a store, those that each must have first. A row that a flipped bit puts into another run lacks in its
    own."""
    if store.meta(SINCE) is None:
        return []
    due = [*(SUM + table for table in TABLES), _NOW]
    return due + [key for (key,) in store.rows(f"select key from meta where key glob '{SUM}*'") if key not in due]


def holds(store: Store, key: str) -> bool:
    """Whether a sum is that of the rows. Raises StoreError."""
    c = store.connection
    with sqlite.told(store.path):
        inside = c.in_transaction
        if not inside:
            c.execute("begin")
        try:
            there = store.meta(key, bytes(BYTES) if key.startswith(f"{SUM}#") else None)
            return known(key) and there == _bytes(_total(c, key))
        finally:
            if not inside:
                c.execute("rollback")


def names(key: str) -> tuple[str, int, int]:
    """(table, from which arrival number, up to which) of a sum, for people."""
    name = key.removeprefix(SUM)
    if not (name.startswith("#") and known(key)):
        return "meta" if key == _NOW else name, 0, 0
    return "segment", int(name[1:]) * RUN, (int(name[1:]) + 1) * RUN


def known(key: str) -> bool:
    """Whether there is such a sum at all."""
    name = key.removeprefix(SUM)
    return name in TABLES or key == _NOW or (name.startswith("#") and name[1:].isascii() and name[1:].isdigit())


def take(store: Store, wrong: Iterable[str]) -> None:
    """What is there counts from now on, after it was told."""
    todo = list(wrong)
    if todo:
        with store.write() as tx:
            for key in todo:
                if known(key):
                    _put(tx.connection, key, _total(tx.connection, key))
                else:
                    tx.execute("delete from meta where key = ?", key)
