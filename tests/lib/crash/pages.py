"""What SQLite makes of the files of a database when it opens them after a power cut: its pages, by a digest.

Two sets of files with the same pages are one database to whoever opens it with SQLite: what lies in a write-ahead log
behind its last whole transaction, or in a file under pages that the log replaces, nobody is shown. So what was looked
at on the one need not be looked at again on the other. It is SQLite itself that recovers here, the very library of the
product, and hands its pages out (sqlite3_serialize, sqlite.org/c3ref/serialize.html); nothing is imitated.

>>> # Pages(folder).of(image, "log.db")
"""

from __future__ import annotations

import ctypes as c
import hashlib
from pathlib import Path

from crash.images import Image
from crash.recorder import OK, library

OPEN_READWRITE = 0x2
NO_CKPT_ON_CLOSE = 1006  # SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE: the file stays as it was placed
JOURNAL = "-journal"
BESIDE = ("", "-wal", JOURNAL)


class Pages:
    """Reads images in a folder of its own. What was read once is remembered by the digests of the files."""

    def __init__(self, folder: Path) -> None:
        self.move(folder)
        self._library = c.CDLL(library())
        self._library.sqlite3_serialize.restype = c.c_void_p
        self._library.sqlite3_serialize.argtypes = (c.c_void_p, c.c_char_p, c.POINTER(c.c_int64), c.c_uint)
        self._library.sqlite3_free.argtypes = self._library.sqlite3_close.argtypes = (c.c_void_p,)
        self._known: dict[tuple[bytes, ...], bytes] = {}

    def move(self, folder: Path) -> None:
        """Read in another folder from now on, a new one."""
        folder.mkdir()
        self._folder = folder
        self._lying: dict[str, bytes] = {}  # name -> digest of what lies there, untouched

    def of(self, image: Image, base: str) -> bytes:
        """A digest of the pages of one database of an image, b"" where there is none. Files that SQLite cannot read as
        a whole stand for themselves."""
        if base not in image.files:
            return b""
        files = tuple(image.digests.get(base + end, b"") for end in BESIDE)
        if files not in self._known:
            self._known[files] = self._read(self.place(image, base)) or b"".join(files)
            if base + JOURNAL in image.files:
                self._lying.clear()  # it was rolled back
        return self._known[files]

    def place(self, image: Image, base: str, *, touched: bool = False) -> Path:
        """One database of an image lies there. `touched`: whoever asks may change it."""
        for end in (*BESIDE, "-shm"):
            name = base + end
            if name not in image.files:
                (self._folder / name).unlink(missing_ok=True)
                self._lying.pop(name, None)
            elif self._lying.get(name) != image.digests[name]:
                (self._folder / name).write_bytes(image.files[name])
                self._lying[name] = image.digests[name]
        if touched:
            self._lying.clear()
        return self._folder / base

    def _read(self, path: Path) -> bytes:
        """b"" for what cannot be read."""
        handle, size = c.c_void_p(), c.c_int64()
        code = self._library.sqlite3_open_v2(str(path).encode(), c.byref(handle), OPEN_READWRITE, None)
        try:
            if code != OK:
                return b""
            self._library.sqlite3_db_config(handle, NO_CKPT_ON_CLOSE, 1, None)
            place = self._library.sqlite3_serialize(handle, b"main", c.byref(size), 0)
            if not place:
                return b""
            try:
                return hashlib.sha256((c.c_char * size.value).from_address(place)).digest()
            finally:
                self._library.sqlite3_free(place)
        finally:
            self._library.sqlite3_close(handle)
