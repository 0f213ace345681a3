"""The command line in a process that kills itself, with SIGKILL, at the Nth thing that it does to a disk or tells a
person.

    python tests/lib/mortal.py N -- --home H put ...        N = 0: lives, and prints how many there were, on stderr

Counted are statements that write (begin and commit too), files opened for writing, fsyncs, renames, removals, folders
made, and the answer, before and after it is printed. With MORTAL_AFTER=FILE counting begins when that file is there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

READS = ("select", "with", "pragma", "explain", "savepoint", "release")
MOVES = frozenset(("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"))
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Count:
    """Counts down to the end."""

    def __init__(self, limit: int, after: str) -> None:
        self._limit, self._after = limit, after
        self.seen = 0
        self._lock = threading.RLock()

    def event(self) -> None:
        """One more."""
        with self._lock:
            if self._after:
                try:
                    os.stat(self._after)
                except OSError:
                    return
            self.seen += 1
            if self.seen == self._limit:
                os.kill(os.getpid(), signal.SIGKILL)

    def statement(self, sql: str) -> None:
        """SQLite is about to run one."""
        if not sql.lstrip().lower().startswith(READS) or "wal_checkpoint" in sql:
            self.event()

    def audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Python is about to do something to the world."""
        if name in MOVES or (name == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            self.event()


def main() -> int:
    count = Count(int(sys.argv[1]), os.environ.get("MORTAL_AFTER", ""))
    from fednode.node import sqlite
    from fednode.node.cli import frame, invoke

    connect, fsync, print_json = sqlite.sqlite3.connect, os.fsync, frame.print_json

    def watched(*arguments: Any, **more: Any) -> Any:
        connection = connect(*arguments, **more)
        connection.set_trace_callback(count.statement)
        return connection

    def synced(descriptor: int) -> None:
        count.event()
        fsync(descriptor)

    def answered(document: Any) -> None:
        count.event()
        print_json(document)
        sys.stdout.flush()
        count.event()

    sqlite.sqlite3.connect, os.fsync, frame.print_json = watched, synced, answered
    sys.addaudithook(count.audit)
    code = invoke(sys.argv[3:], os.environ)
    print(f"mortal: {count.seen}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
