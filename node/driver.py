"""Carries out the effects of an exchange over a byte stream, and feeds the results back. The same for gRPC and for
tests.

Rules
1. The event loop owns the exchanges and one reading Store; one writer thread owns the Writer and its Store. Nothing
   else writes.
2. The writer thread takes everything that waits as one group: one transaction, one fsync, then the reports. Whose it
   is that has had least of its time comes first (`node.lanes`): none waits behind all that another has sent. In the
   loop, too, a child whose messages take much of its time is read more slowly (`node.shares`).
3. No more is handed to the line than it takes soon (`AHEAD_BYTES`), so the engine goes on deciding what comes first.
4. After each group it says what moved (`moved`): sessions whose feed may have grown are woken, projections too.
5. Trouble in the store ends the sessions that had something in the group with Unavailable: nothing is acknowledged,
   the peer comes back later; the node goes on reading and serving what it has.

One session:  driver.run(stream, exchange, admit) -> Close
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node import refill
from fednode.node.carrier import Stream
from fednode.node.hooks import Hooks
from fednode.node.link import Link
from fednode.node.pacing import AHEAD_BYTES, GRANT_S, Pacer
from fednode.node.shares import Shares
from fednode.node.store import Store
from fednode.node.writer import Writer
from fednode.node.writer_thread import WriterThread
from fednode.sync import effects as fx
from fednode.sync import exchange as ex
from fednode.sync import wire
from fednode.sync.errors import StoreError, Unavailable
from fednode.sync.side import HURRY_FROM_BYTES

log = logging.getLogger("fednode.driver")
TICK_S = 5.0
AHEAD_CHUNKS = 4  # a few seconds of the line
STORE_RETRY_MS = 30_000
STORING_MAX = 1_024  # of one peer; four groups of the writer
OUT_BYTES_MAX = 1024 * 1024  # several times what is handed to the line ahead of its turn
REFUSED_MAX = 1_000  # that a session's report names
REFUSED_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Welcome:
    """What admission found out: who the peer is, its link for the writer, and what the exchange needs."""

    link: Link
    admission: fx.Admission
    feed: Callable[[int, int], tuple[list[fx.Item], bool]]
    again: Callable[[str, int, int], list[fx.Item]]
    one: Callable[[str, int], list[fx.Item]] = lambda _log, _first: []
    hurry: Callable[[int, int], tuple[list[fx.Item], int, bool]] = lambda _after, beyond: ([], beyond, False)
    witnessed: Callable[[int], tuple[wire.Witnessed | None, bool]] = lambda _after: (None, False)
    holdings: Callable[[Writer], list[wire.Holding]] = lambda _writer: []
    owed: int = 0  # the peer has yet to hear of what it sent, the last of it stored at this number


@dataclass(slots=True)
class Report:
    """What a session moved."""

    sent: int = 0
    acked: int = 0
    received: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # (by whom, code): the last `REFUSED_MAX`
    refusals: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    half_there: wire.Partial | None = None  # what the peer had half received of the last session
    advanced: bool = False  # with the parent: what is half here or there is not what the last one left
    declined: int = 0  # refused by the peer

    def refuse(self, by: str, code: str) -> None:
        """Something was refused."""
        self.refusals += 1
        self.declined += by == "peer"
        self.refused.append((by, code))
        del self.refused[:-REFUSED_MAX]

    def since(self, then: Report) -> Report:
        """What was moved since it was as in the copy `then`."""
        refusals = self.refusals - then.refusals
        return Report(
            self.sent - then.sent,
            self.acked - then.acked,
            self.received - then.received,
            self.refused[max(0, len(self.refused) - refusals) :],
            refusals,
            self.bytes_sent - then.bytes_sent,
            self.bytes_received - then.bytes_received,
        )


class Session:
    """One exchange on one stream. `now_ms`: the clock of its timers (`Reference.timer`)."""

    def __init__(
        self,
        stream: Stream,
        exchange: ex.Exchange,
        writer: WriterThread,
        store: Store,
        now_ms: Callable[[], int],
        admit: Callable[[wire.Hello], Awaitable[Welcome]],
        hooks: Hooks,
        pacer: Pacer | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.exchange, self.report = exchange, Report()
        self.peer: Identity | None = None
        self.shown = ""  # who the peer is by its certificate, before it is let in
        self.link: Link | None = None
        self.errand = False  # outside the sync windows, with what is urgent
        self.address = ""  # where the parent was dialled
        self.seat = 0  # of whom this node serves (node/turns)
        self.over = asyncio.Event()  # `run` has ended: the Bye is on the line
        self._stream, self._writer, self._store, self.now_ms = stream, writer, store, now_ms
        self._admit, self._hooks = admit, hooks
        self._welcome: Welcome | None = None
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[fx.Close] = self._loop.create_future()
        self._reports: list[fx.Done] = []
        self._acks: list[wire.Outcome] = []
        self._answered = 0
        self._acks_stored = asyncio.Event()  # none is being stored
        self._acks_stored.set()
        self._jobs: set[asyncio.Future[None]] = set()
        self._pacer, self._shares = pacer, shares
        exchange.hurry_from = HURRY_FROM_BYTES
        exchange.tells_health = True
        self._queued = 0  # bytes handed over that the line has not taken
        self._storing = 0
        self._eased = asyncio.Event()
        self._more()

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Run a job of this session beside it."""
        task = asyncio.ensure_future(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        task.add_done_callback(self._ended)
        task.add_done_callback(lambda _task: self._eased.set())

    @property
    def crowded(self) -> bool:
        """Whether so much of the peer's waits that no more is read of it (rule 6)."""
        waiting = self._storing + len(self._acks) + len(self._jobs)
        return waiting >= STORING_MAX or self._queued >= OUT_BYTES_MAX

    def _ended(self, task: asyncio.Future[None]) -> None:
        """What nobody expected in one of the tasks is a bug: it ends the session, which would hang otherwise."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("session failed", exc_info=error)
            self._finish(fx.Close(error if isinstance(error, Exception) else RuntimeError(str(error))))

    async def run(self) -> fx.Close:
        """Drive it to its end. Never raises for the peer's or the network's faults: see Close.error."""
        jobs = (self._read, self._write, self._tick, *((self._grant,) if self._pacer is not None else ()))
        tasks = [asyncio.create_task(job()) for job in jobs]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            self._handle(self.exchange.start(self.now_ms()))
            close = await self._closed
            self._out.put_nowait(None)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(tasks[1], 5)
            await self._flush_acks()
            return close
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self.keep_half()
            finally:
                self.over.set()

    @property
    def settled(self) -> bool:
        """Whether all that the peer has answered is stored."""
        return not self._acks and self._acks_stored.is_set()

    @property
    def ended(self) -> fx.Close | None:
        """How it ended; known before `run` returns, and where that is cancelled."""
        return self._closed.result() if self._closed.done() and not self._closed.cancelled() else None

    async def keep_half(self) -> None:
        """Store what is half received, for a session that comes after this one."""
        if self.link is None or self.peer is None:
            return
        half, node = self.exchange.half, self.peer.node
        if half is None and self._store.partial(node) is None:
            return
        if half is not None:
            half = replace(half, data=bytearray(half.data))  # this session may still be receiving

        with contextlib.suppress(FednodeError):
            await self._writer.call(lambda writer: writer.keep_half(node, half), node)

    def end(self, error: Exception | None, retry_after_ms: int = 0) -> None:
        """End from this side."""
        effects = (
            self.exchange.refuse(error, self.now_ms(), retry_after_ms) if error else self.exchange.finish(self.now_ms())
        )
        self._handle(effects)

    def ask_segment(self, log: str, first: int) -> None:
        """Ask the peer for a segment that is damaged here."""
        self._handle(self.exchange.ask_segment(log, first, self.now_ms()))

    def ask_renewal(self, renew: wire.Renew) -> None:
        """Ask the parent for a fresh certificate."""
        self._handle(self.exchange.ask_renewal(renew, self.now_ms()))

    def tell_lag(self, lag: wire.Lag, records: wire.RecordsDigest | None) -> None:
        """To a standby: how far behind it is, and what to compare with."""
        self._handle(self.exchange.tell_lag(lag, records, self.now_ms()))

    def tell_places(self, standbys: tuple[str, ...], issuers: tuple[str, ...]) -> None:
        """To a child: where this node's standbys can be dialled, and its parent."""
        self._handle(self.exchange.tell_places(standbys, issuers, self.now_ms()))

    def news(self) -> None:
        """To the parent: how nodes are has changed so that it need not wait."""
        self._handle(self.exchange.news(self.now_ms()))

    def wake(self) -> None:
        """The feed may have grown."""
        self._handle(self.exchange.wake(self.now_ms()))

    def sound(self, log: str) -> int:
        """Sound the line (`Side.sound`)."""
        number, effects = self.exchange.sound(log, self.now_ms())
        self._handle(effects)
        return number

    # ------------------------------------------------------------ tasks

    async def _read(self) -> None:
        try:
            while (data := await self._stream.read()) is not None:
                self.report.bytes_received += len(data)
                began = self._loop.time()
                self._handle(self.exchange.receive(data, self.now_ms()))
                await self._give_way(self._loop.time() - began)
                while self.crowded and not self._closed.done():
                    self._eased.clear()
                    await self._eased.wait()
            self._finish(fx.Close(Unavailable("FN-4501", address="", reason="the peer hung up")))
        except Unavailable as error:
            self._finish(fx.Close(error))

    async def _give_way(self, took_s: float) -> None:
        """After a message whose handling took so long: no more is read of the peer while it has had its share."""
        if self._shares and (pause_s := self._shares.spent(self.shown, took_s, self._loop.time())):
            await asyncio.wait((self._closed,), timeout=pause_s)

    async def _write(self) -> None:
        try:
            while (data := await self._out.get()) is not None:
                if self._pacer is not None:
                    await self._pacer.before(len(data))
                await self._stream.write(data)
                self.report.bytes_sent += len(data)
                self._queued -= len(data)
                self._eased.set()
                self._more()
        except Unavailable as error:
            self._finish(fx.Close(error))

    def _more(self) -> None:
        """Take more of what is to be sent as soon as little is left in front of the line: what waits in the exchange
        can still be overtaken by what is urgent, and a Bye need not wait for it."""
        ahead, chunk = min(AHEAD_BYTES, AHEAD_CHUNKS * self.exchange.chunk_bytes), wire.CHUNK_BYTES_MAX
        if self._pacer is not None:
            ahead, chunk = self._pacer.ahead_bytes, self._pacer.chunk_bytes
        if self._queued <= ahead // 2:
            self._handle(self.exchange.ready(ahead - self._queued, self.now_ms(), chunk))

    async def _grant(self) -> None:
        """Under a limit: let the peer go on as fast as it allows."""
        pacer = self._pacer
        while pacer is not None:
            await pacer.pause(GRANT_S)
            effects, granted = self.exchange.grant(pacer.allowed(), self.now_ms())
            pacer.let_in(granted)
            self._handle(effects)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._handle(self.exchange.tick(self.now_ms()))

    def _finish(self, close: fx.Close) -> None:
        if not self._closed.done():
            self._closed.set_result(close)
            self._hooks.closed(self, close)

    # ------------------------------------------------------------ effects

    def _handle(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            _DO[type(effect)](self, effect)

    def _do_send(self, effect: fx.Send) -> None:
        self._queued += len(effect.data)
        self._out.put_nowait(effect.data)

    def _do_admit(self, effect: fx.Admit) -> None:
        self.spawn(self._admitting(effect.hello))

    async def _admitting(self, hello: wire.Hello) -> None:
        try:
            self._welcome = await self._admit(hello)
        except FednodeError as error:
            self._refuse(error)
            return
        if self._closed.done():  # the link was cut, or the peer left, while we looked
            return
        self.link, self.peer = self._welcome.link, self._welcome.link.peer
        self.report.half_there = hello.partial
        self._handle(self.exchange.admitted(self._welcome.admission, self.now_ms()))
        self._hooks.admitted(self, self._welcome.owed)

    def _do_pull(self, effect: fx.Pull) -> None:
        if self._welcome is None:
            return
        try:
            size = min(effect.bytes_max, self._store.profile.pull_bytes)
            items, drained = self._welcome.feed(effect.after, size)
        except FednodeError as error:
            self._refuse(error)
            return
        self.report.sent += len(items)
        self._handle(self.exchange.feed(items, drained, self.now_ms()))
        self._hooks.fed()

    def _do_hurry(self, effect: fx.Hurry) -> None:
        if self._welcome is None:
            return
        try:
            items, seen, more = self._welcome.hurry(effect.after, effect.beyond)
        except FednodeError as error:
            self._handle(self.exchange.refuse(error, self.now_ms()))
            return
        self._handle(self.exchange.hurried(items, seen, more, self.now_ms()))

    def _do_again(self, effect: fx.Again) -> None:
        if self._welcome is None:
            return
        try:
            if effect.restore:
                items = self._welcome.one(effect.log, effect.first)
            else:
                items = self._welcome.again(effect.log, effect.first, effect.until)
        except FednodeError as error:
            self._refuse(error)
            return
        self._handle(self.exchange.resend(effect.log, effect.first, items, self.now_ms()))
        self._hooks.asked(self, len(items))

    def _do_pull_witnessed(self, effect: fx.PullWitnessed) -> None:
        if self._welcome is None:
            return
        try:
            found, ripe = self._welcome.witnessed(effect.after)
        except FednodeError as error:
            self._handle(self.exchange.refuse(error, self.now_ms()))
            return
        self._handle(self.exchange.tell(found, ripe, self.now_ms()))

    def _do_learn(self, effect: fx.Learn) -> None:
        self.spawn(self._learning(effect.told))

    async def _learning(self, told: wire.Witnessed) -> None:
        link = self.link
        if link is None:
            raise RuntimeError("told before admission")
        try:
            await self._writer.call(lambda writer: writer.witnessed(link, told), link.peer.node)
        except FednodeError as error:
            self._committed(error)
            return
        self._handle(self.exchange.learnt(told, self.now_ms()))

    def _do_pull_health(self, effect: fx.PullHealth) -> None:
        self.spawn(self._tell_health(effect))

    async def _tell_health(self, effect: fx.PullHealth) -> None:
        if effect.last:  # the last word is of what was acknowledged, too
            await self._flush_acks()
        found = await self._hooks.owed_health(self, effect.after, effect.last)
        self._handle(self.exchange.tell_health(found, self.now_ms()))

    def _do_hear_health(self, effect: fx.HearHealth) -> None:
        self.spawn(self._hear_health(effect.told))

    async def _hear_health(self, told: wire.Health) -> None:
        await self._hooks.hear_health(self, told)
        self._handle(self.exchange.folded(told, self.now_ms()))

    def _do_pull_holdings(self, effect: fx.PullHoldings) -> None:
        self.spawn(self._hold())

    async def _hold(self) -> None:
        if self._welcome is None:
            raise RuntimeError("asked before admission")
        try:
            held = await self._writer.call(self._welcome.holdings, self._welcome.link.peer.node)
        except FednodeError as error:
            self._committed(error)
            return
        self._handle(self.exchange.hold(held, self.now_ms()))

    def _do_compare(self, effect: fx.Compare) -> None:
        self.spawn(self._compare(effect))

    async def _compare(self, part: fx.Compare) -> None:
        link = self.link
        if link is None:
            raise RuntimeError("told before admission")
        try:
            await self._writer.call(lambda writer: refill.compare(writer, link, part), link.peer.node)
        except FednodeError as error:
            self._committed(error)
            return
        if part.last:
            self._handle(self.exchange.compared(self.now_ms()))

    def _do_commit(self, effect: fx.Commit) -> None:
        if self.link is None:
            raise RuntimeError("commit before admission")
        self._storing += 1
        self._writer.commit(self.link, effect, self._stored)

    def _stored(self, report: fx.Done | Exception) -> None:
        self._storing -= 1
        self._eased.set()
        self._committed(report)

    def _committed(self, report: fx.Done | Exception) -> None:
        if isinstance(report, Exception):
            code = getattr(report, "code", "FN-7607")
            self._refuse(report if isinstance(report, FednodeError) else StoreError(code))
            return
        self.report.received += 1
        if report.mended is not None:
            self._hooks.mended(report.mended)
        if report.refused:
            self.report.refuse("us", report.refused)
        if not self._reports:
            self._loop.call_soon(self._flush_reports)
        self._reports.append(report)

    def _refuse(self, error: FednodeError) -> None:
        """End the session with an error of this side. Trouble of this node's store is no fault of the peer's: it is to
        come again."""
        retry = getattr(error, "retry_after_ms", 0) or 0
        if isinstance(error, StoreError):
            self._hooks.trouble(self, error.code)
            error, retry = Unavailable("FN-4505", reason=error.code), STORE_RETRY_MS
        self._handle(self.exchange.refuse(error, self.now_ms(), retry))

    def _flush_reports(self) -> None:
        reports, self._reports = self._reports, []
        self.answer(self._hooks.stored(self, reports))

    def answer(self, reports: Sequence[fx.Done]) -> None:
        """Tell the peer what became of what it sent."""
        self._handle(self.exchange.committed(reports, self.now_ms()))

    def _do_acked(self, effect: fx.Acked) -> None:
        self.report.acked += len(effect.outcomes)
        for outcome in effect.outcomes:
            if outcome.refused:
                self.report.refuse("peer", outcome.refused)
        self._acks.extend(effect.outcomes)
        self._answered = effect.upto
        self._hooks.heard(self, effect)
        if self._acks_stored.is_set():
            self.spawn(self._store_acks())

    async def _flush_acks(self) -> None:
        """Until all acknowledgements that have come are stored."""
        while self._acks or not self._acks_stored.is_set():
            await self._acks_stored.wait()
            await self._store_acks()

    async def _store_acks(self) -> None:
        """Store acknowledgements, those that came meanwhile together."""
        if not self._acks_stored.is_set():
            return
        link, peer = self.link, self.peer
        if link is None or peer is None:
            self._acks.clear()
            return
        self._acks_stored.clear()
        try:
            while self._acks:
                taken = _at_once(self._acks)
                outcomes = [(one.lsn, one.cosignature, one.refused) for one in self._acks[:taken]]
                del self._acks[:taken]
                upto = 0 if self._acks else link.holds(self._answered)  # what is not stored yet is not held
                await self._writer.call(partial(_acknowledge, link.peer_id, outcomes, peer, upto), peer.node)
                self._hooks.acked(self)
        except FednodeError as error:
            self._refuse(error)
        finally:
            self._acks_stored.set()

    def _do_hook(self, effect: fx.Effect) -> None:
        self._hooks.effect(self, effect)

    def _do_close(self, effect: fx.Close) -> None:
        self._finish(effect)


def _at_once(acks: Sequence[wire.Outcome]) -> int:
    """How many outcomes are one job of the writer: a refusal may be an alert, which costs as much as a change."""
    refused = [number for number, one in enumerate(acks) if one.refused]
    return refused[REFUSED_AT_ONCE] if len(refused) > REFUSED_AT_ONCE else len(acks)


def _acknowledge(
    peer_id: int, outcomes: list[tuple[int, wire.Cosignature | None, str]], peer: Identity, upto: int, writer: Writer
) -> None:
    writer.acknowledged(peer_id, outcomes, peer, upto)


_DO: dict[type, Callable[[Session, Any], None]] = {
    fx.Send: Session._do_send,
    fx.Admit: Session._do_admit,
    fx.Pull: Session._do_pull,
    fx.Hurry: Session._do_hurry,
    fx.Again: Session._do_again,
    fx.Commit: Session._do_commit,
    fx.PullWitnessed: Session._do_pull_witnessed,
    fx.Learn: Session._do_learn,
    fx.PullHealth: Session._do_pull_health,
    fx.HearHealth: Session._do_hear_health,
    fx.PullHoldings: Session._do_pull_holdings,
    fx.Compare: Session._do_compare,
    fx.Acked: Session._do_acked,
    fx.PeerClock: Session._do_hook,
    fx.RenewAsked: Session._do_hook,
    fx.RenewAnswered: Session._do_hook,
    fx.PeerFenced: Session._do_hook,
    fx.Behind: Session._do_hook,
    fx.Places: Session._do_hook,
    fx.Sounded: Session._do_hook,
    fx.Alert: Session._do_hook,
    fx.Close: Session._do_close,
}
