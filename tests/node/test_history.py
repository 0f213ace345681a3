"""What moved with whom: counted once whatever ends when, bounded in every way, and kept by real daemons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node import sqlite
from fednode.node.mesh import history as history_
from fednode.node.mesh.history import COARSE_S, FINE_CHILD_S, FINE_PARENT_S, History, Meeting, Moved, Tally
from fednode.node.mesh.table import Table
from fednode.sync.health import About, Load
from mesh import Mesh

NOW_S = 1_780_000_200
ME, PARENT, CHILD = "1301", "13", "130102"
DAY_S = 86_400


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table.open(tmp_path / "health.db", bytes(4))
    yield made
    made.close()


@pytest.fixture
def history(table: Table) -> History:
    return History(table.connection, table.path)


def test_each_byte_is_counted_once_whatever_ends_when() -> None:
    tally = Tally()
    tally.began("a", CHILD, False, NOW_S)
    tally.began("b", CHILD, False, NOW_S + 1)
    assert tally.take({"a": Moved(1, 2, 30, 40), "b": Moved(bytes_in=5), "stranger": Moved(9, 9, 9, 9)}) == {
        CHILD: Moved(1, 2, 30, 45)
    }
    ended = tally.ended("a", Moved(2, 2, 50, 41), NOW_S + 60, "FN-4500")
    assert ended == Meeting(CHILD, False, NOW_S, NOW_S + 60, Moved(2, 2, 50, 41), "FN-4500")
    assert tally.ended("a", Moved(), NOW_S, "") is None
    assert tally.take({"b": Moved(bytes_in=5)}) == {CHILD: Moved(1, 0, 20, 1)}
    assert tally.take({"b": Moved(bytes_in=5)}) == {CHILD: Moved()}


def test_a_sample_is_in_a_fine_and_a_coarse_span_and_has_the_lag_of_whoever_sends_upwards(
    table: Table, history: History
) -> None:
    table.say(ME, 1, Load(changes=7, system=1, bytes=9, since_s=NOW_S - 90), About("0.2.0"), NOW_S * 1000)
    moved = {PARENT: Moved(1, 0, 100, 10), CHILD: Moved(0, 3, 4, 500)}
    for at_s in (NOW_S, NOW_S + FINE_PARENT_S):
        history.add(moved, at_s, PARENT, ME)
    start = NOW_S // COARSE_S * COARSE_S
    fine = history.series([PARENT], FINE_PARENT_S, 0)
    assert [(one["at_s"], one["bytes_out"], one["changes"], one["lag_s"]) for one in fine] == [
        (NOW_S, 100, 8, 90),
        (NOW_S + FINE_PARENT_S, 100, 8, 150),
    ]
    (coarse,) = history.series([PARENT], COARSE_S, 0)
    assert coarse == {
        "at_s": start,
        "segments_out": 2,
        "segments_in": 0,
        "bytes_out": 200,
        "bytes_in": 20,
        "changes": 8,
        "lag_s": 150,
    }
    (child,) = history.series([CHILD], FINE_CHILD_S, 0)
    assert (child["segments_in"], child["bytes_in"], child["changes"], child["lag_s"]) == (6, 1000, 0, 0)
    (both,) = history.series([PARENT, CHILD], COARSE_S, 0)
    assert (both["bytes_out"], both["bytes_in"], both["lag_s"]) == (208, 1020, 150)
    assert history.series([PARENT], FINE_PARENT_S, NOW_S + 1) == fine[1:]


def test_it_forgets_by_age_by_peer_and_in_all(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (0, 2, 61):
        history.add({PARENT: Moved(bytes_out=1)}, NOW_S + day * DAY_S, PARENT, ME)
    history.prune(NOW_S + 61 * DAY_S)
    assert len(history.series([PARENT], FINE_PARENT_S, 0)) == 1
    assert len(history.series([PARENT], COARSE_S, 0)) == 2
    monkeypatch.setattr(history_, "ROWS_MAX", 2)
    history.prune(NOW_S + 61 * DAY_S)
    assert len(history.series([PARENT], COARSE_S, 0)) == 1
    monkeypatch.setattr(history_, "MEETINGS_OF_ONE_MAX", 3)
    for n in range(5):
        history.met(Meeting(CHILD, False, NOW_S + n, NOW_S + n, Moved(bytes_in=n)))
        history.met(Meeting(PARENT, True, NOW_S + n, NOW_S + n, Moved()))
    assert [one.moved.bytes_in for one in history.meetings(CHILD)] == [4, 3, 2]
    monkeypatch.setattr(history_, "MEETINGS_MAX", 2)
    history.prune(NOW_S)
    assert len(history.meetings(CHILD)) + len(history.meetings(PARENT)) == 2


async def test_daemons_keep_what_they_have_moved(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        city.write("91130100000000001X", {"x": 1})
        await mesh.until(lambda: not city.pending())
        await mesh.halt(city)
        await mesh.halt(province)
        for node, peer, fine_s in ((province, "1301", FINE_CHILD_S), (city, "13", FINE_PARENT_S)):
            path = node.app.home.health_db
            history = History(sqlite.connect(path, synchronous="NORMAL", readonly=True), path)
            met = history.meetings(peer)
            assert met[0].dialled is (node is city)
            assert all(one.began_s <= one.ended_s and one.moved.bytes_in and one.moved.bytes_out for one in met)
            for step_s in (fine_s, COARSE_S):
                samples = history.series([peer], step_s, 0)
                for name in ("segments_out", "segments_in", "bytes_out", "bytes_in"):
                    assert sum(one[name] for one in samples) == sum(getattr(one.moved, name) for one in met)
