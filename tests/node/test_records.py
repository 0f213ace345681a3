"""Records through real stores: in from files, out again, corrected, deleted, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sample_data
from fednode.node import projection, shipped
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.config import Config
from fednode.node.erasing import erase
from fednode.node.importing import ImportReport
from fednode.node.ingest import open_source
from fednode.node.messages import error_text
from fednode.node.profile import NORMAL
from fednode.node.records import InvalidRecord, Records
from fednode.sync.catalog import Catalog
from fednode.sync.change import DELETE, UPSERT, Change
from fednode.sync.errors import Refused
from fednode.sync.formats import Problem
from mesh import Mesh

NAME = "admin-licence"
CITY, VILLAGE, OTHER = "1301", "130102001001", "130102001002"


def node(folder: Path, level: str = "province", area: str = CITY, catalog: Catalog | None = None) -> App:
    """A node of one level and area, the root of its own domain, with the shipped catalog."""
    app = App.init_province(
        folder / area, Config(), node=area, name="节点", level=level, domain="hebei", levels=(level,)
    )
    app.publish_catalog(catalog or shipped.catalog())
    return app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = node(tmp_path)
    yield app
    app.close()


@pytest.fixture
def records(app: App) -> Iterator[Records]:
    service = app.records()
    yield service
    service.close()


def rows(count: int, seed: int = 1) -> list[dict[str, str]]:
    return list(sample_data.records(NAME, count, seed=seed))


def put_in(records: Records, path: Path, given: list[dict[str, str]], **more: Any) -> ImportReport:
    declared = shipped.catalog().datasets[NAME]
    sample_data.write(path, declared, iter(given), encoding="gb18030")
    return records.import_rows(NAME, open_source(path, declared), **more)


def changes_of(app: App) -> int:
    """Changes of records here."""
    return sum(size for _, name, size in app.store.logs() if not name.is_system)


def counts(report: ImportReport) -> tuple[int, int, int, int, int]:
    return report.read, report.added, report.changed, report.unchanged, report.rejected


def refused(code: str, call: Any, *arguments: Any, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*arguments, **more)
    assert caught.value.code == code
    for lang in ("en", "zh"):
        message, hint = error_text(caught.value, lang)
        assert "{" not in message + hint
        assert hint
    return caught.value


# ---------------------------------------------------------------- import


def test_the_same_file_again_changes_nothing(app: App, records: Records, tmp_path: Path) -> None:
    given = rows(120)
    assert counts(put_in(records, tmp_path / "x.csv", given)) == (120, 120, 0, 0, 0)
    size, digest = changes_of(app), records.digest()
    assert counts(put_in(records, tmp_path / "x.csv", given)) == (120, 0, 0, 120, 0)
    assert (changes_of(app), records.digest()) == (size, digest)
    given[3]["bz"] = "改了"
    assert counts(put_in(records, tmp_path / "x.csv", given)) == (120, 0, 1, 119, 0)
    assert verify_store(app.store, app.trust).problems == []


def test_groups_do_not_show(records: Records, tmp_path: Path) -> None:
    records.store.profile = replace(NORMAL, batch_rows=7)
    seen = []
    report = put_in(records, tmp_path / "x.csv", rows(50), on_progress=lambda report, source: seen.append(report.read))
    assert counts(report) == (50, 50, 0, 0, 0)
    assert seen == sorted(seen)
    assert seen[-1] == 50
    assert len(list(records.find_all(NAME, withdrawn=True))) == 50


def test_bad_rows_are_left_out_and_told(records: Records, tmp_path: Path) -> None:
    declared = records.declared(NAME)
    given = [sample_data.spoil(declared, row, i) if i < 4 else row for i, row in enumerate(rows(20))]
    told: list[tuple[int, tuple[Problem, ...]]] = []
    report = put_in(
        records, tmp_path / "x.csv", given, on_reject=lambda row, cells, problems: told.append((row, tuple(problems)))
    )
    assert counts(report) == (20, 16, 0, 0, 4)
    assert [row for row, _ in told] == [2, 3, 4, 5]
    assert [problems[0].reason for _, problems in told] == ["uscc_check", "date", "enum", "required"]
    assert report.problems == told


def test_two_rows_with_one_key(records: Records, tmp_path: Path) -> None:
    given = rows(10)
    given.append(dict(given[0]))
    given.append({**given[1], "bz": "又一行"})
    for batch in (3, 1000):
        records.store.profile = replace(NORMAL, batch_rows=batch)
        for dry_run in (True, False):
            report = put_in(records, tmp_path / "x.csv", given, dry_run=dry_run)
            assert (report.read, report.rejected) == (12, 1)
            assert report.problems[0][0] == 13
            assert report.problems[0][1][0].reason == "duplicate"
    assert (report.added, report.changed, report.unchanged) == (0, 0, 11), "and a second run changes nothing"


def test_a_dry_run_writes_nothing(app: App, records: Records, tmp_path: Path) -> None:
    lsn = app.store.lsn
    assert counts(put_in(records, tmp_path / "x.csv", rows(30), dry_run=True)) == (30, 30, 0, 0, 0)
    assert app.store.lsn == lsn
    assert records.find(NAME).items == ()


def test_what_was_read_before_a_file_broke_is_in(records: Records, tmp_path: Path) -> None:
    path, declared = tmp_path / "x.csv", records.declared(NAME)
    sample_data.write(path, declared, iter(rows(25)))
    with path.open("a") as file:
        file.write('"' + "石家庄,\n" * 50_000)
    refused("FN-3309", records.import_rows, NAME, open_source(path, declared))
    assert records.digest().records == 25
    sample_data.write(path, declared, iter(rows(30)))
    assert counts(records.import_rows(NAME, open_source(path, declared))) == (30, 5, 0, 25, 0)


def test_import_for_an_area_below(records: Records, tmp_path: Path) -> None:
    assert put_in(records, tmp_path / "x.csv", rows(3), area="130102001001").area == VILLAGE
    assert [item.area for item in records.find_all(NAME)] == [VILLAGE] * 3
    refused("FN-5311", put_in, records, tmp_path / "x.csv", rows(3), area="1302")
    refused("FN-3323", put_in, records, tmp_path / "x.csv", rows(3), area="13010")


def test_rows_about_an_area_outside_are_refused_one_by_one(records: Records, tmp_path: Path) -> None:
    declared = records.declared("org-registration")
    given = list(sample_data.records("org-registration", 4, seed=1))
    given[1]["area"] = "130202001001"
    given[2]["area"] = "130100"
    sample_data.write(tmp_path / "x.csv", declared, iter(given))
    report = records.import_rows("org-registration", open_source(tmp_path / "x.csv", declared))
    assert (report.added, report.rejected) == (3, 1)
    assert report.problems[0][1] == (Problem("area", "outside_scope", "130202001001", CITY),)
    refused("FN-5311", records.put, "org-registration", given[1])


# ---------------------------------------------------------------- put, get, delete, history


def test_put_get_and_put_again(app: App, records: Records) -> None:
    row = rows(1)[0]
    written = records.put(NAME, row)
    assert (written.outcome, written.area) == ("added", CITY)
    lsn = app.store.lsn
    assert changes_of(app) == 1
    titles = {field.code: field.zh for field in records.declared(NAME).fields}
    assert records.put(NAME, {titles[code]: value for code, value in row.items()}).outcome == "unchanged"
    assert app.store.lsn == lsn
    found = records.get(NAME, written.key)
    assert found.record == row
    assert (found.standing.origin, found.standing.seq, found.standing.lsn) == (CITY, 0, lsn - 1)  # then its event
    assert found.standing.held_by_parent is None
    assert records.put(NAME, {**row, "bz": "改了"}, dry_run=True).outcome == "changed"
    assert changes_of(app) == 1
    assert records.put(NAME, {**row, "bz": "改了"}).outcome == "changed"


def test_history_tells_every_version(records: Records) -> None:
    row = rows(1)[0]
    key = records.put(NAME, row).key
    records.put(NAME, {**row, "bz": "二"})
    records.delete(NAME, key)
    refused("FN-3324", records.get, NAME, key)
    records.put(NAME, {**row, "bz": "四"})
    versions = records.history(NAME, key)
    assert [one.op for one in versions] == [UPSERT, DELETE, UPSERT, UPSERT]
    assert [one.record and one.record.get("bz") for one in versions] == ["四", None, "二", row.get("bz")]
    assert [one.current for one in versions] == [True, False, False, False]
    assert not any(one.conflict for one in versions), "each author had seen the version before"


def test_a_version_that_its_author_had_not_seen_is_a_conflict(app: App, records: Records) -> None:
    row = rows(1)[0]
    key = records.put(NAME, row).key
    app.new_writer().local(NAME, CITY, [Change(key.encode(), json.dumps({"xk_wsh": "x"}).encode())])
    assert [one.conflict for one in records.history(NAME, key)] == [False, True]


def test_a_deleted_record_still_has_a_history_and_can_come_back(records: Records) -> None:
    row = rows(1)[0]
    key = records.put(NAME, row).key
    assert records.delete(NAME, key).outcome == "deleted"
    refused("FN-3324", records.delete, NAME, key)
    assert records.history(NAME, key)[0].op == DELETE
    assert records.put(NAME, row).outcome == "added"
    assert records.get(NAME, key).record == row


def test_amend_changes_fields_of_what_is_there(records: Records) -> None:
    row = rows(1)[0]
    key = records.put(NAME, row).key
    assert records.amend(NAME, key, {"当前状态": "无效", "xk_frdb": ""}).outcome == "changed"
    found = records.get(NAME, key).record
    assert found == {**{code: value for code, value in row.items() if code != "xk_frdb"}, "xk_zt": "2"}
    moved = records.amend(NAME, key, {"xk_xkbh": "新号"})
    assert (moved.outcome, moved.key != key) == ("added", True)
    assert [item.key for item in records.find_all(NAME)] == [moved.key]


def test_an_invalid_record_names_each_problem(records: Records) -> None:
    row = {**rows(1)[0], "xk_zt": "3", "统一社会信用代码": "1"}
    del row["xk_wsh"], row["xk_xdr_shxym"]
    with pytest.raises(InvalidRecord) as caught:
        records.put(NAME, row, lang="zh")
    assert {(one.field, one.reason) for one in caught.value.problems} == {
        ("xk_wsh", "required"),
        ("xk_zt", "enum"),
        ("xk_xdr_shxym", "uscc_length"),
    }
    assert "统一社会信用代码: 为 1 位" in error_text(caught.value, "zh")[0]
    assert records.digest().records == 0
    assert refused("FN-3326", records.put, NAME, {"xk_wsx": "1"}).params["nearest"] == "xk_wsh"
    refused("FN-3322", records.put, NAME, {})
    refused("FN-3322", records.put, NAME, {"xk_wsh": ["a"]})
    refused("FN-3322", records.put, NAME, {"xk_wsh": "a", "行政许可决定文书号": "b"})


def test_the_area_that_is_meant(records: Records) -> None:
    row = rows(1)[0]
    key = records.put(NAME, row, VILLAGE).key
    assert records.get(NAME, key).area == VILLAGE, "it exists in one area only"
    corrected = records.put(NAME, {**row, "bz": "更正"})
    assert (corrected.area, corrected.outcome) == (VILLAGE, "changed")
    assert records.get(NAME, key).standing.log == f"hebei/{CITY}/1/{NAME}@{VILLAGE}"
    records.put(NAME, row, OTHER)
    for call in (records.get, records.delete, records.history):
        assert refused("FN-3325", call, NAME, key).params["areas"] == f"{VILLAGE}, {OTHER}"
    refused("FN-3325", records.put, NAME, row)
    assert records.delete(NAME, key, OTHER).area == OTHER
    assert records.get(NAME, key).record["bz"] == "更正"
    refused("FN-5311", records.put, NAME, row, "13")
    refused("FN-5311", records.put, NAME, row, "130202")


def test_what_is_not_there(tmp_path: Path, records: Records) -> None:
    refused("FN-3321", records.get, "nothing", "k")
    refused("FN-3321", records.put, "sys.nodes", {})
    refused("FN-3324", records.get, NAME, "k")
    refused("FN-3324", records.history, NAME, "k")
    bare = App.init_province(tmp_path / "bare", Config(), node="13", name="省", domain="hebei")
    refused("FN-3320", bare.records().put, NAME, rows(1)[0])


def test_a_level_that_may_not_write(tmp_path: Path) -> None:
    village = node(tmp_path, "village", VILLAGE)
    service = village.records()
    assert service.put(NAME, rows(1)[0]).outcome == "added"
    row = next(sample_data.records("org-registration", 1, seed=1))
    error = refused("FN-5310", service.put, "org-registration", row)
    assert (error.exit_code, error.params["level"]) == (5, "village")


# ---------------------------------------------------------------- find


def test_find_by_field_date_words_and_area(records: Records, tmp_path: Path) -> None:
    given = rows(200)
    put_in(records, tmp_path / "x.csv", given[:150], area=VILLAGE)
    put_in(records, tmp_path / "y.csv", given[150:], area=OTHER)

    def numbers(**more: Any) -> set[str]:
        return {str(item.record["xk_wsh"]) for item in records.find_all(NAME, withdrawn=True, **more)}

    def expected(holds: Any) -> set[str]:
        found = {row["xk_wsh"] for row in given if holds(row)}
        assert found
        return found

    assert numbers(where={"当前状态": "无效"}) == expected(lambda row: row["xk_zt"] == "2")
    one = given[17]
    assert numbers(where={"xk_xdr_shxym": one["xk_xdr_shxym"].lower()}) == {one["xk_wsh"]}
    assert numbers(since="2022年6月1日", until="2023/5/31") == expected(
        lambda row: "2022-06-01" <= row["xk_jdrq"] <= "2023-05-31"
    )
    assert numbers(since="2099-01-01", date_field="有效期至") == expected(lambda row: row["xk_yxqzi"] >= "2099")
    assert numbers(text="货物道路") == expected(lambda row: "货物道路" in row["xk_nr"])
    assert numbers(text="石家庄 货物") == expected(lambda row: "货物" in row["xk_nr"])
    assert numbers(area=OTHER) == {row["xk_wsh"] for row in given[150:]}
    assert len(numbers(area="130102")) == 200
    assert numbers(text="货物", where={"xk_zt": 1}, since="2023-01-01", area=VILLAGE) == {
        row["xk_wsh"]
        for row in given[:150]
        if "货物" in row["xk_nr"] and row["xk_zt"] == "1" and row["xk_jdrq"] >= "2023-01-01"
    }


def test_pages_come_to_an_end_and_nothing_comes_twice(records: Records, tmp_path: Path) -> None:
    put_in(records, tmp_path / "x.csv", rows(25))
    seen: list[str] = []
    cursor = ""
    for size in (10, 10, 5):
        page = records.find(NAME, limit=10, cursor=cursor, withdrawn=True)
        assert len(page.items) == size
        seen += [item.key for item in page.items]
        cursor = page.cursor
    assert cursor == ""
    assert len(set(seen)) == 25


def test_a_field_with_an_index_is_found_by_it(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "INDEX_ROWS_MIN", 20)  # the few events of the audit count too
    put_in(records, tmp_path / "x.csv", rows(9))
    records.projector.catch_up()
    indexes = "select count(*) from sqlite_master where type = 'index' and name like 'field:%'"
    assert records.projector.connection.execute(indexes).fetchone()[0] == 0
    put_in(records, tmp_path / "x.csv", rows(20))
    records.projector.catch_up()
    assert not records.projector.index_fields()  # once is enough
    number = records.projector.connection.execute("select id from dataset where name = ?", (NAME,)).fetchone()[0]
    plan = records.projector.connection.execute(
        f"""explain query plan select * from record r where r.dataset = {number} and r.payload ->> '$.xk_wsh' = 'x'
            and r.id > 0 order by r.id"""
    ).fetchall()
    assert "field:admin-licence:xk_wsh" in str(plan)
    records.projector.rebuild()
    assert records.projector.connection.execute(indexes).fetchone()[0] > 0


def test_find_says_what_it_cannot_do(records: Records) -> None:
    records.put(NAME, rows(1)[0])
    refused("FN-3326", records.find, NAME, {"xk_wsx": "1"})
    refused("FN-3327", records.find, NAME, {"xk_zt": "9"})
    refused("FN-3327", records.find, NAME, since="gestern")
    refused("FN-3328", records.find, NAME, since="2024-01-01", date_field="xk_wsh")
    refused("FN-3330", records.find, NAME, cursor="x")
    refused("FN-3323", records.find, NAME, area="x")


def test_text_follows_a_change_and_a_deletion(records: Records) -> None:
    row = {**rows(1)[0], "xk_nr": "经营烟花爆竹"}
    key = records.put(NAME, row).key
    assert len(records.find(NAME, text="烟花").items) == 1
    records.put(NAME, {**row, "xk_nr": "经营图书"})
    assert [len(records.find(NAME, text=word).items) for word in ("烟花", "图书")] == [0, 1]
    records.delete(NAME, key)
    assert records.find(NAME, text="图书").items == ()


def test_words_of_what_was_erased_are_in_no_index(records: Records) -> None:
    key = records.put(NAME, {**rows(1)[0], "xk_nr": "经营烟花爆竹"}).key
    assert len(records.find(NAME, text="烟花").items) == 1
    erase(records, NAME, key, "court order")
    phrase = (projection.fts_phrase("烟花"),)
    assert records.projector.connection.execute("select rowid from record_fts(?)", phrase).fetchall() == []
    records.put(NAME, {**rows(2)[1], "xk_nr": "经营图书"})  # it may get the number that is free now
    assert [len(records.find(NAME, text=word).items) for word in ("烟花", "图书")] == [0, 1]


# ---------------------------------------------------------------- digest, other processes, other nodes


def test_the_digest_is_of_the_records_alone(tmp_path: Path) -> None:
    one, other = node(tmp_path / "a").records(), node(tmp_path / "b").records()
    given = rows(40)
    for row in given:
        one.put(NAME, row, VILLAGE)
    put_in(other, tmp_path / "x.csv", given[::-1], area=VILLAGE)
    other.put(NAME, {**given[0], "bz": "x"}, OTHER)
    other.delete(NAME, other.find(NAME, area=OTHER).items[0].key, OTHER)
    assert one.digest() == other.digest()
    assert one.digest().datasets == {NAME: 40}
    other.put(NAME, {**given[0], "bz": "x"}, OTHER)
    assert one.digest().digest != other.digest().digest
    assert one.digest().digest == other.digest(NAME, VILLAGE).digest
    assert one.digest("admin-penalty").records == 0


def test_the_digest_can_be_made_by_hand(records: Records) -> None:
    given = rows(3)
    for area in (OTHER, VILLAGE):
        for row in given:
            records.put(NAME, row, area)
    lines = [[NAME, item.area, item.key, item.record] for item in records.find_all(NAME)]
    lines.sort(key=lambda line: (line[2], line[0], line[1]))
    whole = "".join(json.dumps(one, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n" for one in lines)
    assert records.digest().digest == hashlib.sha256(whole.encode()).hexdigest()


def test_what_another_process_wrote_is_seen(app: App, records: Records) -> None:
    key = app.records().put(NAME, rows(1)[0]).key
    assert records.get(NAME, key).record["xk_wsh"] == rows(1)[0]["xk_wsh"]


def test_records_of_an_older_catalog_stay_readable(app: App, records: Records) -> None:
    key = records.put(NAME, rows(1)[0]).key
    plain = json.loads(shipped.catalog().to_json())
    plain["version"] = 2
    plain["dataset"][0]["field"].append({"code": "extra", "zh": "附加", "en": "Extra", "type": "text", "max": 5})
    next(one for one in plain["dataset"][0]["field"] if one["code"] == "bz")["required"] = True
    app.publish_catalog(Catalog.from_json(json.dumps(plain).encode()))
    found = records.get(NAME, key)
    assert found.standing.catalog_version == 1
    assert records.find(NAME).items[0].record == found.record
    refused("FN-3322", records.amend, NAME, key, {"extra": "x"})
    assert records.amend(NAME, key, {"extra": "x", "bz": "y"}).outcome == "changed"
    assert records.get(NAME, key).standing.catalog_version == 2


async def test_saved_here_and_held_by_the_parent(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, CITY, "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        await mesh.halt(province)
        service = city.app.records()
        key = service.put(NAME, rows(1)[0]).key
        assert service.get(NAME, key).standing.held_by_parent is False
        await mesh.run(province)
        city.app.poke()
        await mesh.until(lambda: service.get(NAME, key).standing.held_by_parent is True)
        above = province.app.records()
        found = above.get(NAME, key)
        assert (found.standing.origin, found.standing.held_by_parent) == (CITY, None)
        assert above.digest() == service.digest()
        corrected = above.put(NAME, {**found.record, "bz": "省级更正"})
        province.app.poke()
        assert corrected.area == CITY
        await mesh.until(lambda: service.get(NAME, key).record.get("bz") == "省级更正")
        assert service.get(NAME, key).standing.held_by_parent is True
        assert [one.conflict for one in service.history(NAME, key)] == [False, False]
        service.close()
        above.close()


def test_sample_data_of_an_area_that_is_none_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="130100 is no area"):
        sample_data.main(["--area", "130100", "-o", str(tmp_path / "a.csv")])
    assert list(tmp_path.iterdir()) == []
