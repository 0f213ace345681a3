"""Keeps health.db: hears the children, says how this node is, passes on what has changed.

Rules
1. One thread of its own reads and writes it; the event loop asks and is answered. Trouble there (a full disk, a file
   that cannot be read) is told once in the program's log and disturbs nothing else: how nodes are may be lost.
2. A parent passes on what has changed once an interval (`[health] interval`); at once what is news (somebody got worse,
   or better), but not more often than once a second; and in a session that ends by itself, what there is.
3. After a report that could not be kept, the rest of that session is not kept either: the child's place in its count
   stays, and the next session begins there.
4. Once a minute it keeps what the sessions have moved (`node.mesh.history`), and of each when it began and ended.
5. A session with a child is the parent's word on it: up while it lasts, heard last when it was heard last.

>>> # watcher = Watcher(engine); found = await watcher.owed(session, place, last=False); watcher.close()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fednode.crypto.errors import FednodeError
from fednode.node import sqlite
from fednode.node.lag import Samples
from fednode.node.mesh import own
from fednode.node.mesh.bounds import Bounds
from fednode.node.mesh.history import History, Moved, Tally
from fednode.node.mesh.table import FRAME_ENTRIES, Folded, Table, Who
from fednode.node.store import Store
from fednode.node.timetable import parse_duration
from fednode.node.trust import Trust
from fednode.sync import wire
from fednode.sync.health import HealthPlace, settle_about, settle_load

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.driver import Session
    from fednode.node.engine import Engine

log = logging.getLogger("fednode.health")
T = TypeVar("T")
OWN_MS = 10_000  # this node is not looked at more often
NEWS_MS = 1_000
SAMPLE_MS, PRUNE_MS = 60_000, 3_600_000
WORK_SHARE = 50  # looking at this node takes at most a fiftieth of the time
BEGAN = "began_s"  # since when a daemon serves: before that, nobody could be heard
ROSTER = "roster"  # of which store, and up to which of its system segments, the directory was taken in


def bounds_of(app: App) -> Bounds:
    """As the settings say."""
    config = app.config
    return Bounds.of(config.health_stale, config.health_behind, config.health_behind_changes)


def roster(trust: Trust) -> list[Who]:
    """Who is in this node's subtree, itself first, whoever stands higher before those below."""
    directory, me = trust.directory, trust.node
    paths = {me: me}
    children: dict[str, int] = {}
    found = []
    for one in sorted(directory.all(), key=lambda one: (directory.rank(one.level), bool(one.stands_for), one.node)):
        if one.node != me and one.issuer not in paths:
            continue
        if one.node != me:
            paths[one.node] = f"{paths[one.issuer]} {one.node}"
            children[one.issuer] = children.get(one.issuer, 0) + 1
        found.append(one)
    return [
        Who(
            *(one.node, one.name, one.level, one.scope[0], "" if one.node == me else one.issuer, paths[one.node]),
            *(one.incarnation, one.stands_for, directory.is_revoked(one.node), children.get(one.node, 0)),
        )
        for one in found
    ]


def moved(session: Session) -> Moved:
    """What a session has moved so far."""
    report = session.report
    return Moved(report.sent, report.received, report.bytes_sent, report.bytes_received)


class Keeping:
    """What is done in the thread: health.db, and a store to read. Also for a command, in its own thread."""

    def __init__(self, app: App, store: Store) -> None:
        self._app, self.store = app, store
        self.table = Table.open(app.home.health_db, app.rng(4), bounds_of(app))
        self.history = History(self.table.connection, self.table.path)

    def close(self) -> None:
        self.table.close()

    def look(self, samples: Samples, *, alone: bool = True) -> bool:
        """Who there is, and this node's own report; not `alone`: a daemon makes that. Whether it is news."""
        app, table = self._app, self.table
        self._names()
        found = own.alerts(app.home.state_db, app.trust.node)
        table.accuse(dict(found.accused))
        if not alone:
            return False
        load, about = table.said(app.trust.node)
        mine = settle_load(load, own.load(app, self.store, samples, found))
        me, rest = app.trust.me, settle_about(about, own.about(app, self.store))
        return table.say(me.node, me.incarnation, mine, rest, app.now_ms()).news

    def _names(self) -> None:
        """Take in the directory, where it has grown."""
        trust = self._app.trust
        upto = f"{self.store.store_id.hex()}/{trust.seen}"
        if self.table.meta(ROSTER) != upto:
            self.table.name(roster(trust), trust.node)
            self.table.set_meta(ROSTER, upto)

    def fold(self, child: str, life: int, told: wire.Health) -> Folded:
        """A child's report."""
        directory = self._app.trust.directory

        def inside(node: str) -> bool | None:
            path = [one.node for one in directory.path(node)]
            return child in path[:-1] if path else None

        return self.table.fold(child, life, told, self._app.now_ms(), inside)


class Watcher:
    """Of one engine. Everything but the work itself happens in its event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._app = engine, engine.app
        self._thread = ThreadPoolExecutor(1, "fednode-health")
        self._keeping: Keeping | None = None
        self._interval_ms = parse_duration(engine.app.config.health_interval) * 1000
        self._samples = Samples()
        self._looked_ms = self._look_again_ms = self._told_ms = -self._interval_ms
        self._full = False  # the last frame took no more
        self._tally = Tally()
        self._sampled_ms = engine.clock_ms()
        self._pruned_ms = -PRUNE_MS
        self._deaf: set[Session] = set()
        self._open: dict[
            Session, str
        ] = {}  # admitted, and not over: the engine's own set has those that wind down, too
        self._failing = ""
        self._closed = self._serves = False
        self.note()

    def note(self) -> None:
        """The store has grown."""
        self._samples.note(self._app.now_ms(), self._engine.store.lsn)

    # ------------------------------------------------------------ the thread

    def _in_thread(self, work: Callable[[Keeping], T]) -> T | None:
        """None where it could not be done."""
        try:
            if self._app.room.low:
                return None
            if self._keeping is None:
                self._keeping = Keeping(self._app, self._app.new_store())
            done = work(self._keeping)
        except (FednodeError, sqlite.DatabaseError, OSError) as error:
            code = getattr(error, "code", "") or type(error).__name__
            if code != self._failing:  # it is tried again each time, and said once
                log.error("health not kept", extra={"code": code, "reason": str(error)})
            self._failing = code
            return None
        self._failing = ""
        return done

    async def _ask(self, work: Callable[[Keeping], T]) -> T | None:
        if self._closed:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._in_thread, work)

    def _post(self, work: Callable[[Keeping], Any]) -> None:
        """What nobody waits for."""
        if not self._closed:
            self._thread.submit(self._in_thread, work)

    def begin(self) -> None:
        """A daemon begins: nobody is up yet."""
        self._serves = True
        self._post(lambda keeping: keeping.table.begin(self._app.trust.node, self._app.now_ms()))
        self._post(lambda keeping: keeping.table.set_meta(BEGAN, self._app.now_s))
        self._post(lambda keeping: keeping.look(self._samples))

    def close(self) -> None:
        """What was asked for is done, then the end. Any thread."""
        self._alive()
        self._sample()
        self._closed = True
        self._thread.shutdown(wait=True)
        if self._keeping is not None:
            self._keeping.close()
            self._keeping.store.close()

    # ------------------------------------------------------------ this node

    async def look(self) -> object:
        """Once an interval: this node's own report; children hear nothing of it, the parent when it is ripe."""
        await self._look(force=True)
        self._alive()
        return None

    def _alive(self) -> None:
        """Until when a daemon served: whoever is up then was heard."""
        if self._serves:
            self._post(lambda keeping: keeping.table.set_meta("alive_s", self._app.now_s))

    async def _look(self, *, force: bool = False) -> None:
        now_ms = self._engine.clock_ms()
        if not force and now_ms < self._look_again_ms:
            return
        self._look_again_ms = now_ms + OWN_MS
        news = await self._ask(lambda keeping: keeping.look(self._samples))
        self._look_again_ms += WORK_SHARE * (self._engine.clock_ms() - now_ms)
        if news and force:
            self._tell()

    def _tell(self) -> None:
        """News: the parent hears of it now."""
        for session in list(self._engine.sessions):
            if session.exchange.dials:
                session.news()

    # ------------------------------------------------------------ the parent

    async def owed(self, after: HealthPlace, *, last: bool) -> wire.Health | None:
        """What to tell the parent now (rule 2)."""
        await self._look(force=last)
        me = self._app.trust.node
        found = await self._ask(lambda keeping: keeping.table.owed(me, after))
        if found is None or found[0] is None:
            return None
        now_ms = self._engine.clock_ms()
        wait_ms = NEWS_MS if found[1] else self._interval_ms
        if not last and not self._full and now_ms - self._told_ms < wait_ms:
            return None
        self._told_ms, self._full = now_ms, len(found[0].entries) >= FRAME_ENTRIES
        return found[0]

    # ------------------------------------------------------------ the children

    async def reached(self, child: str) -> HealthPlace | None:
        """How far a child's reports have come; None: none can be kept now."""
        return await self._ask(lambda keeping: keeping.table.reached(child))

    async def hear(self, session: Session, told: wire.Health) -> None:
        """A child's report."""
        peer = session.peer
        if peer is None or session in self._deaf:
            return
        found = await self._ask(lambda keeping: keeping.fold(peer.node, peer.incarnation, told))
        if found is None:
            self._deaf.add(session)
            return
        if found.left_out:
            log.warning("health left out", extra={"peer": peer.node, "count": found.left_out})
        if found.news:
            self._tell()

    def began(self, session: Session) -> None:
        """A session is open."""
        if session.peer is not None:
            self._tally.began(session, session.peer.node, session.exchange.dials, self._app.now_s)
            self._open[session] = session.peer.node
        self._see(session, up=True)

    def ended(self, session: Session, code: str = "") -> None:
        """It has ended. `code`: why, where it did not end well."""
        self.left(session, code)

    def left(self, session: Session, code: str = "") -> None:
        """It is over, in whatever way: a daemon that ends does not wait for the last word."""
        self._deaf.discard(session)
        peer = self._open.pop(session, None)
        if peer is not None and peer not in self._open.values():
            self._see(session, up=False)
        meeting = self._tally.ended(session, moved(session), self._app.now_s, code)
        if meeting is not None:
            self._post(lambda keeping: keeping.history.met(meeting))

    def sample(self) -> None:
        """Every second or so: rule 4."""
        now_ms = self._engine.clock_ms()
        if now_ms - self._sampled_ms < SAMPLE_MS:
            return
        self._sampled_ms = now_ms
        self._sample()
        if now_ms - self._pruned_ms >= PRUNE_MS:
            self._pruned_ms = now_ms
            self._post(lambda keeping: keeping.history.prune(self._app.now_s))

    def _sample(self) -> None:
        found = self._tally.take({session: moved(session) for session in self._engine.sessions})
        at_s, parent, me = self._app.now_s, self._app.trust.parent, self._app.trust.node
        if found:
            self._post(lambda keeping: keeping.history.add(found, at_s, parent.node if parent else "", me))

    def _see(self, session: Session, *, up: bool) -> None:
        """Rule 5."""
        peer = session.peer
        if peer is None or session.exchange.dials:
            return
        now_ms = self._app.now_ms()
        at_s = (now_ms - session.exchange.silent_ms(session.now_ms())) // 1000
        self._post(lambda keeping: keeping.table.see(peer.node, peer.incarnation, at_s, now_ms, up=up))
