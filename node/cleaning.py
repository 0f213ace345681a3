"""Nothing stays of what was stripped: not in free pages, not in the full-text index, not in the write-ahead log.

Rules
1. SQLite overwrites what is deleted (`secure_delete`), but a page that was split keeps a copy of what moved, and a
   full-text index keeps words until its parts are merged: the index is merged, then the file is written anew (VACUUM;
   above `VACUUM_BYTES_IN_MEMORY` by way of a file beside, `sqlite.rewrite`).
2. A file up to `VACUUM_BYTES_NOW` is written anew as soon as nothing else is to be done, a larger one by the daily job
   (`thorough`), for it takes a while and holds up the writer meanwhile.
3. Each step is bounded, and says whether there is more to do now. Whoever is in the way is not waited for.
4. log.db's keys of what state.db had to forget go last of all.
5. Copies of log.db in the home go before it is written anew: of an upgrade, of a drill.

>>> # while clean_state(projector) or clean_log(store): pass
"""

from __future__ import annotations

from pathlib import Path

from fednode.node import sqlite
from fednode.node.drills import forget_copies
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.upgrading import settled

VACUUM_BYTES_NOW = 256 * 1024 * 1024
VACUUM_BYTES_IN_MEMORY = 8 * 1024 * 1024
BESIDE = ".anew"
MERGE_PAGES = 500
_INDEX, _MERGE, _REWRITE, _EMPTY = 1, 2, 3, 4  # what is next: `unclean` in state.db's meta


def clean_log(store: Store, *, thorough: bool = False) -> bool:
    """Write log.db anew if something was stripped. Returns whether there is more to do now."""
    if not store.meta("unclean", 0):
        return False
    settled(store.path)  # a copy from before an upgrade would still have it
    forget_copies(store.path.parent)
    if not _vacuum(store.connection, store.path, thorough) or not sqlite.truncate(store.connection):
        return False
    with store.write() as tx:
        tx.set_meta("unclean", 0)
    return False


def clean_state(projector: Projector, *, thorough: bool = False) -> bool:
    """One step of the same for state.db. Returns whether there is more to do now. Raises StoreError."""
    try:
        return _step(projector, thorough)
    except sqlite.DatabaseError as error:
        raise sqlite.trouble(error, projector.path) from error


def _step(projector: Projector, thorough: bool) -> bool:
    c, step = projector.connection, projector.unclean
    if not step:
        return False
    if step == _INDEX:
        if projector.index_text(steps=1):
            return True
        if c.execute("select 1 from sqlite_master where name = 'record_fts'").fetchone():
            c.execute("insert into record_fts (record_fts, rank) values ('merge', ?)", (-MERGE_PAGES,))
        projector.unclean = _MERGE
        return True
    if step == _MERGE:
        if _merge(c):
            return True
        projector.unclean = _REWRITE
        return True
    if step == _REWRITE:
        if not _vacuum(c, projector.path, thorough):
            return False
        projector.unclean = _EMPTY
    if not sqlite.truncate(c):
        return False
    projector.forgotten()
    projector.unclean = 0
    sqlite.truncate(c)
    return False


def _merge(c: sqlite.Connection) -> bool:
    """One bounded step of merging the full-text index; whether there may be more (as SQLite's manual says)."""
    if not c.execute("select 1 from sqlite_master where name = 'record_fts'").fetchone():
        return False
    before = c.total_changes
    c.execute("insert into record_fts (record_fts, rank) values ('merge', ?)", (MERGE_PAGES,))
    return bool(c.total_changes - before >= 2)


def _vacuum(c: sqlite.Connection, path: Path, thorough: bool) -> bool:
    size, beside = path.stat().st_size, path.with_name(path.name + BESIDE)
    if not thorough and size > VACUUM_BYTES_NOW:
        return False
    if size > VACUUM_BYTES_IN_MEMORY:
        return sqlite.rewrite(c, path, beside)
    try:
        sqlite.forget_beside(c, beside)  # it may be from before the strip
        c.execute("vacuum")
    except sqlite.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            return False
        raise sqlite.trouble(error, path) from error
    return True
