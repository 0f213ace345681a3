"""Which column holds which field.

Rules
1. Headers are compared without width, case, spaces, stars and underscores; a note in brackets may be left out
   (`许可决定日期（YYYY/MM/DD）`). Code, Chinese title, English title and aliases all serve.
2. What the caller maps by hand wins; `-` leaves a column out.
3. A header that begins with `#` is ours (the rejects file) and is not read.
4. Two columns for one field are refused, and so is a required field without one: both with what to do.

>>> normal("＊许可决定日期 （YYYY/MM/DD）")
'许可决定日期(yyyy/mm/dd)'
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from fednode.sync.catalog import Dataset
from fednode.sync.errors import Refused

LEAVE_OUT = "-"
OURS = "#"
HEADER_ROWS_MAX = 20  # a table may have a title and notes above its header
SHOWN_MAX = 8
_BRACKETS = str.maketrans("[]【】〔〕{}", "()()()()")
_NOISE = re.compile(r"[\s_*:'\"\u200b\ufeff-]")
_NOTE = re.compile(r"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class Columns:
    """`codes`: the field of each column, "" for one that is not read; `unknown`: headers that name no field."""

    codes: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def matched(self) -> int:
        return sum(bool(code) for code in self.codes)


def normal(header: str) -> str:
    """A header as it is compared."""
    plain = unicodedata.normalize("NFKC", header.translate(_BRACKETS)).casefold()
    return _NOISE.sub("", plain)


class Matcher:
    """Finds the fields of one dataset. `mapping`: header -> code or title, by hand."""

    def __init__(self, dataset: Dataset, mapping: Mapping[str, str] | None = None) -> None:
        self.dataset = dataset
        self._names: dict[str, str] = {}
        for field in dataset.fields:
            for name in (field.code, field.zh, field.en, *field.aliases):
                self._names.setdefault(normal(name), field.code)
        self._loose = {_NOTE.sub("", name): code for name, code in reversed(list(self._names.items()))}
        self._mapping = {normal(header): self._target(header, name) for header, name in (mapping or {}).items()}
        self._mapped = dict(mapping or {})

    def _target(self, header: str, name: str) -> str:
        if name == LEAVE_OUT:
            return ""
        code = self._names.get(normal(name))
        if code is None:
            near = get_close_matches(normal(name), self._names, 1, 0.4)
            nearest = self._names[near[0]] if near else self.dataset.fields[0].code
            raise Refused("FN-2311", header=header, code=name, dataset=self.dataset.name, nearest=nearest)
        return code

    def code(self, header: str) -> str | None:
        """The field that a header names: "" for one that is to be left out, None for one that is not known."""
        name = normal(header)
        if name in self._mapping:
            return self._mapping[name]
        if not name or name.startswith(OURS):
            return ""
        found = self._names.get(name)
        return found if found is not None else self._loose.get(_NOTE.sub("", name))

    def match(self, headers: Sequence[str]) -> Columns:
        """The columns of a row, taken as the header."""
        codes = [self.code(header) for header in headers]
        unknown = tuple(header for header, code in zip(headers, codes, strict=True) if code is None)
        return Columns(tuple(code or "" for code in codes), unknown)

    def check(self, headers: Sequence[str], columns: Columns, where: str) -> None:
        """Raises Refused FN-2310, FN-3304, FN-3305, FN-3306."""
        there = {normal(header) for header in headers}
        for header in self._mapped:
            if normal(header) not in there:
                raise Refused("FN-2310", header=header, path=where, headers=_shown(headers))
        if not columns.matched:
            raise Refused("FN-3304", path=where, headers=_shown(headers), wanted=_shown(self._titles(())))
        seen: dict[str, str] = {}
        for header, code in zip(headers, columns.codes, strict=True):
            if code and code in seen:
                raise Refused("FN-3306", path=where, first=seen[code], second=header, field=self._title(code))
            seen[code] = header
        missing = [field for field in self.dataset.fields if field.required and field.code not in seen]
        if missing:
            first = missing[0]
            near = self._nearest(first.code, columns.unknown)
            titles = _shown(self._titles([field.code for field in missing]))
            example = f'--map "{near or headers[-1]}={first.code}"'
            raise Refused("FN-3305", path=where, missing=titles, nearest=near or "-", example=example)

    def _nearest(self, code: str, unknown: Sequence[str]) -> str:
        """The header, of those that are not known, that looks most like the field."""
        names = [name for name, of in self._names.items() if of == code]
        by_name = {normal(header): header for header in unknown}
        for name in names:
            close = get_close_matches(name, by_name, 1, 0.3)
            if close:
                return by_name[close[0]]
        return ""

    def _title(self, code: str) -> str:
        field = self.dataset.field(code)
        return f"{field.zh} ({code})" if field is not None else code

    def _titles(self, codes: Sequence[str]) -> list[str]:
        return [self._title(field.code) for field in self.dataset.fields if not codes or field.code in codes]


def _shown(names: Sequence[str]) -> str:
    """A few names, for a message."""
    shown = [name for name in names if name.strip()][:SHOWN_MAX]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
