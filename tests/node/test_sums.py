"""Sums over what nothing else in log.db proves: a flipped bit in any column of any row is told, once."""

from __future__ import annotations

import gc
import os
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fednode.node import audit, schema, sqlite, sums
from fednode.node.app import App
from fednode.node.audit import SUMS
from fednode.node.config import Config
from fednode.node.scrub import DAY_MS, Scrub
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.sync.errors import StoreError

ROWS = {
    "peer": "insert into peer (node, role, acked, have_store, have_lsn) values ('1301', 'child', 7, x'01', 9)",
    "invite": """insert into invite (token_hash, node, name, level, scope, expires_s)
                 values (x'0102', '1302', 'Tangshan', 'city', '1302', 1796415751)""",
    "refused": "insert into refused values (1, 5, '1301', 'FN-6420', 'hebei/1301/1/shop', 3, '{}', x'aa')",
    "witness": "insert into witness values (1, 99, '13', 5, x'aabb', 6, '1301')",
    "erased": "insert into erased values ('hebei/13/1/shop', 1, 'hebei/13/1/shop', 2, 1, 5, 1, x'aa')",
    "withheld": "insert into withheld values ('hebei/13/1/shop', 1, '1301', 5)",
    "rewrap_key": "insert into rewrap_key values (x'0102', '1301', 4, 5, 6)",
    "came_again": "insert into came_again values (3, 4, 1)",
    "refused_at": "insert into refused_at values (3, 5, 'FN-6420')",
    "early": "insert into early values (1, 'hebei/13/1/shop', 3, '13', 5, x'aabb')",
    "made_again": "insert into made_again values ('hebei/13/1/shop', 1, 2, 'hebei/13/2/shop', 3)",
    "late": "insert into late values (40, 1, 1, 9, 3, 4)",
    "resealed": "insert into resealed values (41, 1, '1301')",
    "rewrap": "insert into rewrap values (42, 'hebei/13/1/shop', 1, '1301', x'aa', x'bb', 0, '1301', 1, x'cc')",
    "held_back": "insert into held_back values (1)",
}
PROVED = {"tree", "partial"}  # by the leaves; by its digest


@pytest.fixture
def app(tmp_path: Path) -> App:
    """A province with a row in each table."""
    made = App.init_province(tmp_path / "13", Config(), node="13", name="河北省", domain="hebei")
    with made.store.write() as tx:
        for sql in ROWS.values():
            tx.execute(sql)
    audit.verify_store(made.store, made.trust)  # it remembers how far
    return made


def wrong(store: Store) -> list[str]:
    return [key for key in sums.keys(store) if not sums.holds(store, key)]


def alter(app: App, *statements: str) -> None:
    with closing(sqlite.connect(app.home.log_db, synchronous="FULL")) as connection:
        connection.execute("pragma foreign_keys=off")
        for sql in statements:
            assert connection.execute(sql).rowcount == 1, sql


def test_the_hash_of_a_row() -> None:
    """Golden: whoever computes it otherwise calls every store altered."""
    assert sums.row_hash("held_back", (7,)) == 0x6B7C1AC8B0F8A11B
    assert sums.row_hash("peer", (1, "13", None, b"\1", -2)) == 0xF4F5D8CFE810C7FD


def test_each_table_is_summed_or_proved_otherwise(app: App) -> None:
    there = {name for (name,) in app.store.rows("select name from sqlite_master where type = 'table'")}
    assert there == {*sums.TABLES, *sums.BY_ARRIVAL} | PROVED
    assert all(app.store.rows(f"select count(*) from {name}")[0][0] for name in there - PROVED), "a row in each"


def test_what_was_written_holds(app: App) -> None:
    assert wrong(app.store) == []


CELLS = [
    (table, column)
    for table in (*sums.TABLES, *sums.BY_ARRIVAL)
    for column in (
        {
            "_sqlite_migrations": "id migration_set name applied_at",
            "meta": "key value",
            "log": "id name origin incarnation dataset audience up down",
            "peer": """id node role acked have_store have_lsn have_check last_ms last_error addresses since
                       witnessed""",
            "invite": "token_hash node name level scope expires_s used_s used_key stick_key",
            "refused": "id at_ms peer code log first params data",
            "witness": "log_id size witness time_s signature number child",
            "erased": "log seq by_log by_seq by_lsn at_ms stripped record_key",
            "withheld": "log first peer at_ms",
            "rewrap_key": "key_id node after_lsn upto given",
            "came_again": "peer peer_lsn lsn",
            "refused_at": "peer peer_lsn code",
            "early": "id log size witness time_s signature",
            "made_again": "log first count new_log new_first",
            "verified": "log_id size root frontier last_hlc",
            "segment": "lsn log_id first count peer peer_lsn",
            "chain": "lsn sum",
            "late": "lsn log_id segment_lsn time_s peer peer_lsn",
            "resealed": "lsn segment_lsn back",
            "rewrap": "lsn log first node key_id sha256 up down opened data",
            "urgent": "lsn",
            "held_back": "lsn",
        }[table]
    ).split()
]


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_row_that_says_something_else_is_told_of(app: App, table: str, column: str) -> None:
    """Regression (crash lab, flips, 2026-11-27): names and times of migrations, cursors of peers, invitations and
    rows of `erased`, `rewrap_key`, `urgent` were compared with nothing."""
    last = (
        app.store.rows(f"select max(rowid) from {table}") if table not in ("meta",) and has_rowid(app, table) else None
    )
    where = f"rowid = {last[0][0]}" if last else "key = 'hlc'" if table == "meta" else "1"
    kinds = {"integer": f"coalesce({column}, 0) + 4096", "text": f"coalesce({column}, '') || 'x'", "blob": "x'00ff'"}
    kind = str(next(row[2] for row in app.store.rows(f"pragma table_info({table})") if row[1] == column)).lower()
    alter(app, f"update {table} set {column} = {kinds.get(kind, 'value + 1')} where {where}")
    assert wrong(app.store) != []


@pytest.mark.parametrize(("key", "value"), [("lsn", "value + 8"), ("hlc", "value - 1"), ("store_id", "x'00'")])
def test_a_setting_that_says_something_else_is_told_of(app: App, key: str, value: str) -> None:
    alter(app, f"update meta set value = {value} where key = '{key}'")
    assert wrong(app.store) == ["sum/meta" if key == "store_id" else "sum/now"]


def test_the_sum_of_a_transaction_that_failed_is_written_by_the_next_that_says_the_same(app: App) -> None:
    """What changes with every transaction is compared with what stands, not with what was to stand."""
    for fails in (True, False):
        with suppress(StoreError), app.store.write() as tx:
            tx.set_meta("hlc", 1 << 60)
            app.store._noted.settle()  # type: ignore[union-attr]
            tx.execute("insert into nowhere values (1)" if fails else "select 1")
    assert wrong(app.store) == []


def changed_and_failed(tx: Transaction) -> None:
    tx.execute("update peer set acked = 8")
    tx.execute("insert into nowhere values (1)")


def has_rowid(app: App, table: str) -> bool:
    sql = "select wr from pragma_table_list where name = ?"
    return not app.store.rows(sql, table)[0][0]


def test_it_is_told_once_and_then_counts(app: App) -> None:
    store = app.store
    with store.write() as tx:
        tx.execute("delete from witness")  # was made up: the audit would tell of it first
        for table in ("late", "resealed", "held_back"):
            tx.execute(f"delete from {table}")
    assert audit.verify_store(store, app.trust).problems == []
    alter(app, "update peer set acked = acked + 64")
    told = [(one.log, one.code) for one in audit.verify_store(store, app.trust).problems]
    assert told == [("log.db/peer", SUMS)]
    assert audit.verify_store(store, app.trust).problems == []
    alter(app, "update segment set peer_lsn = 5 where lsn = 1", "update chain set sum = x'00' where lsn = 2")
    told = [(one.log, one.first, one.end, one.code) for one in audit.verify_store(store, app.trust).problems]
    assert told == [("log.db/segment", 0, sums.RUN, SUMS)]
    assert audit.verify_store(store, app.trust).problems == []


def test_the_scrub_tells_of_it_too(app: App) -> None:
    with app.store.write() as tx:
        for table in ("witness", "late", "resealed", "held_back"):
            tx.execute(f"delete from {table}")
    alter(app, "update invite set level = 'county'")
    scrub = Scrub(app.store, app.trust.directory, "13", 1, lambda: 0.0)
    now_ms, found = 1_780_000_000_000, []
    while not scrub.state.last_ended_ms:
        found += scrub.step(now_ms)
        now_ms += DAY_MS // 8
    assert [(one.log, one.code) for one in found] == [("log.db/invite", SUMS)]
    sums.take(app.store, scrub.wrong)
    assert wrong(app.store) == []


def test_what_was_rolled_back_counts_for_nothing(app: App) -> None:
    with pytest.raises(StoreError), app.store.write() as tx:
        changed_and_failed(tx)
    with app.store.write() as tx:
        tx.execute("update peer set acked = 9")
    assert wrong(app.store) == []


def test_regression_a_store_that_nobody_has_any_more_is_closed(tmp_path: Path) -> None:
    """The connection held the function that counts, that held the connection: it stayed open, beside what was moved."""

    def opened() -> int:
        """How often this process has the store open."""
        there = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return there.count(str(path))

    path = tmp_path.resolve() / "log.db"
    gc.disable()
    try:
        store = Store.create(path, store_id=bytes(16), stash_key=bytes(32))
        with store.write() as tx:
            tx.set_meta("x", 1)
        assert opened() == 1
        del store, tx
        assert opened() == 0
    finally:
        gc.enable()


def test_regression_a_store_whose_settings_cannot_be_read_says_so_when_it_is_opened(tmp_path: Path) -> None:
    """Flipped bits (6 of 100,000) ended in an error of SQLite's own, without a code."""
    path = tmp_path / "log.db"
    Store.create(path, store_id=bytes(16), stash_key=bytes(32)).close()
    with closing(sqlite.connect(path, synchronous="FULL")) as connection:
        (size,) = connection.execute("pragma page_size").fetchone()
        (page,) = connection.execute("select rootpage from sqlite_master where name = 'meta'").fetchone()
    whole = path.read_bytes()
    path.write_bytes(whole[: (page - 1) * size] + b"\xff" * size + whole[page * size :])
    with pytest.raises(StoreError, match="FN-7604"):
        Store.open(path, stash_key=bytes(32))


def test_several_write_one_after_the_other(app: App) -> None:
    with closing(app.new_store()) as other:
        for number in range(4):
            for store in (app.store, other):
                with store.write() as tx:
                    tx.set_meta("x", number)
                    tx.execute("insert or replace into erased values ('l', 1, 'l', 2, ?, 5, 1, x'aa')", number)
                    tx.execute("insert into peer (node, role) values ('a', 'b') on conflict do update set acked = 5")
                    lsn = tx.next_lsn()
                    tx.execute("insert into urgent values (?)", lsn)
                    tx.execute("delete from urgent where lsn = ?", lsn - 1)
    assert wrong(app.store) == []


def test_a_sum_that_is_damaged_itself_is_told_of(app: App) -> None:
    alter(app, "update meta set key = 'sum/pefr' where key = 'sum/peer'")
    assert wrong(app.store) == ["sum/peer", "sum/pefr"]
    sums.take(app.store, wrong(app.store))
    assert wrong(app.store) == []
    alter(app, "update meta set value = x'0000000000000000' where key = 'sum/#0'")
    assert wrong(app.store) == ["sum/#0"]


def test_a_store_that_has_none_gets_them_when_it_is_opened(app: App) -> None:
    with closing(sqlite.connect(app.home.log_db, synchronous="FULL")) as connection:
        connection.execute("delete from meta where key glob 'sum*'")
        connection.execute(f"update meta set value = {3 * sums.RUN + 5} where key = 'lsn'")
    with closing(app.new_store()) as store:
        assert "sum/#3" in sums.keys(store)
        assert store.meta(sums.SINCE) == 3 * sums.RUN
        with store.write() as tx:
            tx.execute("update resealed set back = '1302'")  # from before
        assert wrong(store) == []
        assert "sum/#0" not in sums.keys(store)


def test_a_store_of_another_shape_makes_them_anew(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    alter(app, "delete from _sqlite_migrations where name = 'm016_refused_at'")
    monkeypatch.setattr(schema.log_migrations._migrations[-1], "fn", lambda _db: None)
    with closing(app.new_store()) as store:
        assert wrong(store) == []


def test_another_store_does_not_inherit_them() -> None:
    rows = [("hlc", 1), ("sum/peer", b"1"), (sums.SINCE, 0)]
    assert sums.without("meta", ("key", "value"), rows) == [("hlc", 1)]
    assert sums.without("peer", ("key",), [("sum/peer",)]) == [("sum/peer",)]


@pytest.mark.parametrize("change", ["level = level + 40", "idx = idx + 4096", "log_id = 99"])
def test_a_kept_node_that_stands_nowhere_is_told_of_and_goes(app: App, change: str) -> None:
    """Regression (crash lab, flips): nothing looks where no leaf is."""
    with app.store.write() as tx:
        for table in ("witness", "late", "resealed", "held_back"):
            tx.execute(f"delete from {table}")
    rows = app.store.rows("select count(*) from tree")[0][0]
    alter(app, f"update tree set {change} where (log_id, level, idx) = (select log_id, level, idx from tree limit 1)")
    assert [one.code for one in audit.verify_store(app.store, app.trust).problems] == [audit.KEPT]
    assert audit.verify_store(app.store, app.trust).problems == []
    assert app.store.rows("select count(*) from tree")[0][0] == rows - 1


@pytest.mark.parametrize("column", ["count", "first"])
def test_a_place_that_is_no_number_is_a_gap(app: App, column: str) -> None:
    """Regression (crash lab, flips, seed 24): it ended by a TypeError, in the scrub as in `verify`."""
    alter(app, f"update segment set {column} = x'05' where lsn = 1")
    assert "FN-6602" in {one.code for one in audit.verify_store(app.store, app.trust).problems}


def test_a_segment_that_says_it_is_longer_does_not_end_the_scrub(app: App) -> None:
    """Regression (crash lab, flips, seed 24): a round that had come by more changes than there are never
    ended."""
    alter(app, "update segment set count = count + 4096 where lsn = 1")
    scrub = Scrub(app.store, app.trust.directory, "13", 1, lambda: 0.0)
    now_ms, found, steps = 1_780_000_000_000, [], 0
    while not scrub.state.last_ended_ms:
        found += scrub.step(now_ms)
        now_ms, steps = now_ms + DAY_MS // 8, steps + 1
        assert steps < 20
    assert "FN-6604" in {one.code for one in found}
