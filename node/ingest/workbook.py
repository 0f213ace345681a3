"""Workbooks (XLSX, XLS): cells as text, and the cells that cannot be trusted.

Rules
1. Values are read by calamine: what Excel last computed and showed. The XML is looked through once more for what that
   hides: formulas that were never computed, and error values.
2. A merged cell has one value and covers several: in rows of data that is ambiguous, so every row it touches is
   refused.
3. Numbers are as a spreadsheet shows them, 15 digits at most; a longer one has lost its end, and shows it (`9.1E+17`).
4. What the archive claims to unpack to is checked before anything is unpacked.

>>> cell_text(45356.0), cell_text(0.1 + 0.2), cell_text(911301000000000000.0)
('45356', '0.3', '9.11301000000000E+17')
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from fednode.sync.errors import Refused
from fednode.sync.formats import DIGITS_MAX, Problem

MAGICS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
UNPACKED_BYTES_MAX = 400 * 1024 * 1024
MERGED_ROWS_MAX = 1_000_000
CHUNK_BYTES = 1024 * 1024
# What zipfile, its decompressors and the XML readers raise for damaged bytes (found by fuzzing)
_BROKEN: tuple[type[Exception], ...] = (
    *(CalamineError, zipfile.BadZipFile, ElementTree.ParseError, expat.ExpatError, KeyError, ValueError, EOFError),
    *(NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError, struct.error, OSError),
)
_REL = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SUSPECT = re.compile(rb"<(?:\w+:)?f[\s/>]|t=[\"']e[\"']")
_OVERLAP = 16
_PLACE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")


def cell_text(value: Any) -> str | None:
    """A cell as text, as a spreadsheet shows it; None for what no cell can hold (lists, tables)."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if abs(value) >= 10**DIGITS_MAX:
            return format(value, ".14E")
        return str(int(value)) if value.is_integer() else format(Decimal(f"{value:.15g}"), "f")
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    return None if isinstance(value, list | dict) else str(value)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever the readers raise about a broken workbook, as Refused."""
    try:
        yield
    except PasswordError as error:
        raise Refused("FN-3312", path=str(path)) from error
    except _BROKEN as error:
        raise Refused("FN-3310", path=str(path), reason=str(error)[:200]) from error
    # calamine is Rust: what it did not foresee comes as a panic, which Python sees as a BaseException of its own
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise Refused("FN-3310", path=str(path), reason=str(error)[:200]) from error
        raise


@dataclass(slots=True)
class Sheet:
    """One sheet of a workbook. `part`: its XML in the archive, "" for XLS."""

    path: Path
    format: str
    name: str
    part: str
    _sheet: CalamineSheet

    @classmethod
    def open(cls, path: Path, wanted: str = "") -> Sheet:
        """The sheet of that name, or the first that is visible and not empty. Raises Refused FN-2313, FN-3307, FN-3310,
        FN-3312, FN-3313."""
        with _reading(path):
            parts = _parts(path)
            book = CalamineWorkbook.from_path(str(path))
            if wanted and wanted not in book.sheet_names:
                raise Refused("FN-2313", path=str(path), sheet=wanted, sheets=", ".join(book.sheet_names[:20]))
            for one in book.sheets_metadata:
                if wanted and one.name != wanted:
                    continue
                if not wanted and (one.visible != SheetVisibleEnum.Visible or one.typ != SheetTypeEnum.WorkSheet):
                    continue
                sheet = book.get_sheet_by_name(one.name)
                if wanted or sheet.height:
                    form = "xls" if parts is None else "xlsx"
                    return cls(path, form, one.name, (parts or {}).get(one.name, ""), sheet)
        raise Refused("FN-3307", path=str(path))

    @property
    def height(self) -> int:
        return self._sheet.total_height

    def rows(self, limit: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """(row number, cells) from the first row of the sheet on, every column from A."""
        start = self._sheet.start
        before = [""] * (start[1] if start else 0)
        with _reading(self.path):
            for number, cells in enumerate(self._sheet.iter_rows(), 1):
                if limit is not None and number > limit:
                    return
                yield number, before + [cell_text(cell) or "" for cell in cells]

    def broken_cells(self, header_row: int, codes: Sequence[str]) -> dict[int, list[Problem]]:
        """Row number -> what is wrong with its cells, for the columns that are read."""
        broken: dict[int, list[Problem]] = {}
        with _reading(self.path):
            self._merged(header_row, codes, broken)
            for row, column, reason in self._suspects():
                if row > header_row and column < len(codes) and codes[column]:
                    broken.setdefault(row, []).append(Problem(codes[column], reason, "", place(row, column)))
        return broken

    def _merged(self, header_row: int, codes: Sequence[str], broken: dict[int, list[Problem]]) -> None:
        touched = 0
        for (top, left), (bottom, right) in self._sheet.merged_cell_ranges or ():
            code = next((one for one in codes[left : right + 1] if one), "")
            if not code:
                continue
            name = f"{place(top + 1, left)}:{place(bottom + 1, right)}"
            for row in range(max(top + 1, header_row + 1), min(bottom + 1, self.height) + 1):
                touched += 1
                if touched > MERGED_ROWS_MAX:
                    raise Refused("FN-3313", path=str(self.path), limit=MERGED_ROWS_MAX)
                broken.setdefault(row, []).append(Problem(code, "merged", "", name))

    def _suspects(self) -> Iterator[tuple[int, int, str]]:
        """(row, column from 0, reason) of formulas without a value and of error values."""
        if not self.part:
            return
        with zipfile.ZipFile(self.path) as archive:
            with archive.open(self.part) as stream:
                if not _has_suspects(stream):
                    return
            with archive.open(self.part) as stream:
                scan = _Scan()
                while chunk := stream.read(CHUNK_BYTES):
                    scan.parser.Parse(chunk, False)
                    yield from scan.found
                    scan.found.clear()
                scan.parser.Parse(b"", True)
                yield from scan.found


def place(row: int, column: int) -> str:
    """The name of a cell: `B3` for row 3, column 1 (counted from 0)."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return f"{letters}{row}"


def _parts(path: Path) -> dict[str, str] | None:
    """Sheet name -> its part of the archive; None for a workbook that is no archive (XLS)."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        total = sum(one.file_size for one in archive.infolist())
        if total > UNPACKED_BYTES_MAX:
            raise Refused("FN-3314", path=str(path), size=total, limit=UNPACKED_BYTES_MAX)
        names = set(archive.namelist())
        if "xl/workbook.xml" not in names:
            return {}  # another office format: calamine reads it, nothing is known of its formulas
        # expat (2.4 and later) limits what entities expand to, and the total was checked above
        relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
        listed = ElementTree.fromstring(archive.read("xl/workbook.xml"))  # noqa: S314
        targets = {one.get("Id", ""): one.get("Target", "") for one in relations}
        parts = {}
        for one in listed.iter():
            if one.tag.endswith("}sheet"):
                target = targets.get(one.get(_REL, ""), "")
                part = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
                if part in names:
                    parts[one.get("name", "")] = part
        return parts


def _has_suspects(stream: Any) -> bool:
    """Whether a sheet has any formula or error at all: most have not, and need no second look."""
    tail = b""
    while chunk := stream.read(CHUNK_BYTES):
        if _SUSPECT.search(tail + chunk):
            return True
        tail = chunk[-_OVERLAP:]
    return False


class _Scan:
    """Walks the XML of a sheet and notes the cells that have a formula without a value, or an error."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._data
        self.found: list[tuple[int, int, str]] = []
        self._row, self._column = 0, -1
        self._formula = self._value = self._in_value = False
        self._kind = ""

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "row":
            self._row, self._column = int(attributes.get("r") or self._row + 1), -1
        elif tag == "c":
            match = _PLACE.fullmatch(attributes.get("r", ""))
            if match is None:
                self._column += 1
            else:
                self._column, self._row = _column(match[1]), int(match[2])
            self._formula = self._value = False
            self._kind = attributes.get("t", "")
        elif tag == "f":
            self._formula = True
        elif tag == "v":
            self._in_value = True

    def _end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "v":
            self._in_value = False
        elif tag == "c":
            if self._kind == "e":
                self.found.append((self._row, self._column, "formula_error"))
            elif self._formula and not self._value and self._kind != "str":  # an empty text is a value
                self.found.append((self._row, self._column, "formula"))

    def _data(self, _: str) -> None:
        if self._in_value:
            self._value = True


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1
