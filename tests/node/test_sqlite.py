"""node/sqlite and node/schema: opening a database, also when several do so at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fednode.node import sqlite
from fednode.node.schema import log_migrations, migrate, state_migrations

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
