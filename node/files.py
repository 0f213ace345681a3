"""Files outside the databases: whole or not at all, and on the disk when the call returns.

Rules
1. What is written goes to a file beside (`<name>.new`), is synced, renamed into its place, and the folder is synced.
   Whoever looks, even after a power cut, finds the old file or the new one.
2. What is there already and no regular file (a terminal, a pipe) is written to as it is: there is nothing to rename. A
   symbolic link stays, the file that it names is replaced.
3. Nothing else in `fednode.node` opens a file for writing (tests/tidy holds us to it).

>>> # write(path, b"...", mode=0o600)
>>> # draft = Draft(path); draft.file.write(b"..."); draft.commit()
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from fednode.sync.errors import StoreError

WRITE_BYTES = 64 * 1024
UNFINISHED = ".new"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)  # what msgspec says of a document that somebody has spoilt
T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T | None:
    """A document that was left for whoever goes on; None where there is none. Raises StoreError FN-7619."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError("FN-7619", path=str(path), reason=error.strerror or str(error)) from error
    except UNREADABLE as error:
        raise StoreError("FN-7619", path=str(path), reason=str(error)[:200]) from error


def sync_folder(folder: Path) -> None:
    """The names in a folder are on disk. Some file systems know no such thing, and say so. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """What was written to a file is on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def jot(path: Path, data: bytes) -> None:
    """A file for what may be lost: whoever looks finds the old or the new, but neither is waited for. Raises
    OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    os.replace(beside, path)


def move(old: Path, new: Path) -> None:
    """Rename, in place of what was there; on disk on return. Raises OSError."""
    os.replace(old, new)
    sync_folder(new.parent)
    if old.parent != new.parent:
        sync_folder(old.parent)


def remove(path: Path) -> None:
    """Take a file away; on disk on return. Raises OSError."""
    path.unlink()
    sync_folder(path.parent)


def preallocate(path: Path, size: int) -> None:
    """A file that takes up so much room, and holds nothing. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def label(descriptor: int, text: str) -> None:
    """What a lock file says to people; on a full disk nothing."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def lock_file(path: Path) -> int:
    """A descriptor of a file to be locked: what is in it does not matter. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Draft:
    """A file that is being written: `settle` puts it on disk, `commit` in its place, `discard` leaves nothing of it.
    `exclusive`: there may be no such file yet. `follow`: where the name is a link, the file that it names is meant.
    Raises OSError, as its methods do."""

    def __init__(self, path: Path, mode: int = 0o644, *, exclusive: bool = False, follow: bool = True) -> None:
        self.path = Path(os.path.realpath(path)) if follow else path
        self._exclusive = exclusive
        if exclusive and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._direct = follow and self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode)
        self._beside = self.path.with_name(self.path.name + UNFINISHED)
        flags = os.O_WRONLY if self._direct else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(self.path if self._direct else self._beside, flags | os.O_CLOEXEC, mode)
        self.file: BinaryIO = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        """Append, a piece at a time and without a buffer of its own: a large file costs no memory twice."""
        self.file.flush()
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.file.fileno(), rest[:WRITE_BYTES]) :]

    def settle(self) -> None:
        """On disk, under another name. After an error nothing of it is left."""
        try:
            if self.file.closed:
                return
            self.file.flush()
            if not self._direct:
                os.fsync(self.file.fileno())
            self.file.close()
        except OSError:
            self.discard()
            raise

    def commit(self) -> None:
        """On disk, and in its place. After an error nothing of it is left."""
        self.settle()
        if self._direct:
            return
        try:
            if self._exclusive and os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
            os.replace(self._beside, self.path)
            sync_folder(self.path.parent)
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(OSError):
            self.file.close()
        if not self._direct:
            with contextlib.suppress(OSError):
                self._beside.unlink()


def write(path: Path, data: bytes, mode: int = 0o644, *, exclusive: bool = False, follow: bool = True) -> None:
    """A whole file. Raises OSError; then the old one is there as it was."""
    draft = Draft(path, mode, exclusive=exclusive, follow=follow)
    try:
        draft.file.write(data)
    except OSError:
        draft.discard()
        raise
    draft.commit()


def spooled(path: Path, fill: Callable[[Any], T]) -> T:
    """Put a file in its place that is made as a whole first, where temporary files are (openpyxl keeps its rows there,
    too). Returns what `fill` does. Raises OSError."""
    with tempfile.TemporaryFile() as whole:
        filled = fill(whole)
        whole.seek(0)
        draft = Draft(path)
        try:
            shutil.copyfileobj(whole, draft.file)
        except OSError:
            draft.discard()
            raise
        draft.commit()
    return filled
