"""The files of bundles: a folder or a file on whatever is carried from place to place.

Rules
1. Volumes are written beside their names, synced, renamed in order, the last (with the manifest) last; then the folder
   is synced. Whoever pulls the stick out leaves a bundle that is whole, or one whose end is missing and that counts for
   nothing. What such a writer has left is removed by the next.
2. Names are fixed patterns; nothing inside a file names another. Only regular files are opened, never through a
   symbolic link; how many and how large is checked before anything is read.
3. An older bundle of this node's for the same recipient goes away after a new one is whole: what is not acknowledged is
   in the new one again.
4. Trouble with the stick is a StoreError of its own (FN-7650, FN-7651): the node's store is sound.

>>> volume_name(bytes(16), 3)
'fednode-00000000000000000000000000000000-0003.fnb'
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.node import files
from fednode.node.files import UNFINISHED, Draft
from fednode.sync import volume as vol
from fednode.sync.errors import Refused, StoreError

VOLUME_NAME = re.compile(r"fednode-([0-9a-f]{32})-([0-9]{4})\.fnb")
REQUEST_NAME = re.compile(r"fednode-([0-9a-f]{16})\.fnr")
FILES_MAX = 12_000
REQUESTS_MAX = 256
BYTES_MAX = 64 * 1024**3
SUFFIX = ".fnb"
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def volume_name(bundle: bytes, number: int) -> str:
    """The name of a volume in a folder."""
    return f"fednode-{bundle.hex()}-{number:04d}.fnb"


def trouble(path: Path, error: OSError, code: str = "FN-7650") -> StoreError:
    """The stick cannot be written (FN-7650) or read (FN-7651), or is read-only (FN-7652)."""
    if code == "FN-7650" and error.errno in READ_ONLY:
        return StoreError("FN-7652", path=str(path))
    return StoreError(code, path=str(path), reason=error.strerror or str(error))


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Part:
    """A file that begins as a volume does."""

    path: Path
    size: int
    head: vol.Head


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in some places: volumes, files of bundles that do not even begin as volumes do (and why), requests to
    join."""

    parts: tuple[Part, ...]
    broken: tuple[tuple[Path, FednodeError], ...]
    requests: tuple[Path, ...]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, for reading. Raises Refused FN-3505 for anything else, StoreError FN-7651."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP):
            raise Refused("FN-3505", path=str(path)) from error
        raise trouble(path, error, "FN-7651") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused("FN-3505", path=str(path))
        try:
            yield file
        except OSError as error:
            raise trouble(path, error, "FN-7651") from error


def scan(paths: Sequence[Path]) -> Found:
    """Look at folders (by the patterns of their files' names) and at files named one by one. Raises Refused FN-3505 (a
    link, a device), FN-3506 (too many, too large), StoreError FN-7651."""
    files: list[Path] = []
    for path in paths:
        files += _listed(path) if path.is_dir() else [path]
        if len(files) > FILES_MAX:
            raise Refused("FN-3506", path=str(path), files=len(files), files_max=FILES_MAX, size=0, size_max=BYTES_MAX)
    parts, broken, requests, total = [], [], [], 0
    for path in files:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            total += size
            if total > BYTES_MAX or size > vol.VOLUME_BYTES_MAX:
                over = {"files": len(files), "files_max": FILES_MAX, "size": total, "size_max": BYTES_MAX}
                raise Refused("FN-3506", path=str(path), **over)
            if path.suffix == ".fnr":
                requests.append(path)
                if len(requests) > REQUESTS_MAX:
                    over = {"files": len(requests), "files_max": REQUESTS_MAX, "size": total, "size_max": BYTES_MAX}
                    raise Refused("FN-3506", path=str(path), **over)
                continue
            try:
                parts.append(Part(path, size, vol.read_head(file.read)))
            except FednodeError as error:
                broken.append((path, error.with_traceback(None)))
    return Found(tuple(parts), tuple(broken), tuple(requests))


def _listed(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            fit = (one.name for one in entries if VOLUME_NAME.fullmatch(one.name) or REQUEST_NAME.fullmatch(one.name))
            names = list(islice(fit, FILES_MAX + 1))  # one too many is enough to refuse it
    except OSError as error:
        raise trouble(folder, error, "FN-7651") from error
    return [folder / name for name in sorted(names)]


def read_small(path: Path, bytes_max: int) -> bytes:
    """A small file, whole. Raises as `opened`, and IntegrityError FN-6503 where it is larger than that."""
    with opened(path) as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise IntegrityError("FN-6503")
    return data


# ---------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle on the stick."""

    files: tuple[Path, ...]
    bytes: int


def folder_of(target: Path) -> Path | None:
    """The folder that a target is; None when it is one file (`something.fnb`)."""
    return None if target.suffix == SUFFIX and not target.is_dir() else target


def write_bundle(target: Path, bundle: bytes, pieces: Iterable[tuple[int, bytes]]) -> Written:
    """Write the volumes of a bundle: into a folder, which is made where its own folder exists, or as one file. Raises
    StoreError FN-7650 (full, pulled out), FN-7652 (read-only); then nothing of it is left that counts."""
    folder = folder_of(target)
    drafts: list[Draft] = []
    size = 0
    try:
        if folder is not None:
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
        _tidy(folder or target.parent)
        for number, data in pieces:
            if number > len(drafts):
                if drafts:
                    drafts[-1].settle()
                place = folder / volume_name(bundle, number) if folder is not None else target
                drafts.append(Draft(place, follow=False))
            drafts[-1].write(data)
            size += len(data)
        for draft in drafts:
            draft.settle()
        for draft in drafts:
            draft.commit()
    except OSError as error:
        raise trouble(target, error) from error
    finally:
        for draft in drafts:
            draft.discard()
    return Written(tuple(draft.path for draft in drafts), size)


def write_small(path: Path, data: bytes) -> None:
    """One small file, whole or not at all. Raises as `write_bundle`."""
    try:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
        files.write(path, data, follow=False)
    except OSError as error:
        raise trouble(path, error) from error


def _tidy(folder: Path) -> None:
    """What a writer left that was stopped."""
    for path in folder.glob("fednode-*" + UNFINISHED):
        if VOLUME_NAME.fullmatch(path.name.removesuffix(UNFINISHED)):
            path.unlink(missing_ok=True)


def remove_older(folder: Path, written: Written, sender: str, recipient: str) -> None:
    """Bundles of this node's for the same recipient that a new one takes the place of. What cannot be removed stays."""
    with contextlib.suppress(FednodeError):
        for part in scan([folder]).parts:
            header = part.head.header
            if part.path not in written.files and (header.sender, header.recipient) == (sender, recipient):
                remove(part.path)


def remove(path: Path) -> None:
    """A file that is of no more use; where it cannot be removed it stays."""
    with contextlib.suppress(OSError):
        path.unlink()
