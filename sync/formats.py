"""From the text of a cell to the value that is recorded: one canonical form for each type, or the reason why not. Pure.

Rules
1. What people type is taken (full-width digits, `2024年3月5日`, `1,234.50`, Excel's day numbers); what is recorded has
   one form: texts trimmed and NFC, dates `YYYY-MM-DD`, decimals without needless zeros, codes in capitals,
   enumerations by value.
2. An empty cell is an absent field. Nothing is guessed: what cannot be read is a `Problem`, with its reason.
3. A row is checked as a whole: each problem of each field, then what holds between fields (`not_before`). Its key is
   made of the key fields' values, `|` between them (`|` and `%` inside a value are written `%7C` and `%25`).
4. Fast enough for every record: cells repeat, so each field remembers what it has read (bounded).

>>> from fednode.sync.catalog import Field
>>> parse(Field("d", "日期", "Date", "date"), "2024年3月5日"), parse(Field("d", "日期", "Date", "date"), "45356")
('2024-03-05', '2024-03-05')
>>> parse(Field("n", "金额", "Amount", "decimal"), "０１，２３４．５０")
'1234.5'
>>> parse(Field("u", "代码", "Code", "uscc"), "911100006000373410").reason
'uscc_check'
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul

from stdnum.cn import uscc
from stdnum.exceptions import InvalidChecksum, InvalidLength

from fednode.sync.catalog import Dataset, Field

Value = str | int
Record = dict[str, Value]

MEMO_ENTRIES_MAX = 2_048  # for each field
MEMO_CELL_MAX = 64  # longer texts hardly repeat
YEAR_MIN, YEAR_MAX = 1900, 2199
DIGITS_MAX = 15  # what a spreadsheet keeps of a number
KEY_SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a cell is refused. `field` is its code, "" for the row as a whole; `reason` names the words for people
    (`reason.<name>` in node/messages), `detail` is what they mention."""

    field: str
    reason: str
    value: str = ""
    detail: str = ""


class _Bad(Exception):
    """Inside this module: the cell cannot be read."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


Parser = Callable[[str], Value | None]


class _Memo(dict[str, Value | None]):
    """What a field has read: cell -> value. A hit costs no call."""

    __slots__ = ("_parse", "_required")

    def __init__(self, field: Field) -> None:
        super().__init__()
        self._parse, self._required = parser_of(field), field.required

    def __missing__(self, cell: str) -> Value | None:
        value = self._parse(cell)
        if value is None and self._required:
            raise _Bad("required")
        if len(cell) <= MEMO_CELL_MAX and len(self) < MEMO_ENTRIES_MAX:
            self[cell] = value
        return value


# ---------------------------------------------------------------- rows


class RowValidator:
    """Reads rows of one dataset. `columns`: the code of the field in each cell, "" for a cell that is not read."""

    def __init__(self, dataset: Dataset, columns: Sequence[str]) -> None:
        self.dataset, self.columns = dataset, tuple(columns)
        place = {code: i for i, code in enumerate(columns) if code}
        fields = sorted((field for field in dataset.fields if field.code in place), key=lambda field: field.code)
        self._plan = [(field.code, _Memo(field), place[field.code]) for field in fields]
        self._missing = [
            Problem(field.code, "required") for field in dataset.fields if field.required and field.code not in place
        ]
        self._pairs = [(one.code, one.not_before) for one in dataset.fields if one.not_before]

    def __call__(self, cells: Sequence[str]) -> tuple[Record, str] | list[Problem]:
        """The record (fields in the order of their codes, as in canonical JSON) and its key, or what is wrong.
        `cells`: at least as many as `columns`."""
        if self._missing:
            return self._problems(cells)
        try:
            record = {code: value for code, memo, index in self._plan if (value := memo[cells[index]]) is not None}
        except _Bad:
            return self._problems(cells)
        for later, earlier in self._pairs:
            if str(record.get(later, "~")) < str(record.get(earlier, "")):
                return self._problems(cells)
        return record, key_of(self.dataset, record)

    def _problems(self, cells: Sequence[str]) -> list[Problem]:
        """Every problem of a row that has at least one."""
        found = list(self._missing)
        record: Record = {}
        for code, memo, index in self._plan:
            try:
                value = memo[cells[index]]
            except _Bad as bad:
                found.append(Problem(code, bad.reason, cells[index], bad.detail))
                continue
            if value is not None:
                record[code] = value
        for later, earlier in self._pairs:
            if str(record.get(later, "~")) < str(record.get(earlier, "")):
                found.append(Problem(later, "before", str(record[later]), str(record[earlier])))
        return found


def compile_dataset(dataset: Dataset, columns: Sequence[str] = ()) -> RowValidator:
    """The validator for rows with these columns (all fields, in catalog order, when none are given)."""
    return RowValidator(dataset, columns or [field.code for field in dataset.fields])


def key_of(dataset: Dataset, record: Mapping[str, Value]) -> str:
    """The key of a valid record."""
    return key_text([str(record.get(code, "")) for code in dataset.key])


def key_text(parts: Sequence[str]) -> str:
    """The values of the key fields as one text, the same for the same values only."""
    key = KEY_SEPARATOR.join(parts)
    if "%" in key or key.count(KEY_SEPARATOR) >= len(parts):
        return KEY_SEPARATOR.join(part.replace("%", "%25").replace(KEY_SEPARATOR, "%7C") for part in parts)
    return key


def parse(field: Field, cell: str) -> Value | Problem | None:
    """The value of one cell; None when it is empty."""
    try:
        return parser_of(field)(cell)
    except _Bad as bad:
        return Problem(field.code, bad.reason, cell, bad.detail)


# ---------------------------------------------------------------- one parser for each type


def parser_of(field: Field) -> Parser:
    """The function that reads a cell of this field (raises only inside this module)."""
    return _MAKERS[field.type](field)


# Control characters, lone surrogates, and what is not seen but turns, joins or splits text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff]")
_CONTROL_BUT_LINES = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_LOST = re.compile(r"[0-9](?:\.[0-9]+)?E\+[0-9]{1,3}", re.IGNORECASE)


def _make_text(field: Field) -> Parser:
    longest, lengths = field.max or max(field.lengths), frozenset(field.lengths)
    control = _CONTROL_BUT_LINES if field.lines else _CONTROL
    normalized, normalize = unicodedata.is_normalized, unicodedata.normalize

    def text(cell: str) -> str | None:
        value = cell.strip()
        if not value:
            return None
        if not value.isascii() and not normalized("NFC", value):
            value = normalize("NFC", value)
        if not value.isprintable() or "\ufffd" in value:
            value = value.replace("\r\n", "\n").replace("\r", "\n")
            found = control.search(value)
            if found is not None:
                raise _Bad("control", f"U+{ord(found.group()):04X}")
        if lengths and len(value) not in lengths:
            raise _Bad("length", " / ".join(map(str, sorted(lengths))))
        if len(value) > longest:
            raise _Bad("too_long", str(longest))
        if value[-3:-1] == "E+" or value[-4:-2] == "E+":
            _refuse_lost_digits(value)
        return value

    return text


def _refuse_lost_digits(value: str) -> None:
    """A long number that a spreadsheet has turned into 9.1E+17 is not what was typed."""
    if _LOST.fullmatch(value):
        raise _Bad("lost_digits")


def _plain(cell: str) -> str:
    """For everything but texts: full-width forms as ASCII, no space around."""
    return cell.strip() if cell.isascii() else unicodedata.normalize("NFKC", cell).strip()


def _squeezed(name: str) -> str:
    """An enumeration's names are compared without spaces, width and case."""
    return "".join(unicodedata.normalize("NFKC", name).split()).casefold()


def _make_enum(field: Field) -> Parser:
    values = {
        _squeezed(name): one.value
        for one in field.values
        for name in (one.zh, one.en, *one.aliases, one.value)  # the value itself last: it wins
        if name
    }
    known = ", ".join(f"{one.value} ({one.zh})" if one.zh else one.value for one in field.values)

    def enum(cell: str) -> str | None:
        name = _squeezed(cell)
        if not name:
            return None
        value = values.get(name)
        if value is None:
            raise _Bad("enum", known)
        return value

    return enum


# The code's own alphabet: no I, O, S, V, Z. A value of 31 or more marks a character that cannot stand there.
_USCC_ALPHABET = b"0123456789ABCDEFGHJKLMNPQRTUWXY"
_USCC_VALUES = bytes(_USCC_ALPHABET.index(i) if i in _USCC_ALPHABET else 31 for i in range(256))
_USCC_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28, 1)
_USCC_LENGTH = 18


def _make_uscc(_: Field) -> Parser:
    def code(cell: str) -> str | None:
        # The common case by hand, four times as fast; all else, and every refusal, is python-stdnum's word.
        if len(cell) == _USCC_LENGTH and cell.isascii() and cell[:8].isdigit():
            values = cell.encode().translate(_USCC_VALUES)
            if max(values) < 31 and sum(map(mul, _USCC_WEIGHTS, values)) % 31 == 0:
                return cell
        value = _plain(cell)
        if not value:
            return None
        _refuse_lost_digits(value)
        try:
            return str(uscc.validate(value))
        except InvalidLength:
            raise _Bad("uscc_length", str(len(uscc.compact(value)))) from None
        except InvalidChecksum:
            raise _Bad("uscc_check", uscc.calc_check_digit(uscc.compact(value)[:17])) from None
        except ValueError:  # ValidationError is one; so is what it raises for a line break among the digits
            raise _Bad("uscc_format") from None

    return code


_TIME = r"(?:[ T]?[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?"
_DATES = re.compile(
    r"([0-9]{4})(?:-([0-9]{1,2})-([0-9]{1,2})|/([0-9]{1,2})/([0-9]{1,2})|\.([0-9]{1,2})\.([0-9]{1,2})"
    r"|\s?年\s?([0-9]{1,2})\s?月\s?([0-9]{1,2})\s?[日号]|([0-9]{2})([0-9]{2}))\s?" + _TIME
)
_SERIAL = re.compile(r"([1-9][0-9]{4})(?:\.[0-9]+)?")
_NO_END = frozenset(("长期", "长期有效", "永久", "永久有效", "无期限", "无固定期限"))
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_DAYS = frozenset(  # every year's
    f"{month:02}-{day:02}" for month, last in enumerate(_MONTH_DAYS, 1) for day in range(1, last + 1)
)


def _make_date(field: Field) -> Parser:
    no_end = field.no_end

    def date(cell: str) -> str | None:
        # The canonical form without an expression: dates differ too much to be remembered.
        year = cell[:4]
        if cell[5:] in _DAYS and cell[4] == "-" and "1900" <= year <= "2199" and year.isascii() and year.isdigit():
            return cell
        value = _plain(cell)
        if not value:
            return None
        match = _DATES.fullmatch(value)
        if match is not None:
            years, month, day = (int(part) for part in match.groups() if part is not None)
            if YEAR_MIN <= years <= YEAR_MAX and 1 <= month <= 12 and 1 <= day <= _days_in(years, month):
                return f"{years:04}-{month:02}-{day:02}"
            raise _Bad("date")
        match = _SERIAL.fullmatch(value)
        if match is not None:
            return from_serial(int(match[1]))
        if no_end and value in _NO_END:
            return no_end
        raise _Bad("date")

    return date


def _days_in(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _MONTH_DAYS[month - 1]


def from_serial(serial: int) -> str:
    """The date of Excel's day number (day 1 is 1900-01-01, and 1900 wrongly has a 29 February; here from day 61 on).

    Days to civil date after Howard Hinnant, "chrono-compatible low-level date algorithms"."""
    days = serial - 25_569 + 719_468  # Excel's number of 1970-01-01; days from 0000-03-01 to it
    era, day = divmod(days, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day_of_month = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    return f"{year + era * 400 + (month <= 2):04}-{month:02}-{day_of_month:02}"


_DECIMAL = re.compile(r"([+-]?)([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.([0-9]*))?")


def _make_decimal(field: Field) -> Parser:
    def decimal(cell: str) -> str | None:
        value = _plain(cell)
        if not value:
            return None
        match = _DECIMAL.fullmatch(value)
        if match is None:
            raise _Bad("decimal")
        sign, whole, fraction = match[1], match[2].replace(",", "").lstrip("0"), (match[3] or "").rstrip("0")
        if len(fraction) > field.places:
            raise _Bad("places", str(field.places))
        if len(whole) > DIGITS_MAX:
            raise _Bad("too_long", str(DIGITS_MAX))
        number = (whole or "0") + ("." + fraction if fraction else "")
        return "-" + number if sign == "-" and number != "0" else number

    return decimal


def _make_integer(_: Field) -> Parser:
    def integer(cell: str) -> int | None:
        value = _plain(cell)
        if not value:
            return None
        match = _DECIMAL.fullmatch(value)
        if match is None or (match[3] or "").strip("0"):
            raise _Bad("integer")
        digits = match[2].replace(",", "")
        if len(digits) > DIGITS_MAX:
            raise _Bad("too_long", str(DIGITS_MAX))
        return -int(digits) if match[1] == "-" else int(digits)

    return integer


AREA_LENGTHS = (2, 4, 6, 9, 12)


def _make_area(_: Field) -> Parser:
    def area(cell: str) -> str | None:
        value = _plain(cell)
        if not value:
            return None
        if len(value) not in AREA_LENGTHS or not (value.isascii() and value.isdigit()):
            raise _Bad("area")
        return canonical_area(value)

    return area


def canonical_area(code: str) -> str:
    """An area without the zeros that fill it up: 130100 and 130100000000 are 1301."""
    if len(code) == 12 and code.endswith("000"):
        code = code[:-6] if code.endswith("000000") else code[:-3]
    if len(code) == 6 and code.endswith("00"):
        code = code[:-4] if code.endswith("0000") else code[:-2]
    return code


_MAKERS: Mapping[str, Callable[[Field], Parser]] = {
    "text": _make_text,
    "enum": _make_enum,
    "uscc": _make_uscc,
    "date": _make_date,
    "decimal": _make_decimal,
    "integer": _make_integer,
    "area": _make_area,
}
