"""state.db against log.db: whether the record table says what the logs say. A part of the scrub.

Rules
1. The log is the truth: a row names its change (log, number), and is compared with it: key, operation, payload, stamp,
   what it had seen, version of the schema (where records are merged field by field, key and operation alone).
   `effective` lies between the stamp and the first parent's cosignature, which may not have been applied yet.
2. It reads on a connection of its own and writes nothing. What does not hold is made again by `fednode rebuild`.
3. What the log cannot say now (a damaged segment, a stripped change) is the log's own trouble, and not told here.

>>> Tables.AT_ONCE
200
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from fednode.crypto.errors import IntegrityError
from fednode.node import sqlite
from fednode.node.audit import Problem
from fednode.node.store import Store
from fednode.sync.catalog import Dataset
from fednode.sync.change import UPSERT, Columns
from fednode.sync.clock import effective
from fednode.sync.errors import StoreError

DIFFERS = "FN-6636"
UNREADABLE = "FN-7604"


class Tables:
    """The record table of one node. `dataset`: as the catalog has it; None where it is not known."""

    AT_ONCE: ClassVar = 200

    def __init__(self, store: Store, path: Path, dataset: Callable[[str], Dataset | None]) -> None:
        self._store, self._path, self._dataset = store, path, dataset
        # log, first, end, bound: read last
        self._segment: tuple[int, int, int, int | None, Columns | None] = (0, 0, 0, None, None)

    def count(self) -> int:
        """Rows, near enough."""
        found = self._read("select coalesce(max(id), 0) from record")
        return int(found[0][0]) if found else 0

    def check(self, after: int) -> tuple[int, int, list[Problem]]:
        """Some rows after one: (the last of them, or 0 at the end; how many; what does not hold)."""
        rows = self._read(
            """select r.id, r.log, r.seq, r.key, r.op, r.payload, d.name, r.hlc, r.base, r.schema_version, r.effective
               from record r join dataset d on d.id = r.dataset where r.id > ? order by r.id limit ?""",
            after,
            self.AT_ONCE,
        )
        if rows is None:
            return 0, 0, [Problem(self._path.name, 0, 0, UNREADABLE)]
        problems: list[Problem] = []
        for _, log_id, seq, key, op, payload, dataset, *rest in rows:
            if not self._holds(log_id, seq, key, op, payload, dataset, tuple(rest)):
                problems.append(Problem(self._name(log_id), seq, seq + 1, DIFFERS))
        return (rows[-1][0] if len(rows) == self.AT_ONCE else 0), len(rows), problems

    def _holds(
        self, log_id: int, seq: int, key: str, op: int, payload: str | None, dataset: str, rest: tuple[int, ...]
    ) -> bool:
        try:
            first, bound, columns = self._columns(log_id, seq)
        except IntegrityError:  # the log's scrub tells of it
            return True
        if columns is None or seq - first in columns.leaves:
            return first >= 0
        at = seq - first
        if columns.keys[at] != key.encode() or columns.ops[at] != op:
            return False
        declared = self._dataset(dataset)
        if declared is not None and declared.merge == "field":
            return True
        hlc, base, version, moment = rest
        if (hlc, base, version) != (columns.hlcs[at], columns.base(at), columns.schema_version):
            return False
        if not effective(hlc, bound) <= moment <= effective(hlc, None):
            return False
        return op != UPSERT or (payload is not None and columns.payloads[at] == payload.encode())

    def _columns(self, log_id: int, seq: int) -> tuple[int, int | None, Columns | None]:
        """The segment that holds a change: its first number, -1 where there is none, the bound of its first parent's
        cosignature, and what is in it, where this node may read it."""
        log, first, end, limit, columns = self._segment
        if log != log_id or not first <= seq < end:
            held = self._store.segment_at(log_id, seq)
            if held is None:
                return -1, None, None
            columns, first, limit = self._store.columns(held), held.first, held.bound
            self._segment = (log_id, first, first + held.count, limit, columns)
        return first, limit, columns

    def _name(self, log_id: int) -> str:
        rows = self._store.rows("select name from log where id = ?", log_id)
        return str(rows[0][0]) if rows else self._path.name

    def _read(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]] | None:
        """Rows of this store's state.db; none where there is no such file yet, or it is another store's. None where
        SQLite cannot read it."""
        if not self._path.exists():
            return []
        try:
            connection = sqlite.connect(self._path, synchronous="NORMAL", readonly=True)
            try:
                of = connection.execute("select value from meta where key = 'store_id'").fetchone()
                if of is None or of[0] != self._store.store_id:
                    return []
                rows: list[tuple[Any, ...]] = connection.execute(sql, parameters).fetchall()
                return rows
            finally:
                connection.close()
        except (sqlite.DatabaseError, UnicodeError, StoreError):
            return None
