"""node/sqlite and node/schema: opening a database, also when several do so at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fednode.node import sqlite
from fednode.node.schema import log_migrations, migrate, state_migrations
from fednode.sync.errors import StoreError

ROUNDS = 30
AT_ONCE = 4


@pytest.mark.parametrize("migrations", [log_migrations, state_migrations], ids=["log", "state"])
def test_a_database_that_several_open_at_once_is_made_once(tmp_path: Path, migrations: object) -> None:
    """Regression (CI, 2026-11-25): `database is locked` when the daemon's projector and a command opened a new state.db
    at the same moment: each found no migrations table, and one held a read lock when it wanted to write."""
    failed: list[BaseException] = []
    for number in range(ROUNDS):
        path = tmp_path / f"{number}.db"
        together = threading.Barrier(AT_ONCE)

        def opening(path: Path = path, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                connection = sqlite.connect(path, synchronous="NORMAL")
                migrate(connection, migrations, path)  # type: ignore[arg-type]
                connection.close()
            except BaseException as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=opening) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


# ---------------------------------------------------------------- flipped bits


def altered(path: Path, old: bytes, new: bytes) -> Path:
    """A database in which something on the disk has become something else."""
    connection = sqlite.connect(path, synchronous="FULL")
    connection.execute("create table shop (name text)")
    connection.execute("insert into shop values ('noodles')")
    connection.close()
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


@pytest.mark.parametrize("opening", [lambda path: sqlite.connect(path, synchronous="FULL"), sqlite.look])
def test_regression_a_schema_that_is_no_text_is_a_damaged_database(
    tmp_path: Path, opening: Callable[[Path], sqlite.Connection]
) -> None:
    """Crash lab, flips, seed 2 (2026-11-27): SQLite told of it in words that were no UTF-8, and what came out was
    a UnicodeDecodeError, which nobody caught."""
    path = altered(tmp_path / "log.db", b"CREATE TABLE", b"\xc3REATE TABLE")
    with pytest.raises(StoreError) as caught:
        opening(path)
    assert caught.value.code == "FN-7604"


def test_regression_what_a_damaged_text_says_is_in_no_error(tmp_path: Path) -> None:
    """Crash lab, flips, seed 5 (2026-11-27): pysqlite3 repeats the whole text, somebody's record, in its error; from
    there it came into the log and onto the screen."""
    connection = sqlite.connect(altered(tmp_path / "state.db", b"noodles", b"nood\xecs"), synchronous="NORMAL")
    with pytest.raises(sqlite.DatabaseError) as caught:
        connection.execute("select name from shop").fetchall()
    connection.close()
    told = sqlite.trouble(caught.value, "state.db")
    assert told.code == "FN-7604"
    assert "nood" in str(caught.value)
    assert "nood" not in str(told)


@pytest.mark.parametrize("reading", [False, True])
def test_a_checkpoint_waits_for_nobody_and_is_made_where_there_is_enough_for_one(tmp_path: Path, reading: bool) -> None:
    path = tmp_path / "a.db"
    connection, reader = (sqlite.connect(path, synchronous="FULL") for _ in range(2))
    connection.execute("create table t (a)")

    def waiting() -> int:
        _, pages, done = connection.execute("pragma wal_checkpoint(noop)").fetchone()
        return int(pages - done)

    if reading:
        reader.execute("begin")
        reader.execute("select * from t").fetchall()
    before = waiting()
    connection.execute("insert into t values (zeroblob(8192))")
    assert not sqlite.checkpoint(connection, waiting() + 1)
    assert waiting() > before
    assert sqlite.checkpoint(connection, waiting())
    assert waiting() == (waiting() if reading else 0)
    reader.close()
    sqlite.checkpoint(connection, 0)
    assert waiting() == 0


def test_a_checkpoint_is_left_undone_where_somebody_else_makes_one(tmp_path: Path) -> None:
    class Taken:
        def execute(self, _sql: str) -> None:
            raise sqlite.OperationalError("database is locked")

    assert not sqlite.checkpoint(Taken(), 0)
