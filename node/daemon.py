"""The running node: serves its children, keeps an exchange with its parent, keeps the projections up to date. And one
exchange by hand.

Rules
1. Changes are pushed: an exchange stays open, and is woken as soon as something was stored, by whichever process.
2. The parent away is normal life: retry with full jitter, the backlog grows, everything else goes on.
3. A stop is clean: no new sessions, a Bye to those that are open, what is queued is stored, then the end.
4. Errors end at the session that had them; the daemon goes on.
5. What befalls the node is in its audit (`node.journal`), bounded, whatever peers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node import admission, carrier, fence, mending, poke, retention
from fednode.node.config import Config, shown
from fednode.node.driver import Hooks, Report, Session, Welcome, WriterThread
from fednode.node.follower import Follower
from fednode.node.journal import ALARMING, DONE, FAILED, REFUSED, Journal
from fednode.node.mending import Mender
from fednode.node.schedule import Jobs, retrying
from fednode.node.scrubber import STEP_EVERY_S, Scrubber
from fednode.node.store import Store
from fednode.node.writer import Alarm, Link, Writer
from fednode.proto import fednode_pb2 as pb
from fednode.sync import clock, wire
from fednode.sync import effects as fx
from fednode.sync import exchange as ex
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.daemon")
GRACE_S = 3.0
WATCH_S = 1.0
DAILY_LOOK_S = 600.0  # how often to look whether another day has begun
SWITCH_S = 0.0005
PROJECT_DELAY_S = 0.003  # an ack goes out first: projecting would hold Python's lock in between
BUSY_RETRY_MS = 60_000
SKEW_WARN_MS = 5 * 60 * 1000


@dataclass(slots=True)
class SyncReport:
    """What one exchange moved. `pending`: changes saved here that the parent does not hold yet."""

    parent: str = ""
    address: str = ""
    sent: int = 0
    acked: int = 0
    received: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    bytes_sent: int = 0
    bytes_received: int = 0
    pending: int = 0
    applied: int = 0


class Engine(Hooks):
    """What sessions share: the writer thread, a reading store, admission. Used by the daemon and by one exchange by
    hand.
    """

    def __init__(self, app: App, on_moved: Callable[[], None] = lambda: None) -> None:
        self.app = app
        self.store: Store = app.new_store()
        self.sessions: set[Session] = set()
        self.mender = Mender(self.store, self.sessions)
        self._on_moved = on_moved
        self._tasks: set[asyncio.Task[None]] = set()
        self._untold = ""  # trouble of the store that could not be told while it lasted
        self._loop = asyncio.get_running_loop()
        self._journal: Journal | None = None
        self.renewal = ""  # why the last one was refused
        self.writer = WriterThread(app.new_writer, self.moved, self._alarmed)

    def close(self) -> None:
        self.writer.stop()
        self.store.close()

    def moved(self) -> None:
        """The store has grown: wake everyone whose feed may have, part from whoever was revoked."""
        for session in list(self.sessions):
            if session.peer is not None and (error := self._out_of_force(session.peer, session.link)) is not None:
                session.end(error)
            else:
                session.wake()
        if self._untold:
            code, self._untold = self._untold, ""
            self.soon(self.tell("store.trouble", FAILED, code=code))
        self._on_moved()

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
            log.warning("alert", extra={"code": one.code, "params": dict(one.params), "peer": one.node})
            try:
                self._journal.alert(one.code, one.node, one.params, one.evidence)
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
        entry: admission.Entry = await self.writer.call(
            lambda writer: admission.enter(
                writer, identity, hello, from_parent, self.app.now_ms(), self.app.software, restoring is not None
            )
        )
        if not from_parent:
            session.exchange.half = entry.half
        feed, again = admission.feeds(self.store, self.app.trust, entry.link)
        granted = replace(entry.admission, renew=self._renewal(from_parent, restoring))
        return Welcome(entry.link, granted, feed, again, mending.one(self.store, self.app.trust, entry.link))

    def _renewal(self, with_parent: bool, restoring: int | None) -> wire.Renew | None:
        """What to ask the parent for: a new life for a node that takes its history back, or what is due."""
        if not with_parent or (not restoring and not renewal_due(self.app.trust.me, self.app.now_ms() // 1000)):
            return None
        return wire.Renew(self.app.renewal_request(), restoring or 0)

    async def admit_child(self, session: Session, certificate: bytes, hello: wire.Hello) -> Welcome:
        """Check a child by the certificate that TLS verified."""
        identity = admission.check_child(self.app.trust, certs.parse(certificate), hello)
        return await self._welcome(session, identity, hello, from_parent=False)

    async def admit_parent(self, session: Session, hello: wire.Hello, restoring: int | None = None) -> Welcome:
        """Check the parent; TLS has verified its name."""
        parent = admission.check_parent(self.app.trust, hello)
        return await self._welcome(session, parent, hello, from_parent=True, restoring=restoring)

    # ------------------------------------------------------------ sessions

    async def converse(
        self,
        stream: carrier.Stream,
        *,
        once: bool,
        feeds: bool = True,
        wants: bool = True,
        restoring: int | None = None,
    ) -> tuple[fx.Close, Report]:
        """One exchange with the parent over an open stream. `restoring`: to take this node's history back, leaving that
        incarnation for a new one (0: that is done)."""
        parent = self.app.trust.parent
        if parent is None:
            raise StoreError("FN-7613", node=self.app.trust.node)
        half = self.store.partial(parent.node)
        peer = self.store.peer(parent.node)
        app = self.app
        place = (app.trust, self.store, app.now_ms(), app.software, peer, half)
        hello = admission.hello(*place, feeds, wants, restoring is not None)
        exchange = ex.Exchange(dials=True, hello=hello, once=once, half=half)
        session = Session(
            stream,
            exchange,
            self.writer,
            self.store,
            self.app.now_ms,
            lambda h: self.admit_parent(session, h, restoring),
            self,
        )
        session.shown = parent.node
        close, report = await self._run(session)
        if _code(close.error) in fence.PARENTS_WORD:
            await _quietly(self.writer.call(lambda writer: writer.fence(_code(close.error))))
        return close, report

    async def serve_child(self, stream: carrier.Stream, certificate: bytes) -> None:
        """One exchange with a child that has connected."""
        exchange = ex.Exchange(dials=False)
        session = Session(
            stream,
            exchange,
            self.writer,
            self.store,
            self.app.now_ms,
            lambda h: self.admit_child(session, certificate, h),
            self,
        )
        session.shown = certs.parse(certificate).node
        close, _ = await self._run(session)
        if close.error is not None and not isinstance(close.error, Unavailable):
            log.warning("session ended", extra={"peer": _name(session), "reason": str(close.error)})

    async def _run(self, session: Session) -> tuple[fx.Close, Report]:
        self.sessions.add(session)
        try:
            close = await session.run()
        finally:
            self.sessions.discard(session)
        await self._note_end(session, close)
        return close, session.report

    async def _note_end(self, session: Session, close: fx.Close) -> None:
        link = session.link
        if link is None:
            return
        code = _code(close.error) or None

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.touch_peer(link.peer_id, self.app.now_ms(), code)

        with contextlib.suppress(FednodeError):
            await self.writer.call(note)

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
        """Wait for what `soon` started, then close."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.close)

    async def _refused(self, peer: str, error: Exception) -> None:
        """One side refused the other; where that is alarming, the levels above hear of it, too."""
        code = _code(error)
        await self.tell("session.refused", REFUSED, peer=peer, code=code)
        if isinstance(error, FednodeError) and code == error.code and code in ALARMING:
            params = dict(error.params)
            with contextlib.suppress(FednodeError):
                await self.writer.call(lambda writer: self.app.journal(writer).alert(code, peer, params))

    # ------------------------------------------------------------ hooks

    def effect(self, session: Session, effect: fx.Effect) -> None:
        if isinstance(effect, fx.PeerClock):
            self._clock(session, effect)
        elif isinstance(effect, fx.Alert):
            log.warning("alert", extra={"code": effect.code, "params": effect.params, "peer": _name(session)})
        elif isinstance(effect, fx.PeerFenced) and session.link is not None:
            link, told = session.link, effect
            session.spawn(_quietly(self.writer.call(lambda writer: writer.peer_fenced(link, told.code, told.heads))))
        elif isinstance(effect, fx.RenewAsked):
            session.spawn(self._renew(session, effect))
        elif isinstance(effect, fx.RenewAnswered):
            self._renewed(session, effect)

    def admitted(self, session: Session) -> None:
        self.mender.ask(session)

    def fed(self) -> None:
        self.mender.look()

    def mended(self, want: wire.Want) -> None:
        self.mender.mended(want)
        event: dict[str, Any] = {"log": want.log, "number": want.first}
        self.soon(_quietly(self.writer.call(lambda w: self.app.journal(w).event("segment.mended", **event))))

    def closed(self, session: Session, close: fx.Close) -> None:
        if close.error is not None and not isinstance(close.error, Unavailable):
            self.soon(self._refused(session.shown, close.error))

    def trouble(self, session: Session, code: str) -> None:
        self._untold = self._untold or code

    def _clock(self, session: Session, reading: fx.PeerClock) -> None:
        delta = clock.correction(reading.sent_ms, reading.received_ms, reading.remote_ms)
        if not delta:
            return
        moved = self.app.clock_offset_ms + delta
        if abs(moved) > SKEW_WARN_MS:
            log.warning("clock is off", extra={"offset_ms": moved, "parent": reading.remote_ms})
        was, self.app.clock_offset_ms = self.app.clock_offset_ms, moved
        session.exchange.shift(delta)

        def keep(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.set_meta("clock_offset_ms", moved)
            if abs(delta) > SKEW_WARN_MS:
                self.app.journal(writer).befell("clock.corrected", peer=_name(session), was_ms=was, offset_ms=moved)

        session.spawn(_quietly(self.writer.call(keep)))

    async def _renew(self, session: Session, asked: fx.RenewAsked) -> None:
        peer = session.peer
        if peer is None:
            return
        try:
            if asked.life and not (session.link and session.link.restoring):
                raise PeerError("FN-5114", node=peer.node, reason="life")
            chain = await self.writer.call(lambda writer: self.app.renew(writer, peer, asked.request, asked.life))
            effects = session.exchange.answer_renewal(chain, "", self.app.now_ms())
        except FednodeError as error:
            effects = session.exchange.answer_renewal((), error.code, self.app.now_ms())
            self.soon(self.tell("renewal.refused", REFUSED, peer=peer.node, code=error.code))
        session._handle(effects)

    def _renewed(self, session: Session, answer: fx.RenewAnswered) -> None:
        self.renewal = answer.refused
        if answer.refused:
            log.warning("renewal refused", extra={"code": answer.refused})
            self.soon(self.tell("renewal.refused", REFUSED, peer=_name(session), code=answer.refused))
            return
        try:
            self.app.install_chain(answer.chain)
        except FednodeError as error:
            self.renewal = error.code
            log.error("renewal not usable", extra={"code": error.code, "params": dict(error.params)})
            self.soon(self.tell("renewal.refused", FAILED, peer=_name(session), code=error.code))
            return
        log.info("certificate renewed")
        self.soon(self.tell("certificate.renewed", peer=_name(session), valid_to_s=self.app.trust.me.not_after))
        if session.link is None or not session.link.restoring:
            session.end(None)


async def _quietly(awaitable: Any) -> None:
    with contextlib.suppress(FednodeError):
        await awaitable


def _digest(config: Config) -> str:
    """Tells in the audit whether the settings have changed from one start to the next."""
    return SUITE_1.hash(msgspec.json.encode(shown(config), order="sorted"))[:8].hex()


def _code(error: Exception | None) -> str:
    """An error's code; where the peer ended the exchange, the code that it gave."""
    given = error.params.get("code") if isinstance(error, PeerError) and error.code == "FN-5508" else None
    return str(given or getattr(error, "code", ""))


def _name(session: Session) -> str:
    return session.peer.node if session.peer else "?"


# ---------------------------------------------------------------- one exchange by hand


async def sync_once(app: App, *, up: bool = True, down: bool = True) -> SyncReport:
    """One exchange with the parent, now. Raises Unavailable (nothing lost), PeerError (refused by the parent),
    StoreError.
    """
    async with _engine(app) as (engine, report):
        await _meet(app, report, lambda stream: engine.converse(stream, once=True, feeds=up, wants=down))
        peer = engine.store.peer(report.parent)
        report.pending = engine.store.backlog_up(peer.acked if peer else 0).changes
    projector = app.new_projector()
    try:
        report.applied = projector.catch_up()
    finally:
        projector.close()
    poke.poke(app.home.run_dir)
    return report


async def new_life(app: App, life: int) -> None:
    """Ask the parent for a certificate of a new incarnation in the place of `life`, and nothing else. Raises as
    `sync_once` does."""
    await _with_parent(
        app, lambda engine, stream: engine.converse(stream, once=True, feeds=False, wants=False, restoring=life)
    )
    if app.trust.me.incarnation == life:
        raise PeerError("FN-5508", code="FN-5114", detail="Renew")


async def take_back(app: App) -> SyncReport:
    """Take this node's history back from its parent, into the store of `app`. What a cut leaves undone goes on with the
    next call. Raises as `sync_once` does."""
    return await _with_parent(app, lambda engine, stream: engine.converse(stream, once=True, feeds=False, restoring=0))


async def _with_parent(
    app: App, converse: Callable[[Engine, carrier.Stream], Awaitable[tuple[fx.Close, Report]]]
) -> SyncReport:
    async with _engine(app) as (engine, report):
        await _meet(app, report, lambda stream: converse(engine, stream))
        if engine.renewal:
            raise PeerError("FN-5508", code=engine.renewal, detail="Renew")
    return report


@contextlib.asynccontextmanager
async def _engine(app: App) -> AsyncIterator[tuple[Engine, SyncReport]]:
    """An engine for one exchange with the parent, and the report of it. Raises StoreError FN-7621 where there is none
    above."""
    parent = app.trust.parent
    if parent is None:
        raise StoreError("FN-7621")
    engine = Engine(app)
    try:
        yield engine, SyncReport(parent=parent.node)
    finally:
        await engine.stop()


async def _meet(
    app: App, report: SyncReport, converse: Callable[[carrier.Stream], Awaitable[tuple[fx.Close, Report]]]
) -> None:
    """One exchange with the parent, at the first of its addresses that answers."""
    last: Exception = Unavailable("FN-4506", parent=report.parent)
    for address in app.parent_addresses():
        report.address = address
        try:
            close, moved = await carrier.dial(address, app.credentials(), app.parent_dns(), converse)
        except Unavailable as error:
            last = error
            continue
        _add(report, moved)
        if close.error is None:
            return
        last = close.error
        if not isinstance(close.error, Unavailable):
            break
    raise last


def _add(report: SyncReport, moved: Report) -> None:
    report.sent += moved.sent
    report.acked += moved.acked
    report.received += moved.received
    report.refused += moved.refused
    report.bytes_sent += moved.bytes_sent
    report.bytes_received += moved.bytes_received


# ---------------------------------------------------------------- the daemon


class Daemon:
    """`fednode run`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.engine = Engine(app, self._project_soon)
        self.projector = Follower(app, self.engine.writer.busy)
        self.scrubber = Scrubber(app, self.engine.writer, self.engine.mender.found) if app.config.scrub_days else None
        self.server = carrier.Server(app.credentials)
        self._stop = asyncio.Event()
        self._data_version = -1
        self._failing = ""
        self._started = False
        self._dialer: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ask for a clean end; safe from a signal handler in the loop."""
        self._stop.set()

    async def run(self, ready: Callable[[int, int], None] = lambda port, enrol_port: None) -> None:
        """Until `stop`. `ready` is called with the ports once they are open. Raises StoreError FN-7620 when a port is
        taken.
        """
        app = self.app
        sys.setswitchinterval(SWITCH_S)
        jobs = Jobs()
        listener = poke.Listener(app.home.run_dir, self._poked)
        try:
            if app.trust.me.may_issue:
                await self.server.start(
                    app.config.listen, app.config.enrol_listen, self.engine.serve_child, self._chain, self._join
                )
            await self.engine.note("daemon.started", settings=_digest(app.config))
            self._started = True
            self.projector.wake()
            jobs.every("watch", WATCH_S, self._watch)
            if self.scrubber is not None:
                jobs.every("scrub", STEP_EVERY_S, self.scrubber.step)
            jobs.every("retention", DAILY_LOOK_S, self._daily)
            jobs.start()
            if app.trust.parent is not None:
                self._dialer = asyncio.create_task(self._dial_for_ever())
            ready(self.server.port, self.server.enrol_port)
            await self._stop.wait()
        finally:
            jobs.stop()
            listener.close()
            await self._shut()

    async def _shut(self) -> None:
        if self._dialer is not None:
            self._dialer.cancel()
        for session in list(self.engine.sessions):
            session.end(None)
        await asyncio.sleep(0)
        await self.server.stop(GRACE_S)
        if self._dialer is not None:
            await asyncio.gather(self._dialer, return_exceptions=True)
        if self.scrubber is not None:
            await self.scrubber.close()
        if self._started:
            await self.engine.note("daemon.stopped")
        await self.engine.stop()
        await asyncio.to_thread(self.projector.stop)

    def _project_soon(self) -> None:
        asyncio.get_running_loop().call_later(PROJECT_DELAY_S, self.projector.wake)

    # ------------------------------------------------------------ other processes

    def _poked(self) -> None:
        self.app.trust.refresh(self.engine.store)
        self.engine.moved()

    def _watch(self) -> None:
        """Another process may have written without poking."""
        version = self.engine.store.data_version()
        if version != self._data_version:
            self._data_version = version
            self._poked()

    async def _daily(self) -> None:
        """Retention by the catalog, and cleaning up, when another day has begun."""
        now_ms = self.app.now_ms()
        day = retention.day_of(now_ms).isoformat()
        if self.engine.store.meta("retention_day") == day:
            return
        with contextlib.suppress(Refused):  # behind the fence it makes no change of its own
            await asyncio.to_thread(self._retain, now_ms)

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.set_meta("retention_day", day)

        await _quietly(self.engine.writer.call(note))

    def _retain(self, now_ms: int) -> None:
        records = self.app.records(self.app.new_store())
        try:
            retention.run_daily(records, now_ms)
        finally:
            records.close()
            records.store.close()

    # ------------------------------------------------------------ the parent

    async def _dial_for_ever(self) -> None:
        while not self._stop.is_set():
            async for attempt in retrying():
                with attempt:
                    await self._dial_once()

    async def _dial_once(self) -> None:
        app = self.app
        last: Exception = Unavailable("FN-4506", parent=app.trust.parent.node if app.trust.parent else "")
        for address in app.parent_addresses():
            try:
                close, moved = await carrier.dial(
                    address,
                    app.credentials(),
                    app.parent_dns(),
                    lambda stream: self.engine.converse(stream, once=False),
                )
            except Unavailable as error:
                last = error
                continue
            if close.error is None:
                self._failing = ""
                return
            log.warning("exchange with the parent ended", extra={"reason": str(close.error), "address": address})
            self._failing = ""
            if isinstance(close.error, Unavailable):
                if (moved.acked or moved.received) and not close.retry_after_ms:
                    return  # the line was cut: dial at once, and count failures anew
                last = close.error
                continue
            await self._note_failure(_code(close.error))
            raise Unavailable("FN-4507", retry_after_ms=BUSY_RETRY_MS, reason=str(close.error)) from close.error
        await self._note_failure(_code(last))
        raise last

    async def _note_failure(self, code: str) -> None:
        """Say in the store, once for each kind of failure, why the parent is not reached: `fednode status` shows it."""
        parent = self.app.trust.parent
        if parent is None or code == self._failing:
            return
        self._failing = code

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.note_error(tx.ensure_peer(parent.node, "parent").id, code)

        await _quietly(self.engine.writer.call(note))

    # ------------------------------------------------------------ enrolment

    async def _chain(self) -> pb.ChainReply:
        chain = self.app.trust.directory.chain(self.app.trust.node)
        return pb.ChainReply(
            chain=chain, version_min=wire.PROTOCOL_MIN, version_max=wire.PROTOCOL_MAX, now_ms=self.app.now_ms()
        )

    async def _join(self, request: pb.JoinRequest) -> pb.JoinReply:
        try:
            reply: pb.JoinReply = await self.engine.writer.call(lambda writer: self.app.enrol(writer, request))
        except FednodeError as error:
            log.warning("join refused", extra={"node": request.node, "code": error.code})
            await self.engine.tell("join.refused", REFUSED, peer=request.node, code=error.code)
            params = {key: str(value) for key, value in error.params.items()}
            return pb.JoinReply(refused=error.code, params=params, now_ms=self.app.now_ms())
        return reply


async def serve(app: App, ready: Callable[[int, int], None], stopper: Callable[[Callable[[], None]], None]) -> None:
    """Run the daemon until told to stop. `stopper` is handed the function that stops it (for signal handlers)."""
    daemon = Daemon(app)
    stopper(daemon.stop)
    await daemon.run(ready)
