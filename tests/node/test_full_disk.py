"""A disk that is full to the page, at each of the writes of each act in turn: a real file system, real "no space left".

Each act runs with 0, 1, 2, ... pages free. It succeeds or says that the disk is full; the node is then proved from its
disk; then there is room again, and the same act is through.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sample_data
from chain import COUNTY, TOWNSHIP, VILLAGE, WORLD, Node
from fednode.crypto.errors import FednodeError
from fednode.node import erasing, retention, shipped
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.config import Config
from fednode.node.follower import follow
from fednode.node.ingest import open_source
from fednode.node.journal import Journal
from fednode.node.projection import Projector
from fednode.node.records import Records
from fednode.sync.change import LogName
from fednode.sync.effects import Commit
from fednode.sync.strip import erase_change
from tiny import MIB, Disk, tiny
from world import NOW_S, shop

NAME = "admin-licence"
DAY_MS = 86_400_000
NOW_MS = 1_780_000_000_000
FULL = frozenset(("FN-7605", "FN-7617", "FN-7630"))
ROWS = 120
IN_ROW = 2  # after so many sweeps without a failure there is room for all of an act
STEP_PART = 5  # pages go up by one, and from there on by this part of them


def counts() -> Iterator[int]:
    """Pages to leave free."""
    pages = 0
    while pages < 8_000:
        yield pages
        pages += max(1, pages // STEP_PART)


def rows(count: int, seed: int = 1) -> list[dict[str, str]]:
    return list(sample_data.records(NAME, count, seed=seed, area="130102001001"))


# ---------------------------------------------------------------- what an operator does


@dataclass
class Home:
    """A province with records, from its home on the tiny disk. `folder`: for what is not on it."""

    app: App
    records: Records
    folder: Path

    def all_keys(self) -> list[str]:
        """Of the records, by a way of reading that writes nothing."""
        follow(self.records.projector)
        sql = "select r.key from record r join dataset d on d.id = r.dataset where d.name = ? and r.op = 1 order by 1"
        return [key for (key,) in self.records.projector.connection.execute(sql, (NAME,))]

    def check(self, *, whole: bool = True) -> None:
        """Prove it from its disk. `whole`: state.db, too, is what a rebuild would make."""
        assert verify_store(self.app.store, self.app.trust).problems == []
        state = self.folder / "again.db"
        for suffix in ("", "-wal", "-shm"):
            state.with_name(state.name + suffix).unlink(missing_ok=True)
        fresh = Projector(state, self.app.store, self.app.trust)
        try:
            fresh.catch_up()
            assert not whole or dump(fresh) == dump(self.records.projector)
        finally:
            fresh.close()


def dump(projector: Projector) -> list[tuple[object, ...]]:
    """Every record and every version before it, whatever numbers the tables gave them."""
    projector.catch_up()
    sql = """select d.name, a.code, t.key, t.op, t.hlc, t.effective, t.log, t.seq, {payload} from {table} t
        join dataset d on d.id = t.dataset join area a on a.id = t.area order by 1, 2, 3, 7, 8"""
    found: list[tuple[object, ...]] = []
    for table, payload in (("record", "t.payload"), ("superseded", "t.conflict")):
        found += projector.connection.execute(sql.format(table=table, payload=payload)).fetchall()
    return found


def put(home: Home) -> None:
    record = {**rows(1, seed=9)[0]}
    home.records.put(NAME, record)


def amend(home: Home) -> None:
    home.records.amend(NAME, home.all_keys()[3], {"xk_nr": "another"})


def delete(home: Home) -> None:
    keys = home.all_keys()
    if len(keys) == ROWS:
        home.records.delete(NAME, keys[7])


def bring_in(home: Home) -> None:
    path = home.folder / "more.csv"
    sample_data.write(path, shipped.catalog().datasets[NAME], rows(600, seed=5))
    home.records.import_rows(NAME, open_source(path, shipped.catalog().datasets[NAME]))


def erase(home: Home) -> None:
    for key in home.all_keys()[:5]:
        erasing.erase(home.records, NAME, key, "court order 12")


def compact(home: Home) -> None:
    retention.compact_all(home.records, NOW_MS + 400 * DAY_MS, 1)


def rebuild(home: Home) -> None:
    home.records.projector.rebuild()
    home.records.projector.index_text()


def invite(home: Home) -> None:
    if not home.app.store.invitations():
        home.app.invite("1301", "city", "石家庄市")


def read(home: Home) -> None:
    assert home.records.get(NAME, home.all_keys()[0]).record
    home.records.find(NAME, text="公司")


ACTS = (put, amend, delete, bring_in, erase, compact, rebuild, invite, read)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A province with records, some of them changed."""
    path = tmp_path_factory.mktemp("original") / "13"
    config = Config(reserve_mib=0)
    app = App.init_province(path, config, node="13", name="河北省", domain="hebei", clock=lambda: NOW_MS)
    app.publish_catalog(shipped.catalog())
    records = app.records()
    for record in rows(ROWS):
        records.put(NAME, record)
    for item in records.find(NAME, limit=30).items:
        records.amend(NAME, item.key, {"xk_zt": "2"})
    records.close()
    app.close()
    return path


def opened(path: Path, folder: Path) -> Home:
    app = App.open(path, Config(reserve_mib=0), clock=lambda: NOW_MS + DAY_MS)
    return Home(app, app.records(), folder)


def test_a_node_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    with tiny(tmp_path / "disk", 8 * MIB) as disk:
        path, outcomes = disk.path / "13", []

        def found(_: object) -> None:
            app = App.init_province(path, Config(reserve_mib=0), node="13", name="河北省", domain="hebei")
            app.close()

        for pages in _until_enough():
            disk.leave(pages)
            outcomes.append(through(found, None, pages))
            if not outcomes[-1]:
                left = [one.name for one in disk.path.iterdir()]
                assert left == ["ballast"], f"{pages} pages"
            disk.empty()
            if not outcomes[-1]:
                found(None)
            app = App.open(path, Config(reserve_mib=0))
            assert verify_store(app.store, app.trust).problems == []
            app.close()
            shutil.rmtree(path)
        assert outcomes[-1]
        assert not all(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_each_act_of_an_operator_on_a_disk_that_fills_at_each_write(
    original: Path, tmp_path: Path, act: Callable[[Home], None]
) -> None:
    with tiny(tmp_path / "disk", 32 * MIB) as disk:
        outcomes = [_once(disk, original, tmp_path, act, pages) for pages in _until_enough()]
        assert outcomes[-1], "with room it is done"
        assert act is read or not all(outcomes), "nowhere was it full"


_enough: list[int] = []


def _until_enough() -> Iterator[int]:
    _enough.clear()
    for pages in counts():
        if len(_enough) >= IN_ROW:
            return
        yield pages


def through(act: Callable[[Any], None], node: Any, pages: int) -> bool:
    """Whether an act was done; where it was not, it says that the disk is full."""
    code = ""
    try:
        act(node)
    except FednodeError as error:
        code = error.code
    assert not code or code in FULL, f"{pages} pages: {code}"
    if code:
        _enough.clear()
    else:
        _enough.append(pages)
    return not code


def _once(disk: Disk, original: Path, folder: Path, act: Callable[[Home], None], pages: int) -> bool:
    """Whether the act was through with so many pages."""
    path = disk.path / "home"
    shutil.copytree(original, path)
    home = opened(path, folder)
    try:
        before = home.all_keys()
        disk.leave(pages)
        done = through(act, home, pages)
        after = home.all_keys()  # reading goes on
        if not done and act in (put, amend, delete):
            assert after == before
        disk.empty()
        home.records.close()
        home.app.close()
        home = opened(path, folder)
        home.check(whole=done or act is not compact)  # a compact that was stopped forgets the rest when it is run again
        act(home)
        home.check()
        if act is bring_in:
            assert len(home.all_keys()) == ROWS + 600
        return done
    finally:
        home.records.close()
        home.app.close()
        disk.empty()
        shutil.rmtree(path)


# ---------------------------------------------------------------- what peers send


@dataclass
class Pair:
    """A village and its township; one of them has its store on the tiny disk."""

    village: Node
    township: Node
    erase: bytes = b""

    def write(self, *names: str) -> None:
        self.village.write(*(shop(name, VILLAGE) for name in names))

    def check(self) -> None:
        for node in (self.village, self.township):
            assert node.verified() == set()
            assert node.refusals() == set()

    def up(self) -> None:
        self.village.send(self.township)

    def erases(self) -> None:
        """The county erases two of the village's records; the erase comes to the township from above."""
        if not self.erase:
            log = LogName("hebei", VILLAGE, 1, "shop")
            changes = [erase_change(log, seq, "court order 12") for seq in (0, 7)]
            hlc = (NOW_S * 1000 + 5) << 16
            made = WORLD.segment(COUNTY, changes, audience=VILLAGE, hlc=hlc, readers=(TOWNSHIP, VILLAGE))
            self.erase = made.raw
        self.township.take(COUNTY, Commit(1, self.erase))

    def audit(self) -> None:
        journal = Journal(self.village.writer, lambda: NOW_MS, "test", "fednode/0")
        for number in range(3):
            journal.event("x", number=number)


def incoming(pair: Pair) -> None:
    """The parent's disk is full: it takes nothing, cosigns nothing."""
    pair.up()


def acknowledged(pair: Pair) -> None:
    """The child's disk is full when it hears what its parent holds."""
    pair.up()


def erased(pair: Pair) -> None:
    pair.erases()


def audited(pair: Pair) -> None:
    pair.audit()


PEERS = ((incoming, TOWNSHIP), (acknowledged, VILLAGE), (erased, TOWNSHIP), (audited, VILLAGE))


@pytest.mark.slow
@pytest.mark.parametrize(("act", "where"), PEERS)
def test_each_act_of_peers_on_a_disk_that_fills_at_each_write(
    tmp_path: Path, act: Callable[[Pair], None], where: str
) -> None:
    with tiny(tmp_path / "disk", 32 * MIB) as disk:
        outcomes = []
        for pages in _until_enough():
            for folder in (disk.path / where, tmp_path / VILLAGE, tmp_path / TOWNSHIP):
                shutil.rmtree(folder, ignore_errors=True)
            places = {VILLAGE: tmp_path, TOWNSHIP: tmp_path, where: disk.path}
            pair = Pair(*(Node(node, places[node] / node) for node in (VILLAGE, TOWNSHIP)))
            for number in range(30):
                pair.write(*(f"k{number}-{i}-{'x' * 10}" for i in range(3)))
            if act is erased:
                pair.up()
            else:
                pair.village.link(TOWNSHIP)
                pair.township.link(VILLAGE)
            outcomes.append(_attempt(disk, pair, act, where, pages))
        assert outcomes[-1]
        assert not all(outcomes)


def _attempt(disk: Disk, pair: Pair, act: Callable[[Pair], None], where: str, pages: int) -> bool:
    child = pair.village
    lsn = pair.township.store.lsn if where == TOWNSHIP else child.store.lsn
    disk.leave(pages)
    done = through(act, pair, pages)
    for node in (pair.village, pair.township):  # after trouble it reads again whom it knows, and these know by hand
        node.trust.directory, node.trust.catalog = WORLD.directory(), WORLD.catalog
    store = {VILLAGE: pair.village, TOWNSHIP: pair.township}[where].store
    if not done and act is incoming:
        assert store.lsn == lsn, "something was kept"
        peer = child.store.peer(TOWNSHIP)
        assert peer is not None
        assert peer.acked == 0, "something was acknowledged"
    pair.check()
    disk.empty()
    act(pair)
    pair.check()
    if act is incoming or act is acknowledged:
        assert child.records() == pair.township.records()
        assert child.store.backlog_up(child.store.peer(TOWNSHIP).acked).segments == 0  # type: ignore[union-attr]
    if act is erased:
        left = pair.township.records()
        assert len(left) == 88
    for node in (pair.village, pair.township):
        node.store.close()
    return done
