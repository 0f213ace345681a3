"""Records what SQLite does to files, by a VFS around the one that the product's own SQLite comes with.

The wheel of pysqlite3 exports `sqlite3_vfs_find` and `sqlite3_vfs_register`, so the very library that runs in
production is recorded, write-ahead log, shared memory and all (apsw brings a SQLite of its own, and other connections).
Layout of the structures: sqlite3.h, "OS Interface Object", "OS Interface File Virtual Methods Object".

Rules
1. Nothing is changed on the way: each call goes to the VFS below, and is recorded when that has succeeded. Only
   reads may be made to fail (`failing`).
2. Only files under one folder are recorded. Shared memory (`-shm`) is none: it does not outlive a power cut.
3. One recorder at a time; afterwards the VFS below is the default again. Connections that are open keep theirs.

>>> # with recorded(folder) as trace: ...   # trace: Events, in order
"""

from __future__ import annotations

import ctypes as c
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OK, CREATE = 0, 0x4  # SQLITE_OK, SQLITE_OPEN_CREATE
IOERR_READ = 266  # SQLITE_IOERR_READ


@dataclass(frozen=True, slots=True)
class Create:
    """A file that was not there; its name is on disk with its first Sync."""

    path: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a place of a file."""

    path: str
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file is so long now."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """What was done to a file is on disk."""

    path: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A file is gone; `synced`: for good."""

    path: str
    synced: bool


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody was told that something is done: all before it is promised."""

    what: str


Event = Create | Write | Truncate | Sync | Delete | Said

_OPEN = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int, c.c_void_p)
_DELETE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_char_p, c.c_int)
_CLOSE = c.CFUNCTYPE(c.c_int, c.c_void_p)
_WRITE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_int, c.c_int64)  # and xRead
_TRUNCATE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int64)
_SYNC = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int)


class _Vfs(c.Structure):
    _fields_ = (
        ("iVersion", c.c_int),
        ("szOsFile", c.c_int),
        ("mxPathname", c.c_int),
        ("pNext", c.c_void_p),
        ("zName", c.c_char_p),
        ("pAppData", c.c_void_p),
        ("xOpen", c.c_void_p),
        ("xDelete", c.c_void_p),
        *((name, c.c_void_p) for name in ("xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose")),
        *((name, c.c_void_p) for name in ("xRandomness", "xSleep", "xCurrentTime", "xGetLastError")),
        *((name, c.c_void_p) for name in ("xCurrentTimeInt64", "xSetSystemCall", "xGetSystemCall", "xNextSystemCall")),
    )


class _Methods(c.Structure):
    _fields_ = (
        ("iVersion", c.c_int),
        *((name, c.c_void_p) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock")),
        *((name, c.c_void_p) for name in ("xUnlock", "xCheckReservedLock", "xFileControl", "xSectorSize")),
        *((name, c.c_void_p) for name in ("xDeviceCharacteristics", "xShmMap", "xShmLock", "xShmBarrier")),
        *((name, c.c_void_p) for name in ("xShmUnmap", "xFetch", "xUnfetch")),
    )


class _File(c.Structure):
    _fields_ = (("pMethods", c.c_void_p),)


def _address(callback: Any) -> int:
    return int(c.cast(callback, c.c_void_p).value or 0)


class Recorder:
    """The VFS. Made once for a process: SQLite may call it as long as a connection lives that was opened by it."""

    def __init__(self) -> None:
        self._library = c.CDLL(library())
        self._library.sqlite3_vfs_find.restype = c.POINTER(_Vfs)
        self._library.sqlite3_vfs_find.argtypes = (c.c_char_p,)
        self._library.sqlite3_vfs_register.argtypes = (c.c_void_p, c.c_int)
        self._below = self._library.sqlite3_vfs_find(None)
        self._lock = threading.Lock()
        self._files: dict[int, str] = {}
        self._methods: dict[int, tuple[_Methods, _Methods]] = {}  # by the address of those below: ours, theirs
        self._kept: list[Any] = []
        self.folder = ""
        self.trace: list[Event] = []
        self.fails: Callable[[str, int], bool] | None = None
        below = self._below.contents
        self._open_below, self._delete_below = _OPEN(below.xOpen), _DELETE(below.xDelete)
        self._vfs = _Vfs.from_buffer_copy(below)
        self._vfs.zName = b"recording"
        opened, deleted = _OPEN(self._open), _DELETE(self._delete)
        self._kept += [opened, deleted]
        self._vfs.xOpen, self._vfs.xDelete = _address(opened), _address(deleted)

    def begin(self, folder: Path) -> list[Event]:
        """Record what is opened under a folder from now on."""
        self.folder, self.trace = f"{folder}/", []
        self._library.sqlite3_vfs_register(c.byref(self._vfs), 1)
        return self.trace

    def end(self) -> None:
        """The VFS below is the default again."""
        self._library.sqlite3_vfs_register(self._below, 1)
        self.folder = ""

    def _note(self, event: Event) -> None:
        with self._lock:
            self.trace.append(event)

    def _wanted(self, path: str) -> bool:
        return bool(self.folder) and path.startswith(self.folder)

    def _open(self, _vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        path = c.string_at(name).decode() if name else ""  # SQLite keeps the name, and looks at what lies beside it
        new = bool(flags & CREATE) and not Path(path).exists()
        code = int(self._open_below(c.addressof(self._below.contents), name, file, flags, out))
        if code == OK and self._wanted(path):
            header = _File.from_address(file)
            if header.pMethods:
                self._files[file] = path.removeprefix(self.folder)
                header.pMethods = self._ours(header.pMethods)
                if new:
                    self._note(Create(self._files[file]))
        return code

    def _delete(self, _vfs: int, name: bytes, synced: int) -> int:
        code = int(self._delete_below(c.addressof(self._below.contents), name, synced))
        path = name.decode()
        if code == OK and self._wanted(path):
            self._note(Delete(path.removeprefix(self.folder), bool(synced)))
        return code

    def _ours(self, theirs: int) -> int:
        """Our table of methods around one of the VFS below."""
        if theirs not in self._methods:
            below = _Methods.from_address(theirs)
            ours = _Methods.from_buffer_copy(below)
            close, write, truncate, sync = self._around(below)
            read = self._reading(below)
            self._kept += [close, write, truncate, sync, read]
            ours.xRead = _address(read)
            ours.xClose, ours.xWrite = _address(close), _address(write)
            ours.xTruncate, ours.xSync = _address(truncate), _address(sync)
            self._methods[theirs] = (ours, below)
        return c.addressof(self._methods[theirs][0])

    def _reading(self, below: _Methods) -> Any:
        reads = _WRITE(below.xRead)

        def read(file: int, data: int, size: int, at: int) -> int:
            if self.fails is not None and self.fails(self._files[file], at):
                return IOERR_READ
            return int(reads(file, data, size, at))

        return _WRITE(read)

    def _around(self, below: _Methods) -> tuple[Any, Any, Any, Any]:
        closes, writes = _CLOSE(below.xClose), _WRITE(below.xWrite)
        truncates, syncs = _TRUNCATE(below.xTruncate), _SYNC(below.xSync)

        def close(file: int) -> int:
            self._files.pop(file, None)
            return int(closes(file))

        def write(file: int, data: int, size: int, at: int) -> int:
            code = int(writes(file, data, size, at))
            if code == OK:
                self._note(Write(self._files[file], at, c.string_at(data, size)))
            return code

        def truncate(file: int, size: int) -> int:
            code = int(truncates(file, size))
            if code == OK:
                self._note(Truncate(self._files[file], size))
            return code

        def sync(file: int, flags: int) -> int:
            code = int(syncs(file, flags))
            if code == OK:
                self._note(Sync(self._files[file]))
            return code

        return _CLOSE(close), _WRITE(write), _TRUNCATE(truncate), _SYNC(sync)


def library() -> str:
    """The file of the SQLite that the product uses."""
    from pysqlite3 import _sqlite3

    return str(_sqlite3.__file__)


_RECORDER: list[Recorder] = []


@contextmanager
def recorded(folder: Path) -> Iterator[list[Event]]:
    """What SQLite does to files under a folder, in order, as long as the block lasts."""
    if not _RECORDER:
        _RECORDER.append(Recorder())
    try:
        yield _RECORDER[0].begin(folder.resolve())
    finally:
        _RECORDER[0].end()


@contextmanager
def failing(folder: Path, fails: Callable[[str, int], bool]) -> Iterator[None]:
    """Reads of files under a folder by connections that are opened within the block end with an I/O error where
    `fails` (file, from which byte) says so, as long as the block lasts."""
    with recorded(folder):
        _RECORDER[0].fails = fails
        try:
            yield
        finally:
            _RECORDER[0].fails = None
