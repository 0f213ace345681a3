"""SQLite: the one place that opens a database, and knows which SQLite is good enough.

Rules
1. `pysqlite3` bundles a current SQLite; releases from 3.7.0 to 3.51.2 can corrupt a WAL database under two
   connections: refused.
2. We open connections ourselves (autocommit; transactions are explicit, `BEGIN IMMEDIATE`), sqlite-utils is handed
   the connection.
3. What was set is read back: a file system that cannot do WAL, or a build that ignores `synchronous`, is found at
   start.

>>> connection = connect(Path(":memory:"), synchronous="FULL")
>>> connection.execute("select 1").fetchone()
(1,)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils.utils import sqlite3

from fednode.sync.errors import StoreError

VERSION_MIN = (3, 51, 3)
BUSY_MS = 30_000
LOCKED = "FN-7606"
SYNCHRONOUS = {"NORMAL": 1, "FULL": 2}
WAL_PAGES = 4_000  # checkpoint the write-ahead log every 16 MiB: at SQLite's 1,000 pages bulk loads run a third slower
WAL_TRIES = 100
JOURNAL_BYTES = 64 * 1024 * 1024
STATEMENTS = 256  # prepared ones that a connection keeps: a daemon uses more than the 128 that are usual
REWRITE_PAGES = 1_000
OK, WAITS = 0, (5, 6)  # sqlite3_backup_step: SQLITE_BUSY, SQLITE_LOCKED
OPENING_BYTES = 128 * 1024  # what opening a database needs: SQLite calls it an I/O error when that is not there

Connection = Any  # pysqlite3 has no type stubs
Error = sqlite3.Error
OperationalError = sqlite3.OperationalError
DatabaseError = sqlite3.DatabaseError
# Of a schema that is no text any more SQLite says so in words that are none either, and no Error is made of them.
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
IntegrityError = sqlite3.IntegrityError


def version() -> tuple[int, ...]:
    """Version of the SQLite library in use."""
    return tuple(int(part) for part in sqlite3.sqlite_version.split("."))


def _opened(place: str, *, uri: bool = False) -> Connection:
    """In autocommit mode, for whichever thread. Raises what SQLite raises."""
    return sqlite3.connect(place, uri=uri, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS)


def connect(
    path: Path,
    *,
    synchronous: str,
    readonly: bool = False,
    cache_kib: int = 8_192,
    wal_pages: int = WAL_PAGES,
    secure: bool = True,
) -> Connection:
    """A connection in autocommit mode, its settings checked. Raises StoreError FN-7601 (SQLite too old), FN-7602
    (cannot open),
    FN-7603 (setting not taken), FN-7604 (not a database)."""
    if version() < VERSION_MIN:
        raise StoreError("FN-7601", found=sqlite3.sqlite_version, needed=".".join(map(str, VERSION_MIN)))
    memory = str(path) == ":memory:"
    try:
        if readonly and not memory:
            uri = path.absolute().as_uri() + "?mode=ro"
            connection = _opened(uri, uri=True)
        else:
            connection = _opened(str(path))
        connection.execute(f"pragma busy_timeout={BUSY_MS}")
        connection.execute(f"pragma cache_size=-{cache_kib}")
        overwrite(connection, secure)
        if not memory and not readonly:
            mode = _write_ahead(connection)
            if mode != "wal":
                raise StoreError("FN-7603", setting="journal_mode", value=mode, path=str(path))
            connection.execute(f"pragma wal_autocheckpoint={wal_pages}")
            connection.execute(f"pragma journal_size_limit={JOURNAL_BYTES}")
        connection.execute(f"pragma synchronous={synchronous}")
        got = connection.execute("pragma synchronous").fetchone()[0]
        if got != SYNCHRONOUS[synchronous]:
            raise StoreError("FN-7603", setting="synchronous", value=got, path=str(path))
    except UNREADABLE as error:
        raise trouble(error, path) from error
    return connection


@contextmanager
def if_free(connection: Connection) -> Iterator[None]:
    """What may be left undone where another connection has the lock: nobody waits for it, and FN-7606 is no error."""
    connection.execute("pragma busy_timeout=0")
    try:
        yield
    except StoreError as error:
        if error.code != LOCKED:
            raise
    finally:
        connection.execute(f"pragma busy_timeout={BUSY_MS}")


def copy(source: Path, target: Path) -> None:
    """A copy of a database that others may be writing, as of one moment. The source is opened so that nothing of it can
    be written; where nobody has it open, not even beside it. Raises StoreError."""
    try:
        reading, writing = sqlite3.connect(_untouched(source), uri=True), sqlite3.connect(str(target))
        try:
            reading.execute(f"pragma busy_timeout={BUSY_MS}")
            reading.backup(writing)
        finally:
            reading.close()
            writing.close()
    except UNREADABLE as error:
        raise trouble(error, source) from error


def look(path: Path) -> Connection:
    """A connection that leaves no trace: the database stays as it is, and where nobody has it open no file appears
    beside it. Raises StoreError FN-7601, and what `trouble` says."""
    if version() < VERSION_MIN:
        raise StoreError("FN-7601", found=sqlite3.sqlite_version, needed=".".join(map(str, VERSION_MIN)))
    try:
        connection = _opened(_untouched(path), uri=True)
        connection.execute(f"pragma busy_timeout={BUSY_MS}")
        connection.execute("select count(*) from sqlite_master").fetchone()
    except UNREADABLE as error:
        raise trouble(error, path) from error
    return connection


def _untouched(path: Path) -> str:
    """The name (URI) under which a database is opened for reading; where it has no write-ahead log, as what never
    changes: SQLite makes no files for readers then."""
    open_by_nobody = not path.with_name(path.name + "-wal").exists()
    return path.absolute().as_uri() + ("?mode=ro&immutable=1" if open_by_nobody else "?mode=ro")


def whole(connection: Connection, steps: int, go_on: Callable[[], bool], *, full: bool = False) -> tuple[bool, str]:
    """SQLite's own look at the shape of a database (`quick_check`; `full`: and at its indexes, `integrity_check`):
    whether it came to the end, and the first thing wrong, "" for nothing. `go_on` is asked every so many steps of
    SQLite's machine. Raises DatabaseError where it can read nothing."""
    connection.set_progress_handler(lambda: 0 if go_on() else 1, steps)
    try:
        check = "integrity_check" if full else "quick_check"
        found = str(connection.execute(f"pragma {check}(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return False, ""
    finally:
        connection.set_progress_handler(None, 0)
    return True, "" if found == "ok" else found


def _write_ahead(connection: Connection) -> str:
    """Switch to the write-ahead log. SQLite does not wait for its turn here when several open a new file at the same
    moment: an empty transaction does."""
    for _ in range(WAL_TRIES):
        try:
            return str(connection.execute("pragma journal_mode=wal").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            connection.execute("begin immediate")
            connection.execute("commit")
    return str(connection.execute("pragma journal_mode=wal").fetchone()[0])


def overwrite(connection: Connection, on: bool) -> None:
    """Whether what is deleted is overwritten from now on, inside a transaction too. Where rows are indexed and updated
    all the time this costs a sixth."""
    connection.execute(f"pragma secure_delete={'on' if on else 'off'}")


def limit(connection: Connection, cache_kib: int, heap_bytes: int = 0) -> None:
    """How much memory the cache of a connection may take; `heap_bytes`: of all of SQLite in this process, before caches
    give way, 0: no limit."""
    connection.execute(f"pragma cache_size=-{cache_kib}")
    connection.execute(f"pragma soft_heap_limit={heap_bytes}")


def truncate(connection: Connection) -> bool:
    """Empty the write-ahead log, if nobody reads or writes there now: it holds pages as they were. Whether it did. That
    there is no room to do it undoes nothing."""
    connection.execute("pragma busy_timeout=0")
    try:
        return bool(connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0)
    except sqlite3.OperationalError:
        return False
    finally:
        connection.execute(f"pragma busy_timeout={BUSY_MS}")


def checkpoint(connection: Connection, pages_min: int) -> bool:
    """Bring what is in the write-ahead log into the database, where there are so many pages of it; whoever reads or
    writes meanwhile goes on. Whether there was anything to do."""
    try:
        _, pages, done = connection.execute("pragma wal_checkpoint(noop)").fetchone()
        if pages - done < pages_min:
            return False
        connection.execute("pragma wal_checkpoint(passive)")
    except sqlite3.OperationalError:  # somebody else does it, or there is no room for it
        return False
    return True


class _Moved(Exception):
    """Somebody wrote while a database was written anew."""


def rewrite(connection: Connection, path: Path, beside: Path) -> bool:
    """Write a database anew, without what is free in it: VACUUM by way of a file beside, for SQLite's own holds all of
    it in memory (the wheel is built so, SQLITE_TEMP_STORE=3). False where somebody else writes: nothing was done. The
    disk must have room for it twice. Raises StoreError."""
    locker = reader = source = None
    mine = False  # the file beside: another's is in use, as long as that one has the right to write
    try:
        locker = sqlite3.connect(str(path), isolation_level=None, timeout=0)
        locker.execute("begin immediate")  # nobody writes while the copy is made
        mine = True
        beside.unlink(missing_ok=True)  # of one that was killed
        reader = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True, isolation_level=None)
        before = reader.execute("pragma data_version").fetchone()
        reader.execute("vacuum into ?", (str(beside),))
        source = sqlite3.connect(str(beside), isolation_level=None)

        def check(status: int, *_: int) -> None:
            """After each step but the last. In the first one the copying takes the right to write: from then on nobody
            else has it. It would wait for it for as long as it takes."""
            if status in WAITS or (status == OK and reader.execute("pragma data_version").fetchone() != before):
                raise _Moved

        count = source.execute("pragma page_count").fetchone()[0]
        if not count:  # it is another's: of a program that does not know this rule
            raise _Moved
        beside.unlink(missing_ok=True)  # it is open: from here on it has no name that another could take for its own
        mine = False
        locker.execute("rollback")
        source.backup(connection, pages=max(1, min(REWRITE_PAGES, count // 2)), progress=check)  # two steps at least
    except _Moved:
        return False
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "busy" in str(error):
            return False
        raise trouble(error, path) from error
    finally:
        if mine:
            beside.unlink(missing_ok=True)
        for one in (source, reader, locker):
            if one is not None:
                one.close()
    return True


def forget_beside(connection: Connection, beside: Path) -> None:
    """Take away what a rewriting left that was killed; nobody is at it who cannot have the right to write."""
    if beside.exists():
        connection.execute("begin immediate")
        beside.unlink(missing_ok=True)
        connection.execute("rollback")


def trouble(error: Exception, path: Path | str) -> StoreError:
    """What an SQLite error means to a person."""
    text = str(error).partition(" with text ")[0]  # what could not be decoded are somebody's records: not for a log
    if ("unable to open" in text or "readonly" in text) and _read_only(path):
        return StoreError("FN-7631", path=str(path))
    if "disk I/O error" in text and _no_room(path):
        return StoreError("FN-7605", path=str(path), reason=text)
    if "unable to open" in text or "readonly" in text:
        return StoreError("FN-7602", path=str(path), reason=text)
    damaged = "not a database" in text or "malformed" in text or "not decode" in text
    if damaged or isinstance(error, UnicodeDecodeError):
        return StoreError("FN-7604", path=str(path), reason=text)
    if "full" in text:
        return StoreError("FN-7605", path=str(path), reason=text)
    if "locked" in text or "busy" in text:
        return StoreError(LOCKED, path=str(path), reason=text)
    return StoreError("FN-7607", path=str(path), reason=text)


@contextmanager
def told(path: Path | str) -> Iterator[None]:
    """SQLite's errors become StoreError."""
    try:
        yield
    except UNREADABLE as error:
        raise trouble(error, path) from error


def _read_only(path: Path | str) -> bool:
    """Whether the folder of a database may not be written, by this user or by anybody."""
    folder = Path(path).parent
    return folder.is_dir() and not os.access(folder, os.W_OK)


def _no_room(path: Path | str) -> bool:
    try:
        found = os.statvfs(Path(path).parent)
    except OSError:
        return False
    return found.f_frsize * found.f_bavail < OPENING_BYTES


@contextmanager
def transaction(connection: Connection, path: Path | str = "") -> Iterator[Connection]:
    """One write transaction: BEGIN IMMEDIATE, COMMIT, or ROLLBACK with nothing half done. SQLite's errors become
    StoreError.
    """
    try:
        connection.execute("begin immediate")
    except sqlite3.DatabaseError as error:
        raise trouble(error, path) from error
    try:
        yield connection
        connection.execute("commit")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("rollback")
        if isinstance(error, UNREADABLE):
            raise trouble(error, path) from error
        raise
