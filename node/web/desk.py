"""The threads that answer pages: each has a store, a projection and accounts of its own.

Rules
1. The daemon's loop only waits for them (`Desk.ask`); it never reads a database for a page.
2. What was opened is kept for the next page. After trouble with a store it is closed, and opened anew.

>>> # desk = Desk(app); found = await desk.ask(lambda reader: reader.store.lsn); desk.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from fednode.node import sqlite
from fednode.node.alerting.raising import rules_of
from fednode.node.events import Events
from fednode.node.mesh.view import View
from fednode.node.mesh.watcher import bounds_of
from fednode.node.profile import SMALL_NAME
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.web.accounts import Accounts
from fednode.sync.errors import StoreError

if TYPE_CHECKING:
    from fednode.node.app import App

T = TypeVar("T")
THREADS, THREADS_SMALL = 4, 2


class Reader:
    """What one thread reads with. `app`: the node, with this thread's store in place of the daemon's, so that whatever
    takes an App (`status.collect`, `lag.listing`, ...) may be called."""

    def __init__(self, app: App) -> None:
        self.store: Store = app.new_store()
        self.app = copy.copy(app)
        self.app.store = self.store
        self._projector: Projector | None = None
        self._accounts: Accounts | None = None

    @property
    def projector(self) -> Projector:
        """state.db, as far as the daemon has brought it."""
        if self._projector is None:
            self._projector = self.app.new_projector(self.store)
        return self._projector

    @property
    def accounts(self) -> Accounts:
        """accounts.db."""
        if self._accounts is None:
            self._accounts = Accounts.open(self.app.home.path)
        return self._accounts

    def events(self) -> Events:
        """The audit and the alerts, as far as the daemon has brought them."""
        return Events(self.projector, rules_of(self.app), follows=False)

    @contextlib.contextmanager
    def mesh(self) -> Iterator[View]:
        """health.db as it is now: the daemon keeps it up to date. Raises StoreError where it cannot be read."""
        path = self.app.home.health_db
        connection = sqlite.connect(path, synchronous="NORMAL", readonly=True)
        try:
            yield View(connection, self.app.trust.node, bounds_of(self.app), self.app.now_ms())
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, path) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close what is open; in any thread, while nobody reads."""
        for one in (self._projector, self._accounts, self.store):
            if one is not None:
                one.close()


class Desk:
    """The threads of one console."""

    def __init__(self, app: App) -> None:
        self.app = app
        threads = THREADS_SMALL if app.profile.name == SMALL_NAME else THREADS
        self._pool = ThreadPoolExecutor(threads, "fednode-web")
        self._own = threading.local()
        self._readers: list[Reader] = []

    async def ask(self, work: Callable[[Reader], T]) -> T:
        """What `work` makes of it, in one of the threads. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._do, work)

    def _do(self, work: Callable[[Reader], T]) -> T:
        reader: Reader | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = Reader(self.app)
            self._readers.append(reader)
        try:
            return work(reader)
        except (StoreError, sqlite.DatabaseError):
            self._own.reader = None
            self._readers.remove(reader)
            reader.close()
            raise

    def close(self) -> None:
        """Wait for the threads to end; not in the event loop."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()
