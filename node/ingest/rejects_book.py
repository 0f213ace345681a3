"""The workbook of bad rows: every cell a text, the bad ones marked.

Rules
1. Written row by row; openpyxl keeps the rows in a temporary file, not in memory.
2. A text that begins with `=` stays a text. Characters that XML cannot hold become U+FFFD, which an import refuses.

>>> # book = Book(Path("bad.xlsx"), "shop", ["#row", "#field", "#reason", "Name"])
>>> # book.add(["2", "Name", "is required and empty"], [""], ["name"], {"name"}); book.save()
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.styles import Font, PatternFill

from fednode.node.files import spooled

ROWS_MAX = 1_000_000
CELL_CHARACTERS_MAX = 32_000  # Excel's own limit is 32,767
REASON_WIDTH = 60
_MARK = PatternFill("solid", fgColor="FFF2CC")


class Book:
    """One workbook with one sheet, to be saved at `path`."""

    def __init__(self, path: Path, title: str, headers: Sequence[str]) -> None:
        self.path, self._rows = path, 1
        self._book = Workbook(write_only=True)
        self._sheet: Any = self._book.create_sheet(title[:31])
        self._sheet.freeze_panes = "D2"
        self._sheet.column_dimensions["C"].width = REASON_WIDTH
        head = [self._cell(name) for name in headers]
        for one in head:
            one.font = Font(bold=True)
        self._sheet.append(head)

    def add(self, ours: Sequence[str], cells: Sequence[str], columns: Sequence[str], bad: set[str]) -> None:
        """One row: where and why, then the original cells; those of the fields in `bad` are marked."""
        if self._rows >= ROWS_MAX:
            return  # the CSV has them all
        self._rows += 1
        row = [self._cell(value) for value in ours]
        for i, value in enumerate(cells):
            cell = self._cell(value)
            if i < len(columns) and columns[i] and columns[i] in bad:
                cell.fill = _MARK
            row.append(cell)
        self._sheet.append(row)

    def save(self) -> None:
        """Put it in its place. Raises OSError."""
        spooled(self.path, self._book.save)

    def discard(self) -> None:
        """It is not wanted any more."""
        with contextlib.suppress(Exception):  # whatever openpyxl thinks of a book that is given up
            self._sheet.close()

    def _cell(self, value: str) -> Any:
        cell: Any = WriteOnlyCell(self._sheet, value=ILLEGAL_CHARACTERS_RE.sub("\ufffd", value)[:CELL_CHARACTERS_MAX])
        cell.data_type = "s"
        cell.number_format = "@"
        return cell
