"""Verification of a store on real SQLite files: each kind of damage is found, where it is and what it is."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chain
from fednode.crypto.keys import SigningKey
from fednode.node import audit, workers
from fednode.node.audit import Problem, Report, verify_store
from fednode.node.checker import Checker
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync.enrol import Keys
from fednode.sync.errors import Refused
from fednode.sync.identity import node_payload
from stored import (
    CITY,
    COUNTY,
    FIRSTS,
    FOR_VILLAGE,
    OWN,
    STASH,
    THEIRS,
    TOWNSHIP,
    VILLAGE,
    WORLD,
    Bench,
    fill,
    history,
    known,
    village,
)  # fmt: skip
from world import NOW_S, Stream, World, keys_of, seed, shop


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never opened: each test has a copy."""
    path = tmp_path_factory.mktemp("sound") / "log.db"
    fill(path)
    return path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    shutil.copy(sound, path)
    return path


def damage(path: Path, act: Callable[[Bench], Any]) -> None:
    bench = Bench(path)
    act(bench)
    bench.c.close()


def verified(path: Path, trust: Trust | None = None, **more: Any) -> Report:
    store = Store.open(path, stash_key=STASH)
    try:
        return verify_store(store, trust or known(COUNTY), **more)
    finally:
        store.close()


def test_a_sound_store_holds(copy: Path) -> None:
    report = verified(copy)
    assert report == Report(True, 3, 10, 24, 0, 0, [])


# ---------------------------------------------------------------- damage

HISTORY = history()
FORGER = SigningKey.from_seed(seed("forger"))
BACK = village(2, None, state=replace(HISTORY[2].after, last_hlc=0), hlc=(NOW_S * 1000 - 90_000) << 16)
FORK = village(4, village(1, village(3, None, hlc=(NOW_S * 1000 - 60_000) << 16)))


def swap(b: Bench) -> None:
    """Two logs' rows change places."""
    one, other = b.lsn(OWN, 0), b.lsn(THEIRS, 0)
    ids = [b.c.execute("select log_id from segment where lsn = ?", (lsn,)).fetchone()[0] for lsn in (one, other)]
    b.sql("update segment set log_id = -1 where lsn = ?", one)
    b.sql("update segment set log_id = ? where lsn = ?", ids[0], other)
    b.sql("update segment set log_id = ? where lsn = ?", ids[1], one)


def swap_bytes(b: Bench) -> None:
    """Two segments of one log, with all that belongs to them."""
    columns = "data, sha256, content_key, last_hlc, first_time, first_signature, count"
    rows = [
        b.c.execute(f"select {columns} from segment where lsn = ?", (b.lsn(OWN, first),)).fetchone() for first in (0, 2)
    ]
    for first, row in zip((2, 0), rows, strict=True):
        sets = ", ".join(f"{column} = ?" for column in columns.split(", "))
        b.sql(f"update segment set {sets} where lsn = ?", *row, b.lsn(OWN, first))


def cut_off(b: Bench) -> None:
    """The log's end, and its row made to fit: only what others have signed tells."""
    b.delete(THEIRS, 8, 10)
    state = HISTORY[2].after
    assert state.frontier is not None
    b.sql(
        "update log set size = ?, root = ?, frontier = ?, last_hlc = ? where name = ?",
        *(state.size, state.root, state.frontier.to_bytes(), state.last_hlc, THEIRS),
    )


Damage = tuple[Callable[[Bench], Any], list[tuple[str, int, int, str]]]
DAMAGE: dict[str, Damage] = {
    "a bit of the envelope": (lambda b: b.flip("data", THEIRS, 4, 300), [(THEIRS, 4, 8, "FN-6601")]),
    "a bit of an own envelope": (lambda b: b.flip("data", OWN, 2, 20), [(OWN, 2, 4, "FN-6601")]),
    "a bit of the SHA-256": (lambda b: b.flip("sha256", THEIRS, 3), [(THEIRS, 3, 4, "FN-6601")]),
    "a bit of the content key": (lambda b: b.flip("content_key", THEIRS, 8), [(THEIRS, 8, 10, "FN-6204")]),
    "an own content key taken away": (
        lambda b: b.sql("update segment set content_key = null where lsn = ?", b.lsn(OWN, 4)),
        [(OWN, 4, 6, "FN-6404")],
    ),
    "a reader's content key taken away": (
        lambda b: b.sql("update segment set content_key = null where lsn = ?", b.lsn(THEIRS, 0)),
        [(THEIRS, 0, 3, "FN-6404")],
    ),
    "columns of another kind": (
        lambda b: b.sql("update segment set data = 'text' where lsn = ?", b.lsn(OWN, 0)),
        [(OWN, 0, 2, "FN-6601")],
    ),
    "the first segment removed": (lambda b: b.delete(THEIRS, 0), [(THEIRS, 0, 3, "FN-6602")]),
    "segments in the middle removed": (lambda b: b.delete(THEIRS, 3, 4), [(THEIRS, 3, 8, "FN-6602")]),
    "the last segment removed": (
        lambda b: b.delete(THEIRS, 10),
        [(THEIRS, 10, 15, "FN-6602")],
    ),
    "an own segment removed": (
        lambda b: (b.sql("delete from late"), b.delete(OWN, 2)),
        [(OWN, 2, 4, "FN-6602")],
    ),
    "the end cut off, and the row made to fit": (
        lambda b: (b.sql("delete from late"), cut_off(b)),
        [(THEIRS, 8, 10, "FN-6632")],
    ),
    "rows of two logs swapped": (
        swap,
        [
            *((THEIRS, 0, 2, "FN-6604"), (THEIRS, 2, 3, "FN-6602")),
            *((OWN, 0, 3, "FN-6604"), (OWN, 2, 3, "FN-6604")),
        ],
    ),
    "two segments of a log swapped": (
        lambda b: (b.sql("delete from late"), swap_bytes(b)),
        [(OWN, 0, 2, "FN-6604"), (OWN, 2, 4, "FN-6604")],
    ),
    "the row's count": (
        lambda b: b.sql("update segment set count = 4 where lsn = ?", b.lsn(THEIRS, 10)),
        [(THEIRS, 10, 14, "FN-6604"), (THEIRS, 14, 15, "FN-6602")],
    ),
    "the row's stamp": (
        lambda b: b.sql("update segment set last_hlc = last_hlc + 1 where lsn = ?", b.lsn(THEIRS, 4)),
        [(THEIRS, 4, 8, "FN-6604")],
    ),
    "signed by another key": (
        lambda b: b.put(4, village(4, HISTORY[1], key=FORGER)),
        [(THEIRS, 4, 8, "FN-6406")],
    ),
    "signed by a sibling": (
        lambda b: b.put(4, village(4, HISTORY[1], key=WORLD.places["130104"].keys.sign)),
        [(THEIRS, 4, 8, "FN-6406")],
    ),
    "the first parent's signature": (lambda b: b.flip("first_signature", THEIRS, 3), [(THEIRS, 3, 4, "FN-6407")]),
    "the first parent's time": (
        lambda b: b.sql("update segment set first_time = first_time + 1 where lsn = ?", b.lsn(THEIRS, 3)),
        [(THEIRS, 3, 4, "FN-6407")],
    ),
    "a witness's signature": (
        lambda b: b.sql("update witness set signature = zeroblob(64) where size = 10"),
        [(THEIRS, 0, 10, "FN-6414")],
    ),
    "a witness for a size that is no segment's end": (
        lambda b: b.sql("update witness set size = 9 where size = 10"),
        [(THEIRS, 0, 9, "FN-6414")],
    ),
    "a log whose order was changed by its writer": (
        lambda b: (b.put(8, BACK), b.sql("delete from witness")),
        [(THEIRS, 8, 10, "FN-6409")],
    ),
    "another history from its writer": (
        lambda b: (b.put(4, FORK), b.sql("delete from witness")),
        [(THEIRS, 4, 8, "FN-6411")],
    ),
    "another history, cosigned by nobody": (
        lambda b: b.put(4, FORK, cosigned=False),
        [(THEIRS, 4, 8, "FN-6407")],
    ),
    "another incarnation": (
        lambda b: b.put(0, village(3, None, incarnation=2)),
        [(THEIRS, 0, 3, "FN-6604")],
    ),
    "the log's size": (
        lambda b: b.sql("update log set size = size + 2 where name = ?", OWN),
        [(OWN, 8, 10, "FN-6602")],
    ),
    "the log's size, smaller": (
        lambda b: b.sql("update log set size = 6 where name = ?", OWN),
        [(OWN, 6, 8, "FN-6631")],
    ),
    "the log's root": (
        lambda b: b.sql("update log set root = zeroblob(32) where name = ?", OWN),
        [(OWN, 0, 8, "FN-6631")],
    ),
    "the log's edge": (
        lambda b: b.sql("update log set frontier = null where name = ?", OWN),
        [(OWN, 0, 8, "FN-6631")],
    ),
    "the log's stamp": (
        lambda b: b.sql("update log set last_hlc = 1 where name = ?", OWN),
        [(OWN, 0, 8, "FN-6631")],
    ),
    "the log's name": (
        lambda b: b.sql("update log set name = replace(name, '/1/', '/2/') where name = ?", FOR_VILLAGE),
        [(FOR_VILLAGE.replace("/1/", "/2/"), 0, 1, "FN-6604")],
    ),
    "the log's row removed": (
        lambda b: b.sql("delete from log where name = ?", FOR_VILLAGE),
        [("#3", 0, 1, "FN-6633")],
    ),
    "a late row of no segment": (
        lambda b: b.sql("update late set segment_lsn = 999"),
        [(OWN, 0, 0, "FN-6634")],
    ),
    "a late row of another log": (
        lambda b: b.sql("update late set segment_lsn = ?", b.lsn(THEIRS, 0)),
        [(OWN, 0, 3, "FN-6634")],
    ),
    "a late row for an earlier time than was signed": (
        lambda b: b.sql("update late set time_s = time_s - 100"),
        [(OWN, 2, 4, "FN-6634")],
    ),
    "several at once": (
        lambda b: (b.flip("data", OWN, 0, 9), b.delete(THEIRS, 4), b.flip("sha256", FOR_VILLAGE, 0)),
        [(THEIRS, 4, 8, "FN-6602"), (OWN, 0, 2, "FN-6601"), (FOR_VILLAGE, 0, 1, "FN-6601")],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_where_it_is(copy: Path, name: str) -> None:
    act, expected = DAMAGE[name]
    damage(copy, act)
    report = verified(copy)
    assert [(one.log, one.first, one.end, one.code) for one in report.problems] == expected


def test_processes_find_the_same_and_progress_goes_on(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(copy, DAMAGE["several at once"][0])
    alone = verified(copy)
    monkeypatch.setattr(workers, "CHANGES_MIN", 1)
    monkeypatch.setattr("fednode.node.audit.RUN_CHANGES", 1)  # each segment is a run of its own
    seen: list[tuple[int, int]] = []
    store = Store.open(copy, stash_key=STASH)
    together = workers.verify(store, known(COUNTY), jobs=2, progress=lambda done, total: seen.append((done, total)))
    store.close()
    assert together == alone
    assert len(together.problems) == 3
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, 24), (20, 24))  # four changes are missing
    assert len(seen) == 10


# ---------------------------------------------------------------- who signed


class Impostor(World):
    """The same names and the same root, other keys below it."""

    def keys(self, node: str, life: int = 1) -> Keys:
        return keys_of(f"impostor/{node}", life)


def problems_with(path: Path, *ders: bytes) -> list[Problem]:
    directory = WORLD.directory()
    for der in ders:
        directory.apply(TOWNSHIP, node_payload(der))
    return verified(path, known(COUNTY, directory)).problems


def test_a_writer_whose_certificate_is_not_by_its_issuer(copy: Path) -> None:
    """The store says so, the certificate does not: whoever altered sys.nodes has no key of the township's."""
    found = problems_with(copy, Impostor().places[VILLAGE].chain[0])
    ends = [*FIRSTS[1:], 15]
    assert found == [Problem(THEIRS, first, end, "FN-6102") for first, end in zip(FIRSTS, ends, strict=True)]


def test_a_log_of_an_earlier_life_is_verified_by_the_key_of_that_life(copy: Path) -> None:
    second = WORLD.certificate(VILLAGE, level="village", parent=TOWNSHIP, scope=(VILLAGE,), life=2)
    assert problems_with(copy, second) == []


def test_a_log_of_one_whom_nobody_certified(copy: Path) -> None:
    trust = known(COUNTY, WORLD.directory(without=[VILLAGE]))
    assert {(one.log, one.code) for one in verified(copy, trust).problems} == {(THEIRS, "FN-6605")}


def test_what_is_only_carried(tmp_path: Path) -> None:
    """The city may not read: bytes, signatures and order are verified all the same."""
    path = tmp_path / "log.db"
    fill(path, CITY)
    assert verified(path, known(CITY)) == Report(True, 1, 5, 15, 5, 0, [])
    bench = Bench(path)
    bench.flip("data", THEIRS, 3, 200)
    bench.delete(THEIRS, 8)
    bench.c.close()
    found = verified(path, known(CITY)).problems
    assert found == [Problem(THEIRS, 3, 4, "FN-6601"), Problem(THEIRS, 8, 10, "FN-6602")]


# ---------------------------------------------------------------- again, and only what is new


def test_only_what_is_new(copy: Path) -> None:
    assert verified(copy, full=False).changes == 24
    assert verified(copy, full=False) == Report(False, 3, 0, 0, 0, 0, [])
    store = Store.open(copy, stash_key=STASH)
    trust = known(COUNTY)
    writer = Writer(store, trust, WORLD.places[COUNTY].keys, lambda: NOW_S * 1000, Stream("more"))  # type: ignore[arg-type]
    writer.local("shop", COUNTY, [shop("new", COUNTY)])
    store.close()
    assert verified(copy, full=False) == Report(False, 3, 1, 1, 0, 0, [])


def test_what_is_new_is_verified_from_a_root_that_was_signed(copy: Path) -> None:
    """An edge that was altered does not help: the log is verified from its start."""
    verified(copy)
    damage(copy, lambda b: b.sql("update verified set frontier = null, root = zeroblob(32), size = 10 where size = 15"))
    assert verified(copy, full=False).changes == 15


def test_a_problem_is_told_until_it_is_mended(copy: Path) -> None:
    damage(copy, lambda b: b.flip("data", THEIRS, 4, 200))
    expected = [Problem(THEIRS, 4, 8, "FN-6601")]
    assert verified(copy, full=False).problems == expected
    again = verified(copy, full=False)
    assert (again.problems, again.changes) == (expected, 11)  # what stands before it holds
    damage(copy, lambda b: b.flip("data", THEIRS, 4, 200))
    assert verified(copy, full=False).problems == []


def test_full_looks_at_what_was_verified_before(copy: Path) -> None:
    verified(copy)
    damage(copy, lambda b: b.flip("data", THEIRS, 4, 200))
    assert verified(copy, full=False).problems == []
    assert verified(copy).problems == [Problem(THEIRS, 4, 8, "FN-6601")]


def test_a_log_that_is_shorter_than_it_was(copy: Path) -> None:
    """Nobody else has seen its end, but this node had."""
    verified(copy)
    damage(copy, lambda b: (b.sql("delete from witness"), cut_off(b)))
    assert verified(copy, full=False).problems == [Problem(THEIRS, 8, 15, "FN-6602")]


def test_one_log_alone(copy: Path) -> None:
    damage(copy, lambda b: b.flip("data", THEIRS, 4, 200))
    assert verified(copy, only=OWN) == Report(True, 1, 4, 8, 0, 0, [])
    assert len(verified(copy, only=THEIRS).problems) == 1
    with pytest.raises(Refused) as caught:
        verified(copy, only="hebei/9/1/shop")
    assert caught.value.code == "FN-3410"


def test_what_is_carried_has_only_grown(tmp_path: Path) -> None:
    """A writer that shows its relays another history is found by them, though they cannot read."""
    path = tmp_path / "log.db"
    fill(path, CITY)
    damage(path, lambda b: b.put(4, FORK))
    assert verified(path, known(CITY)).problems == [Problem(THEIRS, 4, 8, "FN-6415")]


def test_a_log_that_grows_while_it_is_verified_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a daemon: more is taken in, and cosigned, after the size was read and before the cosignatures are."""
    line, read = chain.Chain(tmp_path), audit.witnesses
    node = line[chain.VILLAGE]
    node.write(shop("a", node.node))
    line.up()
    waiting = [shop("b", node.node)]

    def late(store: Store, checker: Checker, fold: audit.Fold) -> Iterator[Problem]:
        if waiting:
            node.write(waiting.pop())
            line.up()
        return read(store, checker, fold)

    monkeypatch.setattr(audit, "witnesses", late)
    try:
        assert line[chain.TOWNSHIP].verified() == set()
        assert not waiting
    finally:
        line.close()


def test_regression_a_row_that_names_another_log_than_its_index_is_found(copy: Path) -> None:
    """Crash lab, flips, seed 2 (2026-11-27): one bit of `log_id` in a row of `segment`. Everything went by the index,
    and found the segment where it belongs; a feed goes by the row."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as c:
        kept = c.execute("select * from sqlite_master where name like 'segment_%'").fetchall()
        lsn, log_id = c.execute("select lsn, log_id from segment order by lsn desc limit 1").fetchone()
        other = c.execute("select id from log where id <> ?", (log_id,)).fetchone()[0]
        c.execute("pragma writable_schema = on")
        c.execute("delete from sqlite_master where name like 'segment_%'")
    with closing(sqlite3.connect(copy, isolation_level=None)) as c:
        c.execute("update segment set log_id = ? where lsn = ?", (other, lsn))
        c.execute("pragma writable_schema = on")
        c.executemany("insert into sqlite_master values (?, ?, ?, ?, ?)", kept)
    assert [(one.code, one.end - one.first) for one in verified(copy).problems] == [("FN-6633", 1)]
