"""Which threads of this program come first where the processor is short, as far as a program may say so.

Rules
1. gRPC's own threads read and write the lines of children, and make TLS handshakes with whoever knocks, a millisecond
   of processor each. On two cores the threads that store and answer what children have sent stood behind handshakes of
   strangers. gRPC's come a little later now (`NICE`): with a processor free nothing changes.
2. They go by their names, which gRPC gives them. A thread that one of them starts is as it is.
3. Where the system has no such thing, nothing happens.

>>> # give_way(), once the ports are open
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NICE = 5  # a third of the weight of the others (sched(7)); whoever may not raise priorities may do this
NAMES = ("event_engine", "lifeguard")
TASKS = Path("/proc/self/task")


def give_way(tasks: Path = TASKS) -> int:
    """gRPC's threads come after this program's own. How many there are."""
    found = 0
    with contextlib.suppress(OSError):
        for task in tasks.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if (task / "comm").read_text().strip() in NAMES:
                    os.setpriority(os.PRIO_PROCESS, int(task.name), NICE)
                    found += 1
    return found
