"""An upgrade of the store, and the way back from it.

Rules
1. Before the migrations of a newer program change log.db, a copy of it as it was lies beside it, whole and on the disk
   (`copy_before`); without room for it nothing is changed (FN-7680). The migrations are one transaction.
2. The way back (`step_back`, by the older program) puts the copy in its place only if nothing has arrived in the store
   since: what is signed or acknowledged is never taken back (FN-7682). Each such thing has an arrival number.
3. The copy is of use until the newer program works, and would bring back what is erased later: it goes as soon as a
   daemon is ready (`settled`), or log.db is written anew because something was stripped.
4. state.db and health.db are made of log.db: a newer one goes, and is made again.

>>> # copy_before(connection, path); migrations; run -> settled(path), or: step_back(home)
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fednode.node import files, sqlite
from fednode.node.home import HEALTH_DB, LOG_DB, STATE_DB, Home
from fednode.node.schema import health_migrations, log_migrations, newer, state_migrations
from fednode.sync.errors import StoreError

KNOWN = {LOG_DB: log_migrations, STATE_DB: state_migrations, HEALTH_DB: health_migrations}
BEFORE, DRAFT = ".before", ".before-draft"
MARGIN_BYTES = 16 * 1024 * 1024  # what the migration itself may need on the disk


@dataclass(frozen=True, slots=True)
class Back:
    """What was stepped back from. `migrations`: those of log.db that are undone; `made_again`: files that were newer
    and are made again from it."""

    migrations: tuple[str, ...]
    made_again: tuple[str, ...]


def _before(path: Path) -> Path:
    return path.with_name(path.name + BEFORE)


def copy_before(path: Path) -> None:
    """A copy of log.db beside it, before it is changed. The caller holds the right to write. Raises StoreError FN-7680
    (no room), and others of SQLite."""
    draft = path.with_name(path.name + DRAFT)
    draft.unlink(missing_ok=True)
    needed = path.stat().st_size + MARGIN_BYTES
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StoreError("FN-7680", path=str(path), needed_mib=needed >> 20, free_mib=free >> 20)
    try:
        files.write(draft, b"", 0o600)
        sqlite.copy(path, draft)
        files.sync_file(draft)
        files.move(draft, _before(path))
    finally:
        draft.unlink(missing_ok=True)


def settled(path: Path) -> None:
    """The program works, or something was stripped: the copy beside log.db at `path` goes."""
    for one in (_before(path), path.with_name(path.name + DRAFT)):
        one.unlink(missing_ok=True)


def step_back(home: Home, *, dry_run: bool = False) -> Back:
    """Put the store back to what it was before a newer program changed it. Raises StoreError FN-7622 (a daemon runs),
    FN-7681 (there is no copy), FN-7682 (something has arrived since)."""
    with home.lock():
        undone = _undo(home.log_db, dry_run)
        projections = (home.state_db, home.health_db)
        old = [path for path in projections if path.exists() and _newer(path, path.name)]
        for path in () if dry_run else old:
            _remove(path)
        return Back(undone, tuple(path.name for path in old))


def _newer(path: Path, name: str) -> tuple[str, ...]:
    """The migrations of a file that this program does not know. `name`: what the file is, whatever it is called."""
    connection = sqlite.connect(path, synchronous="FULL", readonly=True)
    try:
        return newer(connection, KNOWN[name], path)
    finally:
        connection.close()


def _undo(path: Path, dry_run: bool) -> tuple[str, ...]:
    undone = _newer(path, LOG_DB)
    if not undone:
        return ()
    before = _before(path)
    if not before.exists():
        raise StoreError("FN-7681", path=str(path), migration=undone[-1])
    if _newer(before, LOG_DB):
        raise StoreError("FN-7608", path=str(before), migration=_newer(before, LOG_DB)[-1])
    arrived = _arrived(path) - _arrived(before)
    if arrived:
        raise StoreError("FN-7682", path=str(path), count=arrived)
    if not dry_run:
        _remove_side_files(path)
        _remove_side_files(before)
        files.move(before, path)
    return undone


def _arrived(path: Path) -> int:
    """The last arrival number of a store, whichever program wrote it."""
    connection = sqlite.connect(path, synchronous="FULL", readonly=True)
    try:
        return int(connection.execute("select value from meta where key = 'lsn'").fetchone()[0])
    except sqlite.DatabaseError as error:
        raise sqlite.trouble(error, path) from error
    finally:
        connection.close()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _remove_side_files(path)


def _remove_side_files(path: Path) -> None:
    for ending in ("-wal", "-shm"):
        if os.path.exists(f"{path}{ending}"):
            files.remove(Path(f"{path}{ending}"))
