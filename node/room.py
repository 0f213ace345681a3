"""Room on the disk: what may still be written when there is little, and a reserve for what must always be.

Rules
1. A file `reserve` in the home holds RESERVE bytes of the disk. With less than that free beside it the home is *low*:
   operators' changes and segments of peers are refused (FN-7630), for they can come again. Acknowledgements, the audit,
   erases, revocations and enrolments go on: they are small, and nobody else has them.
2. When even those would run into the end, the reserve is given up (`make_way`) before the write, not after it failed.
   That changes nothing about being low: what is counted is free space and reserve together.
3. Projections stop later than changes do, so that what was taken in still finds its way to where people read it; the
   last of the room is not theirs.
4. Recovery is by itself: nobody is told to restart anything. The reserve is laid down again where there is room for it,
   by the daemon (`fednode.node.keeper`).
5. All that is known is on the disk, so processes that share a home agree. A reserve of 0 turns all this off; SQLite's
   own "full" is left (FN-7605): nothing of the transaction is kept then.

>>> room = Room(Path("/nowhere"), 8 * MIB, free=lambda folder: 9 * MIB)
>>> room.low, Room(Path("/nowhere"), 4 * MIB, free=lambda folder: 9 * MIB).low
(True, False)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fednode.node import files
from fednode.sync.errors import StoreError

MIB = 1024 * 1024
RESERVE = "reserve"
TIGHT_PART = 8  # with less free than this part of the reserve it is given up
CALM_PART = 4  # after low: so much more than enough must be there, else sessions would come and go with each megabyte
NO_LIMIT = 1 << 62
LITTLE = 1_000  # so many changes reach the projections even from the last of the room: erases among them
NO_ROOM = frozenset(("FN-7605", "FN-7630", "FN-7631"))


def free_bytes(folder: Path) -> int:
    """What this user may still write to the file system of a folder. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail)


class Room:
    """The room at one home. `reserve_bytes`: 0 for a home without a reserve. `free`: bytes free where a folder is."""

    def __init__(
        self, folder: Path | None = None, reserve_bytes: int = 0, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self.folder, self.reserve_bytes = folder, reserve_bytes if folder else 0
        self.path = (folder or Path()) / RESERVE  # the reserve
        self._free, self._name = free, str(self.path)

    def free(self) -> int:
        """Bytes that are free now; without a reserve nobody asks."""
        if self.folder is None or not self.reserve_bytes:
            return NO_LIMIT
        try:
            return self._free(self.folder)
        except OSError:
            return NO_LIMIT

    def held(self) -> int:
        """Bytes that the reserve holds."""
        try:
            return os.stat(self._name).st_size if self.reserve_bytes else 0
        except OSError:
            return 0

    # ------------------------------------------------------------ what may be written

    def left(self) -> int:
        """What is free beyond a whole reserve."""
        return self.free() + self.held() - self.reserve_bytes

    @property
    def low(self) -> bool:
        """Whether changes and segments are refused."""
        return self.left() < self.reserve_bytes

    @property
    def calm(self) -> bool:
        """Whether there is clearly enough again."""
        return self.left() >= self.reserve_bytes + self.reserve_bytes // CALM_PART

    def check(self) -> None:
        """Before changes and segments. Raises StoreError FN-7630 when the home is low."""
        if self.low:
            raise self._refusal(self.reserve_bytes)

    def check_projection(self, changes: int) -> None:
        """Before a projection takes in so many changes: a few always. Raises StoreError FN-7630 when little more than
        the reserve is left."""
        if changes > LITTLE and self.left() < self.reserve_bytes // CALM_PART:
            raise self._refusal(self.reserve_bytes // CALM_PART)

    def _refusal(self, needed: int) -> StoreError:
        return StoreError("FN-7630", path=str(self.folder), free=max(0, self.left()), needed=needed)

    # ------------------------------------------------------------ the reserve

    @property
    def given_up(self) -> bool:
        """Whether the reserve is gone while it is needed."""
        return bool(self.reserve_bytes) and not self.held() and self.low

    def make_way(self) -> bool:
        """Give the reserve up if what must be written would run into the end of the disk. Whether it did."""
        if self.free() >= self.reserve_bytes // TIGHT_PART:
            return False
        try:
            self.path.unlink()
        except OSError:  # not there, or nothing can be written here at all
            return False
        return True

    def restore(self) -> bool:
        """Lay the reserve down, where there is clearly room for it. Whether it is there."""
        if not self.reserve_bytes or self.held() >= self.reserve_bytes:
            return True
        if not self.calm:
            return False
        try:
            files.preallocate(self.path, self.reserve_bytes)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            return False
        return True


@contextlib.contextmanager
def if_room() -> Iterator[None]:
    """For what need not be kept: where there is no room for it, it is not."""
    try:
        yield
    except StoreError as error:
        if error.code not in NO_ROOM:
            raise


NOWHERE = Room()
