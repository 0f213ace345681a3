"""Where backups lie: a folder, or a bucket of an S3-compatible storage (`node.backup.s3`). Small files under fixed
names.

Rules
1. A file is there whole or not at all, and is never written over with anything else: it is named by what is in it, or
   (a manifest) was not there before.
2. What is written is on the disk (`fsync` of file and folder) when `write` returns, and is read back by whoever wrote
   it.
3. Only regular files are opened, never through a symbolic link; what is read is bounded.
4. Trouble with a place is a StoreError of its own (FN-7660 to FN-7662), Unavailable (FN-4520) or a PeerError (FN-5333):
   the node's store is sound.

>>> place_of("/mnt/backup", Config()).shown
'/mnt/backup'
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fednode.node import files, stick
from fednode.node.config import Config
from fednode.sync.errors import Refused, StoreError

SCHEME = "://"


class Place(Protocol):
    """A place for files. Names are `folder/file`, with `/` between; `shown`: the place, for people, without secrets."""

    shown: str

    def folders(self, folder: str) -> list[str]:
        """The folders right inside one ("" for the place itself), by name; none where it is not there."""

    def files(self, folder: str) -> list[str]:
        """The files right inside a folder, by name."""

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """A file; None where there is none. Of one that is larger than that, one byte more: it is not what was
        expected. Raises StoreError FN-7661."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is not there yet. Raises StoreError FN-7660, FN-7662 where another one is there."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is none. Raises StoreError FN-7660."""


def place_of(target: str, config: Config) -> Place:
    """The place that a text names. Raises Refused FN-2740 for none, FN-2741 for one that is not known, and for a bucket
    what `s3.bucket_of` raises."""
    if not target:
        raise Refused("FN-2740")
    if SCHEME in target:
        from fednode.node.backup.s3 import bucket_of

        return bucket_of(target, config)
    return Folder(Path(target).expanduser().absolute())


class Folder:
    """A folder of a file system."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown = str(path)

    def _list(self, folder: str, fits: Callable[[os.DirEntry[str]], bool]) -> list[str]:
        path = self._path / folder
        try:
            with os.scandir(path) as entries:
                return sorted(one.name for one in entries if fits(one))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(path, error) from error

    def folders(self, folder: str) -> list[str]:
        return self._list(folder, lambda one: one.is_dir(follow_symlinks=False))

    def files(self, folder: str) -> list[str]:
        return self._list(folder, lambda one: one.is_file(follow_symlinks=False))

    def read(self, name: str, bytes_max: int) -> bytes | None:
        path = self._path / name
        try:
            with stick.opened(path) as file:
                return file.read(bytes_max + 1)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise StoreError("FN-7661", **error.params) from error

    def write(self, name: str, data: bytes) -> None:
        path = self._path / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                check_same(str(path), path.read_bytes(), data)
            else:
                files.write(path, data, 0o600, follow=False)
        except OSError as error:
            raise StoreError("FN-7660", path=str(path), reason=error.strerror or str(error)) from error

    def remove(self, name: str) -> None:
        path = self._path / name
        try:
            files.remove(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise StoreError("FN-7660", path=str(path), reason=error.strerror or str(error)) from error

    def tidy(self, folder: str) -> None:
        """What a writer has left that was stopped."""
        for name in self.files(folder):
            if name.endswith(".new"):
                with contextlib.suppress(StoreError):
                    self.remove(f"{folder}/{name}")


def check_same(name: str, there: bytes, data: bytes) -> None:
    """That what is there is what was to be written. Raises StoreError FN-7662."""
    if there != data:
        raise StoreError("FN-7662", path=name)


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError("FN-7661", path=str(path), reason=error.strerror or str(error))
