"""Files as counties send them: encodings, headers, workbooks, JSON Lines, and the file of bad rows."""

from __future__ import annotations

import codecs
import csv
import random
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import openpyxl
import pytest

import sample_data
from fednode.node import shipped
from fednode.node.ingest import Rejects, Source, open_source, problem_text, text, workbook
from fednode.node.ingest.headers import Matcher
from fednode.node.ingest.rejects import rejects_paths
from fednode.node.messages import error_text
from fednode.sync.catalog import Dataset
from fednode.sync.errors import Refused
from fednode.sync.formats import Problem, compile_dataset

LICENCE = shipped.catalog().datasets["admin-licence"]
PENALTY = shipped.catalog().datasets["admin-penalty"]
ROWS = 40


def sample(path: Path, *, dataset: Dataset = LICENCE, bad: int = 0, **more: Any) -> Path:
    rows = sample_data.spoiled(dataset, sample_data.records(dataset.name, ROWS, seed=1), ROWS, bad)
    sample_data.write(path, dataset, rows, **more)
    return path


def valid(source: Source) -> int:
    validate = compile_dataset(LICENCE, source.columns)
    return sum(isinstance(validate(cells), tuple) and not problems for _, cells, problems in source.rows())


def refused(code: str, path: Path, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        list(open_source(path, LICENCE, **more).rows())
    assert caught.value.code == code
    for lang in ("en", "zh"):
        message, hint = error_text(caught.value, lang)
        assert "{" not in message.replace("jq", "") + hint
        assert hint, "and what to do"
    return caught.value


# ---------------------------------------------------------------- formats and encodings


@pytest.mark.parametrize(
    ("form", "encoding", "headers", "label"),
    [
        ("csv", "utf-8", "zh", "UTF-8"),
        ("csv", "utf-8-sig", "en", "UTF-8 with BOM"),
        ("csv", "gb18030", "zh", "GB18030"),
        ("csv", "utf-16", "zh", "UTF-16 LE with BOM"),
        ("tsv", "gb18030", "code", "GB18030"),
        ("jsonl", "utf-8", "zh", "UTF-8"),
        ("jsonl", "gb18030", "code", "GB18030"),
        ("xlsx", "utf-8", "zh", ""),
    ],
)
def test_each_format_and_encoding_gives_the_same_records(
    tmp_path: Path, form: str, encoding: str, headers: str, label: str
) -> None:
    source = open_source(sample(tmp_path / "x", form=form, encoding=encoding, headers=headers), LICENCE)
    assert (source.format, source.encoding, source.unknown) == (form, label, [])
    validate = compile_dataset(LICENCE, source.columns)
    records = [validate(cells)[0] for _, cells, problems in source.rows() if not problems]
    assert records == list(sample_data.records("admin-licence", ROWS, seed=1))
    assert source.done >= source.size
    assert valid(source) == ROWS, "a source can be read again"


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    sample(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file, (tmp_path / "b.txt").open("w", newline="") as out:
        csv.writer(out, delimiter=delimiter).writerows(csv.reader(file))
    source = open_source(tmp_path / "b.txt", LICENCE)
    assert source.delimiter == delimiter
    assert valid(source) == ROWS


def test_a_file_in_no_encoding_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("行政相對人名稱,統一社會信用代碼,許可機關\n".encode("big5"))
    refused("FN-3301", path)
    path.write_bytes("名称,代码\n".encode("utf-16-le"))
    refused("FN-3301", path)


def test_a_file_of_two_encodings_is_not_read_as_nonsense(tmp_path: Path) -> None:
    whole = sample(tmp_path / "x.csv").read_bytes()
    at = whole.index(b"\n", len(whole) // 2) + 1
    (tmp_path / "y.csv").write_bytes(whole[:at] + whole[at:].decode().encode("gb18030"))
    error = refused("FN-3303", tmp_path / "y.csv")
    assert error.params["line"] == whole[:at].count(b"\n") + 1
    assert at < int(error.params["offset"]) < at + 20
    (tmp_path / "z.csv").write_bytes(codecs.BOM_UTF8 + whole[:at] + b"\xff" + whole[at:])
    assert refused("FN-3303", tmp_path / "z.csv").params["offset"] == at + 3


def test_a_wrong_encoding_that_was_named(tmp_path: Path) -> None:
    utf8, gb = sample(tmp_path / "u.csv"), sample(tmp_path / "g.csv", encoding="gb18030")
    assert refused("FN-3302", utf8, encoding="gb18030").params["fits"] == "UTF-8"
    assert refused("FN-3302", gb, encoding="utf-8").params["fits"] == "GB18030"
    refused("FN-2312", gb, encoding="klingon")
    assert open_source(gb, LICENCE, encoding="GBK").encoding == "GB18030"


def test_a_character_across_two_chunks_is_one_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK_BYTES", 31)
    path = tmp_path / "x.csv"
    for encoding, label in (("utf-8", "UTF-8"), ("gb18030", "GB18030")):
        path.write_text("石家庄市长安\n建北街道\n" * 9, encoding=encoding)
        assert text.detect(path).label == label
    path.write_bytes("石家庄市长安\n".encode() * 5 + b"\xe7\x9f\n")
    with pytest.raises(Refused) as caught:
        text.detect(path)
    assert (caught.value.params["offset"], caught.value.params["line"]) == (19 * 5, 6)


def test_what_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    refused("FN-3300", path)
    for empty in (b"", b"\n \n"):
        path.write_bytes(empty)
        refused("FN-3307", path)
    path.write_bytes(b"x" * (2 * text.CHUNK_BYTES))
    refused("FN-3308", path)
    path.write_text('[{"名称": "x"}]')
    refused("FN-3311", path)


def test_a_quotation_mark_that_is_never_closed(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.csv")
    with path.open("a") as file:
        file.write('"' + "石家庄,\n" * 50_000)
    assert "limit" in str(refused("FN-3309", path).params["reason"])


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "header",
    [
        "许可决定日期",
        "*许可决定日期",
        " 许可 决定日期 ",
        "许可决定日期（YYYY/MM/DD）",
        "许可决定日期【必填】",
        "XK_JDRQ",
        "ｘｋ＿ｊｄｒｑ",
        "Date of the decision",
    ],
)
def test_headers_as_people_write_them(header: str) -> None:
    assert Matcher(LICENCE).code(header) == "xk_jdrq"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("罚款金额(万元)", "cf_nr_fk"),
        ("罚款金额", "cf_nr_fk"),
        ("没收金额（万元）", "cf_nr_wfff"),
        ("统一社会信用代码", "cf_xdr_shxym"),
        ("处罚机关统一社会信用代码", "cf_cfjgdm"),
        ("行政相对人代码_1(统一社会信用代码)", "cf_xdr_shxym"),
        ("行政相对人代码_3(组织机构代码)", None),
        ("#原因", ""),
        ("", ""),
    ],
)
def test_brackets_and_aliases(header: str, code: str | None) -> None:
    assert Matcher(PENALTY).code(header) == code


def edited(tmp_path: Path, **headers: str) -> Path:
    """The sample with some headers (by code) renamed."""
    path = sample(tmp_path / "x.csv", headers="code")
    first, _, rest = path.read_text().partition("\n")
    path.write_text(",".join(headers.get(code, code) for code in first.strip().split(",")) + "\n" + rest)
    return path


def test_titles_and_notes_above_the_header(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.csv")
    path.write_text("长安区行政许可公示表,,\n填报单位：行政审批局,,\n\n" + path.read_text())
    source = open_source(path, LICENCE)
    assert source.header_row == 4
    assert valid(source) == ROWS


def test_unknown_and_missing_headers(tmp_path: Path) -> None:
    path = edited(tmp_path, xk_xkjg="发证的机关", bz="经办人")
    error = refused("FN-3305", path)
    assert error.params["missing"] == "许可机关 (xk_xkjg)"
    assert error.params["nearest"] == "发证的机关"
    source = open_source(path, LICENCE, {"发证的机关": "xk_xkjg"})
    assert (source.unknown, valid(source)) == (["经办人"], ROWS)
    assert open_source(path, LICENCE, {"发证的机关": "许可机关", "经办人": "-"}).unknown == []


def test_mapping_by_hand_is_checked(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.csv")
    refused("FN-2310", path, mapping={"没有这列": "xk_wsh"})
    assert refused("FN-2311", path, mapping={"备注": "xk_ws"}).params["nearest"] == "xk_wsh"


def test_two_columns_for_one_field(tmp_path: Path) -> None:
    path = edited(tmp_path, bz="许可机关")
    refused("FN-3306", path)
    assert valid(open_source(edited(tmp_path, bz="许可机关"), LICENCE, {"许可机关": "-"})) == ROWS


def test_no_header_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("公司,代码\n甲,1\n")
    assert "公司, 代码" in refused("FN-3304", path).params["headers"]


# ---------------------------------------------------------------- rows


def test_rows_that_are_too_short_too_long_or_empty(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.csv", headers="code")
    lines = path.read_text().splitlines()
    lines[1] += ",多出的"
    lines[2] = lines[2].rstrip(",").rsplit(",", 1)[0]
    path.write_text("\n".join([*lines[:5], "", "," * 19, *lines[5:]]))
    rows = list(open_source(path, LICENCE).rows())
    assert rows[0][2] == (Problem("", "extra_cells", "多出的", "20"),)
    assert len(rows) == ROWS
    assert {len(cells) for _, cells, _ in rows} == {20}
    # empty rows are passed over, and counted as a spreadsheet counts them
    assert [number for number, _, _ in rows][:5] == [2, 3, 4, 5, 8]


def test_json_lines_one_by_one(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.jsonl", form="jsonl", headers="code")
    first = path.read_text().splitlines()[0]
    odd = [
        "{broken",
        "[1]",
        '{"xk_wsh": ["a"]}',
        '{"xk_wsh": "a", "行政许可决定文书号": "b"}',
        '{"xk_wsh": 12, "xk_zt": 1, "bz": null, "xk_xkbh": 0.5, "经办人": true}',
        "",
    ]
    path.write_text("\n".join([first, *odd, first]))
    source = open_source(path, LICENCE)
    rows = list(source.rows())
    assert [number for number, _, _ in rows] == [1, 2, 3, 4, 5, 6, 8]
    assert [problems[0].reason for _, _, problems in rows if problems] == ["json", "json", "json_value", "json_twice"]
    cells = dict(zip(source.columns, rows[5][1], strict=True))
    assert (cells["xk_wsh"], cells["xk_zt"], cells["bz"], cells["xk_xkbh"]) == ("12", "1", "", "0.5")
    assert source.unknown == ["经办人"]


# ---------------------------------------------------------------- workbooks


def book(path: Path, change: Any = lambda sheet: None, *, titles: int = 0) -> Path:
    sample(path, form="xlsx")
    made = openpyxl.load_workbook(path)
    sheet = made.active
    if titles:
        sheet.insert_rows(1, titles)
        sheet["A1"] = "长安区行政许可公示表"
        sheet.merge_cells("A1:T1")
    change(sheet)
    made.save(path)
    return path


def problems_of(path: Path) -> dict[int, list[tuple[str, str, str]]]:
    return {
        number: [(one.field, one.reason, one.detail) for one in problems]
        for number, _, problems in open_source(path, LICENCE).rows()
        if problems
    }


def test_a_merged_title_is_no_harm_and_merged_data_is_refused_row_by_row(tmp_path: Path) -> None:
    def merge(sheet: Any) -> None:
        sheet.merge_cells("O4:O6")
        sheet.merge_cells("A9:B9")

    path = book(tmp_path / "x.xlsx", merge, titles=1)
    source = open_source(path, LICENCE)
    assert source.header_row == 2
    assert problems_of(path) == {
        **{row: [("xk_xkjg", "merged", "O4:O6")] for row in (4, 5, 6)},
        9: [("xk_xdr_mc", "merged", "A9:B9")],
    }
    assert valid(source) == ROWS - 4


def test_formulas_count_by_their_value_and_without_one_are_refused(tmp_path: Path) -> None:
    def formulas(sheet: Any) -> None:
        sheet["K3"] = '="热食类"&"食品制售"'
        sheet["K4"] = "=1/0"

    path = book(tmp_path / "x.xlsx", formulas)
    assert problems_of(path) == {3: [("xk_nr", "formula", "K3")], 4: [("xk_nr", "formula", "K4")]}
    # Excel saves what it has computed beside the formula
    rewrite(path, "</f><v", '</f><v>热食类食品制售</v></c><c r="ZZ3"><v', once=True, kind=("K3", "str"))
    rewrite(path, "</f><v /></c>", "</f><v>#DIV/0!</v></c>", kind=("K4", "e"))
    assert problems_of(path) == {4: [("xk_nr", "formula_error", "K4")]}
    source = open_source(path, LICENCE)
    row = next(cells for number, cells, _ in source.rows() if number == 3)
    assert row[source.columns.index("xk_nr")] == "热食类食品制售"


def rewrite(path: Path, old: str, new: str, *, once: bool = False, kind: tuple[str, str]) -> None:
    """Edit the XML of the first sheet: give the cell `kind[0]` the type `kind[1]`, and replace text."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    xml = parts[name].decode()
    cell = xml.index(f'<c r="{kind[0]}"')
    head, tail = xml[:cell], xml[cell:]
    tail = tail.replace(f'<c r="{kind[0]}"', f'<c r="{kind[0]}" t="{kind[1]}"', 1)
    tail = tail.replace(old, new, 1)
    parts[name] = (head + tail).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, data in parts.items():
            archive.writestr(one, data)


def test_numbers_and_dates_of_a_workbook(tmp_path: Path) -> None:
    from datetime import UTC, date, datetime

    morning = datetime(2024, 3, 5, 8, 30, tzinfo=UTC).replace(tzinfo=None)

    def numbers(sheet: Any) -> None:
        sheet["L2"], sheet["M2"], sheet["N2"] = date(2024, 3, 5), morning, 47484
        sheet["Q2"] = 1
        sheet["D2"] = 1301020000123
        sheet["C3"] = 911301020000123456

    source = open_source(book(tmp_path / "x.xlsx", numbers), LICENCE)
    rows = [compile_dataset(LICENCE, source.columns)(cells) for _, cells, _ in source.rows()]
    assert isinstance(rows[0], tuple)
    record = rows[0][0]
    assert [record[code] for code in ("xk_jdrq", "xk_yxqz", "xk_yxqzi")] == ["2024-03-05", "2024-03-05", "2030-01-01"]
    assert (record["xk_zt"], record["xk_xdr_gszc"]) == ("1", "1301020000123")
    assert isinstance(rows[1], list)
    assert [(one.field, one.reason) for one in rows[1]] == [("xk_xdr_shxym", "lost_digits")]


def test_the_sheet_is_the_first_with_something_or_the_one_that_is_named(tmp_path: Path) -> None:
    path = book(tmp_path / "x.xlsx")
    made = openpyxl.load_workbook(path)
    made.create_sheet("空", 0)
    hidden = made.create_sheet("隐藏", 1)
    hidden["A1"], hidden.sheet_state = "x", "hidden"
    made.save(path)
    assert open_source(path, LICENCE).sheet == "行政许可"
    assert "行政许可" in refused("FN-2313", path, sheet="没有").params["sheets"]
    refused("FN-3304", path, sheet="隐藏")


def test_a_workbook_by_another_name_is_read_as_what_it_is(tmp_path: Path) -> None:
    assert open_source(sample(tmp_path / "x.csv", form="xlsx"), LICENCE).format == "xlsx"


def test_broken_and_bloated_workbooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample(tmp_path / "x.xlsx", form="xlsx")
    whole = path.read_bytes()
    broken = tmp_path / "b.xlsx"
    for data in (b"PK\x03\x04garbage", whole[: len(whole) // 2], b"\xd0\xcf\x11\xe0" + b"\0" * 600):
        broken.write_bytes(data)
        refused("FN-3310", broken)
    monkeypatch.setattr(workbook, "UNPACKED_BYTES_MAX", 1000)
    refused("FN-3314", path)
    monkeypatch.undo()
    monkeypatch.setattr(workbook, "MERGED_ROWS_MAX", 3)
    refused("FN-3313", book(tmp_path / "m.xlsx", lambda sheet: sheet.merge_cells("A2:A6")))


@pytest.mark.parametrize("form", ["csv", "jsonl", "xlsx"])
def test_whatever_the_bytes_it_is_read_or_refused(tmp_path: Path, form: str) -> None:
    whole = sample(tmp_path / "x", form=form).read_bytes()
    rng = random.Random(form)
    path = tmp_path / "y"
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 9)] = rng.randbytes(rng.randint(0, 9))
        path.write_bytes(data)
        with suppress(Refused):  # and nothing else
            source = open_source(path, LICENCE)
            validate = compile_dataset(LICENCE, source.columns)
            for _, cells, _ in source.rows():
                validate(cells)


# ---------------------------------------------------------------- rejects


def test_bad_rows_go_to_files_that_can_be_corrected_and_sent_again(tmp_path: Path) -> None:
    source = open_source(sample(tmp_path / "x.csv", bad=5, encoding="gb18030"), LICENCE)
    paths = [tmp_path / "bad.csv", tmp_path / "bad.xlsx"]
    validate = compile_dataset(LICENCE, source.columns)
    with Rejects(paths, LICENCE, source.headers, source.columns, "zh") as rejects:
        for number, cells, _ in source.rows():
            checked = validate(cells)
            if isinstance(checked, list):
                rejects.add(number, cells, checked)
    assert rejects.count == 5
    assert paths[0].read_bytes().startswith(codecs.BOM_UTF8)
    with paths[0].open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["#行号", "#字段", "#原因", "行政相对人名称"]
    assert rows[1][:2] == ["2", "统一社会信用代码"]
    assert "校验码不对" in rows[1][2]
    for path in paths:
        again = open_source(path, LICENCE)
        assert again.unknown == []
        assert sum(1 for _ in again.rows()) == 5
        assert valid(again) == 0


def test_nothing_is_made_when_no_row_is_bad(tmp_path: Path) -> None:
    with Rejects([tmp_path / "bad.csv"], LICENCE, ["备注"], ["bz"], "en") as rejects:
        pass
    assert (rejects.count, list(tmp_path.iterdir())) == (0, [])


def test_what_begins_like_a_formula_stays_text(tmp_path: Path) -> None:
    cells = ["=1+1", "@x", "-5", "+86", "\x07bell"]
    headers = [field.zh for field in LICENCE.fields[:5]]
    paths = [tmp_path / "bad.csv", tmp_path / "bad.xlsx"]
    with Rejects(paths, LICENCE, headers, [field.code for field in LICENCE.fields[:5]], "en") as rejects:
        rejects.add(2, cells, [Problem("xk_xdr_mc", "required")])
    with paths[0].open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[1][3:] == ["\t=1+1", "\t@x", "-5", "+86", "\x07bell"]
    row = list(openpyxl.load_workbook(paths[1]).active.rows)[1]
    assert [cell.data_type for cell in row] == ["s"] * 8
    assert row[3].value == "=1+1"


def test_where_bad_rows_go(tmp_path: Path) -> None:
    source = tmp_path / "许可.csv"
    assert rejects_paths(source, None) == (tmp_path / "许可.rejects.csv", tmp_path / "许可.rejects.xlsx")
    assert rejects_paths(source, "b.xlsx") == (Path("b.xlsx"),)
    assert rejects_paths(source, "b.csv", several=True) == (Path("b-许可.csv"), Path("b-许可.xlsx"))
    for chosen in (source, source.with_suffix(".csv")):
        with pytest.raises(Refused, match="FN-2314"):
            rejects_paths(source, str(chosen))
    with pytest.raises(Refused, match="FN-2314"):
        rejects_paths(tmp_path / "x.xlsx", str(tmp_path / "x.csv"))


def test_problems_in_words() -> None:
    problem = Problem("xk_xdr_shxym", "uscc_check", "9" * 100, "L")
    assert problem_text(problem, LICENCE, "zh") == f"统一社会信用代码: 校验码不对，应为 L [{'9' * 60}…]"
    assert problem_text(problem, LICENCE, "en").startswith("Unified social credit code: the check digit is wrong")


def test_a_sample_file_is_what_its_name_says(tmp_path: Path) -> None:
    """`scripts/sample-data -o x.xlsx` once wrote CSV into it."""
    for name, start in (("x.xlsx", b"PK"), ("x.jsonl", b"{"), ("x.tsv", "行政相对人名称\t".encode())):
        assert sample_data.main(["--rows", "1", "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
