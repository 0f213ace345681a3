"""Writing a database anew by way of a file beside it: SQLite's own VACUUM holds all of it in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sample_data
from fednode.node import cleaning, erasing, shipped, sqlite
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.drills import COPIES, FOLDER, forget_copies
from fednode.node.home import held
from fednode.sync.errors import StoreError
from tiny import MIB, PAGE, tiny

NAME = "admin-licence"
ROWS = 2_000
NOW_MS = 1_780_000_000_000


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Most of it is free."""
    path = tmp_path / "x.db"
    connection = sqlite.connect(path, synchronous="FULL")
    connection.execute("create table t (id integer primary key, x blob)")
    connection.execute("begin")
    connection.executemany("insert into t values (?, ?)", ((i, b"needle%d" % i * 60) for i in range(ROWS)))
    connection.execute("commit")
    connection.execute("delete from t where id % 10")
    connection.close()
    return path


def content(path: Path) -> list[Any]:
    connection = sqlite.connect(path, synchronous="FULL", readonly=True)
    try:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return list(connection.execute("select id, x from t order by id"))
    finally:
        connection.close()


def test_what_is_free_goes_and_what_is_there_stays(database: Path) -> None:
    before, size = content(database), database.stat().st_size
    connection = sqlite.connect(database, synchronous="FULL")
    assert sqlite.rewrite(connection, database, database.with_name("beside"))
    assert connection.execute("pragma freelist_count").fetchone() == (0,)
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    assert sqlite.truncate(connection)
    connection.execute("insert into t values (-1, x'00')")
    connection.close()
    assert content(database)[1:] == before
    assert database.stat().st_size < size / 4
    assert not database.with_name("beside").exists()


def test_somebody_who_writes_is_not_waited_for(database: Path) -> None:
    connection, other = (sqlite.connect(database, synchronous="FULL") for _ in range(2))
    other.execute("begin immediate")
    assert not sqlite.rewrite(connection, database, database.with_name("beside"))
    other.execute("rollback")
    assert sqlite.rewrite(connection, database, database.with_name("beside"))
    connection.close()
    other.close()


def test_what_is_written_between_copy_and_return_is_not_lost(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is older than that: it must not go back."""
    beside = database.with_name("beside")
    plain = sqlite.sqlite3.connect
    other = sqlite.connect(database, synchronous="FULL")

    class Late:
        """The copy's connection: somebody commits just before it is copied back."""

        def __init__(self, connection: Any) -> None:
            self._connection, self.execute = connection, connection.execute

        def backup(self, *arguments: Any, **more: Any) -> None:
            other.execute("insert into t values (-5, x'05')")
            self._connection.backup(*arguments, **more)

        def close(self) -> None:
            self._connection.close()

    def connect(where: str, *arguments: Any, **more: Any) -> Any:
        made = plain(where, *arguments, **more)
        return Late(made) if where == str(beside) else made

    connection = sqlite.connect(database, synchronous="FULL")
    monkeypatch.setattr(sqlite.sqlite3, "connect", connect)
    assert not sqlite.rewrite(connection, database, beside)
    monkeypatch.undo()
    assert content(database)[0] == (-5, b"\x05")
    assert not beside.exists()
    connection.execute("insert into t values (-6, x'06')")  # it is not left in a transaction
    connection.close()
    other.close()


def test_regression_two_that_write_a_database_anew_at_once_do_not_lose_it(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon, and `fednode erase` beside it: the second took the file of the first away before it had the lock. The
    first made an empty one in its place, and put that back."""
    before, beside = content(database), database.with_name("beside")
    plain = sqlite.sqlite3.connect
    connection, other = (sqlite.connect(database, synchronous="FULL") for _ in range(2))
    told: list[bool] = []

    def connect(where: str, *arguments: Any, **more: Any) -> Any:
        if where == str(beside) and not told:
            told.append(True)
            told[0] = sqlite.rewrite(other, database, beside)
        return plain(where, *arguments, **more)

    monkeypatch.setattr(sqlite.sqlite3, "connect", connect)
    assert sqlite.rewrite(connection, database, beside)
    assert told == [False]
    connection.close()
    other.close()
    monkeypatch.undo()
    assert content(database) == before
    assert not beside.exists()


def test_without_room_nothing_is_lost_and_nothing_left(database: Path, tmp_path: Path) -> None:
    with tiny(tmp_path / "disk", 4 * MIB) as disk:
        path = disk.path / "x.db"
        path.write_bytes(database.read_bytes())
        before = content(path)
        connection = sqlite.connect(path, synchronous="FULL")
        connection.execute("vacuum into ?", (str(tmp_path / "size"),))
        used = (tmp_path / "size").stat().st_size // PAGE
        for pages in (used // 2, used + used // 2):  # in the copy, and on the way back
            disk.leave(pages)
            with pytest.raises(StoreError, match="FN-7605"):
                sqlite.rewrite(connection, path, path.with_name("beside"))
            disk.empty()
            assert content(path) == before
            assert not path.with_name("beside").exists()
        connection.close()


def test_regression_what_a_rewrite_left_that_was_killed_goes_with_the_next(database: Path) -> None:
    """It may be from before the strip; the file has become so small meanwhile that no other is made beside it."""
    beside = database.with_name(database.name + cleaning.BESIDE)
    sqlite.copy(database, beside)
    connection = sqlite.connect(database, synchronous="FULL")
    assert cleaning._vacuum(connection, database, False)
    connection.close()
    assert not beside.exists()


def test_what_was_erased_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "VACUUM_BYTES_IN_MEMORY", 0)
    called: list[str] = []
    plain = sqlite.rewrite

    def rewrite(connection: Any, path: Path, beside: Path) -> bool:
        called.append(path.name)
        return plain(connection, path, beside)

    monkeypatch.setattr(sqlite, "rewrite", rewrite)
    app = App.init_province(
        tmp_path / "13",
        Config(reserve_mib=0),
        node="13",
        name="河北省",
        domain="hebei",
        clock=lambda: 1_780_000_000_000,
    )
    app.publish_catalog(shipped.catalog())
    records = app.records()
    key = ""
    for number, record in enumerate(sample_data.records(NAME, 60, seed=4, area="130102001001")):
        wanted = {**record, "xk_nr": "NEEDLEzebra77"} if number == 30 else record
        key = records.put(NAME, wanted).key if number == 30 else (records.put(NAME, record) and key)
    records.projector.index_text()
    assert any(b"NEEDLEzebra77" in one.read_bytes() for one in (tmp_path / "13").glob("state.db*"))
    for drill in ("killed", "running"):  # regression: what a drill had copied, and left when it was killed, stayed
        folder = tmp_path / "13" / FOLDER / drill / COPIES / "parent"
        folder.mkdir(parents=True)
        for name in ("log.db", "state.db"):
            sqlite.copy(tmp_path / "13" / name, folder / name)
    with held(tmp_path / "13" / FOLDER / "running" / COPIES) as alone:
        assert alone
        erasing.erase(records, NAME, key, "court order 12")
        assert [path.parent.name for path in (tmp_path / "13" / FOLDER).glob(f"*/{COPIES}")] == ["running"]
    forget_copies(tmp_path / "13")
    assert set(called) == {"state.db", "log.db"}
    for path in (tmp_path / "13").rglob("*"):
        assert not path.is_file() or b"NEEDLEzebra77" not in path.read_bytes(), path
    records.close()
    app.close()
