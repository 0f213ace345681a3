"""Tables for people's own tools, as files: CSV that Excel reads as it should, or a workbook.

Rules
1. Cells are values: a text that begins like a formula stays a text (in CSV with a tab in front, as in the rejects).
2. CSV is UTF-8 with a mark in front, without which Excel reads it as the system's own encoding. A workbook is written
   row by row, openpyxl keeps the rows in a temporary file; what a sheet cannot hold goes on in the next.
3. The file is whole or not there.

>>> # write_csv(path, ["area", "records"], [("1301", 7)]); write_xlsx(path, "coverage", ["area"], rows)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fednode.node.files import Draft, spooled
from fednode.node.ingest.rejects import quoted
from fednode.sync.errors import StoreError

SHEET_ROWS_MAX = 1_000_000  # Excel's own limit is 1,048,576
TITLE_CHARACTERS_MAX = 24  # 31 with a number behind
Cell = str | int | float | None
Rows = Iterable[Sequence[Cell]]


def write_csv(path: Path, heads: Sequence[str], rows: Rows) -> int:
    """Write a CSV file, over one that is there. Returns the number of rows. Raises StoreError FN-7302."""
    count = 0
    draft = None
    try:
        draft = Draft(path)
        file = io.TextIOWrapper(draft.file, encoding="utf-8-sig", newline="", write_through=True)
        table = csv.writer(file)
        table.writerow(heads)
        for row in rows:
            table.writerow([quoted(cell) if isinstance(cell, str) else cell for cell in row])
            count += 1
        file.flush()
        draft.commit()
    except OSError as error:
        if draft is not None:
            draft.discard()
        raise StoreError("FN-7302", path=str(path), reason=str(error)) from error
    return count


def write_xlsx(path: Path, title: str, heads: Sequence[str], rows: Rows, limit: int = SHEET_ROWS_MAX) -> int:
    """Write a workbook, over one that is there; `limit`: rows of a sheet. Returns the number of rows. Raises StoreError
    FN-7302."""
    try:
        return spooled(path, lambda whole: _fill(whole, title[:TITLE_CHARACTERS_MAX], heads, iter(rows), limit))
    except OSError as error:
        raise StoreError("FN-7302", path=str(path), reason=str(error)) from error


def _fill(whole: Any, title: str, heads: Sequence[str], rows: Iterator[Sequence[Cell]], limit: int) -> int:
    # openpyxl costs every start of the program 80 ms and 15 MiB, and is needed only here
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Font

    book = Workbook(write_only=True)
    bold = Font(bold=True)
    count = number = 0
    more: list[Sequence[Cell]] = []
    while number == 0 or more:
        number += 1
        sheet: Any = book.create_sheet(title if number == 1 else f"{title} {number}")
        sheet.freeze_panes = "A2"
        top = [WriteOnlyCell(sheet, value=head) for head in heads]
        for one in top:
            one.font = bold
        sheet.append(top)
        for row in chain(more, islice(rows, limit - len(more))):
            cells: list[Any] = [
                ILLEGAL_CHARACTERS_RE.sub("\ufffd", cell) if isinstance(cell, str) else cell for cell in row
            ]
            for i, cell in enumerate(cells):
                if isinstance(cell, str) and cell.startswith("="):
                    cells[i] = WriteOnlyCell(sheet, value=cell)
                    cells[i].data_type = "s"
            sheet.append(cells)
            count += 1
        more = list(islice(rows, 1))
    book.save(whole)
    return count
