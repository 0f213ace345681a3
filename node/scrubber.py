"""The scrub as a job of the daemon: `node.scrub` in a thread of its own, its place and its findings through the writer.

Rules
1. It is in nobody's way: it reads on its own connection, rests between segments, and does not go on while segments wait
   to be stored.
2. Its place is kept at most once in `SAVE_MS`, at a problem and at the end: what a crash forgets is looked at again.
3. A damaged segment is fetched again from a neighbour (`node.mending`).
4. What a run by hand (`fednode jobs run scrub`) has verified meanwhile is not verified again.
5. A problem is an alert (`sys.alerts`), an event, and a line of the log.

>>> # scrubber = Scrubber(app, engine.writer); jobs.every("scrub", 60, scrubber.step); await scrubber.close()
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fednode.crypto.errors import FednodeError
from fednode.node import mending, scrub
from fednode.node.audit import Problem
from fednode.node.journal import DONE, FAILED
from fednode.node.scrub import Scrub
from fednode.node.table_scrub import Tables
from fednode.node.writer import Writer
from fednode.node.writer_thread import WriterThread

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.scrub")
REST_S = 0.003
SAVE_MS = 60_000


class Scrubber:
    """Steps of the scrub, one at a time."""

    def __init__(
        self, app: App, writer: WriterThread, mend: Callable[[list[tuple[str, int]]], None] = lambda places: None
    ) -> None:
        self._app, self._writer, self._mend = app, writer, mend
        self._store = app.new_store()
        self._scrub = Scrub(
            *(self._store, app.trust.directory, app.trust.node, app.config.scrub_days),
            lambda: time.monotonic() * 1000,
            Tables(self._store, app.home.state_db, app.trust),
        )
        self._turn = asyncio.Lock()
        self._stopping = threading.Event()
        self._saved_ms = 0
        self._kept = self._store.meta(scrub.META)

    async def step(self) -> None:
        """Do what is due. What goes wrong is logged: the next step tries again."""
        async with self._turn:
            if self._stopping.is_set():
                return
            try:
                now_ms = self._app.now_ms()
                if self._store.meta(scrub.META) != self._kept:
                    self._kept = self._store.meta(scrub.META)
                    self._scrub.state = scrub.load(self._store)
                last_ms = self._scrub.state.last_ended_ms
                problems = await self._in_a_thread(now_ms)
                ended = self._scrub.state.last_ended_ms != last_ms
                if problems or ended or abs(now_ms - self._saved_ms) >= SAVE_MS:
                    self._saved_ms = now_ms
                    await self._writer.call(lambda writer: self._tell(writer, problems, ended))
                    self._kept = self._store.meta(scrub.META)
                self._mend([(one.log, one.first) for one in problems if one.code == mending.DAMAGED])
            except FednodeError as error:
                log.error("scrub", extra={"code": error.code, "params": dict(error.params)})

    async def _in_a_thread(self, now_ms: int) -> list[Problem]:
        """A step. Who schedules jobs takes them away at a stop, but no thread ends by that: it is waited for, for its
        store is closed next, and SQLite ends the process where it is read meanwhile."""
        work = asyncio.ensure_future(asyncio.to_thread(self._scrub.step, now_ms, self._may_go_on))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    def _may_go_on(self) -> bool:
        return not self._stopping.wait(REST_S) and not self._writer.busy()

    def _tell(self, writer: Writer, problems: list[Problem], ended: bool) -> None:
        """In the writer's thread."""
        state, journal = self._scrub.state, self._app.journal(writer)
        for one in problems:
            log.error("damage", extra={"code": one.code, "log": one.log, "first": one.first, "end": one.end})
            told = {"log": one.log, "first": one.first, "end": one.end}
            journal.alert(one.code, self._app.trust.node, told)
        self._scrub.mend(writer.store, problems)
        if ended:
            outcome, changes, bad = FAILED if state.last_problems else DONE, state.last_changes, state.last_problems
            journal.event("audit.scrub", outcome, changes=changes, problems=bad)
        scrub.save(writer.store, state)

    async def close(self) -> None:
        """End, after the step that is under way; keep the place."""
        self._stopping.set()
        async with self._turn:
            try:
                await self._writer.call(lambda writer: scrub.save(writer.store, self._scrub.state))
            except FednodeError as error:
                log.warning("scrub", extra={"code": error.code, "params": dict(error.params)})
            self._store.close()
