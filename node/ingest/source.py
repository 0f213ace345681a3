"""A file of records as a stream of rows, whatever its format.

Rules
1. The first bytes tell the format, not the name: a workbook that is called `.csv` is read as the workbook it is.
2. Rows are (number, cells, problems). Numbers count as a spreadsheet does, from 1, header and titles included. Cells
   are as many as the columns. Empty rows are passed over.
3. Opening reads the header and refuses what cannot be imported at all (FN-33xx); reading rows raises only for a file
   that is broken in the middle (FN-3309).

>>> # for number, cells, problems in open_source(path, dataset).rows(): ...
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from fednode.node.ingest import workbook
from fednode.node.ingest.headers import HEADER_ROWS_MAX, Columns, Matcher
from fednode.node.ingest.text import LINE_BYTES_MAX, Encoding, detect
from fednode.sync.catalog import Dataset
from fednode.sync.errors import Refused
from fednode.sync.formats import Problem

Row = tuple[int, list[str], tuple[Problem, ...]]
DELIMITERS = (",", "\t", ";", "|")


@dataclass(slots=True)
class Source:
    """An opened file. `columns`: the field of each cell; `unknown`: headers that name no field; `size` and
    `position()`: for a progress bar, in bytes or in rows."""

    path: Path
    format: str
    encoding: str
    delimiter: str
    sheet: str
    headers: tuple[str, ...]
    columns: tuple[str, ...]
    unknown: list[str]
    header_row: int
    size: int
    _rows: Callable[[Source], Iterator[Row]] = field(repr=False)
    done: int = 0

    def sha256(self) -> str:
        """Of the whole file, in hex: what the audit names it by."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def rows(self) -> Iterator[Row]:
        """The rows below the header, from the start."""
        self.done = 0
        return self._rows(self)


def open_source(
    path: Path,
    dataset: Dataset,
    mapping: Mapping[str, str] | None = None,
    *,
    encoding: str = "",
    delimiter: str = "",
    sheet: str = "",
) -> Source:
    """Look at a file, find its header. Raises Refused FN-231x, FN-33xx."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        size = path.stat().st_size
    except OSError as error:
        raise Refused("FN-3300", path=str(path), reason=error.strerror or str(error)) from error
    matcher = Matcher(dataset, mapping)
    if head.startswith(workbook.MAGICS):
        return _workbook(path, matcher, sheet)
    if not head.strip():
        raise Refused("FN-3307", path=str(path))
    found = detect(path, encoding)
    start = head.decode(found.codec, "ignore").lstrip("\ufeff \t\r\n")
    if start.startswith(("{", "[")):
        return _json_lines(path, matcher, found, size)
    return _table(path, matcher, found, size, delimiter)


# ---------------------------------------------------------------- CSV and TSV


def _open_text(path: Path, encoding: Encoding) -> IO[str]:
    return path.open("r", encoding=encoding.codec, newline="", buffering=1024 * 1024)


def _table(path: Path, matcher: Matcher, encoding: Encoding, size: int, delimiter: str) -> Source:
    best: tuple[int, int, list[str], Columns, str] | None = None
    for candidate in (delimiter,) if delimiter else DELIMITERS:
        with _open_text(path, encoding) as file:
            for number, cells in enumerate(_csv(path, file, candidate), 1):
                columns = matcher.match(cells)
                if best is None or columns.matched > best[3].matched:
                    best = (number, len(cells), cells, columns, candidate)
                if number == HEADER_ROWS_MAX:
                    break
    if best is None:
        raise Refused("FN-3307", path=str(path))
    header_row, width, headers, columns, chosen = best
    matcher.check(headers, columns, str(path))

    def rows(source: Source) -> Iterator[Row]:
        with closing(_open_text(path, encoding)) as file:
            # `tell` of the text layer is slow; the layer below is ahead by its buffer at most
            raw = getattr(file, "buffer", file)
            for number, cells in enumerate(_csv(path, file, chosen), 1):
                if number <= header_row:
                    continue
                if not number % 1024:
                    source.done = raw.tell()
                if len(cells) == width:
                    if any(cells):
                        yield number, cells, ()
                elif any(cells):
                    yield _ragged(number, cells, width)
            source.done = source.size

    name = "tsv" if chosen == "\t" else "csv"
    return Source(
        path,
        name,
        encoding.label,
        chosen,
        "",
        tuple(headers),
        columns.codes,
        list(columns.unknown),
        header_row,
        size,
        rows,
    )


def _csv(path: Path, file: IO[str], delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(file, delimiter=delimiter)
    try:
        yield from reader
    except csv.Error as error:  # a quote that is never closed swallows lines until the limit of a cell
        raise Refused("FN-3309", path=str(path), line=reader.line_num, reason=str(error)) from error


def _ragged(number: int, cells: list[str], width: int) -> Row:
    extra = [cell for cell in cells[width:] if cell.strip()]
    fitted = (cells + [""] * width)[:width]
    return number, fitted, (Problem("", "extra_cells", extra[0], str(width)),) if extra else ()


# ---------------------------------------------------------------- JSON Lines


def _json_lines(path: Path, matcher: Matcher, encoding: Encoding, size: int) -> Source:
    codes = tuple(one.code for one in matcher.dataset.fields)
    titles = tuple(one.code for one in matcher.dataset.fields)
    place = {code: i for i, code in enumerate(codes)}
    with closing(_open_text(path, encoding)) as file:
        first = next((line for line in file if line.strip()), "")
    if first.lstrip().startswith("["):
        raise Refused("FN-3311", path=str(path))
    known: dict[str, int | None] = {}
    names = list(_object(first) or {})
    found = matcher.match(names)
    if not found.matched:
        matcher.check(names, found, str(path))

    def rows(source: Source) -> Iterator[Row]:
        unknown = dict.fromkeys(source.unknown)
        with closing(_open_text(path, encoding)) as file:
            raw = getattr(file, "buffer", file)
            for number, line in enumerate(file, 1):
                if not number % 1024:
                    source.done = raw.tell()
                if not line.strip():
                    continue
                yield _json_row(number, line, matcher, place, known, unknown)
            source.unknown[:] = unknown
            source.done = source.size

    return Source(path, "jsonl", encoding.label, "", "", titles, codes, list(found.unknown), 0, size, rows)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return value if isinstance(value, dict) else None


def _json_row(
    number: int,
    line: str,
    matcher: Matcher,
    place: Mapping[str, int],
    known: dict[str, int | None],
    unknown: dict[str, None],
) -> Row:
    cells = [""] * len(place)
    value = _object(line)
    if value is None:
        return number, cells, (Problem("", "json", line.strip()[:200]),)
    problems: list[Problem] = []
    for name, one in value.items():
        if name not in known:
            code = matcher.code(name)
            known[name] = place[code] if code else None
            if code is None:
                unknown[name] = None
        index = known[name]
        if index is None:
            continue
        text = workbook.cell_text(one)
        if text is None or cells[index]:
            code = matcher.dataset.fields[index].code
            reason = "json_value" if text is None else "json_twice"
            problems.append(Problem(code, reason, name))
            continue
        cells[index] = text
    return number, cells, tuple(problems)


# ---------------------------------------------------------------- workbooks


def _workbook(path: Path, matcher: Matcher, sheet: str) -> Source:
    book = workbook.Sheet.open(path, sheet)
    best: tuple[int, Sequence[str], Columns] | None = None
    for number, cells in book.rows(HEADER_ROWS_MAX):
        columns = matcher.match(cells)
        if best is None or columns.matched > best[2].matched:
            best = (number, cells, columns)
    if best is None:
        raise Refused("FN-3307", path=str(path))
    header_row, headers, columns = best
    matcher.check(headers, columns, f"{path} [{book.name}]")
    broken = book.broken_cells(header_row, columns.codes)

    def rows(source: Source) -> Iterator[Row]:
        for number, cells in book.rows():
            source.done = number
            if number <= header_row:
                continue
            if any(cells) or number in broken:
                yield number, cells, tuple(broken.get(number, ()))

    return Source(
        path,
        book.format,
        "",
        "",
        book.name,
        tuple(headers),
        columns.codes,
        [one for one in columns.unknown if one],
        header_row,
        book.height,
        rows,
    )


__all__ = ["LINE_BYTES_MAX", "Row", "Source", "open_source"]
