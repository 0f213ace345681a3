"""`fednode coverage`: counts by area and dataset with those below, targets, blanks; shown, as a document, in files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import chinese_calendar
import pytest
from openpyxl import load_workbook

from fednode.crypto import issuing
from fednode.node.app import App, encoded, real_clock
from fednode.node.cli import invoke
from fednode.node.coverage import Place, Tree, opened
from fednode.node.published import day_of, growth
from fednode.node.sheets import write_csv, write_xlsx
from fednode.node.workdays import FIRST_YEAR, LAST_YEAR, between
from fednode.sync.catalog import Catalog
from fednode.sync.change import DELETE, NODES, UPSERT, Change
from fednode.sync.errors import StoreError
from fednode.sync.identity import node_payload
from mesh import Mesh, configuration
from timed import DAY_MS, START_MS, Clock
from world import keys_of

NUMBER = {"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 40, "required": True}
DAY = {"code": "decided", "zh": "决定日期", "en": "Decided", "type": "date"}
EVERY = ["province", "city", "county", "township"]
CATALOG: dict[str, Any] = {
    "version": 1,
    "targets": {"province": 1000, "city": 8},
    "dataset": [
        {"name": "licence", "zh": "许可", "en": "Licences", "key": ["id"], "writers": EVERY, "readers": EVERY,
         "targets": {"county": 4}, "no_blank": ["county"], "field": [NUMBER, DAY],
         "timeliness": {"field": "decided", "working_days": 7}},
        {"name": "notice", "zh": "通知", "en": "Notices", "key": ["id"], "writers": ["province", "county"],
         "readers": ["province", "county"], "field": [NUMBER]},
        {"name": "private", "zh": "内部", "en": "Private", "key": ["id"], "writers": ["province", "county"],
         "readers": ["county"], "field": [NUMBER]},
    ],
}  # fmt: skip
CHINESE_MIDNIGHT_MS = 1_780_070_400_000  # May 30th, 2026, 0:00 (UTC+8)
JUNE_24_MS = CHINESE_MIDNIGHT_MS + 25 * DAY_MS  # 2026, 0:00 (UTC+8)
BELOW = (("1301", "石家庄市", "city"), ("1302", "=唐山市", "city"), ("130404", "复兴区", "county"))
WRITTEN = (("13", 1), ("1301", 1), ("130102", 2), ("130102001", 3), ("1302", 2))
Run = Callable[..., tuple[int, str, str]]


def issue(app: App, node: str, name: str, level: str) -> None:
    mine = keys_of(node)
    asked = issuing.parse_request(issuing.make_request(node, mine.tls, mine.sign, mine.seal))
    der = app.certify(asked, name, level, (node,), 1)
    app.new_writer(app.store).local(NODES, "13", [Change(node.encode(), encoded(node_payload(der)))])


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """At a province with three nodes below it; of two areas there are records and no node."""
    clock = Clock()
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="河北省", domain="hebei", clock=clock)
    app.publish_catalog(Catalog.from_toml_dict(CATALOG))
    for one in BELOW:
        issue(app, *one)
    writer = app.new_writer()
    for area, count in WRITTEN:
        clock.ms += 60_000
        changes = [Change(f"{area}-{i}".encode(), encoded({"id": f"{area}-{i}"})) for i in range(count)]
        writer.local("licence", area, changes)
    clock.ms += 60_000
    writer.local("licence", "1302", [Change(b"1302-0", b"", DELETE)])
    writer.local("notice", "1302", [Change(b"a", encoded({"id": "a"}))])
    app.close()

    def invoked(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = invoke(["--home", str(tmp_path / "13"), *words], {"LANG": "C.UTF-8"})
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return invoked


def document(run: Run, *words: str) -> dict[str, Any]:
    code, out, err = run("--json", "coverage", *words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)["coverage"]
    return found


def figures(found: dict[str, Any], name: str) -> list[tuple[Any, ...]]:
    keys = ("area", "parent", "records", "own", "target", "share", "blank", "must")
    return [tuple(row[key] for key in keys) for row in found["rows"] if row["dataset"] == name]


def test_a_figure_holds_what_is_below_and_a_target_is_of_its_level(run: Run) -> None:
    found = document(run)
    assert figures(found, "licence") == [
        ("13", "", 8, 1, None, None, False, False),
        ("1301", "13", 6, 1, None, None, False, False),
        ("130102", "1301", 2 + 3, 2, None, None, False, False),  # no node says what level it is
        ("130102001", "130102", 3, 3, None, None, False, False),
        ("1302", "13", 1, 1, None, None, False, False),  # one of two was deleted
        ("130404", "13", 0, 0, 4, 0.0, True, True),
    ]
    assert figures(found, "") == [
        ("13", "", 9, 1, 1000, 0.009, False, False),
        ("1301", "13", 6, 1, 8, 0.75, False, False),
        ("130102", "1301", 5, 2, None, None, False, False),
        ("130102001", "130102", 3, 3, None, None, False, False),
        ("1302", "13", 2, 2, 8, 0.25, False, False),
        ("130404", "13", 0, 0, None, None, True, False),
    ]
    assert {row["target_of"] for row in found["rows"] if row["target"]} == {"catalog", "dataset"}
    assert (found["areas"], found["records"]) == (6, 9)
    assert found["blanks"] == {"licence": 1, "notice": 1}  # a city does not write notices
    assert found["unread"] == ["private"]
    newest = {row["area"]: row["newest_ms"] for row in found["rows"] if row["dataset"] == "licence"}
    at = {"13": 5, "1301": 4, "130102": 4, "130102001": 4, "1302": 5}
    assert newest == {**{area: START_MS + minute * 60_000 for area, minute in at.items()}, "130404": None}


def test_what_is_asked_for(run: Run) -> None:
    def areas(*words: str) -> list[tuple[str, str]]:
        return [(row["area"], row["dataset"]) for row in document(run, *words)["rows"]]

    assert areas("notice", "--level", "city") == [("1301", "notice"), ("1302", "notice")]
    assert areas("licence", "--area", "130100") == [(one, "licence") for one in ("1301", "130102", "130102001")]
    assert areas("--blank") == [("130404", ""), ("130404", "licence"), ("130404", "notice")]
    assert areas("private") == []
    assert document(run, "licence", "--area", "1301")["records"] == 6
    first = document(run, "licence", "--limit", "4")
    assert ([row["area"] for row in first["rows"]], first["next"]) == (
        ["13", "1301", "130102", "130102001"],
        "130102001",
    )
    rest = document(run, "licence", "--limit", "4", "--after", first["next"])
    assert ([row["area"] for row in rest["rows"]], rest["next"]) == (["1302", "130404"], "")
    assert document(run, "licence", "--limit", "6")["next"] == ""
    for words, code, said in (
        (("--area", "14"), 2, "FN-2001"),
        (("--after", "14"), 2, "FN-2001"),
        (("--level", "district"), 2, "FN-2001"),
        (("permit",), 3, "FN-3401"),
    ):
        found, _, err = run("coverage", *words)
        assert (found, said in err) == (code, True), words


def test_in_both_languages(run: Run) -> None:
    _, english, _ = run("coverage")
    assert english.splitlines()[:3] == [
        "6 areas; records here and below: 9",
        "blank areas: Licences 1, Notices 1",
        "not counted, since this node may not read them: private",
    ]
    rows = [line.split() for line in english.splitlines()]
    assert ["1301", "石家庄市", "city", "(all)", "6", "8", "75.00%", "2026-05-29", "04:30"] in rows
    assert ["130404", "复兴区", "county", "Licences", "0", "4", "0.00%", "-", "yes"] in rows
    _, chinese, _ = run("--lang", "zh", "coverage", "--blank")
    assert "空白区划：许可 1, 通知 1" in chinese
    assert ["130404", "复兴区", "县级", "通知", "0", "-", "-", "-", "是"] in [
        line.split() for line in chinese.splitlines()
    ]


def test_files_hold_every_row_and_no_formula(run: Run, tmp_path: Path) -> None:
    csv_file, xlsx_file = tmp_path / "c.csv", tmp_path / "c.xlsx"
    found = document(run, "--limit", "1", "--csv", str(csv_file), "--xlsx", str(xlsx_file))
    assert found["files"] == [{"path": str(csv_file), "rows": 18}, {"path": str(xlsx_file), "rows": 18}]
    assert csv_file.read_bytes().startswith(b"\xef\xbb\xbfarea,name,level,")
    rows = list(csv.reader(csv_file.read_text("utf-8-sig").splitlines()))
    assert len(rows) == 19
    assert rows[4][:2] == ["1301", "石家庄市"]
    assert rows[4][5:10] == ["6", "1", "8", "the catalog, all datasets together", "0.75"]
    assert "\t=唐山市" in {row[1] for row in rows}
    sheet = load_workbook(xlsx_file).active
    assert sheet is not None
    cells = list(sheet.iter_rows(values_only=True))
    assert len(cells) == 19
    assert cells[4][:2] == ("1301", "石家庄市")
    assert cells[4][5] == 6
    assert {cell.data_type for row in sheet.iter_rows() for cell in row if cell.value == "=唐山市"} == {"s"}


def test_growth_is_of_the_first_version_by_chinese_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    home = tmp_path / "13"
    app = App.init_province(home, configuration(), node="13", name="河北省", domain="hebei", clock=clock)
    app.publish_catalog(Catalog.from_toml_dict(CATALOG))
    writer = app.new_writer()

    def write(day: int, area: str, *keys: str, op: int = UPSERT, before_ms: int = 0) -> None:
        clock.ms = CHINESE_MIDNIGHT_MS + day * DAY_MS - before_ms
        payload = encoded({"id": str(day)}) if op == UPSERT else b""
        writer.local("licence", area, [Change(key.encode(), payload, op) for key in keys])

    write(0, "1301", "a", "b", "c", "e")
    write(1, "1302", "d")
    write(2, "1302", "f", before_ms=1)
    write(2, "1301", "a", "b")  # corrected: published before
    write(2, "1301", "e", op=DELETE)
    clock.ms = CHINESE_MIDNIGHT_MS + 3 * DAY_MS - 1
    with opened(app) as connection:

        def days(count: int, *areas: str) -> list[int]:
            found = growth(connection, ["licence"], areas.__contains__, clock.ms, count)
            assert list(found) == [day_of(clock.ms) - timedelta(days=i) for i in reversed(range(count))]
            return [counts["licence"] for counts in found.values()]

        assert days(3, "1301", "1302") == [3, 2, 0]
        assert days(4, "1301") == [0, 3, 0, 0]
        assert days(2, "1301") == [0, 0]
    app.close()


def test_growth_on_screen_and_in_files(run: Run, tmp_path: Path) -> None:
    days = (real_clock() - START_MS) // DAY_MS + 3
    found = document(run, "--days", str(days), "--csv", str(tmp_path / "c.csv"))
    told = {one["day"]: one["records"] for one in found["days"]}
    assert (len(told), found["rows"], found["next"]) == (days, [], "")
    assert told["2026-05-29"] == {"licence": 8, "notice": 1}
    assert sum(sum(counts.values()) for counts in told.values()) == found["records"] == 9
    rows = list(csv.reader((tmp_path / "c.csv").read_text("utf-8-sig").splitlines()))
    assert ["2026-05-29", "licence", "Licences", "8"] in rows
    assert len(rows) == 1 + 2 * days
    _, chinese, _ = run("--lang", "zh", "coverage", "licence", "--area", "1301", "--days", str(days))
    lines = [line.split() for line in chinese.splitlines()]
    assert ["日期", "许可"] in lines
    assert ["2026-05-29", "6"] in lines
    assert run("coverage", "--days", "3", "--blank")[0] == 2
    assert run("coverage", "--days", "0")[0] == 2


def test_who_is_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The Dragon Boat Festival of 2026 is June 19th to 21st; 7 working days after the 12th is the 24th, with the
    festival, and the 23rd without."""
    clock = Clock()
    home = tmp_path / "13"
    app = App.init_province(home, configuration(), node="13", name="河北省", domain="hebei", clock=clock)
    app.publish_catalog(Catalog.from_toml_dict(CATALOG))
    writer = app.new_writer()
    clock.ms = JUNE_24_MS
    many = {"a": "2026-06-12", "b": "2026-06-11", "c": "2099-01-01", "d": "", "e": "2003-12-31"}
    for area in ("13", "1301"):
        changes = [
            Change(f"{area}{key}".encode(), encoded({"id": key, **({"decided": day} if day else {})}))
            for key, day in many.items()
        ]
        writer.local("licence", area, changes)
    clock.ms += DAY_MS
    writer.local("licence", "1301", [Change(b"1301a", encoded({"id": "new", "decided": "2026-06-12"}))])  # no later
    writer.local("licence", "13", [Change(b"13f", encoded({"id": "f", "decided": "2026-06-12"}))])  # the 8th
    app.close()

    def shown(*words: str) -> str:
        capsys.readouterr()
        assert invoke(["--home", str(home), *words], {"LANG": "C.UTF-8"}) == 0
        return capsys.readouterr().out

    found = json.loads(shown("--json", "coverage", "--timely", "--csv", str(tmp_path / "c.csv")))["coverage"]
    terms = {(row["area"], row["dataset"]): row["timely"] for row in found["rows"]}
    longest = between(date(2003, 12, 31), date(2026, 6, 24))
    one = {"dated": 4, "late": 2, "undated": 1, "longest": longest, "guessed": 2}
    both = {"dated": 9, "late": 5, "undated": 2, "longest": longest, "guessed": 4}
    assert terms == {
        **dict.fromkeys((("13", ""), ("13", "licence")), both), ("13", "notice"): None,
        **dict.fromkeys((("1301", ""), ("1301", "licence")), one), ("1301", "notice"): None,
    }  # fmt: skip
    limits = {"licence": {"field": "decided", "working_days": 7}}
    assert found["timely"] == {"limits": limits, "guessed": 4, "first_year": FIRST_YEAR, "last_year": LAST_YEAR}
    rows = list(csv.reader((tmp_path / "c.csv").read_text("utf-8-sig").splitlines()))
    assert rows[0][-5:] == ["with date", "late", "without date", "longest (working days)", "holidays not known"]
    assert rows[2][-5:] == ["9", "5", "2", str(longest), "4"]
    assert rows[3][-5:] == [""] * 5
    assert "of 4 records the term touches other years" in shown("coverage", "--timely")
    chinese = shown("--lang", "zh", "coverage", "licence", "--timely", "--area", "1301")
    assert "公示时限：许可 自 decided 起 7 个工作日" in chinese
    assert ["4", "2", "1", str(longest)] in [line.split()[-4:] for line in chinese.splitlines()]
    assert json.loads(shown("--json", "coverage"))["coverage"]["timely"] is None


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2026-09-18", "2026-09-21", 2),  # a Friday; Sunday the 20th is made up for
        ("2026-09-30", "2026-10-07", 0),  # National Day
        ("2026-09-30", "2026-10-10", 3),  # Saturday the 10th is worked
        ("2026-12-31", "2027-01-04", 2),  # 2027 is not known: Monday to Friday, the 1st among them
        ("2003-12-26", "2003-12-29", 1),
        ("2026-06-12", "2026-06-12", 0),
        ("2026-06-12", "2026-06-01", 0),
    ],
)
def test_working_days(start: str, end: str, days: int) -> None:
    assert between(date.fromisoformat(start), date.fromisoformat(end)) == days


def test_working_days_are_those_of_the_library_day_by_day() -> None:
    day, count = date(2019, 12, 31), 0
    while day.year < 2026:
        day += timedelta(days=1)
        count += chinese_calendar.is_workday(day)
        assert between(date(2019, 12, 31), day) == count


def test_a_file_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    for option, name in (("--csv", "x.csv"), ("--xlsx", "x.xlsx")):
        code, _, err = run("coverage", option, str(tmp_path / "nowhere" / name))
        assert (code, "FN-7302" in err) == (7, True)


def test_a_sheet_that_is_full_goes_on_in_the_next(tmp_path: Path) -> None:
    for count, sheets in ((0, [1]), (4, [5]), (5, [5, 2]), (9, [5, 5, 2])):
        assert write_xlsx(tmp_path / "x.xlsx", "t", ["a"], ([i] for i in range(count)), limit=4) == count
        book = load_workbook(tmp_path / "x.xlsx")
        assert [sheet.max_row for sheet in book.worksheets] == sheets
        found = [row[0] for sheet in book.worksheets for row in sheet.iter_rows(min_row=2, values_only=True)]
        assert found == list(range(count))
    with pytest.raises(StoreError):
        write_csv(tmp_path, ["a"], [])


def test_whose_areas_are_below_whom_is_what_the_nodes_say() -> None:
    """A node whose scope begins with other codes than its parent's, and a code that it covers besides its own area."""
    tree = Tree(
        [Place("13", "", "province", ""), Place("1301", "", "city", "13"), Place("1399", "", "county", "1301")],
        {"13": "13", "1301": "1301", "1302": "1301", "1399": "1399"},
    )
    tree.add(["130201", "139901", "14", "13020101", "13"])
    found = {one.area: one.parent for one in tree.below("13")}
    assert (found.pop("13"), found.pop("1301"), found.pop("1399")) == ("", "13", "1301")
    assert found == {"130201": "1301", "139901": "1399", "14": "13", "13020101": "130201"}
    assert tree.summed({"139901": (1, 7), "13020101": (2, 3)})["1301"] == (3, 7)


@pytest.mark.slow
async def test_a_node_counts_its_own_subtree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Province, city, county, through real daemons: what the county wrote is at each, under each one's own areas."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, "130102", "county")
        await mesh.until(lambda: county.app.trust.catalog is not None)
        county.write("a", {"id": "a"})
        city.write("b", {"id": "b"})
        names = {"13", "1301", "130102"}
        await mesh.until(lambda: {one.node for one in province.app.trust.directory.all()} == names)
        await mesh.until(lambda: all(len(node.records()) == count for node, count in ((province, 2), (county, 1))))
        for node, expected in (
            (province, [("13", "", 2, 0), ("1301", "13", 2, 1), ("130102", "1301", 1, 1)]),
            (city, [("1301", "", 2, 1), ("130102", "1301", 1, 1)]),
            (county, [("130102", "", 1, 1)]),
        ):
            capsys.readouterr()
            home = str(node.app.home.path)
            assert invoke(["--home", home, "--json", "coverage", "admin-licence"], {"PATH": "/usr/bin"}) == 0
            rows = json.loads(capsys.readouterr().out)["coverage"]["rows"]
            assert [(row["area"], row["parent"], row["records"], row["own"]) for row in rows] == expected
