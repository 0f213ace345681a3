"""state.db: the record tables that people query, made from log.db and made again from it whenever needed.

Rules
1. The cursor (an arrival number, and the checksum of the arrival order up to it) is committed with the rows that it
   covers. `synchronous=NORMAL`: a power cut may take the tail, the cursor goes with it, and catching up repairs it.
   Where the log has another checksum at that number (another store; an older copy that was written on since), all is
   made again.
2. The winner of a record is what `fednode.sync.merge` says: the same for any order of arrival. Losers are in
   `superseded`, those that the winner had not seen are marked as conflicts.
3. A segment of new records goes in as one statement (or a few): SQLite works on it without Python's global lock, so
   verification goes on meanwhile. Only records that exist already take the row-by-row way.
4. Views (one for each dataset, a named column for each field) and full text follow the catalog. Full text is brought
   up to date when it is asked for, or when nothing else is to be done.
5. So are indexes on fields, which the catalog asks for: they wait until there is something to index, and are made when
   all is caught up. A first load, or a rebuild, is three times as fast without them.
6. Whoever catches up beside a daemon that has much to do may not get the lock for as long as SQLite waits, nor a daemon
   beside who catches up: while the other goes on, that is no error. For indexes nobody waits: who has the lock may be
   making them.

>>> fts_phrase("棉一东社区 licence")
'"棉 一 东 社 区 licence"'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

import msgspec

from fednode.node import erasures, sqlite
from fednode.node.erasures import Forgotten
from fednode.node.judging import Judge, Versions
from fednode.node.rows import Held, Row
from fednode.node.schema import migrate, state_migrations
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.views import KEY_SQL, VIEWS, field_sql, view_sql
from fednode.sync import merge
from fednode.sync.catalog import Dataset, Field
from fednode.sync.change import DELETE, ERASE, UPSERT, Columns, LogName
from fednode.sync.clock import effective
from fednode.sync.errors import StoreError
from fednode.sync.strip import erased_place

FORGET_PER_STEP = 1_000
INDEX_ROWS_MIN = 10_000  # up to here looking at every record takes some 20 ms
_CJK = re.compile(r"([\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_encode = msgspec.json.Encoder().encode

FULL_TEXT = """create virtual table if not exists record_fts
    using fts5(text, content='', contentless_delete=1, tokenize='unicode61')"""
ROW_VALUES = 5
BLOCKS = (1_000, 100, 10, 1)  # rows for each statement: each size is compiled once


@cache
def _insert(rows: int) -> str:
    """The statement that inserts so many new records of one log. Parameters: dataset, area, log, schema version, then
    key, effective, hlc, seq, payload of each."""
    values = ", ".join(["(?, ?, ?, ?, ?)"] * rows)
    return f"""insert or ignore into record
        (dataset, area, key, op, effective, hlc, base, log, seq, schema_version, payload)
        select ?1, ?2, column1, 1, column2, column3, 0, ?3, column4, ?4, column5 from (values {values})"""


def fts_text(text: str) -> str:
    """Text as it is indexed: every CJK character is a word."""
    return " ".join(" ".join(_CJK.split(text)).split())  # `split` keeps the characters; five times as fast as `sub`


def fts_phrase(text: str) -> str:
    """The full-text query that finds `text` as a phrase. A zero character would end the query in its middle."""
    return '"' + fts_text(text.replace("\0", " ")).replace('"', '""') + '"'


def time_index_sql(dataset: str, number: int) -> str:
    """The index by time of a dataset that has this number in state.db."""
    return f'create index if not exists "time:{dataset}" on record (effective) where dataset = {number}'


def field_index_sql(declared: Dataset, field: Field, number: int) -> str:
    """The index on a field of a dataset that has this number in state.db."""
    return f"""create index if not exists "field:{declared.name}:{field.code}" on record (payload ->> '$.{field.code}')
                where dataset = {number}"""


def searched(trust: Trust, numbers: Mapping[str, int]) -> dict[int, list[str]]:
    """The fields of datasets that full text is made of, by the numbers that datasets have in state.db."""
    declared = trust.catalog.datasets.values() if trust.catalog is not None else ()
    found = {numbers.get(one.name): [field.code for field in one.fields if field.search] for one in declared}
    return {number: codes for number, codes in found.items() if number is not None and codes}


def indexed_text(codes: Sequence[str], payload: str) -> str:
    """What full text has of a record."""
    record = msgspec.json.decode(payload)
    return fts_text(" ".join(str(record[code]) for code in codes if code in record))


class Projector(Judge):
    """state.db of one node. Not thread-safe: one for each thread; several processes may share the file. `upto`: it goes
    no further than this arrival number, where one is given."""

    def __init__(self, path: Path, store: Store, trust: Trust) -> None:
        super().__init__(store, trust)
        self.path = path
        self.upto: int | None = None
        self._profile = at = store.profile
        self.connection = sqlite.connect(
            path, synchronous="NORMAL", cache_kib=at.state_cache_kib, wal_pages=at.state_wal_pages, secure=False
        )
        migrate(self.connection, state_migrations, path)
        self._views = self._indexed = -1
        self._forgot: dict[tuple[str, int], Forgotten] = {}
        self._missed: list[tuple[LogName, int]] = []
        self._check_store()
        row = self.connection.execute("select value from meta where key = 'fresh'").fetchone()
        sqlite.overwrite(self.connection, bool(self.unclean))
        self._fresh = int(row[0]) if row else 0  # what was erased up to here was stripped before this was made

    def _check_store(self) -> None:
        """A state.db of another store, or of another history of this one (restored, copied), is made again. One that is
        older than the checksum is believed by its number."""
        meta = dict(self.connection.execute("select key, value from meta where key in ('store_id', 'lsn', 'chain')"))
        lsn = meta.get("lsn")
        there = meta.get("store_id") == self.store.store_id and isinstance(lsn, int) and lsn <= self.store.lsn
        if not there or meta.get("chain") not in (None, self.store.chain_at(meta["lsn"])):
            self._clear()

    def _clear(self) -> None:
        with sqlite.transaction(self.connection, self.path) as c:
            unclean = int(c.execute("select 1 from record limit 1").fetchone() is not None)
            views = [r[0] for r in c.execute("select name from sqlite_master where type = 'view'")]
            indexes = [
                r[0] for r in c.execute("select name from sqlite_master where type = 'index' and name like '%:%'")
            ]
            for name in views:
                c.execute(f'drop view "{name}"')
            for name in indexes:
                c.execute(f'drop index "{name}"')
            for table in ("record", "superseded", "stale_text", "meta", "dataset", "area"):
                c.execute(f"delete from {table}")
            c.execute("drop table if exists record_fts")
            self._fresh = self.store.lsn
            c.execute(
                "insert into meta values ('store_id', ?), ('lsn', 0), ('fresh', ?), ('unclean', ?)",
                (self.store.store_id, self._fresh, unclean),
            )
        self._views = self._indexed = -1

    def close(self) -> None:
        self.connection.close()

    @property
    def cursor(self) -> int:
        """The arrival number up to which records are in the tables."""
        row = self.connection.execute("select value from meta where key = 'lsn'").fetchone()
        return int(row[0]) if row else 0

    # ------------------------------------------------------------ following the log

    def catch_up(self, steps: int | None = None) -> int:
        """Apply what is new, at most `steps` transactions. Returns the number of changes of records applied. Raises
        StoreError FN-7606 where the database is locked and nobody goes on (rule 6)."""
        applied = 0
        while steps is None or steps > 0:
            count, more = self.step()
            applied += count
            if not more:
                with sqlite.if_free(self.connection):
                    self.index_fields()
                break
            steps = None if steps is None else steps - 1
        return applied

    def step(self) -> tuple[int, bool]:
        """One bounded transaction. Returns changes of records applied, and whether there may be more. Raises StoreError
        FN-7606 as `catch_up` does."""
        start = self.cursor
        try:
            return self._step(start)
        except StoreError as error:
            if error.code != sqlite.LOCKED or self.cursor == start:
                raise
            return 0, True

    def _step(self, start: int) -> tuple[int, bool]:
        until = self.store.lsn  # what is committed between the two queries is for the next step
        if self.upto is not None:
            until = min(until, self.upto)
            if start >= until:
                return 0, False
        limit = self._profile.step_segments
        held = self.store.segments(start, limit)
        late = self.store.late_after(start, limit)
        opened = self.store.opened_after(start, limit)
        if not held and not late and not opened:
            self._sync_views()
            return 0, self._forget_more()
        self.store.room.check_projection(sum(one.count for one in held))
        self.trust.refresh(self.store)
        self._sync_views()
        lists = ([one.lsn for one in held], [lsn for lsn, _ in late], [lsn for lsn, _ in opened])
        last = min([until, *(lsns[-1] for lsns in lists if len(lsns) == limit)])
        work: list[tuple[int, Held | None, int]] = [(one.lsn, one, 0) for one in held]
        work += [(lsn, None, segment) for lsn, segment in late]
        work += [(lsn, self.store.segments(segment - 1, 1)[0], 0) for lsn, segment in opened if lsn <= last]
        work = sorted((item for item in work if item[0] <= last), key=lambda item: item[0])
        if not work:
            return 0, self.upto is None
        applied, self._missed = 0, []
        with sqlite.transaction(self.connection, self.path) as c:
            if self.cursor != start:  # another process was faster
                return 0, True
            for _, one, target in work:
                if one is None:
                    self._late(target)
                elif not one.name.is_open and (columns := self.store.columns(one)) is not None:
                    count = self._apply(one, columns)
                    applied += 0 if one.name.is_system else count
            forgot = self._forget_waiting()
            position = work[-1][0]
            c.execute(
                "insert or replace into meta values ('lsn', ?), ('chain', ?)", (position, self.store.chain_at(position))
            )
        self._forgot |= forgot
        return applied, True

    def rebuild(self) -> int:
        """Make everything again from log.db. Returns the number of changes of records applied."""
        self._clear()
        return self.catch_up()

    def _id(self, table: str, column: str, value: str) -> int:
        row = self.connection.execute(f"select id from {table} where {column} = ?", (value,)).fetchone()
        if row is None:
            row = self.connection.execute(
                f"insert into {table} ({column}) values (?) returning id", (value,)
            ).fetchone()
        return int(row[0])

    def _dataset(self, name: LogName) -> int:
        """The number of a dataset. One of the system's is listed by time: it gets its index before it has records."""
        number = self._id("dataset", "name", name.dataset)
        if name.is_system:
            self.connection.execute(time_index_sql(name.dataset, number))
        return number

    def _apply(self, held: Held, columns: Columns) -> int:
        name = held.name
        self._logs[held.log_id] = name
        dataset, area = self._dataset(name), self._id("area", "code", self.area_of(name))
        declared = self.trust.dataset(name.dataset)
        rule = declared.merge if declared else "latest"
        keys = [key.decode() for key in columns.keys]
        plain = not columns.leaves and not columns.bases and columns.ops.count(UPSERT) == len(keys) and rule != "field"
        if plain and self._insert_new((dataset, area, held.log_id, columns.schema_version), held, keys, columns):
            return len(keys)
        there = self._current(dataset, area, keys)
        for position, key in enumerate(keys):
            if position in columns.leaves:
                continue
            if columns.ops[position] == ERASE:
                if held.lsn > self._fresh:
                    self._missed.append(erased_place(columns.keys[position], columns.payloads[position])[:2])
                continue
            seq = held.first + position
            row = there.get(key)
            if row is None or (row.log, row.seq) != (held.log_id, seq):
                there[key] = self._merge_one(dataset, area, key, row, held, columns, position, rule)
        return len(keys)

    def _insert_new(self, constants: tuple[int, ...], held: Held, keys: list[str], columns: Columns) -> bool:
        """Insert what is not there yet; False when some was. Rule 3."""
        limit, hlcs = held.bound, columns.hlcs
        stamps = hlcs if limit is None or hlcs[-1] <= limit else [min(hlc, limit) for hlc in hlcs]
        payloads = [payload.decode() for payload in columns.payloads]
        seqs = range(held.first, held.first + len(keys))
        rows = list(chain.from_iterable(zip(keys, stamps, hlcs, seqs, payloads, strict=True)))
        done = start = 0
        for size in BLOCKS:
            while len(keys) - start >= size:
                block = rows[start * ROW_VALUES : (start + size) * ROW_VALUES]
                done += self.connection.execute(_insert(size), (*constants, *block)).rowcount
                start += size
        return done == len(keys)

    def _merge_one(
        self, dataset: int, area: int, key: str, row: Row | None, held: Held, columns: Columns, position: int, rule: str
    ) -> Row:
        hlc = columns.hlcs[position]
        op = columns.ops[position]
        new = Row(
            row.id if row else 0,
            key,
            op,
            columns.payloads[position] if op == UPSERT else None,
            effective(hlc, held.bound),
            hlc,
            columns.base(position),
            held.log_id,
            held.first + position,
            columns.schema_version,
        )
        if row is None:
            new = self._put(dataset, area, new, insert=True)
            return self._resolve(dataset, area, key, rule) if rule == "field" else new
        if (new.log, new.seq) == (row.log, row.seq) or self._is_superseded(dataset, area, new):
            return row
        if rule == "field":
            self._supersede(dataset, area, new, False)
            return self._resolve(dataset, area, key, rule)
        newer = merge.order(rule, self.version(new)) > merge.order(rule, self.version(row))
        if newer:
            self._supersede(dataset, area, row, new.base != row.hlc)
            return self._put(dataset, area, new, insert=False)
        self._supersede(dataset, area, new, True)
        self._mark_conflicts(dataset, area, key, rule, row)
        return row

    def _put(self, dataset: int, area: int, row: Row, *, insert: bool) -> Row:
        payload = row.payload.decode() if row.payload is not None else None
        values = (row.op, row.effective, row.hlc, row.base, row.log, row.seq, row.schema_version, payload)
        if insert:
            got = self.connection.execute(
                """insert into record (dataset, area, key, op, effective, hlc, base, log, seq, schema_version, payload)
                   values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id""",
                (dataset, area, row.key, *values),
            ).fetchone()
            return replace(row, id=int(got[0]))
        self.connection.execute(
            """update record set op = ?, effective = ?, hlc = ?, base = ?, log = ?, seq = ?, schema_version = ?,
            payload = ?
               where id = ?""",
            (*values, row.id),
        )
        self.connection.execute("insert or ignore into stale_text values (?)", (row.id,))
        return row

    def _supersede(self, dataset: int, area: int, row: Row, conflict: bool) -> None:
        self.connection.execute(
            "insert or replace into superseded values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(dataset, area, row.key, row.log, row.seq),
                *(row.op, row.effective, row.hlc, row.base, row.schema_version, int(conflict)),
            ),
        )

    def _is_superseded(self, dataset: int, area: int, row: Row) -> bool:
        found = self.connection.execute(
            "select 1 from superseded where dataset = ? and area = ? and key = ? and log = ? and seq = ?",
            (dataset, area, row.key, row.log, row.seq),
        )
        return found.fetchone() is not None

    def _superseded(self, dataset: int, area: int, key: str) -> list[Row]:
        rows = self.connection.execute(
            """select op, effective, hlc, base, log, seq, schema_version from superseded
               where dataset = ? and area = ? and key = ?""",
            (dataset, area, key),
        )
        return [
            Row(0, key, op, None, eff, hlc, base, log, seq, version) for op, eff, hlc, base, log, seq, version in rows
        ]

    def _mark_conflicts(self, dataset: int, area: int, key: str, rule: str, winner: Row) -> None:
        """Set the conflict marks of a record's superseded versions afresh."""
        older = self._superseded(dataset, area, key)
        _, conflicts = merge.resolve(rule, [self.version(one) for one in (winner, *older)])
        marked = {(one.place, one.seq) for one in conflicts}
        for one in older:
            self.connection.execute(
                "update superseded set conflict = ? where dataset = ? and area = ? and key = ? and log = ? and seq = ?",
                (int((one.log, one.seq) in marked), dataset, area, key, one.log, one.seq),
            )

    # ------------------------------------------------------------ the slow way: a record from all of its versions

    def _resolve(self, dataset: int, area: int, key: str, rule: str) -> Row:
        """Decide a record again from all of its versions (late cosignatures, the `field` rule)."""
        row = self._current(dataset, area, [key])[key]
        versions = {(one.log, one.seq): one for one in (row, *self._superseded(dataset, area, key))}
        return self._decide(dataset, area, row, rule, versions) or row

    def _decide(self, dataset: int, area: int, row: Row, rule: str, versions: Versions) -> Row | None:
        """The record is what these versions say; None where they say nothing."""
        judged = self.judge(rule, versions)
        if judged is None:
            self._remove(row.id)
            return None
        best, payload, marked = judged
        op = UPSERT if payload is not None else DELETE
        chosen = replace(best, id=row.id, key=row.key, op=op, payload=payload)
        for place, one in versions.items():
            if place != (best.log, best.seq):
                self._supersede(dataset, area, one, place in marked)
        self._drop_superseded(dataset, area, row.key, best.log, best.seq)
        return self._put(dataset, area, chosen, insert=False)

    def _drop_superseded(self, dataset: int, area: int, key: str, log: int, seq: int) -> None:
        self.connection.execute(
            "delete from superseded where dataset = ? and area = ? and key = ? and log = ? and seq = ?",
            (dataset, area, key, log, seq),
        )

    # ------------------------------------------------------------ forgetting

    @property
    def unclean(self) -> int:
        """What is still to be done so that nothing stays of what was erased (`node.cleaning`); 0: nothing."""
        row = self.connection.execute("select value from meta where key = 'unclean'").fetchone()
        return int(row[0]) if row else 0

    @unclean.setter
    def unclean(self, step: int) -> None:
        self.connection.execute("insert or replace into meta values ('unclean', ?)", (step,))
        sqlite.overwrite(self.connection, bool(step))

    def forgotten(self) -> None:
        """What was forgotten is on disk: log.db need not keep its keys any more."""
        with self.store.write() as tx:
            erasures.forget_keys(tx, self._forgot.values(), self.cursor)
        self._forgot.clear()

    def _forget_more(self) -> bool:
        """Erases that found their versions without anything new in the log. Returns whether there were any."""
        if not self._news():
            return False
        with sqlite.transaction(self.connection, self.path):
            forgot = self._forget_waiting()
        self._forgot |= forgot
        return True

    def forget(self, places: Iterable[tuple[LogName, int, str]]) -> None:
        """Versions (log, number, key) that were stripped without an erase."""
        with sqlite.transaction(self.connection, self.path):
            for log, seq, key in places:
                self._forget(log, seq, [key])

    def _news(self) -> list[Forgotten]:
        return [
            one
            for one in erasures.waiting(self.store, FORGET_PER_STEP + len(self._forgot))
            if (str(one.log), one.seq) not in self._forgot
        ]

    def _forget_waiting(self) -> dict[tuple[str, int], Forgotten]:
        """Forget what was stripped since, and what a state.db that is older than that brings back. What had a key."""
        news = self._news()
        for one in news:
            self._forget(one.log, one.seq, [one.key])
        missed, self._missed = erasures.without_key(self.store, self._missed), []
        for log, seq in missed:
            log_id = self.store.log_id(log)
            keys = self.connection.execute(
                """select key from record where log = ?1 and seq = ?2 union
                   select key from superseded where log = ?1 and seq = ?2""",
                (log_id, seq),
            ).fetchall()
            self._forget(log, seq, [key for (key,) in keys])
        return {(str(one.log), one.seq): one for one in news}

    def _forget(self, log: LogName, seq: int, keys: Sequence[str]) -> None:
        """A version was erased: the record falls back to what is left of it."""
        log_id = self.store.log_id(log)
        if log_id is None:
            return
        dataset, area = self._id("dataset", "name", log.dataset), self._id("area", "code", self.area_of(log))
        declared = self.trust.dataset(log.dataset)
        rule = declared.merge if declared else "latest"
        self.unclean = 1
        for key in keys:
            self._drop_superseded(dataset, area, key, log_id, seq)
            row = self._current(dataset, area, [key]).get(key)
            if row is None:
                continue
            won = (row.log, row.seq) == (log_id, seq)
            if won or rule == "field":
                left = [*self._superseded(dataset, area, key), *(() if won else (row,))]
                self._decide(dataset, area, row, rule, {(one.log, one.seq): one for one in left})
            else:
                self._mark_conflicts(dataset, area, key, rule, row)

    def _remove(self, row: int) -> None:
        """Nothing is left of a record."""
        c = self.connection
        c.execute("delete from record where id = ?", (row,))
        c.execute("delete from stale_text where id = ?", (row,))
        if c.execute("select 1 from sqlite_master where name = 'record_fts'").fetchone():
            c.execute("delete from record_fts where rowid = ?", (row,))
        # SQLite gives the number of the last row out again: whoever gets it is to be indexed
        c.execute("update meta set value = min(value, (select coalesce(max(id), 0) from record)) where key = 'text_id'")

    def _late(self, segment_lsn: int) -> None:
        """The first parent's cosignature moved stamps of a segment that was applied before."""
        held = self.store.segments(segment_lsn - 1, 1)[0]
        columns = self.store.columns(held)
        if columns is None or held.name.is_open or held.bound is None:
            return
        dataset = self._id("dataset", "name", held.name.dataset)
        area = self._id("area", "code", self.area_of(held.name))
        declared = self.trust.dataset(held.name.dataset)
        rule = declared.merge if declared else "latest"
        for position, hlc in enumerate(columns.hlcs):
            if position in columns.leaves or columns.ops[position] == ERASE:
                continue
            key, stamp, moved = columns.keys[position].decode(), effective(hlc, held.bound), 0
            for table in ("record", "superseded"):
                moved += self.connection.execute(
                    f"""update {table} set effective = ?1
                        where dataset = ? and area = ? and key = ? and log = ? and seq = ? and effective <> ?1""",
                    (stamp, dataset, area, key, held.log_id, held.first + position),
                ).rowcount  # fmt: skip
            if moved:
                self._resolve(dataset, area, key, rule)

    # ------------------------------------------------------------ reading

    def _current(self, dataset: int, area: int, keys: Iterable[str]) -> dict[str, Row]:
        rows = self.connection.execute(
            """select r.id, r.key, r.op, r.payload, r.effective, r.hlc, r.base, r.log, r.seq, r.schema_version
               from json_each(?) k cross join record r on r.key = k.value and r.dataset = ? and r.area = ?""",
            (_encode(list(keys)).decode(), dataset, area),
        )
        return {
            row[1]: Row(row[0], row[1], row[2], None if row[3] is None else row[3].encode(), *row[4:]) for row in rows
        }

    def current(self, dataset: str, area: str, keys: Sequence[str]) -> dict[str, Row]:
        """The current versions (deleted ones too) of these records of an area."""
        c = self.connection
        d = c.execute("select id from dataset where name = ?", (dataset,)).fetchone()
        a = c.execute("select id from area where code = ?", (area,)).fetchone()
        return self._current(d[0], a[0], keys) if d and a else {}

    def versions(self, dataset: str, area: str, key: str) -> Versions:
        """All versions of a record, by their places."""
        row = self.current(dataset, area, [key]).get(key)
        if row is None:
            return {}
        older = self._superseded(self._id("dataset", "name", dataset), self._id("area", "code", area), key)
        return {(one.log, one.seq): one for one in (row, *older)}

    def conflicts(self, dataset: str, limit: int) -> list[dict[str, object]]:
        """Versions that lost to one whose author had not seen them: where each stands. `dataset`: "" for all."""
        rows = self.connection.execute(
            """select d.name, a.code, s.key, s.log, s.seq, s.op, s.effective >> 16 from superseded s
               join dataset d on d.id = s.dataset join area a on a.id = s.area
               where s.conflict = 1 and iif(?1 = '', d.name not like 'sys.%', d.name = ?1)
               order by s.effective desc limit ?2""",
            (dataset, limit),
        )
        names = ("dataset", "area", "key", "log", "seq", "op", "effective_ms")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [{**one, "log": str(self.log_name(one["log"]))} for one in found]

    # ------------------------------------------------------------ what follows the catalog

    def _sync_views(self) -> None:
        catalog = self.trust.catalog
        if catalog is None or catalog.version == self._views:
            return
        shape = f"{catalog.version}/{VIEWS}"
        row = self.connection.execute("select value from meta where key = 'views'").fetchone()
        if row is None or row[0] != shape:
            with sqlite.transaction(self.connection, self.path) as c:
                for declared in catalog.datasets.values():
                    self._view(declared)
                c.execute("insert or replace into meta values ('views', ?)", (shape,))
        self._views = catalog.version

    def _view(self, declared: Dataset) -> None:
        c = self.connection
        dataset = self._id("dataset", "name", declared.name)
        c.execute(f'drop view if exists "{declared.name}"')
        c.execute(view_sql(declared, dataset))

    def index_fields(self) -> bool:
        """Make the indexes on fields that the catalog asks for, where they are due and not there yet (rule 5). Returns
        whether it did."""
        catalog = self.trust.catalog
        if catalog is None or catalog.version == self._indexed:
            return False
        c = self.connection
        if (c.execute("select max(id) from record").fetchone()[0] or 0) < INDEX_ROWS_MIN:
            return False
        with sqlite.transaction(c, self.path):
            row = c.execute("select value from meta where key = 'indexes'").fetchone()
            made = row is None or row[0] != catalog.version
            for declared in catalog.datasets.values() if made else ():
                for field in declared.fields:
                    if field.index and field_sql(declared, field) != KEY_SQL:
                        self._index_field(declared, field)
            c.execute("insert or replace into meta values ('indexes', ?)", (catalog.version,))
        self._indexed = catalog.version
        return made

    def _index_field(self, declared: Dataset, field: Field) -> None:
        number = self._id("dataset", "name", declared.name)
        self.connection.execute(field_index_sql(declared, field, number))

    def index_text(self, steps: int | None = None) -> int:
        """Bring full text up to date, at most `steps` transactions. Returns the number of records indexed."""
        total = 0
        while steps is None or steps > 0:
            count = self._index_some()
            total += count
            if count == 0:
                break
            steps = None if steps is None else steps - 1
        return total

    def _index_some(self) -> int:
        fields = self._search_fields()
        if not fields:
            return 0
        with sqlite.transaction(self.connection, self.path) as c:
            c.execute(FULL_TEXT)
            self._text_shape(fields)
            row = c.execute("select value from meta where key = 'text_id'").fetchone()
            last = int(row[0]) if row else 0
            columns = "id, dataset, op, payload"
            new = c.execute(
                f"select {columns} from record where id > ? order by id limit ?", (last, self._profile.text_rows)
            ).fetchall()
            stale = c.execute(
                f"select {columns} from record where id in (select id from stale_text limit ?)",
                (self._profile.text_rows,),
            ).fetchall()
            for one, _, _, _ in stale:
                c.execute("delete from record_fts where rowid = ?", (one,))
                c.execute("delete from stale_text where id = ?", (one,))
            rows = []
            seen = {one[0] for one in stale}
            for one, dataset, op, payload in [*stale, *(r for r in new if r[0] not in seen)]:
                if dataset in fields and op == UPSERT:
                    rows.append((one, indexed_text(fields[dataset], payload)))
            c.executemany("insert or replace into record_fts (rowid, text) values (?, ?)", rows)
            if new:
                c.execute("insert or replace into meta values ('text_id', ?)", (new[-1][0],))
        return len(new) + len(stale)

    def _search_fields(self) -> dict[int, list[str]]:
        return searched(self.trust, dict(self.connection.execute("select name, id from dataset").fetchall()))

    def _text_shape(self, fields: dict[int, list[str]]) -> None:
        """Where the catalog wants other fields of a dataset in full text than it was made of, it is made anew, in the
        running transaction. One that is older than this is believed."""
        c, shape = self.connection, _encode({str(number): codes for number, codes in fields.items()}).decode()
        row = c.execute("select value from meta where key = 'text_shape'").fetchone()
        try:
            made_of = msgspec.json.decode(row[0], type=dict[int, list[str]]) if row else {}
        except (msgspec.DecodeError, TypeError):
            made_of = {-1: []}  # who knows
        if any(fields.get(number) != codes for number, codes in made_of.items()):
            c.execute("delete from meta where key = 'text_id'")
            c.execute("delete from stale_text")
            c.execute("drop table record_fts")
            c.execute(FULL_TEXT)
        if row is None or row[0] != shape:
            c.execute("insert or replace into meta values ('text_shape', ?)", (shape,))
