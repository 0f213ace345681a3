"""A small disk of one's own, that can be filled to the last page: a tmpfs, where the machine lets root mount one.

with tiny(tmp_path / "disk", 4 * MIB) as disk:
    disk.leave(3)      # three pages of 4 KiB are free
    disk.empty()       # room again
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1024 * 1024
PAGE = 4096


class Disk:
    """A mounted file system and the file that takes up its room."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def free(self) -> int:
        """Pages that are free."""
        found = os.statvfs(self.path)
        return found.f_bfree * found.f_frsize // PAGE

    def leave(self, pages: int) -> None:
        """Fill the disk until so many pages are left."""
        size = self._ballast.stat().st_size // PAGE if self._ballast.exists() else 0
        want = max(0, size + self.free() - pages) * PAGE
        with self._ballast.open("ab") as file:
            if want < size * PAGE:
                os.ftruncate(file.fileno(), want)
            elif want:
                os.posix_fallocate(file.fileno(), 0, want)
        assert self.free() == pages

    def empty(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)

    def remount(self, how: str) -> bool:
        """`ro` or `rw`; whether the machine lets us."""
        done = subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], capture_output=True, check=False)
        return done.returncode == 0


@contextmanager
def tiny(path: Path, size: int) -> Iterator[Disk]:
    """A file system of `size` bytes at a new folder. Skips the test where it cannot be mounted."""
    path.mkdir(parents=True)
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
