"""Records as people know them: put, get, find, history, delete, import; and the digest by which levels compare.

Rules
1. A record is identified by (dataset, area, key). The area is this node's own unless another in its scope is named; a
   key that exists in one area only means that one. What lies outside the scope is refused (FN-5311).
2. Writing goes through the catalog (`fednode.sync.formats`), and names the version that was seen (`base`). What is the
   same as what is there writes nothing.
3. Reading takes in first what other processes have written, where the disk has room for it. "Saved here" and "held by
   the parent" are two answers.
4. The digest is SHA-256 over one line for each record, sorted by key, dataset and area, so it depends on the records
   alone: not on order, nor on logs. The line is the canonical JSON array [dataset, area, key, record]. Records of
   system datasets (audit, alerts) are not in it: each level has more of them than those below.
5. What is written is in the audit, in the same transaction; so are reads of what is not public (which dataset and
   place, which filters; never values). An event that cannot be written means that nothing is written, or shown.
6. What is withdrawn (`fednode.node.withdrawal`) is shown to those alone who ask for it, and that is in the audit. It
   can be corrected, deleted, erased, imported again like any other record.

>>> # records = Records(writer, projector, trust)
>>> # records.put("admin-licence", {...}).key; records.get("admin-licence", key).standing.held_by_parent
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Any

import msgspec

from fednode.node import sqlite
from fednode.node.follower import follow
from fednode.node.importing import COUNTS, Importer, ImportReport, OnProgress, OnReject, encode, scope_check
from fednode.node.ingest.headers import Matcher
from fednode.node.ingest.rejects import problem_text
from fednode.node.ingest.source import Source
from fednode.node.ingest.workbook import cell_text
from fednode.node.journal import Journal
from fednode.node.projection import Projector, fts_phrase
from fednode.node.rejected import told as reasons_told
from fednode.node.room import NO_ROOM
from fednode.node.rows import Row
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.node.views import field_sql
from fednode.node.withdrawal import day_of, set_day, shown_sql, withdrawn_since
from fednode.node.writer import Writer
from fednode.sync.catalog import SYSTEM_DATASETS, Dataset, Field
from fednode.sync.change import DELETE, SYSTEM_PREFIX, UPSERT, Change, LogName
from fednode.sync.clock import milliseconds
from fednode.sync.errors import Refused, StoreError
from fednode.sync.feed import Side
from fednode.sync.formats import AREA_LENGTHS, Problem, Record, canonical_area, compile_dataset, key_text, parse
from fednode.sync.identity import covers

PAGE_DEFAULT, PAGE_MAX = 50, 10_000
_decode = msgspec.json.decode


class InvalidRecord(Refused):
    """A record that the catalog does not allow. `problems`: each of its faults, for whoever shows them one by one."""

    def __init__(self, code: str, /, *, problems: Sequence[Problem], **params: Any) -> None:
        super().__init__(code, **params)
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a version stands: who wrote it, when, in which log, and who holds it. `made_ms`: the writer's own stamp;
    `effective_ms`: what the merge goes by. `held_by_parent`: None when there is no parent, or nothing goes to it."""

    log: str
    seq: int
    lsn: int
    origin: str
    origin_name: str
    origin_level: str
    made_ms: int
    effective_ms: int
    catalog_version: int
    held_by_parent: bool | None


@dataclass(frozen=True, slots=True)
class Found:
    """A record and where it stands. `withdrawn`: since which day, "" where it is not."""

    dataset: str
    area: str
    key: str
    record: Record
    standing: Standing
    withdrawn: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a record. `record`: None for a deletion, and for what was stripped. `conflict`: it lost to a
    version whose author had not seen it."""

    op: int
    record: Record | None
    current: bool
    conflict: bool
    stripped: bool
    standing: Standing


@dataclass(frozen=True, slots=True)
class Written:
    """What a put or a delete did: `added`, `changed`, `unchanged` or `deleted`."""

    dataset: str
    area: str
    key: str
    outcome: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class Item:
    """A record in a list. `withdrawn`: since which day, "" where it is not."""

    area: str
    key: str
    record: Record
    effective_ms: int
    withdrawn: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some records. `cursor`: where to go on, "" at the end."""

    dataset: str
    items: tuple[Item, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Digest:
    """How many records, and the digest of all of them; `datasets`: how many of each."""

    records: int
    digest: str
    datasets: dict[str, int]


class Records:
    """The service for records of one node, in one thread."""

    def __init__(self, writer: Writer, projector: Projector, trust: Trust, journal: Journal) -> None:
        self.writer, self.projector, self.trust, self.journal = writer, projector, trust, journal
        self.store = writer.store

    def close(self) -> None:
        """Close the projection; the store is its owner's."""
        self.projector.close()

    # ------------------------------------------------------------ writing

    def put(
        self,
        dataset: str,
        record: Mapping[str, Any],
        area: str | None = None,
        *,
        dry_run: bool = False,
        lang: str = "en",
    ) -> Written:
        """Write one whole record; its fields are named by code or title. Raises InvalidRecord FN-3322 (`lang`:
        of its words) and Refused."""
        declared = self._writable(dataset)
        matcher = Matcher(declared)
        codes, cells = [], []
        for name, value in record.items():
            code, text = matcher.code(name), cell_text(value)
            if code is None:
                raise self._unknown_field(declared, name)
            if text is None:
                raise self._invalid(declared, [Problem(code, "json_value", name)], lang)
            if code:
                codes.append(code)
                cells.append(text)
        twice = next((code for code in codes if codes.count(code) > 1), None)
        checked = compile_dataset(declared, codes or [""])(cells or [""])
        if twice is not None:
            checked = [Problem(twice, "json_twice")]
        if isinstance(checked, list):
            raise self._invalid(declared, checked, lang)
        valid, key = checked
        check = scope_check(declared, self.trust.me.scope)
        outside = check(valid) if check is not None else None
        if outside is not None:
            raise Refused("FN-5311", area=outside.value, scope=outside.detail)
        self.projector.catch_up()
        place = self._writable_area(area) if area else self._area_for(dataset, key, fallback=True)
        row = self.projector.current(dataset, place, [key]).get(key)
        payload = encode(valid)
        if row is not None and row.op == UPSERT and row.payload == payload:
            return Written(dataset, place, key, "unchanged", valid)
        if not dry_run:
            self._write("put", dataset, place, Change(key.encode(), payload, UPSERT, row.hlc if row else 0))
        outcome = "changed" if row is not None and row.op == UPSERT else "added"
        return Written(dataset, place, key, outcome, valid)

    def amend(
        self, dataset: str, key: str, fields: Mapping[str, Any], area: str | None = None, *, lang: str = "en"
    ) -> Written:
        """Change some fields of a record that is there; None or "" takes a field away. Raises as `get` and `put` do."""
        found = self._get(dataset, key, area)
        matcher = Matcher(self.declared(dataset))
        merged: dict[str, Any] = dict(found.record)
        for name, value in fields.items():
            code = matcher.code(name)
            if not code:
                raise self._unknown_field(self.declared(dataset), name)
            merged[code] = value
        written = self.put(dataset, merged, found.area, lang=lang)
        if written.key != found.key:
            # the key is made of fields: to change one of those is to make another record
            self.delete(dataset, found.key, found.area)
        return written

    def delete(self, dataset: str, key: str, area: str | None = None, *, dry_run: bool = False) -> Written:
        """Delete a record. Raises Refused FN-3324 when it is not there."""
        self._writable(dataset)
        self.projector.catch_up()
        place = self._writable_area(area or self._area_for(dataset, key))
        row = self.projector.current(dataset, place, [key]).get(key)
        if row is None or row.op == DELETE:
            raise Refused("FN-3324", dataset=dataset, key=key)
        if not dry_run:
            self._write("delete", dataset, place, Change(key.encode(), b"", DELETE, row.hlc))
        return Written(dataset, place, key, "deleted", None)

    def import_rows(
        self,
        dataset: str,
        source: Source,
        *,
        area: str | None = None,
        dry_run: bool = False,
        on_reject: OnReject | None = None,
        on_progress: OnProgress | None = None,
    ) -> ImportReport:
        """Import what a source gives (`fednode.node.importing`); it was opened for this dataset. The audit has an event
        in the transaction of the first changes: `import` with the counts where they are the only ones, else
        `import.started`, and `import` at the end."""
        declared = self._writable(dataset)
        place = self._writable_area(area) if area else self.trust.area
        self.projector.catch_up()
        sha256 = "" if dry_run else source.sha256()
        told: dict[str, Any] = {"dataset": dataset, "area": place, "file": source.path.name, "sha256": sha256}
        all_told = False

        def begun(tx: Transaction, final: ImportReport | None) -> None:
            nonlocal all_told
            all_told = final is not None
            action, more = ("import", _counts(final)) if final else ("import.started", {})
            self.journal.within(tx, action, **told, **more)

        importer = Importer(
            self.writer,
            self.projector,
            declared,
            place,
            dry_run=dry_run,
            on_reject=on_reject,
            on_progress=on_progress,
            begun=begun,
        )
        report = importer.run(source)
        if not dry_run and not all_told:
            self.journal.event("import", **told, **_counts(report))
        return report

    def _write(self, action: str, dataset: str, area: str, change: Change) -> None:
        """Append one change, and in the same transaction its event, which names the change's place, not its key."""
        name = self.trust.log_name(dataset, area)

        def tell(tx: Transaction) -> None:
            number = self.store.log_state(name).size - 1
            self.journal.within(tx, action, dataset=dataset, area=area, log=str(name), number=number)

        self.writer.local(dataset, area, [change], tell)
        follow(self.projector)

    # ------------------------------------------------------------ what may be written, and where

    def declared(self, dataset: str) -> Dataset:
        """A dataset of the catalog. Raises Refused FN-3320 (no catalog yet), FN-3321 (no such dataset)."""
        self.trust.refresh(self.store)
        catalog = self.trust.catalog
        if catalog is None:
            raise Refused("FN-3320", node=self.trust.node)
        found = catalog.datasets.get(dataset)
        if found is None:
            raise Refused("FN-3321", dataset=dataset, known=", ".join(catalog.datasets))
        return found

    def _writable(self, dataset: str) -> Dataset:
        declared = self.declared(dataset)
        level = self.trust.me.level
        if level not in declared.writers:
            raise Refused("FN-5310", dataset=dataset, level=level, writers=", ".join(declared.writers))
        return declared

    def _writable_area(self, area: str) -> str:
        place = self._area(area)
        if not covers(self.trust.me.scope, place):
            raise Refused("FN-5311", area=place, scope=", ".join(self.trust.me.scope))
        return place

    @staticmethod
    def _area(area: str) -> str:
        if len(area) not in AREA_LENGTHS or not (area.isascii() and area.isdigit()):
            raise Refused("FN-3323", area=area)
        return canonical_area(area)

    def areas(self, dataset: str, key: str) -> list[str]:
        """The areas that have a record with this key now."""
        rows = self._rows(
            """select a.code from record r join area a on a.id = r.area join dataset d on d.id = r.dataset
               where r.key = ? and d.name = ? and r.op = 1 order by a.code""",
            key,
            dataset,
        )
        return [row[0] for row in rows]

    def _area_for(self, dataset: str, key: str, *, fallback: bool = False) -> str:
        """The one area that has this key. `fallback`: this node's own when there is none."""
        found = self.areas(dataset, key)
        if fallback:
            found = [area for area in found if covers(self.trust.me.scope, area)] or [self.trust.area]
        if not found:
            raise Refused("FN-3324", dataset=dataset, key=key)
        if len(found) > 1:
            raise Refused("FN-3325", dataset=dataset, key=key, areas=", ".join(found[:20]))
        return found[0]

    @staticmethod
    def _invalid(declared: Dataset, problems: Sequence[Problem], lang: str) -> InvalidRecord:
        shown = "; ".join(problem_text(one, declared, lang) for one in problems)
        return InvalidRecord("FN-3322", problems=problems, dataset=declared.name, shown=shown)

    @staticmethod
    def _unknown_field(declared: Dataset, name: str) -> Refused:
        names = [text for field in declared.fields for text in (field.code, field.zh, field.en)]
        nearest = get_close_matches(name, names, 1, 0.3) or names[:1]
        return Refused("FN-3326", dataset=declared.name, field=name, nearest=nearest[0])

    # ------------------------------------------------------------ reading

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self.projector.connection.execute(sql, parameters).fetchall()
            return rows
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, self.projector.path) from error

    def get(self, dataset: str, key: str, area: str | None = None, *, withdrawn: bool = False) -> Found:
        """A record and where it stands. `withdrawn`: also one that is withdrawn. Raises Refused FN-3324 when it is not
        there, FN-3325 when the area must be named, FN-3350 when it is withdrawn."""
        found = self._get(dataset, key, area)
        if found.withdrawn and not withdrawn:
            raise Refused("FN-3350", dataset=dataset, key=key, since=found.withdrawn)
        hidden = bool(found.withdrawn)
        self._tell_read("get", dataset, hidden, area=found.area, log=found.standing.log, number=found.standing.seq)
        return found

    def _tell_read(self, action: str, dataset: str, withdrawn: bool, **told: Any) -> None:
        """Reads of what is not public, or no longer, are audited, before anything is shown (rules 5 and 6)."""
        if withdrawn:
            told["withdrawn"] = True
        if withdrawn or not self.declared(dataset).is_public:
            self.journal.event(action, dataset=dataset, **told)

    def _today(self) -> date:
        """The day by the corrected clock; state.db is told of it."""
        today = day_of(self.journal.now_ms)
        set_day(self.projector, today)
        return today

    def _get(self, dataset: str, key: str, area: str | None) -> Found:
        self.declared(dataset)
        follow(self.projector)
        place = self._area(area) if area else self._area_for(dataset, key)
        row = self.projector.current(dataset, place, [key]).get(key)
        if row is None or row.op != UPSERT or row.payload is None:
            raise Refused("FN-3324", dataset=dataset, key=key)
        record = _decode(row.payload)
        hidden = withdrawn_since(self.declared(dataset), record, self._today())
        return Found(dataset, place, key, record, self._standing(row), hidden)

    def history(self, dataset: str, key: str, area: str | None = None, *, withdrawn: bool = False) -> list[Version]:
        """Every version of a record that this node holds, newest first, deletions and conflicts among them. Raises as
        `get` does."""
        place, rows = self.rows(dataset, key, area)
        current = rows[0][0]
        declared = self.trust.catalog.datasets.get(dataset) if self.trust.catalog else None
        hidden = (
            withdrawn_since(declared, _decode(current.payload), self._today()) if declared and current.payload else ""
        )
        if hidden and not withdrawn:
            raise Refused("FN-3350", dataset=dataset, key=key, since=hidden)
        self._tell_read("history", dataset, bool(hidden), area=place, count=len(rows))
        return [self._version(row, conflict, row is rows[0][0]) for row, conflict in rows]

    def versions(self, dataset: str, key: str, area: str | None = None) -> tuple[str, list[tuple[LogName, int]]]:
        """The area of a record that this node may erase, and the place of each of its versions, as `history` counts
        them. Raises as `delete` does."""
        self._writable(dataset)
        place, rows = self.rows(dataset, key, area)
        self._writable_area(place)
        return place, [(self._log_name(row.log), row.seq) for row, _ in rows]

    def rows(self, dataset: str, key: str, area: str | None = None) -> tuple[str, list[tuple[Row, bool]]]:
        """The area of a record, of a system dataset too, and every version of it, the one in force first, then the
        newest; and whether each is a conflict. Raises Refused FN-3320, FN-3321, FN-3324, FN-3325."""
        if dataset not in SYSTEM_DATASETS:
            self.declared(dataset)
        follow(self.projector)
        place = self._area(area) if area else self._history_area(dataset, key)
        current = self.projector.current(dataset, place, [key]).get(key)
        if current is None:
            raise Refused("FN-3324", dataset=dataset, key=key)
        older = self._rows(
            """select s.op, s.effective, s.hlc, s.base, s.log, s.seq, s.schema_version, s.conflict
               from superseded s join dataset d on d.id = s.dataset join area a on a.id = s.area
               where d.name = ? and a.code = ? and s.key = ?""",
            dataset,
            place,
            key,
        )
        rows = [(current, False)]
        for op, effective, hlc, base, log, seq, version, conflict in older:
            rows.append((Row(0, key, op, None, effective, hlc, base, log, seq, version), bool(conflict)))
        rest = sorted(rows[1:], key=lambda one: (one[0].effective, one[0].hlc, one[0].seq), reverse=True)
        return place, [rows[0], *rest]

    def _history_area(self, dataset: str, key: str) -> str:
        """As `_area_for`, but a record that is deleted everywhere still has a history."""
        if self.areas(dataset, key):
            return self._area_for(dataset, key)
        rows = self._rows(
            """select a.code from record r join area a on a.id = r.area join dataset d on d.id = r.dataset
               where r.key = ? and d.name = ? order by a.code""",
            key,
            dataset,
        )
        if len(rows) > 1:
            raise Refused("FN-3325", dataset=dataset, key=key, areas=", ".join(row[0] for row in rows[:20]))
        if not rows:
            raise Refused("FN-3324", dataset=dataset, key=key)
        return str(rows[0][0])

    def _version(self, row: Row, conflict: bool, current: bool) -> Version:
        record, stripped = None, False
        held = self.store.segment_at(row.log, row.seq)
        columns = self.store.columns(held) if held is not None and row.op == UPSERT else None
        if held is not None and columns is not None:
            position = row.seq - held.first
            stripped = position in columns.leaves
            record = None if stripped else _decode(columns.payloads[position])
        return Version(row.op, record, current, conflict, stripped, self._standing(row))

    def _standing(self, row: Row) -> Standing:
        held = self.store.segment_at(row.log, row.seq)
        if held is None:
            name, lsn = self._log_name(row.log), 0
        else:
            name, lsn = held.name, held.lsn
        origin = self.trust.directory.get(name.origin)
        return Standing(
            str(name),
            row.seq,
            lsn,
            name.origin,
            origin.name if origin else "",
            origin.level if origin else "",
            milliseconds(row.hlc),
            milliseconds(row.effective),
            row.schema_version,
            self._held_by_parent(name, lsn),
        )

    def _log_name(self, log_id: int) -> LogName:
        return next(name for one, name, _ in self.store.logs() if one == log_id)

    def _held_by_parent(self, name: LogName, lsn: int) -> bool | None:
        parent = self.trust.parent
        if parent is None:
            return None
        if self.trust.side(name) is Side.ABOVE:
            return True  # it came from there
        if not self.trust.route(name).up:
            return None
        peer = self.store.peer(parent.node)
        return peer is not None and 0 < lsn <= peer.acked

    # ------------------------------------------------------------ finding

    def find(
        self,
        dataset: str,
        where: Mapping[str, Any] | None = None,
        *,
        text: str = "",
        since: str = "",
        until: str = "",
        date_field: str = "",
        area: str | None = None,
        limit: int = PAGE_DEFAULT,
        cursor: str = "",
        withdrawn: bool = False,
    ) -> Page:
        """Records by field values, words, and a range of dates (both ends included); `area`: its records and those of
        all areas in it; `withdrawn`: also those that are withdrawn. `limit` at most PAGE_MAX. Raises Refused FN-3326 to
        FN-3330."""
        declared = self.declared(dataset)
        follow(self.projector)
        number = self._number("dataset", "name", dataset)
        if number is None:
            return Page(dataset, (), "")
        # the number stands in the text, not as a parameter: only so SQLite sees that the index on the field serves
        conditions, values = [f"r.dataset = {number}", "r.op = 1", "r.id > ?"], list[Any]([_cursor(cursor)])
        today = self._today()
        if not withdrawn and (shown := shown_sql(declared, today)):
            conditions.append(shown)
        for name, value in (where or {}).items():
            field = self._field(declared, name)
            conditions.append(f"{field_sql(declared, field)} = ?")
            values.append(self._value(field, value))
        if since or until:
            field = self._date_field(declared, date_field)
            for sign, edge in ((">=", since), ("<=", until)):
                if edge:
                    conditions.append(f"{field_sql(declared, field)} {sign} ?")
                    values.append(self._value(field, edge))
        if area:
            conditions.append("a.code >= ? and a.code < ?")
            values += [self._area(area), self._area(area) + ":"]  # ':' follows '9'
        if text.strip():
            conditions.append("r.id in (select rowid from record_fts where record_fts match ?)")
            values.append(self._words(declared, text))
        size = max(1, min(limit, PAGE_MAX))
        rows = self._rows(
            f"""select r.id, a.code, r.key, r.payload, r.effective from record r join area a on a.id = r.area
                where {" and ".join(conditions)} order by r.id limit ?""",
            *values,
            size + 1,
        )
        items = []
        for _, code, key, payload, at in rows[:size]:
            record = _decode(payload)
            items.append(Item(code, key, record, milliseconds(at), withdrawn_since(declared, record, today)))
        filters = [self._field(declared, name).code for name in where or {}]
        filters += ["text"] if text.strip() else []
        hidden = any(one.withdrawn for one in items)
        self._tell_read("find", dataset, hidden, area=area or "", filters=", ".join(filters), count=len(items))
        return Page(dataset, tuple(items), str(rows[size - 1][0]) if len(rows) > size else "")

    def find_all(self, dataset: str, where: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Item]:
        """Every record that `find` would page through."""
        cursor = ""
        while True:
            page = self.find(dataset, where, cursor=cursor, limit=PAGE_MAX, **more)
            yield from page.items
            cursor = page.cursor
            if not cursor:
                return

    def _number(self, table: str, column: str, value: str) -> int | None:
        rows = self._rows(f"select id from {table} where {column} = ?", value)
        return int(rows[0][0]) if rows else None

    def _field(self, declared: Dataset, name: str) -> Field:
        code = Matcher(declared).code(name)
        field = declared.field(code) if code else None
        if field is None:
            raise self._unknown_field(declared, name)
        return field

    def _value(self, field: Field, value: Any) -> Any:
        """What the field would record for this, so that `2024/3/5` finds `2024-03-05` and `有效` finds `1`."""
        text = cell_text(value)
        parsed = Problem(field.code, "json_value") if text is None else parse(field, text)
        if parsed is None or isinstance(parsed, Problem):
            raise Refused("FN-3327", field=f"{field.zh} ({field.code})", value=str(value))
        return parsed

    def _date_field(self, declared: Dataset, name: str) -> Field:
        if name:
            field = self._field(declared, name)
            if field.type == "date":
                return field
        else:
            due = declared.timeliness.field if declared.timeliness else ""
            dates = [field for field in declared.fields if field.type == "date"]
            chosen = next((field for field in dates if field.code == due or (not due and field.index)), None)
            if chosen is not None:
                return chosen
        known = ", ".join(field.code for field in declared.fields if field.type == "date")
        raise Refused("FN-3328", dataset=declared.name, field=name, known=known)

    def _words(self, declared: Dataset, text: str) -> str:
        if not any(field.search for field in declared.fields):
            raise Refused("FN-3329", dataset=declared.name)
        try:
            self.projector.index_text()
        except StoreError as error:  # without room for more, what is indexed must do, if anything is
            if error.code not in NO_ROOM or not self._rows("select 1 from sqlite_master where name = 'record_fts'"):
                raise
        return " ".join(fts_phrase(word) for word in text.split())

    # ------------------------------------------------------------ comparing

    def digest(self, dataset: str | None = None, area: str | None = None) -> Digest:
        """Count and digest of the records here (rule 4), of one dataset or all, of all areas or those in `area`."""
        within = self._area(area) if area else ""
        if dataset:
            self.declared(dataset)
        follow(self.projector)
        return digest_of(self.projector.connection, dataset, within)


def _counts(report: ImportReport) -> dict[str, Any]:
    """What an event tells of a whole import."""
    counts = {name: getattr(report, name) for name in COUNTS}
    return counts | ({"reasons": reasons_told(report.reasons)} if report.reasons else {})


def digest_of(connection: sqlite.Connection, dataset: str | None = None, within: str = "") -> Digest:
    """Count and digest (rule 4) of the records that a state.db has, of one dataset or all, in an area or all."""
    datasets = {
        number: name
        for number, name in connection.execute("select id, name from dataset")
        if (name == dataset if dataset else not name.startswith(SYSTEM_PREFIX))
    }
    areas = dict(connection.execute("select id, code from area").fetchall())
    counts: dict[str, int] = {}
    hashed = hashlib.sha256()  # for comparison only: what is proved is in the logs
    waiting: list[tuple[str, str, str, str]] = []
    # by the index on (key, dataset, area); the numbers differ from node to node, so equal keys are put in order here
    for key, number, place, payload in connection.execute(
        "select key, dataset, area, payload from record where op = 1 order by key"
    ):
        name, code = datasets.get(number), areas.get(place, "")
        if name is None or not code.startswith(within):
            continue
        if waiting and waiting[0][0] != key:
            _add(hashed, waiting)
        waiting.append((key, name, code, payload))
        counts[name] = counts.get(name, 0) + 1
    _add(hashed, waiting)
    return Digest(sum(counts.values()), hashed.hexdigest(), dict(sorted(counts.items())))


def _add(hashed: Any, waiting: list[tuple[str, str, str, str]]) -> None:
    """Add the lines of the records that share a key."""
    for key, name, code, payload in sorted(waiting):
        hashed.update(b"[" + b",".join((encode(name), encode(code), encode(key), payload.encode())) + b"]\n")
    waiting.clear()


def _cursor(cursor: str) -> int:
    if not cursor:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise Refused("FN-3330", cursor=cursor)
    return int(cursor)


__all__ = [
    "Digest",
    "Found",
    "ImportReport",
    "InvalidRecord",
    "Item",
    "Page",
    "Records",
    "Standing",
    "Version",
    "Written",
    "key_text",
]
