"""Nodes that sleep (tests/lib/sim/sleeping.py): a story in which few are open at once, and what it does to a node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fednode.node.store import Store
from fednode.sync.change import Change
from sim.hierarchy import LARGE, SMALL, home_of, members, store_id_of
from sim.network import Faults
from sim.quick import quickly
from sim.sleeping import Dormitory
from sim.story import Result, Told, tell
from sim.world import SimNode, World

ROOT = Path(__file__).resolve().parents[2]
OPEN = 6
MORE = 6  # where power goes, and operators are at work, while everybody has something to do
VILLAGE, TOWNSHIP = "130102001001", "130102001"


def told() -> Told:
    return Told(replace(LARGE, open_max=OPEN), light=True, words=f"--open {OPEN}")


def result_of(seed: int) -> Result:
    return tell(seed, told())[0]


@pytest.fixture
def world() -> Iterator[World]:
    with quickly(light=True):
        world = World(1, Faults.none(), replace(LARGE, open_max=OPEN))
        try:
            yield world
        finally:
            world.close()


def rows_of(node: SimNode) -> dict[str, list[tuple[object, ...]]]:
    """All of log.db."""
    tables = [name for (name,) in node.store.rows("select name from sqlite_master where type = 'table'")]
    return {name: sorted(node.store.rows(f'select * from "{name}"'), key=repr) for name in tables}


@pytest.mark.sim
@pytest.mark.slow
def test_of_31_nodes_six_are_open_and_everything_holds_and_is_the_same_in_another_process() -> None:
    here = result_of(1)
    assert here.open_most <= OPEN + MORE
    assert here.woken > 500  # or hardly anybody slept
    code = "import test_sleeping; print(test_sleeping.result_of(1).digest)"
    environ = {"PYTHONPATH": "src:tests/lib:tests/sim", "PYTHONHASHSEED": "54321", "PATH": "/usr/bin:/bin"}
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here.digest


@pytest.mark.sim
@pytest.mark.slow
def test_it_finds_that_somebody_wakes_with_what_lay_there_the_night_before(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Dormitory.keep

    def forgetting(self: Dormitory, node: SimNode) -> None:
        before = self.last.get(node.id) if node.member.level == "village" else None
        keep(self, node)
        self.last[node.id] = self._packed[node.id]
        if before is not None:
            self._packed[node.id] = before

    monkeypatch.setattr(Dormitory, "last", {}, raising=False)
    monkeypatch.setattr(Dormitory, "keep", forgetting)
    with pytest.raises((AssertionError, RuntimeError)):
        result_of(1)


def test_a_node_that_slept_holds_what_it_held_and_believes_what_it_believed(world: World) -> None:
    township, village = world.nodes[TOWNSHIP], world.nodes[VILLAGE]
    assert township.asleep
    before = rows_of(township)
    assert not township.asleep
    assert township.write("sys.audit", TOWNSHIP, [Change(b"k", b"{}")])
    changed, known = rows_of(township), township.trust.directory.all()
    assert changed != before
    township.stop()
    assert township.asleep
    assert not list(township.folder.glob("*.db*"))  # no file, no connection, nothing in memory
    assert not {"store", "trust", "writer", "projector", "reference"} & vars(township).keys()
    assert rows_of(township) == changed
    assert township.trust.directory.all() == known
    assert village.asleep  # nobody wanted it


def test_who_has_something_to_do_does_not_sleep(world: World) -> None:
    village = world.nodes[VILLAGE]
    village.wake()
    world.nodes[TOWNSHIP].wake()
    village.dial()
    assert village.busy
    village.stop()
    assert not village.asleep
    world.clock.run_until(world.clock.now_ms + 120_000)
    assert not village.busy  # it said what it had to say, and hung up
    village.stop()
    assert village.asleep


def test_the_lowest_sleep_first_and_nobody_who_was_wanted_just_now(world: World) -> None:
    wanted = ["13", "1301", "130102", TOWNSHIP, VILLAGE, "130102001002", "130102002001"]
    for name in wanted:
        world.nodes[name].wake()
    assert [name for name in wanted if world.nodes[name].asleep] == ["130102"]  # what is below it is in hand


def test_a_copied_home_is_a_new_one(tmp_path: Path) -> None:
    """The store that lies there is the one that `Store.create` makes."""
    with quickly(light=True):
        member = members(SMALL)[VILLAGE]
        home_of(tmp_path, member, [])
        copied = Store.open(tmp_path / "log.db", stash_key=member.keys.stash_key)
        made = Store.create(tmp_path / "made.db", store_id=store_id_of(VILLAGE), stash_key=member.keys.stash_key)
        tables = made.rows("select name, sql from sqlite_master order by 1, 2")
        assert copied.rows("select name, sql from sqlite_master order by 1, 2") == tables
        assert copied.store_id == made.store_id == store_id_of(VILLAGE)
        for name, sql in tables:
            if (
                sql and sql.lower().startswith("create table") and not name.startswith("_")
            ):  # migrations say when they ran
                there, expected = (
                    [row for row in store.rows(f'select * from "{name}"') if row[0] != "sum/_sqlite_migrations"]
                    for store in (copied, made)
                )
                assert there == expected, name
        copied.close()
        made.close()


def test_rarer_faults_are_of_every_kind() -> None:
    assert Faults().rarer(20).cut == Faults().cut / 20
    assert all(getattr(Faults().rarer(20), kind) > 0 for kind in Faults.kinds())
