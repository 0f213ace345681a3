"""Whose feed may have grown: told from what is new, and never wrongly of anybody, in whole stories of the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chain import CITY, COUNTY, TOWNSHIP, VILLAGE, Node
from fednode.node.engine import Engine
from fednode.node.link import Link
from fednode.node.store import Store
from fednode.node.waking import MANY, Waking
from fednode.sync.errors import StoreError
from fednode.sync.side import PULL_BYTES
from mesh import Mesh
from sim import world
from sim.story import run
from world import shop

STANDBY = "130102-s1"


@pytest.fixture
def county(tmp_path: Path) -> Node:
    return Node(COUNTY, tmp_path / COUNTY)


def neighbour(county: Node) -> Link:
    """Another township of the county."""
    link = county.link(TOWNSHIP)
    return replace(link, peer=replace(link.peer, node="130102002", scope=("130102002",)))


def test_what_goes_up_wakes_no_child_and_a_correction_only_the_one_that_it_is_for(county: Node, tmp_path: Path) -> None:
    waking = Waking(county.store)
    village, township = Node(VILLAGE, tmp_path / VILLAGE), Node(TOWNSHIP, tmp_path / TOWNSHIP)
    links = county.link(CITY), county.link(TOWNSHIP), neighbour(county)
    village.write(shop("a", VILLAGE))
    village.send(township)
    assert [done.refused for done in township.send(county)] == [""]
    may_have = waking.look()
    assert [may_have(link) for link in links] == [True, False, False]
    county.write(shop("a", VILLAGE), audience=VILLAGE)
    may_have = waking.look()
    assert [may_have(link) for link in links] == [True, True, False]
    may_have = waking.look()
    assert [may_have(link) for link in links] == [True, False, False]


@pytest.mark.parametrize(
    "row",
    [
        "resealed (lsn, segment_lsn, back) values (9, 1, '130102001')",
        """rewrap (lsn, log, first, node, key_id, sha256, up, down, data)
           values (9, 'hebei/130102001001/1/shop', 0, '130102001', x'00', x'00', 0, '130102001', x'01')""",
    ],
)
def test_what_is_given_back_and_keys_wake_whom_they_are_for(county: Node, tmp_path: Path, row: str) -> None:
    village, township = Node(VILLAGE, tmp_path / VILLAGE), Node(TOWNSHIP, tmp_path / TOWNSHIP)
    village.write(shop("a", VILLAGE))
    village.send(township)
    township.send(county)
    waking = Waking(county.store)
    with county.disk() as c:
        c.execute(f"insert into {row}")
    may_have = waking.look()
    assert may_have(county.link(TOWNSHIP))
    assert not may_have(neighbour(county))


def test_whose_feed_is_another_is_always_woken(county: Node) -> None:
    may_have, child = Waking(county.store).look(), county.link(TOWNSHIP)
    assert not may_have(child)
    assert may_have(None)
    assert may_have(replace(child, restoring=True))
    assert may_have(replace(child, gives_back=2))
    assert may_have(replace(child, peer=replace(child.peer, node=STANDBY, stands_for=COUNTY)))


def test_where_the_store_cannot_tell_everybody_is_woken_and_so_until_it_can(county: Node) -> None:
    class Ailing:
        lsn, ill = county.store.lsn, True

        def grown_down(self, after: int) -> list[str]:
            if self.ill:
                raise StoreError("FN-7603")
            return county.store.grown_down(after)

    store = Ailing()
    waking = Waking(store)  # type: ignore[arg-type]
    county.write(shop("a", VILLAGE), audience=VILLAGE)
    store.lsn = county.store.lsn
    assert waking.look()(neighbour(county))
    store.ill = False
    may_have = waking.look()
    assert may_have(county.link(TOWNSHIP))
    assert not may_have(neighbour(county))


def test_who_has_no_children_asks_the_store_nothing(county: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    waking, asked = Waking(county.store), list[int]()
    monkeypatch.setattr(Store, "grown_down", lambda _store, after: asked.append(after) or [])
    may_have = waking.look()
    assert may_have(county.link(CITY))
    assert may_have(None)
    assert asked == []
    assert not may_have(county.link(TOWNSHIP))
    assert not may_have(neighbour(county))
    assert asked == [0], "once for all children"


@pytest.mark.sim
@pytest.mark.parametrize(("seed", "story"), [(1, {}), (1, {"burning": True}), (7, {"promoting": True, "small": True})])
def test_who_is_not_woken_has_nothing_new(seed: int, story: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    spared = 0

    class Checked(Waking):
        def __init__(self, store: Store) -> None:
            super().__init__(store)
            self.store = store

        def look(self) -> Callable[[Link | None], bool]:
            after, may_have = self._looked, super().look()

            def checked(link: Link | None) -> bool:
                nonlocal spared
                told = may_have(link)
                if not told and link is not None:
                    spared += 1
                    assert self.store.feed_down(link.peer.scope, after, PULL_BYTES) == ([], True)
                return told

            return checked

    monkeypatch.setattr(world, "Waking", Checked)
    run(seed, **story)
    assert spared > 50


async def test_regression_thousands_who_are_connected_are_looked_at_once_for_all_that_comes_in_a_short_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group of commits had the loop look at every session: 5,000 children kept it from serving them."""

    class Connected:
        peer = link = None
        woken = 0

        def wake(self) -> None:
            self.woken += 1

    monkeypatch.setattr("fednode.node.waking.EACH_S", 3600.0)
    async with Mesh(tmp_path) as mesh:
        engine = Engine((await mesh.found()).app)
        some = [Connected() for _ in range(MANY)]
        engine.sessions.update(some[1:])  # type: ignore[arg-type]
        for _ in range(3):
            engine.moved()
        assert {one.woken for one in some[1:]} == {3}
        engine.sessions.add(some[0])  # type: ignore[arg-type]
        for _ in range(3):
            engine.moved()
        assert some[0].woken == 0
        assert engine._looking.waits
        engine._looking.now(MANY)  # as the timer does
        assert some[0].woken == 1
        engine.sessions.clear()
        engine.moved()
        assert not engine._looking.waits
        await engine.stop()


async def test_what_is_written_while_the_daemon_stops_does_not_look_into_a_store_that_is_being_closed(
    tmp_path: Path,
) -> None:
    """Two threads in one connection of SQLite's, of which one closes it, ended the process (SIGABRT, SIGSEGV)."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        engine, looked = Engine(province.app), []

        class Looked(Waking):
            def look(self) -> Callable[[Link | None], bool]:
                looked.append(1)
                return super().look()

        engine._waking = Looked(engine.store)
        engine.moved()
        await engine.stop()
        engine.moved()  # as the writer's last words call it
        assert len(looked) == 1
