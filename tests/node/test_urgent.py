"""What is urgent: found in a real store; and over real sockets an erase that passes a backlog of 10,000 changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fednode.node import syncing, urgent
from fednode.node.app import App
from fednode.node.store import Store
from fednode.sync.change import NODES, Change, LogName
from fednode.sync.strip import erase_change
from mesh import Mesh, Running
from standbys import standby_of

LICENCE, PENALTY = "admin-licence", "admin-penalty"
NAME = LogName("hebei", "1301", 1, LICENCE, "")


@pytest.mark.parametrize(
    ("log", "count", "is_urgent"),
    [
        ("hebei/13/1/sys.nodes", 5000, True),
        ("hebei/13/1/sys.catalog", 5000, True),
        ("hebei/1301/1/sys.receipts", 1, True),
        ("hebei/1301/1/sys.alerts", 1, True),
        ("hebei/1301/1/sys.cases", 1, True),
        ("hebei/1301/1/sys.audit", 1, False),
        ("hebei/1301/1/admin-licence", 1, False),
        ("hebei/130102/1/admin-licence@130102001001", urgent.CORRECTION_CHANGES_MAX, True),
        ("hebei/130102/1/admin-licence@130102001001", urgent.CORRECTION_CHANGES_MAX + 1, False),
    ],
)
def test_what_is_urgent_by_its_log(log: str, count: int, is_urgent: bool) -> None:
    assert urgent.by_log(LogName.parse(log), count) is is_urgent


def changes(start: int, count: int) -> list[Change]:
    return [
        Change(f"k{n}".encode(), json.dumps({"name": f"x{n}", "n": n * 7919}).encode()) for n in range(start, count)
    ]


def lsns(store: Store, dataset: str) -> list[int]:
    return [held.lsn for held in store.segments(0, 10_000, dataset=dataset)]


async def offline(mesh: Mesh) -> tuple[Running, Running]:
    """A province, and a city with a record that both have; the city's daemon is stopped."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    await mesh.until(lambda: city.app.trust.catalog_version == 1)
    city.write("old", {"name": "old"})
    await mesh.until(lambda: "old" in province.records() and city.pending() == 0)
    await mesh.halt(city)
    return province, city


def erase(city: Running, log: LogName, seq: int, dataset: str = LICENCE) -> int:
    """An erase in this node's log for the dataset; its arrival number."""
    writer = city.app.new_writer()
    try:
        return writer.local(dataset, "1301", [erase_change(log, seq, "court order")])[-1]
    finally:
        writer.store.close()


def backlog(city: Running, dataset: str, count: int = 10_000) -> None:
    writer = city.app.new_writer()
    writer.local(dataset, "1301", changes(0, count))
    writer.store.close()


async def test_an_erase_passes_a_backlog_of_ten_thousand_changes(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city = await offline(mesh)
        backlog(city, PENALTY)
        before = lsns(city.app.store, PENALTY)
        own = erase(city, NAME, 0)
        assert own > max(before)
        assert city.pending() == 10_001
        await syncing.sync_once(city.app)
        assert city.pending() == 0
        came = lsns(province.app.store, PENALTY)
        assert len(came) == len(before) >= 10
        by = province.app.store.rows("select by_lsn from erased where seq = 0 and stripped = 1")
        assert len(by) == 1
        assert by[0][0] < min(came)  # it overtook all of it
        assert "old" not in province.records()
        assert province.app.store.refused() == [] == city.app.store.refused()
        again = await syncing.sync_once(city.app)
        assert (again.sent, again.received) == (0, 0)  # the cursor is where it belongs


async def test_an_erase_in_the_log_of_the_backlog_keeps_the_order_of_the_log_and_passes_the_others(
    tmp_path: Path,
) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city = await offline(mesh)
        backlog(city, PENALTY)
        backlog(city, LICENCE, 2_000)
        erase(city, NAME, 0)
        await syncing.sync_once(city.app)
        licences, penalties = lsns(province.app.store, LICENCE), lsns(province.app.store, PENALTY)
        assert max(licences) < max(penalties)
        by = province.app.store.rows("select by_lsn from erased where seq = 0 and stripped = 1")
        assert by == [(max(licences),)]
        assert city.pending() == 0
        assert province.records_in_log() == city.records_in_log()
        assert province.app.store.refused() == []


async def test_a_revocation_goes_down_ahead_of_a_backlog(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city = await offline(mesh)
        await mesh.child(province, "1302", "city")
        writer = province.app.new_writer()
        for n in range(12):
            writer.local(LICENCE, "1301", changes(n * 1000, n * 1000 + 1000))  # what the province writes for the city
        writer.store.close()
        province.app.revoke("1302", "stolen")
        assert not city.app.trust.directory.is_revoked("1302")
        await mesh.run(city)
        await mesh.until(lambda: city.app.trust.directory.is_revoked("1302"))
        await mesh.until(lambda: city.records_in_log() >= 12_001)
        rows = city.app.store.rows(
            "select s.lsn, l.dataset, l.origin from segment s join log l on l.id = s.log_id order by s.lsn"
        )
        bulk = [lsn for lsn, dataset, origin in rows if (dataset, origin) == (LICENCE, "13")]
        revoked = max(lsn for lsn, dataset, _ in rows if dataset == NODES)
        assert revoked < min(bulk)


def found(store: Store, after: int = 0, beyond: int = 0) -> tuple[list[int], int, bool]:
    items, seen, more = store.hurry_up(after, beyond)
    return [one.lsn for one in items], seen, more


async def test_what_a_store_gives_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Mesh(tmp_path) as mesh:
        _, city = await offline(mesh)
        start = city.app.store.lsn
        backlog(city, PENALTY, 3_000)
        first = erase(city, NAME, 0)
        backlog(city, LICENCE, 1_500)  # after the first erase, before the second: it goes with that one
        second = erase(city, NAME, 1)
        licences = [lsn for lsn in lsns(city.app.store, LICENCE) if lsn > start]
        assert first == licences[0]
        receipts = [lsn for lsn in lsns(city.app.store, "sys.receipts") if lsn > start]
        both = sorted([*licences, *receipts])
        last = city.app.store.lsn
        assert found(city.app.store, start) == (both, last, False)
        assert found(city.app.store, start, first)[0] == [one for one in both if one != first or second > first]
        assert found(city.app.store, start, max(both)) == ([], last, False)
        assert found(city.app.store, max(both)) == ([], last, False)
        assert found(city.app.store, start, last + 7) == ([], last + 7, False)
        assert urgent.pending(city.app.store, start) == max(both)
        assert urgent.pending(city.app.store, max(both)) == 0
        # what would be too much waits for its turn, and all that is urgent after it, too
        sizes = dict(city.app.store.rows("select lsn, length(data) from segment"))
        early = [one for one in both if (one < second and one in receipts) or one == first]
        monkeypatch.setattr(urgent, "HURRY_BYTES", sum(sizes[one] for one in early) + 10)
        items, seen, more = found(city.app.store, start)
        assert set(items) <= set(early)
        assert items
        assert more
        assert seen < second
        monkeypatch.setattr(urgent, "HURRY_BYTES", 10)
        assert found(city.app.store, start) == ([], start, False)


async def test_a_damaged_segment_is_not_sent_ahead_nor_what_comes_after_it(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, city = await offline(mesh)
        start = city.app.store.lsn
        backlog(city, LICENCE, 1_500)
        last = erase(city, NAME, 0)
        whole = found(city.app.store, start)[0]
        assert last in whole
        damaged = whole[1]
        with city.app.store.write() as tx:
            tx.execute("update segment set data = zeroblob(length(data)) where lsn = ?", damaged)
        assert found(city.app.store, start)[0] == whole[:1]


async def test_what_is_held_back_is_not_sent_ahead_either(tmp_path: Path) -> None:
    """Found by the simulator (burning, seed 8): what an earlier life had said in a receipt, and a child gave back, went
    up ahead of its turn, and was refused there (FN-5412)."""
    async with Mesh(tmp_path) as mesh:
        _, city = await offline(mesh)
        start = city.app.store.lsn
        first, second = erase(city, NAME, 0), erase(city, NAME, 1)
        urgent_ones = found(city.app.store, start)[0]
        assert {first, second} < set(urgent_ones)
        with city.app.store.write() as tx:
            tx.hold_back(first)
        assert found(city.app.store, start)[0] == [one for one in urgent_ones if one != first]
        with city.app.store.write() as tx:
            for one in urgent_ones:
                tx.hold_back(one)
        assert found(city.app.store, start)[0] == []
        assert urgent.pending(city.app.store, start) == 0


async def test_a_standby_is_not_given_its_own_ahead(tmp_path: Path) -> None:
    """Found by the simulator (promoting, seed 2): its receipts go down from its primary, and it refused them
    (FN-5413)."""
    async with Mesh(tmp_path) as mesh:
        _, city = await offline(mesh)
        await mesh.run(city)
        standby = await standby_of(mesh, city)
        await mesh.until(lambda: len(standby.records()) == 1)
        erase(city, NAME, 0)
        city.app.poke()
        own = "hebei/1301-s1/1/sys.receipts"
        await mesh.until(lambda: any(str(name) == own for _, name, _ in city.app.store.logs()))
        everything = city.app.store.hurry_all("", 0, 0)[0]
        given = city.app.store.hurry_all("1301-s1", 0, 0)[0]
        origins = dict(city.app.store.rows("select s.lsn, l.origin from segment s join log l on l.id = s.log_id"))
        assert [one.lsn for one in given] == [one.lsn for one in everything if origins[one.lsn] != "1301-s1"]
        assert {origins[one.lsn] for one in everything} - {origins[one.lsn] for one in given} == {"1301-s1"}


def test_an_older_store_knows_what_was_urgent_in_it(tmp_path: Path) -> None:
    """The migration looks at what is there."""
    from fednode.node import sqlite
    from fednode.node.schema import log_migrations
    from mesh import configuration

    app = App.init_province(tmp_path / "13", configuration(), node="13", name="x", domain="hebei")
    path, key = app.home.log_db, app.store.stash_key
    expected = app.store.rows("select lsn from urgent")
    app.close()
    assert expected
    c = sqlite.connect(path, synchronous="FULL")
    last = [migration.name for migration in log_migrations._migrations if migration.name.endswith("_urgent")]
    c.execute("drop table urgent")
    c.execute("delete from _sqlite_migrations where name = ?", (last[0],))
    c.commit()
    c.close()
    store = Store.open(path, stash_key=key)
    assert store.rows("select lsn from urgent") == expected
    store.close()
