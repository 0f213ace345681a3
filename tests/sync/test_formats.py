"""From cells to values: each type, each reason, whole rows, keys."""

from __future__ import annotations

import unicodedata
from datetime import date

import msgspec
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum.cn import uscc

import sample_data
from fednode.node import shipped
from fednode.node.ingest import problem_text
from fednode.node.messages import catalogue
from fednode.sync.catalog import Dataset, EnumValue, Field
from fednode.sync.formats import (
    MEMO_ENTRIES_MAX,
    Problem,
    canonical_area,
    compile_dataset,
    from_serial,
    key_text,
    parse,
)

TEXT = Field("t", "文", "Text", "text", max=10)
LINES = Field("t", "文", "Text", "text", max=10, lines=True)
DATE = Field("d", "日", "Date", "date")
OPEN_DATE = Field("d", "日", "Date", "date", no_end="2099-12-31")
DECIMAL = Field("n", "数", "Number", "decimal", places=6)
INTEGER = Field("i", "数", "Number", "integer")
AREA = Field("a", "区", "Area", "area")
USCC = Field("u", "码", "Code", "uscc")
NUMBER = Field("r", "号", "Number", "text", lengths=(13, 15))
STATE = Field(
    "s",
    "状态",
    "State",
    "enum",
    values=(EnumValue("1", "有效", "valid"), EnumValue("2", "无效", "not valid", aliases=("invalid",))),
)


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        (TEXT, "  石家庄 ", "石家庄"),
        (TEXT, "\u3000\t", None),
        (TEXT, "é", "é"),
        (TEXT, "十" * 10, "十" * 10),
        (LINES, "一\r\n二\r三", "一\n二\n三"),
        (TEXT, "1E+1x", "1E+1x"),
        (NUMBER, "1234567890123", "1234567890123"),
        *[(DATE, cell, "2024-03-05") for cell in ("2024/03/05", "2024-3-5", "20240305", "2024年3月5日", "2024.3.5")],
        *[(DATE, cell, "2024-03-05") for cell in ("45356", "45356.0", "2024年03月05号", "２０２４－０３－０５")],
        *[(DATE, cell, "2024-03-05") for cell in ("2024-03-05 00:00:00", "2024/3/5 14:23", "2024-03-05T08:00:00.000")],
        (DATE, "2024-02-29", "2024-02-29"),
        (OPEN_DATE, "长期", "2099-12-31"),
        (DECIMAL, "1,234.500000", "1234.5"),
        (DECIMAL, "０．５", "0.5"),
        (DECIMAL, "-0.000", "0"),
        (DECIMAL, "+007", "7"),
        (DECIMAL, "5.", "5"),
        (DECIMAL, "0.123456", "0.123456"),
        (INTEGER, "1,000", 1000),
        (INTEGER, "12.0", 12),
        (INTEGER, "-3", -3),
        (AREA, "130102001001", "130102001001"),
        (AREA, "130100000000", "1301"),
        (USCC, " 91110000600037341l ", "91110000600037341L"),
        (USCC, "９１１１００００６０００３７３４１Ｌ", "91110000600037341L"),
        (STATE, "1", "1"),
        (STATE, "有效", "1"),
        (STATE, "Not Valid", "2"),
        (STATE, "ＩＮＶＡＬＩＤ", "2"),
        (STATE, "", None),
    ],
)
def test_what_is_read(field: Field, cell: str, value: object) -> None:
    assert parse(field, cell) == value


@pytest.mark.parametrize(
    ("field", "cell", "reason", "detail"),
    [
        (TEXT, "十" * 11, "too_long", "10"),
        (TEXT, "a\nb", "control", "U+000A"),
        (TEXT, "a\x00b", "control", "U+0000"),
        (LINES, "a\x1bb", "control", "U+001B"),
        (TEXT, "a\u202eb", "control", "U+202E"),
        (TEXT, "a\ufffdb", "control", "U+FFFD"),
        (TEXT, "a\ud800b", "control", "U+D800"),
        (TEXT, "9.11E+17", "lost_digits", ""),
        (NUMBER, "12345678901234", "length", "13 / 15"),
        (DATE, "2023-02-29", "date", ""),
        (DATE, "2024-13-01", "date", ""),
        (DATE, "2024-04-31", "date", ""),
        (DATE, "1899-12-31", "date", ""),
        (DATE, "2200-01-01", "date", ""),
        (DATE, "5/3/2024", "date", ""),
        (DATE, "长期", "date", ""),
        (DATE, "2024-03/05", "date", ""),
        (DECIMAL, "0.1234567", "places", "6"),
        (DECIMAL, "1,23", "decimal", ""),
        (DECIMAL, "一百", "decimal", ""),
        (DECIMAL, "1e3", "decimal", ""),
        (DECIMAL, "1" * 16, "too_long", "15"),
        (INTEGER, "1.5", "integer", ""),
        (INTEGER, "1" * 16, "too_long", "15"),
        (AREA, "13010", "area", ""),
        (AREA, "1301AB", "area", ""),
        (USCC, "911100006000373410", "uscc_check", "L"),
        (USCC, "9111000060003734", "uscc_length", "16"),
        (USCC, "A11100006000373410", "uscc_format", ""),
        (USCC, "91110000600O373410", "uscc_format", ""),
        (USCC, "9.11E+17", "lost_digits", ""),
        (STATE, "3", "enum", "1 (有效), 2 (无效)"),
    ],
)
def test_what_is_refused(field: Field, cell: str, reason: str, detail: str) -> None:
    problem = parse(field, cell)
    assert problem == Problem(field.code, reason, cell, detail)
    assert f"reason.{reason}" in catalogue()
    for lang in ("en", "zh"):
        assert "{" not in problem_text(problem, None, lang)


@settings(max_examples=300)
@given(st.text("0123456789ABCDEFGHJKLMNPQRTUWXYIOSVZa", min_size=17, max_size=19))
def test_the_fast_way_agrees_with_python_stdnum(code: str) -> None:
    for candidate in (code, "91130102" + code[8:18]):
        value = parse(USCC, candidate)
        if uscc.is_valid(candidate):
            assert value == uscc.validate(candidate)
        else:
            assert isinstance(value, Problem)


@given(st.text("0123456789ABCDEFGHJKLMNPQRTUWXY", min_size=9, max_size=9))
def test_valid_codes_are_taken(body: str) -> None:
    code = sample_data.code("130102", "91", body)
    assert parse(USCC, code) == code


@given(st.dates(date(1927, 5, 18), date(2173, 10, 13)))
def test_day_numbers_and_dates_agree_with_the_calendar(day: date) -> None:
    serial = (day - date(1899, 12, 30)).days
    assert from_serial(serial) == parse(DATE, str(serial)) == parse(DATE, day.isoformat()) == day.isoformat()
    assert parse(DATE, f"{day.year}年{day.month}月{day.day}日") == day.isoformat()


@given(st.text(max_size=30))
def test_texts_come_out_canonical_or_not_at_all(text: str) -> None:
    value = parse(Field("t", "文", "Text", "text", max=100, lines=True), text)
    if isinstance(value, str):
        assert value == value.strip() == unicodedata.normalize("NFC", value)
        assert parse(Field("t", "文", "Text", "text", max=100, lines=True), value) == value
        assert msgspec.json.encode({"t": value}) == rfc8785.dumps({"t": value})
    else:
        assert value is None or value.reason == "control"


@given(
    st.lists(st.text("a|%27C", max_size=4), min_size=3, max_size=3),
    st.lists(st.text("a|%27C", max_size=4), min_size=3, max_size=3),
)
def test_different_values_have_different_keys(one: list[str], other: list[str]) -> None:
    assert (key_text(one) == key_text(other)) == (one == other)


@pytest.mark.parametrize(
    ("code", "plain"),
    [("13", "13"), ("130000", "13"), ("130000000000", "13"), ("130102000000", "130102"), ("130102001000", "130102001")],
)
def test_areas_lose_the_zeros_that_fill_them_up(code: str, plain: str) -> None:
    assert canonical_area(code) == plain


# ---------------------------------------------------------------- rows


def dataset(name: str = "admin-licence") -> Dataset:
    return shipped.catalog().datasets[name]


@pytest.mark.parametrize("name", ["admin-licence", "admin-penalty", "org-registration"])
def test_sample_records_are_valid_and_canonical(name: str) -> None:
    declared = dataset(name)
    validate = compile_dataset(declared)
    codes = [field.code for field in declared.fields]
    keys = set()
    for row in sample_data.records(name, 300, seed=5):
        checked = validate([row.get(code, "") for code in codes])
        assert isinstance(checked, tuple), checked
        record, key = checked
        assert record == row
        assert msgspec.json.encode(record) == rfc8785.dumps(record)
        assert key == "|".join(row.get(code, "") for code in declared.key)
        keys.add(key)
    assert len(keys) == 300
    spoiled = [sample_data.spoil(declared, next(sample_data.records(name, 1, seed=6)), i) for i in range(7)]
    assert all(isinstance(validate([row.get(code, "") for code in codes]), list) for row in spoiled)


def test_the_same_seed_gives_the_same_file_and_another_shares_no_key() -> None:
    validate = compile_dataset(dataset(), [field.code for field in dataset().fields])

    def keys(seed: int) -> list[str]:
        rows = sample_data.records("admin-licence", 50, seed=seed)
        return [validate([row.get(code, "") for code in validate.columns])[1] for row in rows]  # type: ignore[misc]

    assert keys(1) == keys(1)
    assert not set(keys(1)) & set(keys(2))


def test_every_problem_of_a_row_is_named() -> None:
    columns = ["", "xk_yxqz", "xk_yxqzi", "xk_zt", "xk_xdr_mc"]
    validate = compile_dataset(dataset(), columns)
    problems = validate(["ignored", "2024-05-01", "2024-04-30", "9", " "])
    assert isinstance(problems, list)
    found = {(one.field, one.reason) for one in problems}
    assert {("xk_yxqzi", "before"), ("xk_zt", "enum"), ("xk_xdr_mc", "required"), ("xk_wsh", "required")} <= found
    assert Problem("xk_yxqzi", "before", "2024-04-30", "2024-05-01") in problems


def test_a_period_of_one_day_is_a_period() -> None:
    row = next(sample_data.records("admin-licence", 1, seed=1)) | {"xk_yxqz": "2024-05-01", "xk_yxqzi": "2024/5/1"}
    assert isinstance(compile_dataset(dataset(), list(row))(list(row.values())), tuple)


def test_what_a_field_remembers_is_bounded_and_changes_nothing() -> None:
    shop = Dataset(
        "s", "店", "Shop", ("n",), ("city",), ("city",), (Field("n", "名", "Name", "text", max=9, required=True),)
    )
    validate = compile_dataset(shop)
    for _ in range(2):
        for i in range(MEMO_ENTRIES_MAX + 10):
            assert validate([f" {i}"]) == ({"n": str(i)}, str(i))
    memo = validate._plan[0][1]
    assert len(memo) == MEMO_ENTRIES_MAX
    assert validate(["x" * 10]) == [Problem("n", "too_long", "x" * 10, "9")]
