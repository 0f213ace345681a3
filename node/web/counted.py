"""Coverage, counted beside the pages: one thread counts, all who look get what was counted last, with its age.

Rules
1. One count at a time, with a store of its own, never in a thread that answers pages.
2. What was counted is kept. Once it is older than `SHARE` times what the count took (and `LEAST_MS`), whoever looks
   starts the next; meanwhile the old one is shown. So counting takes at most a part in `SHARE` of one core.
3. Timeliness reads every record and costs ten times as much: it is counted for who asks for it. Whoever comes first
   waits a moment (`WAIT_S`), then is told that it is being counted.
4. A console that ends breaks the count off.

>>> # counted = counted_of(site); found = counted.get(timely=False)
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from datetime import date
from time import perf_counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fednode.node import sqlite
from fednode.node.coverage import ALL, Coverage, Wanted, measured
from fednode.node.published import growth
from fednode.sync.errors import Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.web.site import Site

LEAST_MS, SHARE, WAIT_S, DAYS = 60_000, 50, 1.0, 30


@dataclass(frozen=True, slots=True)
class Count:
    """As of `at_ms`; it took `took_ms`. `days`: of the last days, what was first published, by dataset."""

    at_ms: int
    took_ms: int
    coverage: Coverage
    days: Mapping[date, Mapping[str, int]]

    @property
    def lasts_ms(self) -> int:
        """For how long it is shown before the next is begun."""
        return max(LEAST_MS, SHARE * self.took_ms)


class Counted:
    """Of one console."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, "fednode-coverage")
        self._lock = threading.Lock()
        self._kept: dict[bool, Count] = {}
        self._coming: dict[bool, Future[Count]] = {}
        self._connection: sqlite.Connection | None = None
        self._closed = False

    def close(self) -> None:
        """Break off what is being counted, and wait for its thread."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.interrupt()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def get(self, *, timely: bool) -> tuple[Count | None, bool]:
        """The last count (None: the first is not done yet), and whether one is on its way. Raises what counting
        raises."""
        with self._lock:
            kept, coming = self._kept.get(timely), self._coming.get(timely)
            if coming is None and (kept is None or not 0 <= self._app.now_ms() - kept.at_ms < kept.lasts_ms):
                coming = self._coming[timely] = self._thread.submit(self._count, timely)
        if coming is None:
            return kept, False
        try:
            found = coming.result(WAIT_S if kept is None else 0)
        except NotYet:
            return kept, True
        except BaseException:
            self._done(timely, coming, kept)
            raise
        self._done(timely, coming, found)
        return found, False

    def _done(self, timely: bool, coming: Future[Count], found: Count | None) -> None:
        """A count has ended: what it found is kept; whoever comes next may begin another."""
        with self._lock:
            if self._coming.get(timely) is coming:
                del self._coming[timely]
                if found is not None:
                    self._kept[timely] = found

    def _count(self, timely: bool) -> Count:
        app, began_s = self._app, perf_counter()
        store = app.new_store()
        projector = app.new_projector(store)
        try:
            with self._lock:
                self._connection = projector.connection
                if self._closed:
                    raise Unavailable("FN-4803")
            found = measured(app, projector.connection, timely=timely)
            names = [name for name in found.names(Wanted()) if name != ALL]
            days = growth(projector.connection, names, found.inside(Wanted()).__contains__, app.now_ms(), DAYS)
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, projector.path) from error
        finally:
            with self._lock:
                self._connection = None
            projector.close()
            store.close()
        return Count(app.now_ms(), round((perf_counter() - began_s) * 1000), found, days)


_COUNTED: WeakKeyDictionary[Site, Counted] = WeakKeyDictionary()
_MAKING = threading.Lock()


def counted_of(site: Site) -> Counted:
    """The one of this console."""
    with _MAKING:
        found = _COUNTED.get(site)
        if found is None:
            found = _COUNTED[site] = Counted(site.app)
            site.ends.append(found.close)
        return found
