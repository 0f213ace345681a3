"""Importing a file: validated, compared with what is there, and written in groups.

Rules
1. A row that is the same as the current record writes nothing: running a file again changes nothing.
2. A bad row is reported and left out; the others are in. Of two rows with one key and different content the first
   counts and the second is refused: else the outcome of a second run would depend on the first.
3. Each group of rows is one durable transaction. An import that is stopped has written whole groups, and is run again.
   What it was is in the audit in the transaction of its first changes (`begun`), so no change is there without an
   event, wherever it is stopped. Where these are the only ones, that event tells of the whole import: a second would
   cost a village's line what 15 licences do.
4. Memory does not grow with the rows, but for some 120 bytes a row: what has been seen of the keys.

>>> ImportReport("shop", "1301", read=3, added=2, rejected=1).good
2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from fednode.node.ingest.source import Row, Source
from fednode.node.projection import Projector
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer
from fednode.sync.catalog import Dataset
from fednode.sync.change import UPSERT, Change
from fednode.sync.formats import Problem, Record, RowValidator, compile_dataset
from fednode.sync.identity import covers

PROBLEMS_KEPT_MAX = 20
COUNTS = ("read", "added", "changed", "unchanged", "rejected")

OnReject = Callable[[int, Sequence[str], Sequence[Problem]], None]
Begun = Callable[[Transaction, "ImportReport | None"], None]  # the report, where it is the final one
OnProgress = Callable[["ImportReport", Source], None]

encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class ImportReport:
    """What an import did (or, on a dry run, would do). `problems`: the first bad rows, as (row number, what is
    wrong); `reasons`: of all of them, how many rows have each (a row with two counts in both)."""

    dataset: str
    area: str
    dry_run: bool = False
    read: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    rejected: int = 0
    problems: list[tuple[int, tuple[Problem, ...]]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> int:
        """Rows that are in."""
        return self.added + self.changed + self.unchanged


class Importer:
    """One import of one file into one area."""

    def __init__(
        self,
        writer: Writer,
        projector: Projector,
        declared: Dataset,
        area: str,
        *,
        dry_run: bool = False,
        on_reject: OnReject | None = None,
        on_progress: OnProgress | None = None,
        begun: Begun = lambda tx, report: None,
    ) -> None:
        self._begun: Begun | None = begun
        self._writer, self._projector, self._declared = writer, projector, declared
        self._on_reject, self._on_progress = on_reject, on_progress
        self._seen: dict[int, int] = {}
        self._scope = scope_check(declared, writer.trust.me.scope)
        self.report = ImportReport(declared.name, area, dry_run)

    def run(self, source: Source) -> ImportReport:
        """Import every row of a source. Raises Refused FN-3309 (broken in the middle), StoreError."""
        validate = compile_dataset(self._declared, source.columns)
        rows: list[Row] = []
        batch = self._writer.store.profile.batch_rows
        whole = False
        try:
            for row in source.rows():
                if len(rows) >= batch:
                    group, rows = rows, []
                    self._group(source, group, validate)
                rows.append(row)
            whole = True
        finally:
            # what was read before a file turned out to be broken, or the user had enough, is good
            if rows:
                self._group(source, rows, validate, whole)
        if self._on_progress is not None:
            self._on_progress(self.report, source)
        return self.report

    def _group(self, source: Source, rows: Iterable[Row], validate: RowValidator, last: bool = False) -> None:
        report, seen, scope = self.report, self._seen, self._scope
        good: dict[str, bytes] = {}
        for number, cells, problems in rows:
            checked = validate(cells)
            if problems or isinstance(checked, list):
                self._refuse(number, cells, problems, checked if isinstance(checked, list) else [])
                continue
            record, key = checked
            outside = scope(record) if scope is not None else None
            if outside is not None:
                self._refuse(number, cells, (outside,), [])
                continue
            payload = encode(record)
            report.read += 1
            place, content = hash(key), hash(payload)
            before = seen.get(place)
            if before is None:
                seen[place] = content
                good[key] = payload
            elif before == content:
                report.unchanged += 1
            else:
                report.read -= 1
                self._refuse(number, cells, (Problem("", "duplicate", "", key),), [])
        self._write(good, last)
        if self._on_progress is not None:
            self._on_progress(report, source)

    def _write(self, good: dict[str, bytes], last: bool) -> None:
        report, begun = self.report, self._begun
        current = self._projector.current(report.dataset, report.area, list(good))
        changes = []
        for key, payload in good.items():
            row = current.get(key)
            if row is None:
                report.added += 1
                changes.append(Change(key.encode(), payload))
                continue
            if row.op == UPSERT and row.payload == payload:
                report.unchanged += 1
                continue
            if row.op == UPSERT:
                report.changed += 1
            else:
                report.added += 1
            changes.append(Change(key.encode(), payload, UPSERT, row.hlc))
        if changes and not report.dry_run:
            tell = None if begun is None else lambda tx: begun(tx, report if last else None)
            self._writer.local(report.dataset, report.area, changes, tell)
            self._begun = None

    def _refuse(self, number: int, cells: Sequence[str], problems: Sequence[Problem], more: Sequence[Problem]) -> None:
        if not problems and not any(cell.strip() for cell in cells):
            return  # a row of blanks
        named = {one.field for one in problems if one.field}
        every = (*problems, *(one for one in more if one.field not in named))
        report = self.report
        report.read += 1
        report.rejected += 1
        report.reasons.update({one.reason for one in every})
        if len(report.problems) < PROBLEMS_KEPT_MAX:
            report.problems.append((number, every))
        if self._on_reject is not None:
            self._on_reject(number, cells, every)


def scope_check(declared: Dataset, scope: tuple[str, ...]) -> Callable[[Record], Problem | None] | None:
    """Whether the area that a record names is this node's to write about; None for a dataset whose records name
    none."""
    code = declared.area_field
    if not code:
        return None
    inside: dict[str, bool] = {}

    def check(record: Record) -> Problem | None:
        area = str(record.get(code, ""))
        if area not in inside:
            inside[area] = not area or covers(scope, area)
        return None if inside[area] else Problem(code, "outside_scope", area, ", ".join(scope))

    return check
