"""What the sessions of a node share: the thread that writes, a store to read, admission, the audit.

Rules
1. Errors end at the session that had them; the others go on.
2. What befalls the node is in its audit (`node.journal`), bounded, whatever peers do.
3. `stop` waits for what `soon` started, then closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node import (
    admission,
    carrier,
    clocks,
    fence,
    jobs,
    mending,
    pauses,
    reconsider,
    refill,
    whereabouts,
    witness,
)
from fednode.node.acks import Acks
from fednode.node.demotion import FOUND, handing_of
from fednode.node.door import Door
from fednode.node.doubts import BREACH, Doubts
from fednode.node.driver import Report, Session, Welcome
from fednode.node.hooks import Hooks
from fednode.node.journal import ALARMING, DONE, FAILED, REFUSED, Journal
from fednode.node.lag import LagWatch
from fednode.node.link import Alarm, Link
from fednode.node.mending import Mender
from fednode.node.mesh.watcher import Watcher
from fednode.node.pacing import Pacer
from fednode.node.rewrapping import due
from fednode.node.shares import Shares
from fednode.node.store import Store
from fednode.node.timetable import parse_duration
from fednode.node.tracing import Attributes
from fednode.node.turns import Turns
from fednode.node.waking import Rarely, Waking
from fednode.node.writer import Writer
from fednode.node.writer_thread import WriterThread
from fednode.sync import clock, versions, wire
from fednode.sync import effects as fx
from fednode.sync import exchange as ex
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, StoreError, Unavailable, busy

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.daemon")
CUT = "cut"  # the call was taken away before either side said why, as at a stop of the child's daemon
LOOK_S = 0.2  # who waits for something of the store looks so often, whatever it hears
MEET_AGAIN_MS = 200
RENEWALS_MAX = 10  # of one child in an hour: each is a change that flows to everybody
ENOUGH = "FN-4527"
AFTER_ALL = "FN-4529"
WINDOWS_BYTES = 64 * 1024 * 1024  # of all children together, as long as each has WINDOW_BYTES_MIN
WINDOW_BYTES_MIN = 1024 * 1024


class Engine(Hooks):
    """What sessions share: the writer thread, a reading store, admission. Used by the daemon and by one exchange by
    hand.
    """

    def __init__(self, app: App, on_moved: Callable[[], None] = lambda: None) -> None:
        self.app = app
        self._loop = asyncio.get_running_loop()
        self.store: Store = app.new_store()
        self.sessions: set[Session] = set()
        self._waking = Waking(self.store)
        self.mender = Mender(self.store, self.sessions, self._keep_damaged, self.clock_ms)
        self._on_moved = on_moved
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._untold = ""  # trouble of the store that could not be told while it lasted
        self._journal: Journal | None = None
        self.turns = Turns(app.config.serve_sessions, parse_duration(app.config.serve_quantum) * 1000)
        self.doubts, self.pauses = Doubts(self._loop.time), pauses.Pauses()
        self._door = Door(self.turns, self.pauses, self.doubts, self.clock_ms)
        self.shares, self._seated = Shares(self.doubts.doubted), dict[int, Session]()
        self._halves: tuple[object, object] = (None, None)  # what the last exchange with the parent left half done
        self.renewal = ""  # why the last one was refused
        self.parent_full = False  # it has no room: it sends, and takes nothing
        self._heard = app.trust.heard
        self._known = self._knows()
        self.writer = WriterThread(self._new_writer, self.moved, self._alarmed, app.tracer, self.doubts.doubted)
        self.acks, self.lags, self.health = Acks(self), LagWatch(self), Watcher(self)
        self.where = whereabouts.Watch(self, self.clock_ms)
        self._progress = asyncio.Event()
        self._looking = Rarely(self._look_round)

    def _new_writer(self) -> Writer:
        """In the writer's thread. What is due to later readers it gives when its answers are out (`_moved_on`)."""
        writer = self.app.new_writer()
        writer.gives = False
        return writer

    def close(self) -> None:
        self._end_threads()
        self.store.close()

    def _end_threads(self) -> None:
        self.writer.stop()
        self.health.close()

    def moved(self) -> None:
        """The store has grown: wake everyone whose feed may have, part from whoever was revoked."""
        self._progress.set()
        self._pass_on()
        self._take_after_all()
        self._looking.look(0 if self._stopping else len(self.sessions))

    def _look_round(self) -> None:
        # while it stops, the store is closed
        may_have_grown = (lambda _link: False) if self._stopping else self._waking.look()
        for session in list(self.sessions):
            if session.peer is not None and (error := self._out_of_force(session.peer, session.link)) is not None:
                session.end(error)
            elif may_have_grown(session.link):
                session.wake()
        if self._untold:
            code, self._untold = self._untold, ""
            self.soon(self.tell("store.trouble", FAILED, code=code))
        self._loop.call_soon(self._moved_on)

    def _moved_on(self) -> None:
        """What can wait until the sessions have written what they were woken for."""
        if not self._stopping:  # the store is closed then
            self.health.note()
        if not self._stopping and due(self.store):
            # step by step: others write in between, and each step that moves something comes by here
            self.soon(quietly(self.writer.call(lambda writer: writer.rewrapping.step())))
        self._on_moved()

    def _keep_damaged(self, places: list[mending.Place]) -> None:
        def keep(writer: Writer) -> None:
            with writer.store.write() as tx:
                mending.remember(tx, places)

        self.soon(quietly(self.writer.call(keep)))

    def acked(self, session: Session) -> None:
        self._progress.set()

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds that changes with what is stored, or is acknowledged. Whether it does."""
        end = self._loop.time() + seconds
        while not holds():
            rest = end - self._loop.time()
            if rest <= 0:
                return False
            self._progress.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._progress.wait(), min(rest, LOOK_S))
        return True

    def _out_of_force(self, peer: Identity, link: Link | None) -> PeerError | None:
        """Why a session that is open may not go on: the peer was revoked, or another installation took a new life."""
        directory = self.app.trust.directory
        if directory.is_revoked(peer.node):
            return PeerError("FN-5511", node=peer.node)
        now = directory.get(peer.node)
        if now is None or now.incarnation == peer.incarnation or link is None or link.restoring or link.from_parent:
            return None
        return PeerError("FN-5513", node=peer.node, theirs=peer.incarnation, ours=now.incarnation)

    def _alarmed(self, writer: Writer, alarms: list[Alarm]) -> None:
        """In the writer's thread: what it found goes up as alerts, and ends the session where it must."""
        self._journal = self._journal or self.app.journal(writer)
        for one in alarms:
            try:
                if self._journal.alert(one.code, one.node, one.params, one.evidence):
                    log.warning("alert", extra={"code": one.code, "params": dict(one.params), "peer": one.node})
            except FednodeError as error:  # fenced itself: what it has to tell it told its parent
                log.error("alert not recorded", extra={"code": error.code, "params": dict(error.params)})
            if one.ends is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._end, one.ends, PeerError(one.code, **one.params))

    def _end(self, link: Link, error: PeerError) -> None:
        for session in list(self.sessions):
            if session.link is link:
                session.end(error)

    # ------------------------------------------------------------ admission

    async def _welcome(
        self,
        session: Session,
        identity: Identity,
        hello: wire.Hello,
        from_parent: bool,
        restoring: int | None = None,
    ) -> Welcome:
        # a line that was cut in silence is noticed late: an older session may still hold what it had half received
        for other in list(self.sessions):
            if other is not session and other.peer is not None and other.peer.node == identity.node:
                await other.keep_half()
        may = self.acks.may(identity, from_parent)
        reports = None if from_parent else await self.health.reached(identity.node)
        issuers = whereabouts.issuers(self.app, self.store)  # here: the writer is another thread
        entry: admission.Entry = await self.writer.call(
            lambda writer: admission.enter(
                *(writer, identity, hello, from_parent, self.app.now_ms(), self.app.software, restoring is not None),
                unsure=not self.app.reference.sure,
                issuers=issuers,
                may=may,
                reports=reports,
                window=self._window(),
            ),
            identity.node,
        )
        if not from_parent:
            session.exchange.half = entry.half
        feed, again = admission.feeds(self.store, self.app.trust, entry.link)
        granted = replace(entry.admission, renew=self._renewal(session, from_parent, restoring))
        one = mending.one(self.store, self.app.trust, entry.link)
        return Welcome(
            *(entry.link, granted, feed, again, one, admission.hurry(self.store, self.app.trust, entry.link)),
            partial(witness.owed, self.store, self.app.trust, identity),
            lambda writer: refill.holdings(writer, entry.link, self.app.now_ms()),
            entry.owed,
        )

    def _window(self) -> int:
        """What a child may send ahead: less where many do."""
        return max(WINDOW_BYTES_MIN, WINDOWS_BYTES // max(1, len(self.sessions)))

    def _renewal(self, session: Session, with_parent: bool, restoring: int | None) -> wire.Renew | None:
        """What to ask the parent for: a new life for a node that takes its history back, or what is due. A certificate
        as release 0.1 made it is due as soon as the parent can make one that TLS takes whatever this machine's clock
        says."""
        me = self.app.trust.me
        dated = certs.tls_dates(me.der) != certs.WIDE and session.exchange.version >= versions.WIDE_DATES
        due = dated or renewal_due(me, self.app.now_ms() // 1000)
        if not with_parent or (not restoring and not due):
            return None
        return wire.Renew(self.app.renewal_request(), restoring or 0)

    def renew_when_due(self) -> object:
        """Ask the parent for a fresh certificate in a session that has been open for long: a new one asks by itself.
        `IDLE` where nothing is due."""
        sessions = [one for one in self.sessions if one.link is not None and one.link.from_parent]
        wanted = self._renewal(sessions[0], True, None) if sessions else None
        if wanted is None:
            return jobs.IDLE
        sessions[0].ask_renewal(wanted)
        return None

    async def admit_child(self, session: Session, certificate: bytes, hello: wire.Hello) -> Welcome:
        """Check a child by the certificate that TLS verified."""
        shown = certs.parse(certificate)
        handing = handing_of(self.store)
        if fence.superseded(self.store) and (handing is None or handing.standby != shown.node):
            raise Unavailable("FN-4512", node=self.app.trust.node)
        if self.app.trust.directory.sealed_to(shown):
            await self.writer.call(lambda writer: self.app.honour(writer, shown), shown.node)
        identity = admission.check_child(self.app.trust, shown, hello, self.app.judge())
        if not hello.restore:
            await self._reconsider(identity.node)
        return await self._welcome(session, identity, hello, from_parent=False)

    async def admit_parent(
        self,
        session: Session,
        hello: wire.Hello,
        restoring: int | None = None,
        errand: bool = False,
        address: str = "",
    ) -> Welcome:
        """Check the parent; TLS has verified its name."""
        parent = admission.check_parent(self.app.trust, hello, self.app.judge())
        self.parent_full = not hello.wants
        self._pass_on()
        self._take_after_all()
        welcome = await self._welcome(session, parent, hello, from_parent=True, restoring=restoring)
        if address and (address != self.app.parent_addresses()[0] or self.store.meta(FOUND)):
            await self.writer.call(lambda writer: admission.reached(writer.store, address))
        return replace(welcome, feed=lambda _after, _bytes_max: ([], True)) if errand else welcome

    def _pass_on(self) -> None:
        """Where this node has heard of a later life of somebody above, its children must, too, before they get what was
        written in it: in the greeting of a new session."""
        if self.app.trust.heard == self._heard:
            return
        self._heard = self.app.trust.heard
        for one in [one for one in self.sessions if not one.exchange.dials]:
            one.end(Unavailable("FN-4526", retry_after_ms=MEET_AGAIN_MS, parent=self.app.trust.node), MEET_AGAIN_MS)

    def _knows(self) -> tuple[int, int]:
        return self.app.trust.catalog_version, self.app.trust.heard

    def _take_after_all(self) -> None:
        """What was lacking to take something has come: whoever sent that is met anew (`node.reconsider`, rule 4)."""
        if self._stopping or self._known == (known := self._knows()):
            return
        self._known = known
        due = reconsider.due(self.store, self.app.trust)
        for one in [one for one in self.sessions if one.shown in due and not one.exchange.once]:
            error = Unavailable(AFTER_ALL, retry_after_ms=MEET_AGAIN_MS, node=self.app.trust.node, peer=one.shown)
            one.end(error, MEET_AGAIN_MS)

    async def _reconsider(self, node: str) -> None:
        """Before a greeting: a peer is asked again for what can be taken by now."""
        if not reconsider.due(self.store, self.app.trust, node):
            return

        def forget(writer: Writer) -> None:
            if count := reconsider.forget(writer, node):
                self.app.journal(writer).note("refused.retry", peer=node, count=count)

        await self.writer.call(forget, node)

    # ------------------------------------------------------------ sessions

    async def converse(
        self,
        stream: carrier.Stream,
        *,
        once: bool,
        feeds: bool = True,
        wants: bool = True,
        restoring: int | None = None,
        limit: int | None = None,
        errand: bool = False,
        address: str = "",
    ) -> tuple[fx.Close, Report]:
        """One exchange with the parent over an open stream. `limit`: bits per second, where not as the settings say;
        `errand`: only what is urgent goes up (`node.urgent`); `restoring`: to take this node's history back, leaving
        that incarnation for a new one (0: that is done); `address`: where the parent was dialled."""
        parent = self.app.trust.parent
        if parent is None:
            raise StoreError("FN-7613", node=self.app.trust.node)
        if restoring is None and wants:
            await self._reconsider(parent.node)
        reached_at = self.where.to_parent()
        half = self.store.partial(parent.node)
        peer = self.store.peer(parent.node)
        app = self.app
        place = (app.trust, self.store, app.now_ms(), app.software, peer, half)
        pacer = self._pacer(limit)
        window = pacer.window if pacer is not None else ex.WINDOW_BYTES
        to = admission.to_parent(app.trust, reached_at)
        hello = admission.hello(*place, feeds, wants, restoring is not None, window, not app.reference.sure, to)
        exchange = ex.Exchange(dials=True, hello=hello, once=once, half=half, paced=pacer is not None)
        session = Session(
            stream,
            exchange,
            self.writer,
            self.store,
            app.reference.timer(),
            lambda h: self.admit_parent(session, h, restoring, errand, address),
            self,
            pacer,
        )
        exchange.tells_health = restoring is None  # who takes its history back has nothing to say yet
        if errand:
            session.errand, exchange.hurry_from = True, -1
        session.shown, session.address = parent.node, address
        close, report = await self._run(session)
        there, here = session.report.half_there, self.store.partial(parent.node)
        halves = (there, (here.lsn, len(here.data)) if here else None)
        report.advanced = halves != self._halves
        self._halves = halves
        word = word_of(close.error)
        if word in fence.PARENTS_WORD:
            await quietly(self.writer.call(lambda writer: writer.fence(word)))
            if fence.superseded(self.store):
                self.send_away()
        return close, report

    def send_away(self, but: str = "") -> None:
        """Part from the children, so that they look for the one that takes this node's place; not from `but`."""
        for one in [one for one in self.sessions if not one.exchange.dials and one.shown != but]:
            one.end(Unavailable("FN-4512", node=self.app.trust.node))

    def _pacer(self, limit: int | None) -> Pacer | None:
        """What holds a session with the parent to its limit; None where there is none now."""
        app = self.app

        def rate() -> int:
            return jobs.limit(app.config, app.now_ms()) if limit is None else limit

        return Pacer(rate, self._loop.time) if rate() else None

    def clock_ms(self) -> int:
        """The time that the machine has run."""
        return round(self._loop.time() * 1000)

    async def serve_child(self, stream: carrier.Stream, certificate: bytes) -> None:
        """One exchange with a child that has connected. Raises Unavailable FN-4508 when it is not its turn."""
        node = certs.parse(certificate).node
        turn = await self._door.enter(node)
        try:
            await self._serve(stream, certificate, turn)
        finally:
            self._seated.pop(turn, None)
            self.turns.leave(turn, self.clock_ms())

    def take_turns(self) -> None:
        """Part from sessions whose time is over while others wait."""
        for seat, retry_ms in self.turns.over(self.clock_ms(), lambda one: self._seated[one].exchange.quiet):
            self._seated[seat].end(busy(retry_ms), retry_ms)

    async def _serve(self, stream: carrier.Stream, certificate: bytes, seat: int) -> None:
        exchange = ex.Exchange(dials=False)
        session = Session(
            stream,
            exchange,
            self.writer,
            self.store,
            self.app.reference.timer(),
            lambda h: self.admit_child(session, certificate, h),
            self,
            shares=self.shares,
        )
        session.shown = certs.parse(certificate).node
        self._seated[seat], session.seat = session, seat
        close, _ = await self._run(session)
        if close.error is not None and not isinstance(close.error, Unavailable):
            self._line(session, "session ended", peer=name_of(session), reason=str(close.error))

    def _line(self, session: Session, what: str, **extra: Any) -> None:
        """In the log, within bounds: a peer may cause as many as it likes."""
        if self.app.throttle.spare(f"line {session.shown}"):
            log.warning(what, extra=extra)

    async def _run(self, session: Session) -> tuple[fx.Close, Report]:
        self.sessions.add(session)
        dials = session.exchange.dials
        with self.app.tracer.span("exchange", "client" if dials else "server") as span:
            try:
                close = await session.run()
            finally:
                self.sessions.discard(session)
                self.health.left(session)
                span.set(**_traced(self.app, session))
        await self._note_end(session, close)
        return close, session.report

    async def _note_end(self, session: Session, close: fx.Close) -> None:
        link = session.link
        if link is None:
            return
        code = code_of(close.error) or None

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.touch_peer(link.peer_id, self.app.now_ms(), code)

        with contextlib.suppress(FednodeError):
            await self.writer.call(note, link.peer.node)

    # ------------------------------------------------------------ what the audit hears

    async def tell(self, action: str, outcome: str = DONE, **details: Any) -> None:
        """An event that a peer may have caused."""
        await self.writer.call(lambda writer: self.app.journal(writer).befell(action, outcome, **details))

    async def note(self, action: str, **details: Any) -> None:
        """An event of the daemon's own."""
        await self.writer.call(lambda writer: self.app.journal(writer).note(action, **details))

    def soon(self, job: Coroutine[Any, Any, None]) -> None:
        """Run something that no session waits for; `stop` does."""
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Wait for what `soon` started, then close: the writer ends in another thread, while its last words come in
        here; the store that the loop reads is closed by the loop, for SQLite ends the process where it is read and
        closed at the same moment."""
        self._stopping = True
        self._looking.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._end_threads)
        self.store.close()

    async def _refused(self, peer: str, error: Exception) -> None:
        """One side refused the other; where that is alarming, the levels above hear of it, too."""
        code = code_of(error)
        await self.tell("session.refused", REFUSED, peer=peer, code=code)
        if isinstance(error, FednodeError) and code == error.code and code in ALARMING:
            params = dict(error.params)
            with contextlib.suppress(FednodeError):
                await self.writer.call(lambda writer: self.app.journal(writer).alert(code, peer, params))

    # ------------------------------------------------------------ hooks

    def effect(self, session: Session, effect: fx.Effect) -> None:
        if isinstance(effect, fx.PeerClock):
            self._clock(session, effect)
        elif isinstance(effect, fx.Sounded):
            self._progress.set()
        elif isinstance(effect, fx.Behind):
            self.lags.heard(session, effect.lag, effect.records)
        elif isinstance(effect, fx.Places):
            session.spawn(quietly(self.writer.call(lambda w: admission.told(w.store, effect))))
        elif isinstance(effect, fx.Alert):
            self._line(session, "alert", code=effect.code, params=effect.params, peer=name_of(session))
        elif isinstance(effect, fx.PeerFenced) and session.link is not None:
            link, told = session.link, effect
            fenced = partial(_peer_fenced, link=link, told=told)
            session.spawn(quietly(self.writer.call(fenced, link.peer.node)))
        elif isinstance(effect, fx.RenewAsked):
            session.spawn(self._renew(session, effect))
        elif isinstance(effect, fx.RenewAnswered):
            self._renewed(session, effect)

    def admitted(self, session: Session, owed: int) -> None:
        self.mender.ask(session)
        self.turns.let_in(session.seat, self.clock_ms())
        self.acks.begun(session, owed)
        self.health.began(session)

    def stored(self, session: Session, reports: Sequence[fx.Done]) -> Sequence[fx.Done]:
        report = session.report
        if session.exchange.dials:
            return self.acks.take(session, reports)
        self.doubts.judged(session.shown, *pauses.judged(reports))
        if pauses.too_much([code for by, code in report.refused if by == "us"], report.received):
            session.end(Unavailable(pauses.TOO_MUCH, node=session.shown, most=pauses.REFUSED_MAX), pauses.PAUSE_MS_MIN)
        return self.acks.take(session, reports)

    def heard(self, session: Session, effect: fx.Acked) -> None:
        self.acks.heard(session, effect)
        if session.exchange.dials:
            return
        self.doubts.judged(session.shown, *pauses.judged(effect.outcomes))
        if pauses.never_sent(session.report.declined, session.report.sent):
            never = Unavailable(pauses.NEVER_SENT, node=session.shown, most=pauses.REFUSED_MAX)
            session.end(never, pauses.PAUSE_MS_MIN)

    async def owed_health(self, session: Session, after: wire.HealthPlace, last: bool) -> wire.Health | None:
        return await self.health.owed(after, last=last)

    async def hear_health(self, session: Session, told: wire.Health) -> None:
        await self.health.hear(session, told)

    def asked(self, session: Session, found: int) -> None:
        self.doubts.judged(session.shown, int(not found and not session.exchange.dials), 0)

    def fed(self) -> None:
        self.mender.look()

    def mended(self, want: wire.Want) -> None:
        self.mender.mended(want)
        event: dict[str, Any] = {"log": want.log, "number": want.first}
        self.soon(quietly(self.writer.call(lambda w: self.app.journal(w).event("segment.mended", **event))))

    def closed(self, session: Session, close: fx.Close) -> None:
        self.acks.ended(session)
        self.health.ended(session, code_of(close.error) if close.error else "")
        if not session.exchange.dials and pauses.breach(_own_code(close.error), session.exchange.greeted):
            self.pauses.broke(session.shown, self.clock_ms())
            self.doubts.judged(session.shown, BREACH, 0)
        if close.error is not None and not isinstance(close.error, Unavailable):
            self.soon(self._refused(session.shown, close.error))

    def trouble(self, session: Session, code: str) -> None:
        self._untold = self._untold or code

    def _clock(self, session: Session, reading: fx.PeerClock) -> None:
        reference = self.app.reference
        off_ms = reference.now_ms() - session.now_ms()  # this clock may have jumped since the session began
        delta = clock.correction(reading.sent_ms + off_ms, reading.received_ms + off_ms, reading.remote_ms)
        was = reference.offset_ms
        if not reference.learn(delta, unsure=reading.unsure):
            return
        if abs(reference.offset_ms) > clocks.WARN_MS:
            log.warning("clock is off", extra={"offset_ms": reference.offset_ms, "parent": reading.remote_ms})

        def keep(writer: Writer) -> None:
            with writer.store.write() as tx:
                reference.keep(tx)
            if abs(delta) > clocks.WARN_MS:
                told: dict[str, Any] = {"was_ms": was, "offset_ms": reference.offset_ms}
                self.app.journal(writer).befell("clock.corrected", peer=name_of(session), **told)

        session.spawn(quietly(self.writer.call(keep)))
        if abs(delta) > clocks.WARN_MS:  # the children have learnt a wrong time from this node: they dial again
            for one in list(self.sessions):
                if not one.exchange.dials and one.link is not None:
                    one.end(None)

    async def _renew(self, session: Session, asked: fx.RenewAsked) -> None:
        peer = session.peer
        if peer is None:
            return
        try:
            if asked.life and not (session.link and session.link.restoring):
                raise PeerError("FN-5114", node=peer.node, reason="life")
            if not self.app.throttle.spare(f"renewal {peer.node}", RENEWALS_MAX):
                raise Unavailable(ENOUGH, node=peer.node, most=RENEWALS_MAX)
            renew = partial(self.app.renew, peer=peer, request=asked.request, life=asked.life)
            chain = await self.writer.call(renew, peer.node)
            effects = session.exchange.answer_renewal(chain, "", self.app.now_ms())
        except FednodeError as error:
            session._handle(session.exchange.answer_renewal((), error.code, self.app.now_ms()))
            await quietly(self.tell("renewal.refused", REFUSED, peer=peer.node, code=error.code))
            return
        session._handle(effects)

    def _renewed(self, session: Session, answer: fx.RenewAnswered) -> None:
        self.renewal = answer.refused
        if answer.refused:
            log.warning("renewal refused", extra={"code": answer.refused})
            self.soon(self.tell("renewal.refused", REFUSED, peer=name_of(session), code=answer.refused))
            return
        try:
            self.app.install_chain(answer.chain)
        except FednodeError as error:
            self.renewal = error.code
            log.error("renewal not usable", extra={"code": error.code, "params": dict(error.params)})
            self.soon(self.tell("renewal.refused", FAILED, peer=name_of(session), code=error.code))
            return
        log.info("certificate renewed")
        self.soon(self.tell("certificate.renewed", peer=name_of(session), valid_to_s=self.app.trust.me.not_after))
        if session.link is None or not session.link.restoring:
            session.end(None)


def _traced(app: App, session: Session) -> Attributes:
    """What a trace says of a session that has ended."""
    moved, close = session.report, session.ended
    error = close.error if close is not None else None
    outcome = CUT if close is None else DONE if error is None else jobs.outcome_of(error)
    if session.exchange.dials:
        role = "primary" if app.trust.me.stands_for else "parent"
    else:
        role = "standby" if session.peer is not None and session.peer.stands_for else "child"
    return {
        "peer": session.shown,
        "role": role,
        "outcome": outcome,
        "error": code_of(error),
        "segments_sent": moved.sent,
        "segments_received": moved.received,
        "bytes_sent": moved.bytes_sent,
        "bytes_received": moved.bytes_received,
    }


def _peer_fenced(writer: Writer, link: Link, told: fx.PeerFenced) -> None:
    writer.peer_fenced(link, told.code, told.heads)


async def quietly(awaitable: Any) -> None:
    with contextlib.suppress(FednodeError):
        await awaitable


def word_of(error: Exception | None) -> str:
    """The code that the peer gave when it ended the exchange; "" where this side did."""
    given = error.params.get("code") if isinstance(error, PeerError) and error.code == "FN-5508" else None
    return str(given or "")


def code_of(error: Exception | None) -> str:
    """An error's code; where the peer ended the exchange, the code that it gave."""
    return word_of(error) or str(getattr(error, "code", ""))


def _own_code(error: Exception | None) -> str:
    """The code with which this side ended the exchange; "" where the peer did."""
    return "" if word_of(error) else code_of(error)


def name_of(session: Session) -> str:
    return session.peer.node if session.peer else "?"
