"""The thread that keeps state.db up to date with log.db.

Rules
1. What is stored comes first: while segments wait to be stored it gives way, for a second at most.
2. Full text and indexes on fields are for when nothing else has come for a moment.
3. So is bringing both databases' write-ahead logs to an end, where there is much in them: else whoever writes the page
   too many waits for all of it in the middle of a commit.
4. It stops at what cannot be read (a damaged segment) or written (a full disk), says so once, and looks again when
   something was stored, or after a while.

>>> # follower = Follower(app, engine.writer.busy); follower.wake(); follower.stop()
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.node import sqlite
from fednode.node.cleaning import clean_log, clean_state
from fednode.node.mending import DAMAGED
from fednode.node.projection import Projector
from fednode.node.room import NO_ROOM
from fednode.sync.errors import StoreError

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.follower")
PROJECT_DELAY_S = 0.02  # acks go out, and come in, first: projecting would hold Python's lock meanwhile
PROJECT_DELAY_S_MAX = 0.1  # where one change follows the other, the projecting of each would hold up the next
TEXT_DELAY_S = 0.5
GIVE_WAY_STEP_S, GIVE_WAY_STEPS = 0.005, 200
AFTER_TROUBLE_S = 10.0
CLEAN_RETRY_S = 5.0
CHECKPOINT_PAGES_MIN = 500  # 2 MiB


def follow(projector: Projector) -> int:
    """Bring state.db up to date for whoever reads it: where there is no room for more, what is there must do. Returns
    the number of changes of records applied."""
    try:
        return projector.catch_up()
    except StoreError as error:
        if error.code not in NO_ROOM:
            raise
        return _behind(projector, error)


def _behind(projector: Projector, error: FednodeError) -> int:
    log.warning("state.db is behind", extra={"code": error.code, "behind": projector.store.lsn - projector.cursor})
    return 0


def follow_what_came(projector: Projector) -> int:
    """The same after an exchange, or a stick: that has been taken in whatever lies damaged in the way. It is for the
    daemon to have it mended, and state.db follows then."""
    try:
        return follow(projector)
    except IntegrityError as error:
        if error.code != DAMAGED:
            raise
        return _behind(projector, error)


class Lull:
    """Calls a function when nothing has come for `PROJECT_DELAY_S`, or has for `PROJECT_DELAY_S_MAX`. In its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop, self._wake = loop, wake
        self._timer: asyncio.TimerHandle | None = None
        self._by_s = 0.0

    def put_off(self) -> None:
        """Something has come."""
        now_s = self._loop.time()
        if self._timer is None:
            self._by_s = now_s + PROJECT_DELAY_S_MAX
        else:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(now_s + PROJECT_DELAY_S, self._by_s), self._over)

    def _over(self) -> None:
        self._timer = None
        self._wake()


class Follower:
    """Keeps state.db up to date; full text when nothing else has come for a moment. While segments wait to be stored it
    gives way, for a second at most: both want the same processor, and what is stored first is acknowledged first."""

    def __init__(self, app: App, busy: Callable[[], bool] = lambda: False) -> None:
        self._app, self._busy = app, busy
        self._wanted = threading.Event()
        self._stopping = False
        self.applied = 0  # changes of records, since it began
        self.upto = 0  # all that was stored up to this arrival number is in the tables
        self.stuck = False
        self._thread = threading.Thread(target=self._run, name="fednode-projector", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wanted.set()

    def stop(self) -> None:
        self._stopping = True
        self._wanted.set()
        self._thread.join()

    def _give_way(self) -> None:
        pause = threading.Event()
        for _ in range(GIVE_WAY_STEPS):
            if self._stopping or not self._busy():
                return
            pause.wait(GIVE_WAY_STEP_S)

    @staticmethod
    def _clean(projector: Projector) -> bool:
        return clean_state(projector) or clean_log(projector.store)

    @staticmethod
    def _checkpoint(projector: Projector) -> None:
        for connection in (projector.store.connection, projector.connection):
            sqlite.checkpoint(connection, CHECKPOINT_PAGES_MIN)

    def _step(self, projector: Projector) -> bool:
        """One step. Whether there may be more."""
        with self._app.tracer.span("projection") as span:
            changes, more = projector.step()
            self.applied += changes
            span.set(changes=changes)
            if not changes:
                span.drop()
        return more

    def _run(self) -> None:
        projector: Projector | None = None
        told = ""
        while not self._stopping:
            try:
                projector = projector or self._app.new_projector()
                self._follow(projector)
            except (FednodeError, sqlite.DatabaseError) as error:
                code = error.code if isinstance(error, FednodeError) else sqlite.trouble(error, "state.db").code
                if code != told:  # it is tried again for as long as it takes, and said once
                    log.error("projection stopped", extra={"code": code, "reason": str(error)})
                told, self.stuck = code, True
                self._wanted.wait(AFTER_TROUBLE_S)
            else:
                told = ""
        if projector is not None:
            projector.close()
            projector.store.close()

    def _follow(self, projector: Projector) -> None:
        """Until there is nothing to be done, or no more time: then wait for something. Raises FednodeError, and what
        SQLite raises."""
        delay_s = TEXT_DELAY_S
        while True:
            self._wanted.clear()  # before it is looked whether to stop: `stop` comes from another thread
            if self._stopping:
                return
            self._give_way()
            upto = projector.store.lsn
            if self._step(projector):
                delay_s = TEXT_DELAY_S
                continue
            self.upto, self.stuck = upto, False
            if self._wanted.wait(delay_s):
                continue
            if projector.index_fields() or projector.index_text(steps=1) or self._clean(projector):
                delay_s = 0.0
                continue
            self._checkpoint(projector)
            if projector.unclean or projector.store.meta("unclean", 0):
                self._wanted.wait(CLEAN_RETRY_S)  # somebody was in the way, or it waits for the daily job
                continue
            self._wanted.wait()
