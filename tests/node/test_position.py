"""state.db's place in log.db: a number and a checksum, so that a log.db with another history is noticed."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from fednode.node import sqlite
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from stored import COUNTY, STASH, WORLD, known
from world import NOW_S, Stream, seed, shop

ALL = "select key, payload from record order by key"


class Node:
    """A county that only writes for itself."""

    def __init__(self, folder: Path) -> None:
        self.log, self.state = folder / "log.db", folder / "state.db"
        self.trust: Trust = known(COUNTY)
        Store.create(self.log, store_id=seed("id")[:16], stash_key=STASH).close()
        self.count = 0

    def write(self, *keys: str, area: str = COUNTY) -> None:
        self.count += 1
        store = Store.open(self.log, stash_key=STASH)
        random = Stream(f"random {self.count}")
        writer = Writer(store, self.trust, WORLD.places[COUNTY].keys, lambda: NOW_S * 1000, random)  # type: ignore[arg-type]
        for key in keys:
            writer.local("shop", area, [shop(key, area)])
        store.close()

    def projected(self, state: Path | None = None) -> list[tuple[str, bytes]]:
        """What state.db says after catching up."""
        store = Store.open(self.log, stash_key=STASH)
        with closing(Projector(state or self.state, store, self.trust)) as projector:
            projector.catch_up()
            rows: list[tuple[str, bytes]] = projector.connection.execute(ALL).fetchall()
        store.close()
        return rows

    def truth(self) -> list[tuple[str, bytes]]:
        """What a state.db says that is made from the log alone."""
        fresh = self.state.with_name("fresh.db")
        fresh.unlink(missing_ok=True)
        return self.projected(fresh)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def roll_back(node: Node, *, lost: tuple[str, ...]) -> None:
    """An older copy of log.db comes back after `lost` had been written, and projected."""
    copy = node.log.with_name("copy.db")
    shutil.copyfile(node.log, copy)
    node.write(*lost)
    node.projected()
    shutil.copyfile(copy, node.log)
    for tail in ("-wal", "-shm"):
        node.log.with_name(node.log.name + tail).unlink(missing_ok=True)


@pytest.mark.parametrize("more", [0, 1, 2, 3, 4])
def test_a_log_that_was_rolled_back_and_written_on_is_projected_anew(node: Node, more: int) -> None:
    """The projection went only by the arrival number: where the copy had been written on as far, or further, what was
    lost stayed in the record table and what took its place never came in."""
    node.write("a", "b")
    roll_back(node, lost=("lost 1", "lost 2"))
    node.write(*(f"new {i}" for i in range(more)))
    assert {key for key, _ in node.projected()} == {"a", "b", *(f"new {i}" for i in range(more))}
    assert node.projected() == node.truth()


def test_another_order_of_the_same_segments_is_another_history(node: Node) -> None:
    """The numbers of logs may differ then, and records name their log by its number."""
    village = "130102001001"
    node.write("a")
    copy = node.log.with_name("copy.db")
    shutil.copyfile(node.log, copy)
    node.write("x", area=village)
    node.write("y", area="130102001")
    store = Store.open(node.log, stash_key=STASH)
    first = store.chain_at(store.lsn)
    store.close()
    shutil.copyfile(copy, node.log)
    node.write("y", area="130102001")
    node.write("x", area=village)
    store = Store.open(node.log, stash_key=STASH)
    assert first != store.chain_at(store.lsn)
    assert len(store.chain_at(1)) == 8
    assert store.chain_at(0) == b""
    store.close()


def test_a_position_of_the_same_history_is_gone_on_from(node: Node) -> None:
    """What was there is not made again."""
    node.write("a")
    node.projected()
    with closing(sqlite.connect(node.state, synchronous="NORMAL")) as connection:
        connection.execute("update record set payload = '{}' where key = 'a'")
    node.write("b")
    assert node.projected()[0] == ("a", "{}")


def test_a_state_that_is_older_than_the_checksum_is_believed_by_its_number(node: Node) -> None:
    node.write("a")
    node.projected()
    with closing(sqlite.connect(node.state, synchronous="NORMAL")) as connection:
        connection.execute("delete from meta where key = 'chain'")
        connection.execute("update record set payload = '{}' where key = 'a'")
    node.write("b")
    assert node.projected()[0] == ("a", "{}")
    with closing(sqlite.connect(node.state, synchronous="NORMAL")) as connection:
        assert connection.execute("select length(value) from meta where key = 'chain'").fetchone() == (8,)


def test_a_log_that_is_older_than_the_checksum_gets_one_from_now_on(node: Node) -> None:
    node.write("a", "b")
    with closing(sqlite.connect(node.log, synchronous="FULL")) as connection:
        connection.execute("delete from chain")
    node.projected()
    roll_back(node, lost=("lost",))
    node.write("new")
    assert {key for key, _ in node.projected()} == {"a", "b", "new"}
