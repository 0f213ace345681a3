"""What state.db says is compared with the logs, as a part of the scrub."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fednode.crypto import canonical
from fednode.node import sqlite, status
from fednode.node.app import App
from fednode.node.audit import Problem
from fednode.node.config import Config
from fednode.node.events import Events
from fednode.node.scrub import DAY_MS, Scrub
from fednode.node.scrubber import Scrubber
from fednode.node.shipped import catalog
from fednode.node.table_scrub import DIFFERS, UNREADABLE, Tables
from fednode.node.writer_thread import WriterThread
from fednode.sync.change import Change
from fednode.sync.strip import erase_change
from sample_data import records

DATASET = "admin-licence"
COUNT = 2 * Tables.AT_ONCE + 7


@pytest.fixture
def app(tmp_path: Path) -> App:
    """A province with records, some of them changed, deleted and erased."""
    made = App.init_province(tmp_path / "13", Config(), node="13", name="河北省", domain="hebei")
    made.publish_catalog(catalog())
    rows = [dict(one) for one in records(DATASET, COUNT, seed=1, area="13")]
    fields = catalog().datasets[DATASET].key
    keys = ["|".join(str(row[field]) for field in fields) for row in rows]
    changes = [Change(key.encode(), canonical.dumps(row)) for key, row in zip(keys, rows, strict=True)]
    made.new_writer(made.store).local(DATASET, "13", changes)
    desk = made.records()
    desk.amend(DATASET, keys[1], {"xk_nr": "另一版"}, "13")
    desk.delete(DATASET, keys[2], "13")
    name = made.trust.log_name(DATASET, "13")
    made.new_writer(made.store).local(DATASET, "13", [erase_change(name, 3, "court order")])
    desk.projector.catch_up()
    desk.projector.close()
    return made


def found(app: App) -> list[Problem]:
    tables, after, problems = Tables(app.store, app.home.state_db, app.trust.dataset), 0, []
    while True:
        after, _, some = tables.check(after)
        problems += some
        if not after:
            return problems


def alter(app: App, sql: str) -> None:
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as connection:
        assert connection.execute(sql).rowcount == 1


def test_what_is_sound_is_sound(app: App) -> None:
    assert found(app) == []
    assert Tables(app.store, app.home.state_db, app.trust.dataset).count() >= COUNT - 1


@pytest.mark.parametrize(
    "column",
    [
        "payload = replace(payload, '公司', '工厂') || ' '",
        "payload = null",
        "key = key || 'x'",
        "op = 2",
        "seq = seq + 1",
        "seq = 1000000",
        # regression (crash lab, flips, seeds 2, 5 and 11, 2026-11-27): these were compared with nothing
        "hlc = hlc + 1",
        "effective = effective - 1",
        "effective = effective + 65536",
        "base = base + 1",
        "schema_version = schema_version + 1",
    ],
)
@pytest.mark.parametrize("seq", [0, COUNT - 1])
def test_a_row_that_says_something_else_is_told_of(app: App, column: str, seq: int) -> None:
    alter(app, f"update record set {column} where seq = {seq} and key like '%|%'")
    told = [(one.log, one.code, one.end - one.first) for one in found(app)]
    assert told == [(f"hebei/13/1/{DATASET}", DIFFERS, 1)]


def test_a_file_that_sqlite_cannot_read_is_told_of(app: App) -> None:
    data = app.home.state_db.read_bytes()
    app.home.state_db.write_bytes(data[:100] + bytes(len(data) - 100))
    assert [one.code for one in found(app)] == [UNREADABLE]


def test_another_store_s_table_and_none_are_no_trouble(app: App, tmp_path: Path) -> None:
    alter(app, "update meta set value = zeroblob(16) where key = 'store_id'")
    assert found(app) == []
    assert Tables(app.store, tmp_path / "none.db", app.trust.dataset).check(0) == (0, 0, [])


def test_a_round_takes_in_the_table_and_ends(app: App) -> None:
    ticks = iter(range(1 << 30))
    tables = Tables(app.store, app.home.state_db, app.trust.dataset)
    scrub = Scrub(app.store, app.trust.directory, "13", 1, lambda: next(ticks) * 1.0, tables)
    steps, now_ms = 0, 1_780_000_000_000
    while not scrub.state.last_ended_ms:
        scrub.step(now_ms)
        steps, now_ms = steps + 1, now_ms + DAY_MS // 48
        assert steps < 100
    assert scrub.state.rows >= COUNT - 1
    assert scrub.state.last_problems == 0
    assert steps > 3


@pytest.mark.asyncio
async def test_the_daemon_s_scrub_tells_and_a_rebuild_mends(app: App) -> None:
    """Regression: a flipped bit in a record's bytes in state.db was noticed by nobody."""
    alter(app, "update record set payload = replace(payload, '公司', '工厂') || ' ' where seq = 7 and key like '%|%'")
    writer = WriterThread(app.new_writer, lambda: None)
    scrubber = Scrubber(app, writer)
    await scrubber.step()
    scrubber._scrub.state.started_ms -= 30 * DAY_MS // 4
    while not scrubber._scrub.state.last_ended_ms:
        await scrubber.step()
    await scrubber.close()
    writer.stop()
    assert [one["code"] for one in status.collect(app)["verified"]["scrub"]["problems"]] == [DIFFERS]
    projector = app.new_projector()
    projector.catch_up()
    assert [one.code for one in Events(projector).alerts()] == [DIFFERS]
    projector.rebuild()
    projector.close()
    assert found(app) == []
