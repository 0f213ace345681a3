"""The rows that were refused, in a file to correct and send again: CSV for tools, a workbook for people.

Rules
1. The first three columns say where and why and begin with `#`, so they are passed over when the file comes back; the
   rest is the original header and the original cells.
2. Nothing is made when no row is refused. A file that is there is written over: it is the report of this run.
3. Cells are text, never formulas: what begins like one gets a tab in front in CSV, which reading takes off again.

>>> problem_text(Problem("xk_xdr_shxym", "uscc_check", "9111", "L"), None, "en")
'xk_xdr_shxym: the check digit is wrong, it would have to be L [9111]'
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from fednode.node.files import Draft
from fednode.node.messages import text
from fednode.sync.catalog import Dataset
from fednode.sync.errors import Refused, StoreError
from fednode.sync.formats import Problem

if TYPE_CHECKING:
    from fednode.node.ingest.rejects_book import Book

SHOWN_CHARACTERS_MAX = 60
_FORMULA = ("=", "+", "-", "@")


def problem_text(problem: Problem, dataset: Dataset | None, lang: str) -> str:
    """A problem in words: the field by its title, the reason, the value."""
    words = reason_text(problem, lang)
    field = dataset.field(problem.field) if dataset is not None and problem.field else None
    name = problem.field if field is None else (field.zh if lang == "zh" else field.en)
    value = problem.value.replace("\n", " ")
    shown = value if len(value) <= SHOWN_CHARACTERS_MAX else value[:SHOWN_CHARACTERS_MAX] + "…"
    return (f"{name}: " if name else "") + words + (f" [{shown}]" if shown else "")


def reason_text(problem: Problem, lang: str) -> str:
    """The reason alone, in words."""
    return text(f"reason.{problem.reason}", lang, detail=problem.detail)


def rejects_paths(source: Path, chosen: str | None, *, several: bool = False) -> tuple[Path, ...]:
    """Where the bad rows of a file go: beside it, or where `chosen` says (`several`: one of them for each file); a
    workbook goes beside a CSV. Raises Refused FN-2314 when that would be the file itself."""
    first = source.with_name(f"{source.stem}.rejects.csv")
    if chosen:
        first = Path(chosen)
        first = first.with_name(f"{first.stem}-{source.stem}{first.suffix}") if several else first
    paths = (first, first.with_suffix(".xlsx")) if first.suffix.lower() == ".csv" else (first,)
    if source.resolve() in [path.resolve() for path in paths]:
        raise Refused("FN-2314", path=str(source))
    return paths


class Rejects:
    """Writes refused rows to `paths` (`.xlsx`: a workbook, anything else: CSV). `headers`, `columns`: as of the
    source."""

    def __init__(
        self, paths: Sequence[Path], dataset: Dataset, headers: Sequence[str], columns: Sequence[str], lang: str
    ) -> None:
        self.paths, self.dataset, self.lang = tuple(paths), dataset, lang
        self.headers, self.columns = list(headers), list(columns)
        self.count = 0
        self._drafts: list[Draft] = []
        self._files: list[IO[str]] = []
        self._tables: list[Any] = []
        self._books: list[Book] = []

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, number: int, cells: Sequence[str], problems: Sequence[Problem]) -> None:
        """One refused row."""
        try:
            if not self.count:
                self._open()
            self.count += 1
            fields = "; ".join(dict.fromkeys(self._title(one.field) for one in problems if one.field))
            reasons = "; ".join(problem_text(one, self.dataset, self.lang) for one in problems)
            for table in self._tables:
                table.writerow([number, fields, reasons, *(quoted(cell) for cell in cells)])
            bad = {one.field for one in problems}
            for book in self._books:
                book.add([str(number), fields, reasons], cells, self.columns, bad)
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> StoreError:
        """Nothing is left of what was written; whatever calls `close` now finds nothing to do."""
        drafts, books, files = self._drafts, self._books, self._files
        self._drafts, self._books, self._files, self._tables = [], [], [], []
        for file in files:
            with contextlib.suppress(OSError):
                file.close()
        for draft in drafts:
            draft.discard()
        for book in books:
            book.discard()
        return StoreError("FN-7301", path=", ".join(map(str, self.paths)), reason=str(error))

    def _title(self, code: str) -> str:
        field = self.dataset.field(code)
        return code if field is None else (field.zh if self.lang == "zh" else field.en)

    def _open(self) -> None:
        ours = [text(f"rejects.{name}", self.lang) for name in ("row", "field", "reason")]
        for path in self.paths:
            if path.suffix.lower() == ".xlsx":
                # openpyxl costs every start of the program 80 ms and 15 MiB, and is needed only here
                from fednode.node.ingest.rejects_book import Book

                self._books.append(Book(path, self.dataset.name, [*ours, *self.headers]))
            else:
                # `utf-8-sig`: without the mark Excel reads UTF-8 as the system's own encoding
                self._drafts.append(Draft(path))
                file = io.TextIOWrapper(self._drafts[-1].file, encoding="utf-8-sig", newline="", write_through=True)
                self._files.append(file)
                table = csv.writer(file)
                table.writerow([*ours, *self.headers])
                self._tables.append(table)

    def close(self) -> None:
        """Write everything out."""
        try:
            for file, draft in zip(self._files, self._drafts, strict=True):
                file.flush()
                draft.commit()
            for book in self._books:
                book.save()
        except OSError as error:
            raise self._trouble(error) from error
        self._files, self._drafts, self._tables, self._books = [], [], [], []


def quoted(cell: str) -> str:
    """A cell of CSV that no program takes for a formula: what begins like one gets a tab in front."""
    return "\t" + cell if cell.startswith(_FORMULA) and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    return cell[1:].replace(".", "", 1).replace(",", "").isdigit()
