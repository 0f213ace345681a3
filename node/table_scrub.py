"""state.db against log.db: whether what people query says what the logs say. A part of the scrub.

Rules
1. The log is the truth: a row names its change (log, number), and is compared with it: dataset, area, key, operation,
   payload, stamp, what it had seen, version of the schema. `effective` lies between the stamp and the first parent's
   cosignature, which may not have been applied yet. Versions that lost are compared in the same way.
2. Where there are several, or a record is made of several, they are judged again (`node.judging`).
3. Full text is compared with the records (`node.text_scrub`), the rest of the file with what it must be (`rest`), the
   file's own order with SQLite's rules (`node.scrub`).
4. It reads on a connection of its own and writes nothing. What does not hold is made again by `fednode rebuild`.
5. What the log cannot say now (a damaged segment, a stripped change) is the log's own trouble, and not told here.

>>> Tables.AT_ONCE
200
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.node import schema, sqlite
from fednode.node.audit import SHAPE, Problem
from fednode.node.judging import Judge
from fednode.node.projection import FULL_TEXT, field_index_sql, searched, time_index_sql
from fednode.node.rows import Row
from fednode.node.store import Store
from fednode.node.text_scrub import Text
from fednode.node.trust import Trust
from fednode.node.views import VIEWS, view_sql
from fednode.sync.change import UPSERT, Columns
from fednode.sync.clock import effective
from fednode.sync.errors import StoreError

DIFFERS = "FN-6636"
UNREADABLE = "FN-7604"
KNOWN = {"store_id", "lsn", "chain", "fresh", "unclean", "views", "indexes", "text_id", "text_shape"}
LAST_DAY = "last_day:"  # `node.withdrawal`: one for each dataset, written afresh every day
STEPS = 4  # of cleaning (`node.cleaning`)
T = TypeVar("T")
_COLUMNS = "key, op, effective, hlc, base, log, seq, schema_version"


class Tables:
    """state.db of one node. `trust`: what datasets and areas there are."""

    AT_ONCE: ClassVar = 200

    def __init__(self, store: Store, path: Path, trust: Trust) -> None:
        self._store, self._path, self._trust = store, path, trust
        self._judge = Judge(store, trust)
        # log, first, end, bound: read last
        self._segment: tuple[int, int, int, int | None, Columns | None] = (0, 0, 0, None, None)

    def count(self) -> int:
        """Rows, near enough."""
        return self._read(lambda c: int(c.execute("select coalesce(max(id), 0) from record").fetchone()[0]), 0, 0)

    def size(self) -> int:
        """Bytes of the file."""
        return self._path.stat().st_size if self._path.exists() else 0

    def check(self, after: int) -> tuple[int, int, list[Problem]]:
        """Some rows after one: (the last of them, or 0 at the end; how many; what does not hold)."""
        return self._read(lambda c: self._check(c, after), (0, 0, []), (0, 0, self._unreadable()))

    def rest(self) -> list[Problem]:
        """What is not in the rows of records: once, after those."""
        return self._read(self._rest, [], self._unreadable())

    def whole(self, steps: int, go_on: Callable[[], bool]) -> list[Problem]:
        """SQLite's own look at the file (`sqlite.whole`)."""
        fault = self._read(lambda c: sqlite.whole(c, steps, go_on, full=True)[1], "", "unreadable")
        return self._unreadable() if fault else []

    def _unreadable(self) -> list[Problem]:
        return [Problem(self._path.name, 0, 0, UNREADABLE)]

    # ------------------------------------------------------------ rows of records

    def _check(self, c: sqlite.Connection, after: int) -> tuple[int, int, list[Problem]]:
        rows = c.execute(
            f"""select r.id, r.dataset, r.area, d.name, a.code, r.payload, {_COLUMNS} from record r
                left join dataset d on d.id = r.dataset left join area a on a.id = r.area
                where r.id > ? order by r.id limit ?""",
            (after, self.AT_ONCE),
        ).fetchall()
        last = rows[-1][0] if rows else after
        more = len(rows) == self.AT_ONCE
        wrong = self._texts(c, after + 1, last if more else (1 << 63) - 1)
        problems: list[Problem] = []
        for number, dataset, area, name, code, payload, *rest in rows:
            row = _row(number, payload, rest)
            if not self._is_sound(c, (dataset, area), (name, code), row) or number in wrong:
                problems.append(Problem(self._name(row.log), row.seq, row.seq + 1, DIFFERS))
            wrong.discard(number)
        if wrong:  # words of records that are not there
            problems.append(Problem(self._path.name, min(wrong), max(wrong) + 1, DIFFERS))
        return (last if more else 0), len(rows), problems

    def _is_sound(
        self, c: sqlite.Connection, place: tuple[int, int], names: tuple[str | None, str | None], row: Row
    ) -> bool:
        """Whether a record and the versions that it won over are what the log has, and are judged rightly."""
        lost = c.execute(
            f"select {_COLUMNS}, conflict from superseded where dataset = ? and area = ? and key = ?",
            (*place, row.key),
        ).fetchall()
        older = [(_row(0, None, one[:-1]), one[-1]) for one in lost]
        declared = self._trust.dataset(str(names[0]))
        rule = declared.merge if declared is not None else "latest"
        try:
            if not self._holds(names, row, made=rule == "field"):
                return False
            if not all(self._holds(names, one, made=True, exact=True) for one, _ in older):
                return False
            if not older and rule != "field":
                return True
            return self._judged(rule, row, older)
        except (FednodeError, KeyError):  # the log's scrub tells of it
            return True

    def _judged(self, rule: str, row: Row, older: list[tuple[Row, int]]) -> bool:
        versions = {(one.log, one.seq): one for one, _ in older}
        if rule == "field":
            _, _, columns = self._columns(row.log, row.seq)
            at = row.seq - self._segment[1]
            if columns is None or at in columns.leaves:
                return True
            row = replace(row, op=columns.ops[at])  # what is made of several is there or not, whatever the last one did
        versions[row.log, row.seq] = row
        if any(self._judge.payload(one) is None for one in versions.values() if one.op == UPSERT):
            return True  # stripped, and to be forgotten yet
        judged = self._judge.judge(rule, versions)
        if judged is None:
            return True
        best, payload, marked = judged
        flags = {(one.log, one.seq): int((one.log, one.seq) in marked) for one, _ in older}
        said = {(one.log, one.seq): conflict for one, conflict in older}
        return (
            (best.log, best.seq) == (row.log, row.seq) and flags == said and (rule != "field" or payload == row.payload)
        )

    def _holds(self, names: tuple[str | None, str | None], row: Row, *, made: bool, exact: bool = False) -> bool:
        """Whether a version is what its change says. `made`: its payload is made of several, or it has none; `exact`:
        its operation is the change's, in any case."""
        try:
            first, bound, columns = self._columns(row.log, row.seq)
        except IntegrityError:  # the log's scrub tells of it
            return True
        if first < 0:
            return False
        log = self._judge.log_name(row.log)
        if names != (log.dataset, self._judge.area_of(log)):
            return False
        if columns is None:
            return True
        if row.seq - first in columns.leaves:
            return not self._forgotten(str(log), row.seq)
        at = row.seq - first
        if columns.keys[at] != row.key.encode() or (columns.ops[at] != row.op and (exact or not made)):
            return False
        if (row.hlc, row.base, row.schema_version) != (columns.hlcs[at], columns.base(at), columns.schema_version):
            return False
        if not effective(row.hlc, bound) <= row.effective <= effective(row.hlc, None):
            return False
        return made or row.op != UPSERT or columns.payloads[at] == row.payload

    def _forgotten(self, log: str, seq: int) -> bool:
        """Whether a version was erased, and state.db has forgotten it for good."""
        sql = "select 1 from erased where log = ? and seq = ? and stripped = 1 and record_key is null"
        return bool(self._store.rows(sql, log, seq))

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

    # ------------------------------------------------------------ the rest

    def _texts(self, c: sqlite.Connection, first: int, last: int) -> set[int]:
        """Of these records those whose words are not in full text as they should be."""
        text = self._text(c)
        return set(text.wrong(first, last)) if text is not None else set()

    def _text(self, c: sqlite.Connection) -> Text | None:
        """Full text, where it was made of what the catalog says now."""
        row = c.execute("select value from meta where key = 'text_shape'").fetchone()
        if row is None or not c.execute("select 1 from sqlite_master where name = 'record_fts'").fetchone():
            return None
        fields = searched(self._trust, dict(c.execute("select name, id from dataset").fetchall()))
        return Text(c, fields) if msgspec.json.decode(row[0], type=dict[int, list[str]]) == fields else None

    def _rest(self, c: sqlite.Connection) -> list[Problem]:
        text, problems = self._text(c), list[Problem]()
        if (text is not None and not text.total()) or not self._settings(c) or not self._numbers(c):
            problems.append(Problem(self._path.name, 0, 0, DIFFERS))
        for log_id, seq in c.execute(
            """select log, seq from superseded s where not exists (select 1 from record r
               where r.key = s.key and r.dataset = s.dataset and r.area = s.area) limit 100"""
        ).fetchall():
            problems.append(Problem(self._name(log_id), seq, seq + 1, DIFFERS))
        if schema.shape(c) != self._shape(c):
            problems.append(Problem(self._path.name, 0, 0, SHAPE))
        return problems

    def _settings(self, c: sqlite.Connection) -> bool:
        """Whether `meta` says what it may. What it lacks is made again."""
        meta = dict(c.execute("select key, value from meta").fetchall())
        if any(key not in KNOWN and not key.startswith(LAST_DAY) for key in meta):
            return False
        last = c.execute("select coalesce(max(id), 0) from record").fetchone()[0]
        numbers = (("fresh", meta["lsn"]), ("unclean", STEPS), ("text_id", last))
        return all(0 <= meta.get(key, 0) <= most for key, most in numbers)

    def _numbers(self, c: sqlite.Connection) -> bool:
        """Whether each dataset and each area is one that there is."""
        logs = [name for _, name, _ in self._store.logs()]
        datasets, areas = {name.dataset for name in logs}, {self._judge.area_of(name) for name in logs}
        return all(
            name in datasets or self._trust.dataset(name) is not None
            for (name,) in c.execute("select name from dataset").fetchall()
        ) and all(code in areas for (code,) in c.execute("select code from area").fetchall())

    def _shape(self, c: sqlite.Connection) -> set[tuple[str, ...]]:
        """The shape that the file should have. Views are those of the catalog that it has come to."""
        numbers = dict(c.execute("select name, id from dataset").fetchall())
        there = {str(name) for (name,) in c.execute("select name from sqlite_master")}
        row = c.execute("select value from meta where key = 'views'").fetchone()
        catalog = self._trust.catalog
        with closing(schema.fresh(schema.state_migrations)) as made:
            if "record_fts" in there:
                made.execute(FULL_TEXT)
            for dataset, number in numbers.items():
                if f"time:{dataset}" in there:
                    made.execute(time_index_sql(dataset, number))
            for declared in catalog.datasets.values() if catalog is not None else ():
                if declared.name not in numbers:
                    continue
                for field in declared.fields:
                    if f"field:{declared.name}:{field.code}" in there:
                        made.execute(field_index_sql(declared, field, numbers[declared.name]))
                if row is not None and row[0] == f"{catalog.version}/{VIEWS}":  # type: ignore[union-attr]
                    made.execute(view_sql(declared, numbers[declared.name]))
            shape = schema.shape(made)
        if row is None or catalog is None or row[0] != f"{catalog.version}/{VIEWS}":
            shape |= {one for one in schema.shape(c) if one[0] == "view"}
        return shape

    # ------------------------------------------------------------ reading

    def _read(self, what: Callable[[sqlite.Connection], T], nothing: T, unreadable: T) -> T:
        """What is read in this store's state.db, as of one moment. `nothing`: where there is no such file yet, or it is
        another store's; `unreadable`: where it cannot be read."""
        if not self._path.exists():
            return nothing
        try:
            with closing(sqlite.connect(self._path, synchronous="NORMAL", readonly=True)) as c:
                c.execute("begin")
                of = c.execute("select value from meta where key = 'store_id'").fetchone()
                return what(c) if of is not None and of[0] == self._store.store_id else nothing
        except (sqlite.DatabaseError, StoreError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return unreadable


def _row(number: int, payload: str | None, columns: Sequence[Any]) -> Row:
    """A version of a record, as `_COLUMNS` has it."""
    key, op, *rest = columns
    return Row(number, key, op, payload.encode() if payload is not None else None, *rest)
