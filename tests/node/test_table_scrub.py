"""What state.db says is compared with the logs, as a part of the scrub."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from crash.flips import words
from fednode.crypto import canonical
from fednode.node import audit, erasing, sqlite, status
from fednode.node.app import App
from fednode.node.audit import SHAPE, Problem
from fednode.node.config import Config
from fednode.node.events import Events
from fednode.node.scrub import DAY_MS, Scrub
from fednode.node.scrubber import Scrubber
from fednode.node.shipped import catalog
from fednode.node.table_scrub import DIFFERS, UNREADABLE, Tables
from fednode.node.writer_thread import WriterThread
from fednode.sync.change import Change
from fednode.sync.errors import StoreError
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
    desk.amend(DATASET, keys[1], {"xk_nr": "第三版"}, "13")
    desk.delete(DATASET, keys[2], "13")
    name = made.trust.log_name(DATASET, "13")
    made.new_writer(made.store).local(DATASET, "13", [erase_change(name, 3, "court order")])
    desk.projector.catch_up()
    desk.projector.index_text()
    desk.amend(DATASET, keys[9], {"xk_nr": "另一版"}, "13")
    desk.projector.index_text()
    erasing.clean(made.store, desk.projector)
    desk.projector.close()
    return made


def found(app: App) -> list[Problem]:
    tables, after, problems = Tables(app.store, app.home.state_db, app.trust), 0, []
    while True:
        after, _, some = tables.check(after)
        problems += some
        if not after:
            return problems + tables.rest() + tables.whole(1000, lambda: True)


def alter(app: App, sql: str) -> None:
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as connection:
        assert connection.execute(sql).rowcount == 1


def flip_text(app: App, part: int) -> None:
    """One bit of what FTS5 keeps of words and their places, so many 16ths into its largest page."""
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as connection:
        sql = "select id, block from record_fts_data where id > 10 order by length(block) desc, id limit 1"
        number, block = connection.execute(sql).fetchone()
        changed = bytearray(block)
        changed[len(block) * part // 16] ^= 1
        connection.execute("update record_fts_data set block = ? where id = ?", (bytes(changed), number))


def text(app: App) -> str:
    """All that full text can say."""
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as connection:
        try:
            return words(connection)
        except sqlite.Error as error:
            return str(error)


def test_what_is_sound_is_sound(app: App) -> None:
    assert found(app) == []
    assert Tables(app.store, app.home.state_db, app.trust).count() >= COUNT - 1


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
        # and these, 2026-11-27, seeds 1 and 11
        "dataset = dataset + 1",
        "dataset = 99",
        "area = 99",
        "seq = 3",
    ],
)
@pytest.mark.parametrize("seq", [0, pytest.param(COUNT - 1, marks=pytest.mark.slow)])
def test_a_row_that_says_something_else_is_told_of(app: App, column: str, seq: int) -> None:
    alter(app, f"update record set {column} where seq = {seq} and key like '%|%'")
    told = [(one.log, one.code, one.end - one.first) for one in found(app)]
    assert (f"hebei/13/1/{DATASET}", DIFFERS, 1) in told
    assert {code for _, code, _ in told} <= {DIFFERS, UNREADABLE}, (
        "and an index that says something else than its table"
    )


@pytest.mark.parametrize(
    "change",
    [
        "log = log + 1",
        "seq = seq + 9",
        "seq = 3",  # of a version that was erased
        "key = key || 'x'",
        "dataset = dataset + 1",
        "op = 2",
        "effective = effective - 1",
        "hlc = hlc + 1",
        "base = base + 1",
        "schema_version = schema_version + 1",
        "conflict = 1",
    ],
)
def test_a_version_that_lost_and_says_something_else_is_told_of(app: App, change: str) -> None:
    """Regression (crash lab, flips, seed 11): `superseded` was compared with nothing."""
    alter(app, f"update superseded set {change} where (key, seq) = (select key, min(seq) from superseded)")
    assert DIFFERS in {one.code for one in found(app)}


def test_a_version_that_lost_and_is_shown_as_the_one_that_won_is_told_of(app: App) -> None:
    """All of it is what some change says, but not the last one."""
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as c:
        key, seq = c.execute("select key, max(seq) from superseded").fetchone()
        (held,) = (app.store.segment_at(app.store.log_id(app.trust.log_name(DATASET, "13")), seq),)
        columns = app.store.columns(held)
        at = seq - held.first
        names = "op, effective, hlc, base, log, seq, schema_version"
        lost = c.execute(f"select {names} from superseded where key = ? and seq = ?", (key, seq)).fetchone()
        won = c.execute(f"select {names} from record where key = ?", (key,)).fetchone()
        marks = ", ".join(f"{name} = ?" for name in names.split(", "))
        c.execute(f"update superseded set {marks} where key = ? and seq = ?", (*won, key, seq))
        c.execute(f"update record set {marks}, payload = ? where key = ?", (*lost, columns.payloads[at].decode(), key))
        c.execute("insert into stale_text select id from record where key = ?", (key,))  # its words are no news
    assert [one.code for one in found(app)] == [DIFFERS]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("update meta set value = value + 1024 where key = 'text_id'", DIFFERS),
        ("update meta set value = value + 1024 where key = 'fresh'", DIFFERS),
        ("update meta set value = 8 where key = 'unclean'", DIFFERS),
        ("update meta set key = 'unclear' where key = 'unclean'", DIFFERS),
        ("update dataset set name = 'admin-pfnalty' where name = 'admin-penalty'", DIFFERS),
        ("update area set code = '33' where code = '13'", DIFFERS),
        ("update record_fts_docsize set sz = x'7f' where id = 50", DIFFERS),
        ("update record_fts_docsize set origin = origin + 4096 where id = 50", DIFFERS),
        ("update record_fts_docsize set id = 4096 where id = 50", DIFFERS),
        ("delete from record_fts_docsize where id = 50", DIFFERS),
    ],
)
def test_what_state_db_says_besides_records_is_told_of(app: App, sql: str, code: str) -> None:
    """Regression (crash lab, flips, seeds 2 and 11)."""
    alter(app, sql)
    assert code in {one.code for one in found(app)}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 12))
def test_a_word_that_a_search_would_miss_is_told_of(app: App, part: int) -> None:
    """Regression (crash lab, flips): nothing compared the full-text index with the records, 15 of the 19 that were
    silent of 6,000 with seed 11."""
    before = text(app)
    flip_text(app, part)
    if text(app) != before:  # not in the place of what was deleted since
        assert {one.code for one in found(app)} & {DIFFERS, UNREADABLE}
    else:
        assert part in (6, 8, 11)


def test_a_text_that_is_none_any_more_is_told_where_full_text_is_made(app: App) -> None:
    """Regression (crash lab, flips, seed 11): it ended by a UnicodeDecodeError."""
    alter(app, "update record set payload = cast(x'e9' || payload as text) where id = 50")
    alter(app, "update meta set value = 49 where key = 'text_id'")
    with closing(app.new_projector()) as projector, pytest.raises(StoreError, match=UNREADABLE):
        projector.index_text()


def test_a_payload_that_is_no_text_is_told_of(app: App) -> None:
    """Regression (crash lab, flips, seed 32): the scrub ended by an AttributeError."""
    alter(app, "update record set payload = 5 where id = 50")
    alter(app, "update record set payload = x'05' where id = 51")
    assert UNREADABLE in {one.code for one in found(app)} or DIFFERS in {one.code for one in found(app)}


def test_full_text_that_was_made_of_who_knows_what_is_made_anew(app: App) -> None:
    """Regression (crash lab, flips, seed 34): it ended by a DecodeError."""
    alter(app, "update meta set value = replace(value, ',', ';') where key = 'text_shape'")
    assert UNREADABLE in {one.code for one in found(app)}
    with closing(app.new_projector()) as projector:
        assert projector.index_text() >= COUNT - 1
    assert found(app) == []


def test_a_rebuild_mends_full_text(app: App) -> None:
    flip_text(app, 3)
    with closing(app.new_projector()) as projector:
        projector.rebuild()
        projector.index_text()
    assert found(app) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("payload text", "payload tdxt"),  # the type of a column
        ("key text primary key, value", "key text primary key, valud"),
        ("r.op = 1", "r.op = 0"),  # of a view
        ("on superseded (conflict)", "on superseded (confliBt)"),
    ],
)
def test_a_schema_that_says_something_else_is_told_of(app: App, old: str, new: str) -> None:
    """Regression (crash lab, flips, seed 2): the type of a column."""
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as c:
        c.execute("pragma writable_schema = on")
        assert c.execute(
            "update sqlite_master set sql = replace(sql, ?, ?) where instr(sql, ?)", (old, new, old)
        ).rowcount
    assert {one.code for one in found(app)} & {SHAPE, UNREADABLE}


def test_the_schema_of_log_db_too(app: App) -> None:
    assert audit.verify_store(app.store, app.trust).problems == []
    with closing(sqlite.connect(app.home.log_db, synchronous="FULL")) as c:
        c.execute("pragma writable_schema = on")
        c.execute("update sqlite_master set sql = replace(sql, 'last_error text', 'last_error tdxt')")
    assert [one.code for one in audit.verify_store(app.store, app.trust).problems] == [SHAPE]


def test_an_index_that_lacks_a_record_is_told_of(app: App) -> None:
    """`quick_check` does not look: a search by key would say that the record is not there."""
    with closing(sqlite.connect(app.home.state_db, synchronous="NORMAL")) as c:
        c.execute("pragma writable_schema = on")
        (page,) = c.execute("select rootpage from sqlite_master where name = 'record_key'").fetchone()
        (other,) = c.execute("select rootpage from sqlite_master where name = 'superseded_conflict'").fetchone()
        c.execute("update sqlite_master set rootpage = ? where name = 'record_key'", (other,))
        c.execute("update sqlite_master set rootpage = ? where name = 'superseded_conflict'", (page,))
    assert UNREADABLE in {one.code for one in found(app)}


def test_full_text_is_made_anew_when_the_catalog_wants_other_fields(app: App) -> None:
    """It stayed as it was: a search missed the words of older records."""
    first = catalog()
    declared = first.datasets[DATASET]
    fields = tuple(msgspec.structs.replace(field, search=field.code == "xk_nr") for field in declared.fields)
    app.trust.catalog = replace(
        first, datasets={**first.datasets, DATASET: msgspec.structs.replace(declared, fields=fields)}
    )
    assert found(app) == [], "not yet"
    with closing(app.new_projector()) as projector:
        assert projector.index_text() >= COUNT - 1
    assert found(app) == []


def test_a_file_that_sqlite_cannot_read_is_told_of(app: App) -> None:
    data = app.home.state_db.read_bytes()
    app.home.state_db.write_bytes(data[:100] + bytes(len(data) - 100))
    assert {one.code for one in found(app)} == {UNREADABLE}


def test_another_store_s_table_and_none_are_no_trouble(app: App, tmp_path: Path) -> None:
    alter(app, "update meta set value = zeroblob(16) where key = 'store_id'")
    assert found(app) == []
    assert Tables(app.store, tmp_path / "none.db", app.trust).check(0) == (0, 0, [])


def test_a_round_takes_in_the_table_and_ends(app: App) -> None:
    ticks = iter(range(1 << 30))
    tables = Tables(app.store, app.home.state_db, app.trust)
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
