"""The simulated machines' disks: real SQLite files whose machine may lose power right before a commit, and that may not
take what is written or synced (EIO): the transaction is gone, and who wanted it hears so.

What a disk holds after a power cut in the middle of a commit is the crash lab's subject (tests/lib/crash).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fednode.node import sqlite
from fednode.node.store import Store
from fednode.node.transaction import Transaction

IO_ERROR, IO_CODE = "disk I/O error", "FN-7607"  # SQLite's words, and ours


class Crash(Exception):
    """The power is gone."""


class CrashingStore(Store):
    """A store on such a disk. `doomed`, `ailing`: whether the power goes, or the disk fails, at this commit;
    `changing`: told that there is one."""

    doomed: Callable[[], bool] = staticmethod(lambda: False)
    ailing: Callable[[], bool] = staticmethod(lambda: False)
    changing: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self.changing()
        with super().write() as tx:
            yield tx
            if self.doomed():
                raise Crash
            if self.ailing():
                raise sqlite.OperationalError(IO_ERROR)
