"""Upgrades of the store: all or nothing, with a copy from before; the older program refuses, and steps back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from fednode.node import sqlite, upgrading
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import Config
from fednode.node.home import Home
from fednode.node.schema import health_migrations, log_migrations, state_migrations
from fednode.sync.errors import StoreError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A province's home, nobody in it."""
    app = App.init_province(
        tmp_path / "home", Config(), node="13", name="河北省", level="province", domain="hebei", scope=()
    )
    app.new_projector().catch_up()
    app.close()
    return Home.load(tmp_path / "home")


@contextmanager
def newer_program(migrations: Migrations = log_migrations, *, fails: bool = False) -> Iterator[None]:
    """The program as it will be after the next migration, of log.db or another file."""

    @migrations()
    def m999_next(db: Database) -> None:
        db.conn.execute("create table next (id integer primary key)")
        if fails:
            db.conn.execute("insert into nowhere values (1)")

    try:
        yield
    finally:
        migrations._migrations.pop()


def opened(home: Home) -> App:
    return App.open(home.path, Config())


def arrived(home: Home) -> int:
    app = opened(home)
    lsn = app.store.lsn
    app.close()
    return lsn


def tables(path: Path) -> set[str]:
    connection = sqlite.connect(path, synchronous="FULL", readonly=True)
    found = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
    connection.close()
    return found


def before(home: Home) -> Path:
    return home.log_db.with_name("log.db.before")


def refused(home: Home) -> str:
    with pytest.raises(StoreError) as caught:
        upgrading.step_back(home)
    return caught.value.code


def test_a_copy_from_before_lies_beside_it_and_the_older_program_steps_back(home: Home) -> None:
    lsn = arrived(home)
    with newer_program():
        assert arrived(home) == lsn
        assert "next" in tables(home.log_db)
    assert "next" not in tables(before(home))
    assert before(home).stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError) as caught:
        opened(home)
    assert caught.value.code == "FN-7608"
    looked = upgrading.step_back(home, dry_run=True)
    assert "next" in tables(home.log_db)
    assert upgrading.step_back(home) == looked
    assert looked.migrations == ("m999_next",)
    assert not before(home).exists()
    assert arrived(home) == lsn
    assert upgrading.step_back(home).migrations == ()


def test_a_new_store_and_one_that_is_up_to_date_are_not_copied(home: Home) -> None:
    arrived(home)
    assert not before(home).exists()


def test_a_migration_that_fails_changes_nothing(home: Home) -> None:
    lsn = arrived(home)
    with newer_program(fails=True), pytest.raises(StoreError):
        opened(home)
    assert "next" not in tables(home.log_db)
    assert arrived(home) == lsn


def test_what_has_arrived_since_is_never_taken_back(home: Home) -> None:
    with newer_program():
        app = opened(home)
        app.journal().note("rebuild", changes=0)
        app.close()
    assert refused(home) == "FN-7682"
    assert "next" in tables(home.log_db)
    assert before(home).exists()


def test_without_a_copy_there_is_no_way_back(home: Home) -> None:
    with newer_program():
        opened(home).close()
    upgrading.settled(home.log_db)
    assert refused(home) == "FN-7681"


def test_a_daemon_that_runs_is_not_stepped_back(home: Home) -> None:
    with newer_program():
        opened(home).close()
    with home.lock():
        assert refused(home) == "FN-7622"


@pytest.mark.parametrize(("short", "code"), [(0, ""), (1, "FN-7680")])
def test_room_for_the_copy_is_asked_for_before_anything_is_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch, short: int, code: str
) -> None:
    size = home.log_db.stat().st_size + upgrading.MARGIN_BYTES - short
    usage: Any = type("Usage", (), {"free": size})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with newer_program():
        if not code:
            opened(home).close()
            return
        with pytest.raises(StoreError) as caught:
            opened(home)
    assert caught.value.code == code
    assert "next" not in tables(home.log_db)
    assert not before(home).exists()


@pytest.mark.parametrize(("name", "migrations"), [("state.db", state_migrations), ("health.db", health_migrations)])
def test_what_is_made_of_the_log_is_made_again(home: Home, name: str, migrations: Migrations) -> None:
    path = home.path / name
    with newer_program(migrations):
        connection = sqlite.connect(path, synchronous="NORMAL")
        migrations.apply(Database(connection))
        connection.close()
    assert upgrading.step_back(home).made_again == (name,)
    assert not path.exists()
    assert not list(home.path.glob(f"{name}-*"))


def test_the_copy_goes_when_something_was_stripped(home: Home) -> None:
    from fednode.node.cleaning import clean_log

    with newer_program():
        app = opened(home)
        assert before(home).exists()
        with app.store.write() as tx:
            tx.set_meta("unclean", 1)
        clean_log(app.store, thorough=True)
        app.close()
    assert not before(home).exists()


def test_the_command_steps_back_and_the_audit_says_so(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with newer_program():
        opened(home).close()
    lsn = arrived_raw(home)
    assert invoke(["--home", str(home.path), "--lang", "zh", "store", "step-back"], {}) == 0
    assert "已退回：m999_next" in capsys.readouterr().out
    assert arrived(home) > lsn
    assert invoke(["--home", str(home.path), "--lang", "zh", "store", "step-back"], {}) == 0
    assert "无需退回" in capsys.readouterr().out


def arrived_raw(home: Home) -> int:
    """The last arrival number, whichever program wrote the store."""
    connection = sqlite.connect(home.log_db, synchronous="FULL", readonly=True)
    found = int(connection.execute("select value from meta where key = 'lsn'").fetchone()[0])
    connection.close()
    return found
