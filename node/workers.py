"""Verification on several cores: processes that check runs of segments, each with its own read-only connection.

Rules
1. A worker is told who is who, so that it neither reads nor believes more than the process that started it. It writes
   nothing.
2. What is under way is bounded: `AHEAD` runs for each worker. Runs come back in the order in which they were given.
   While the oldest is not through, the process that started them checks the youngest that nobody has begun: so it works
   from the first moment, while the others start.
3. Ctrl-C is for the process that started them: it starts nothing more, waits for the runs under way (a fraction of a
   second), and ends.
4. A worker is started by fork where that is safe: a hundredth of a second; a fresh interpreter takes a third of one.
   Safe is: on Linux, with no other thread, and with no connection to the database. A child that inherits one takes its
   parent's locks for its own (https://www.sqlite.org/howtocorrupt.html, section 2.6), so the store is closed meanwhile
   (`Store.away`), and who else has it open in this process is looked for.
5. A small store is verified without (`worth_it`).

>>> worth_it(1_000, jobs=8), worth_it(10_000_000, jobs=1), worth_it(10_000_000, jobs=8)
(False, False, True)
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from fednode.node import heap
from fednode.node.audit import Audit, Checked, Progress, Report, Run, quiet
from fednode.node.checker import Checker, Seen
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync.identity import Directory

AHEAD = 8
CHANGES_MIN = 200_000  # about half a second's work for one core


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker begins with."""

    path: Path
    stash_key: bytes
    directory: Directory
    node: str


_checkers: list[Checker] = []  # the one of this worker process


def _begin(start: Start) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heap.keep_warm()
    _checkers.append(Checker(Store.read(start.path, stash_key=start.stash_key), start.directory, start.node))


def _check(run: Run) -> list[Seen]:
    return _checkers[0].check_all(run.name, run.places)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worth_it(changes: int, jobs: int) -> bool:
    """Whether starting processes gains more than it costs."""
    return jobs > 1 and changes >= CHANGES_MIN


def may_fork(path: Path) -> bool:
    """Whether this process may fork workers for the database at `path`, which it has closed (rule 4)."""
    if sys.platform != "linux" or len(os.listdir("/proc/self/task")) > 1:
        return False
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that listed them is closed by now
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(path.resolve())):
                return False
    return True


def started(store: Store, start: Start, jobs: int) -> ProcessPoolExecutor:
    """`jobs - 1` workers, who begin at once where they are forked."""
    with store.away():
        pool = ProcessPoolExecutor(jobs - 1, get_context("fork" if may_fork(store.path) else "spawn"), _begin, (start,))
        pool.submit(os.getpid)
    return pool


def spread(todo: Iterable[Run], pool: ProcessPoolExecutor, here: Checker, jobs: int) -> Iterator[Checked]:
    """Check runs in `jobs` processes, this one among them."""
    waiting: deque[tuple[Run, Future[list[Seen]]]] = deque()
    for run in todo:
        waiting.append((run, pool.submit(_check, run)))
        if len(waiting) >= AHEAD * jobs:
            yield _oldest(waiting, here)
    while waiting:
        yield _oldest(waiting, here)


def _oldest(waiting: deque[tuple[Run, Future[list[Seen]]]], here: Checker) -> Checked:
    """The segments of the oldest run, once it is through."""
    for at in range(len(waiting) - 1, -1, -1):
        if waiting[0][1].done():
            break
        run, future = waiting[at]
        if future.cancel():  # nobody had begun it
            waiting[at] = run, _done(here.check_all(run.name, run.places))
    run, future = waiting.popleft()
    return run, future.result()


def _done(seen: list[Seen]) -> Future[list[Seen]]:
    future: Future[list[Seen]] = Future()
    future.set_result(seen)
    return future


@contextmanager
def prepared(
    store: Store, trust: Trust, *, full: bool = True, only: str = "", jobs: int = 0
) -> Iterator[Callable[[Progress], Report]]:
    """A verification that is ready to begin, with as many processes as it is worth; `jobs`: at most so many, 0 for one
    a core. Raises Refused FN-3410 when `only` is no log that is held."""
    audit = Audit(store, trust, full=full, only=only)
    jobs = jobs or cores()
    if not worth_it(audit.changes, jobs):
        yield lambda progress: audit.run(audit.here, progress)
        return
    pool = started(store, Start(store.path, store.stash_key, trust.directory, trust.node), jobs)
    try:
        yield lambda progress: audit.run(lambda todo: spread(todo, pool, audit.checker, jobs), progress)
    finally:
        pool.shutdown(cancel_futures=True)


def verify(
    store: Store, trust: Trust, *, full: bool = True, only: str = "", jobs: int = 0, progress: Progress = quiet
) -> Report:
    """Verify at once."""
    with prepared(store, trust, full=full, only=only, jobs=jobs) as run:
        return run(progress)
