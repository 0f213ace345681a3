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
import stat
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".new"


def sync_folder(folder: Path) -> None:
    """The names in a folder are on disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """What was written to a file is on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Draft:
    """A file that is being written: `commit` puts it in its place, `discard` leaves nothing of it. `exclusive`: there
    may be no such file yet. Raises OSError, as its methods do."""

    def __init__(self, path: Path, mode: int = 0o644, *, exclusive: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self._exclusive = exclusive
        if exclusive and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._direct = self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode)
        self._beside = self.path.with_name(self.path.name + UNFINISHED)
        flags = os.O_WRONLY if self._direct else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(self.path if self._direct else self._beside, flags | os.O_CLOEXEC, mode)
        self.file: BinaryIO = os.fdopen(descriptor, "wb")

    def commit(self) -> None:
        """On disk, and in its place. After an error nothing of it is left."""
        try:
            self.file.flush()
            if not self._direct:
                os.fsync(self.file.fileno())
            self.file.close()
            if self._direct:
                return
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


def write(path: Path, data: bytes, mode: int = 0o644, *, exclusive: bool = False) -> None:
    """A whole file. Raises OSError; then the old one is there as it was."""
    draft = Draft(path, mode, exclusive=exclusive)
    try:
        draft.file.write(data)
    except OSError:
        draft.discard()
        raise
    draft.commit()
