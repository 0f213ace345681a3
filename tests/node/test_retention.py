"""What goes without an erase: by the catalog's retention, by `compact`; and the watch over what came stripped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from fednode.node import erasing, retention
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.records import Records
from fednode.sync.catalog import Catalog
from fednode.sync.errors import Refused
from mesh import Mesh, configuration
from timed import CATALOG, DAY_MS, START_MS, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path, clock: Clock) -> Iterator[Records]:
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="省", domain="hebei", clock=clock)
    app.publish_catalog(Catalog.from_toml_dict(CATALOG))
    found = app.records()
    yield found
    found.close()
    app.close()


def keys(records: Records, dataset: str) -> list[str]:
    return [one.key for one in records.find(dataset, limit=100).items]


def whole(records: Records) -> None:
    assert verify_store(records.store, records.trust).problems == []


def test_the_last_day_counts(records: Records) -> None:
    declared = records.declared("timed")
    assert (
        retention.last_day(declared.retention, date(2026, 7, 1)) == "2026-05-31"
    )  # until that day and 30 more: over on the 1st
    assert retention.day_of(START_MS) == date(2026, 5, 28)


def test_records_past_their_time_are_stripped_in_every_version(records: Records, clock: Clock) -> None:
    for key, until in (("a", "2026-05-31"), ("b", "2026-06-01"), ("c", "2099-12-31"), ("d", "")):
        records.put("timed", {"id": key, "text": "first", "until": until})
        records.put("timed", {"id": key, "text": f"second {key}", "until": until})
    records.put("lasting", {"id": "a", "until": "2026-01-01"})
    july = START_MS + 34 * DAY_MS
    assert retention.day_of(july) == date(2026, 7, 1)
    assert retention.run_daily(records, july) == retention.Report(versions=2, segments=2)
    assert (keys(records, "timed"), keys(records, "lasting")) == (["b", "c", "d"], ["a"])
    assert retention.run_daily(records, july) == retention.Report()
    whole(records)
    for path in (records.store.path, records.projector.path):
        assert b"second a" not in path.read_bytes()
    assert b"second b" in records.projector.path.read_bytes()
    records.projector.rebuild()
    assert keys(records, "timed") == ["b", "c", "d"]


def test_a_crash_between_the_two_databases_is_made_up_for(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    records.put("timed", {"id": "a", "until": "2026-01-01"})
    monkeypatch.setattr(type(records.projector), "forget", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        retention.run_daily(records, START_MS)
    monkeypatch.undo()
    assert keys(records, "timed") == ["a"]
    assert retention.run_daily(records, START_MS) == retention.Report(versions=1, segments=0)
    assert keys(records, "timed") == []


def test_a_step_is_bounded(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_RECORDS", 3)
    for i in range(7):
        records.put("timed", {"id": f"k{i}", "until": "2026-01-01"})
    today = retention.day_of(START_MS)
    assert [retention.expire(records, today).versions for _ in range(4)] == [3, 3, 1, 0]


def test_compact_takes_what_was_superseded_long_ago(records: Records, clock: Clock) -> None:
    for i in range(4):
        records.put("lasting", {"id": "a", "text": f"OLDxq{i}"})
        records.put("fields", {"id": "a", "text": f"OLDxq{i}"})
    clock.ms += 40 * DAY_MS
    records.put("lasting", {"id": "a", "text": "now"})
    records.put("lasting", {"id": "b", "text": "one"})
    before = records.digest()
    planned = retention.compact_all(records, clock.ms, 30, dry_run=True)
    assert planned == retention.Report(versions=4, segments=4)
    assert len(records.history("lasting", "a")) == 5
    assert retention.compact_all(records, clock.ms, 30) == planned
    assert [one.record for one in records.history("lasting", "a")] == [{"id": "a", "text": "now"}]
    assert len(records.history("fields", "a")) == 4
    assert records.digest() == before
    assert retention.compact_all(records, clock.ms, 30) == retention.Report()
    whole(records)
    records.projector.rebuild()
    assert records.digest() == before


def test_compact_leaves_what_is_young(records: Records, clock: Clock) -> None:
    records.put("lasting", {"id": "a", "text": "1"})
    clock.ms += 29 * DAY_MS
    records.put("lasting", {"id": "a", "text": "2"})
    assert retention.compact_all(records, clock.ms, 30) == retention.Report()
    assert retention.compact_all(records, clock.ms, 28) == retention.Report(1, 1)


def test_compact_goes_on_where_a_step_ended(records: Records, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_VERSIONS", 2)
    for i in range(6):
        records.put("lasting", {"id": "a", "text": str(i)})
    clock.ms += 31 * DAY_MS
    assert retention.compact_all(records, clock.ms, 30) == retention.Report(versions=5, segments=5)


async def test_compact_leaves_what_a_child_or_the_parent_does_not_hold(tmp_path: Path) -> None:
    clock = Clock()
    async with Mesh(tmp_path, clock) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        await mesh.halt(province)
        for i in range(3):
            city.write("k", {"n": i})
        clock.ms += 40 * DAY_MS
        records = city.app.records()
        assert retention.compact_all(records, clock.ms, 30) == retention.Report()
        await mesh.run(province)
        await mesh.until(lambda: city.pending() == 0)
        assert retention.compact_all(records, clock.ms, 30).versions == 2
        records.close()
        assert province.records() == city.records() == {"k": {"n": 2}}


def test_what_came_stripped_is_an_alert_after_a_day(records: Records, clock: Clock) -> None:
    """Rule 5; that the writer notes it is in test_stripping."""
    records.put("lasting", {"id": "a", "text": "1"})
    records.put("lasting", {"id": "a", "text": "2"})
    clock.ms += 31 * DAY_MS
    retention.compact_all(records, clock.ms, 30)
    log = str(records.trust.log_name("lasting", "13"))
    with records.store.write() as tx:
        tx.execute("insert into withheld values (?, ?, ?, ?)", log, 0, "1301", clock.ms)
        tx.execute("insert into withheld values (?, ?, ?, ?)", log, 1, "1301", clock.ms)
    assert retention.watch(records.store, records.journal, clock.ms) == 1
    assert alerts(records) == []
    clock.ms += DAY_MS
    assert retention.watch(records.store, records.journal, clock.ms) == 1
    assert retention.watch(records.store, records.journal, clock.ms) == 1
    assert alerts(records) == ["FN-6430/1301/" + log]


def alerts(records: Records) -> list[str]:
    records.projector.catch_up()
    rows = records.projector.connection.execute(
        "select key from record where dataset = (select id from dataset where name = 'sys.alerts')"
    )
    return [key for (key,) in rows.fetchall()]


def test_what_cannot_be_erased(records: Records) -> None:
    records.put("lasting", {"id": "a", "text": "1"})
    for arguments, code in (
        (("lasting", "a", " "), "FN-2720"),
        (("lasting", "b", "x"), "FN-3324"),
        (("none", "a", "x"), "FN-3321"),
        (("sys.nodes", "13", "x"), "FN-3321"),
    ):
        with pytest.raises(Refused) as caught:
            erasing.erase(records, *arguments)
        assert caught.value.code == code
    with pytest.raises(Refused) as caught:
        erasing.erase(records, "lasting", "a", "x", number=2)
    assert caught.value.code == "FN-2716"


@pytest.mark.parametrize("dataset", ["lasting", "fields"])
def test_one_version_may_go_alone(records: Records, dataset: str) -> None:
    for text in ("one", "two", "three"):
        records.put(dataset, {"id": "a", "text": text})
    assert len(erasing.erase(records, dataset, "a", "x", number=2).places) == 1
    assert records.get(dataset, "a").record["text"] == "three"
    assert [one.record and one.record["text"] for one in records.history(dataset, "a")] == ["three", "one"]
    erasing.erase(records, dataset, "a", "x", number=1)
    assert records.get(dataset, "a").record["text"] == "one"
    erasing.erase(records, dataset, "a", "x")
    with pytest.raises(Refused):
        records.get(dataset, "a")
    before = records.digest(dataset)
    records.projector.rebuild()
    assert records.digest(dataset) == before
    whole(records)
