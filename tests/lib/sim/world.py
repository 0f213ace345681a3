"""31 nodes in one process, or fewer: the real exchange, verification, merge, log, segments, store, writer, projections,
on real SQLite files; simulated time, links, crashes, clocks and operators. Same seed, same trace.

What is checked all along: an ack leaves only for what lies in the store. At the end: see `check.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node import admission, erasing, fence, refill, succession, urgent, witness
from fednode.node.acks import Acks
from fednode.node.admission import STOOD_FOR
from fednode.node.clocks import Judge, Reference
from fednode.node.config import Config
from fednode.node.journal import Journal
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.node.writer import Link, Writer
from fednode.sync import clock as hlc
from fednode.sync import effects as fx
from fednode.sync import rewrap, wire
from fednode.sync import segment as seg
from fednode.sync.change import Change, LogName
from fednode.sync.errors import PeerError, Refused, Unavailable
from fednode.sync.exchange import Exchange
from fednode.sync.strip import erase_change
from sim import promotion, recovery
from sim.hierarchy import LARGE, START_MS, Member, Shape, copy_to, fast_folder, members
from sim.network import Clockwork, Faults, Wire
from sim.sticks import SimApp

TICK_MS = 20_000
REDIAL_MS = (200, 8_000)
BOOT_MS = (100, 20_000)
SLOW_ROOM_BYTES, SLOW_MS = 1_000, 100
BYE_MS = 500


class Crash(Exception):
    """The power is gone."""


class CrashingStore(Store):
    """A store whose machine may lose power right before it commits: the transaction is gone."""

    doomed: Callable[[], bool] = staticmethod(lambda: False)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with super().write() as tx:
            yield tx
            if self.doomed():
                raise Crash


class End:
    """One side of one session: carries out the effects of its Exchange."""

    def __init__(self, node: SimNode, exchange: Exchange, session: SimSession) -> None:
        self.node, self.exchange, self.session = node, exchange, session
        self.now_ms = node.reference.timer()
        self.link: Link | None = None
        self.out: Wire | None = None
        self.commits: dict[int, tuple[str, int]] = {}
        self._feed: admission.Feed | None = None
        self._hurried: Callable[[int, int], urgent.Found] | None = None
        if session.slow:
            exchange.hurry_from = 0
            exchange.ready(SLOW_ROOM_BYTES, self.now_ms(), SLOW_ROOM_BYTES)
        self._again: admission.Again | None = None
        self.talk = promotion.Talk(self)
        self._child: Identity | None = None

    @property
    def peer(self) -> End:
        return self.session.ends[1 - self.session.ends.index(self)]

    def receive(self, data: bytes) -> None:
        if self.node.up and self.session.open:
            self.handle(self.exchange.receive(data, self.now_ms()))

    def more(self) -> None:
        """The line takes a little more: what waits meanwhile can be overtaken by what is urgent."""
        if self.session.slow and self.session.open and self.node.up:
            self.handle(self.exchange.ready(SLOW_ROOM_BYTES, self.now_ms(), SLOW_ROOM_BYTES))

    def handle(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            if self.session.open:
                _DO[type(effect)](self, effect)

    def _send(self, effect: fx.Send) -> None:
        _, message = wire.decode(effect.data)
        if isinstance(message, wire.Ack):
            self._check_durable(message)
        if isinstance(message, wire.Chunk) and message.total and message.offset:
            self.session.world.resumed += 1
        if self.out is not None:
            self.out.send(effect.data)
        if self.session.slow and isinstance(message, wire.Chunk):
            self.session.world.clock.at(SLOW_MS, self.more)

    def _check_durable(self, ack: wire.Ack) -> None:
        for outcome in ack.outcomes:
            if not outcome.refused and outcome.lsn in self.commits:
                log, end = self.commits[outcome.lsn]
                held = self.node.store.log_state(seg.LogName.parse(log)).size
                assert held >= end, f"{self.node.id} acknowledges {log} up to {end}, and holds {held}"
                if self.link is not None and not self.link.from_parent and not self.link.peer.stands_for:
                    promotion.check_ack(self.node, log, end)

    def _admit(self, effect: fx.Admit) -> None:
        self.session.world.clock.at(1, lambda: self._admitting(effect.hello))

    def _admitting(self, hello: wire.Hello) -> None:
        node, now = self.node, self.now_ms()
        if not self.session.open or not node.up:
            return
        from_parent = self is self.session.ends[0]
        try:
            if from_parent:
                identity = admission.check_parent(node.trust, hello, node.judge())
                node.pass_on_what_was_heard()
            else:
                shown = certs.parse(self.peer.node.member.chain[0])
                identity = admission.check_child(node.trust, shown, hello, node.judge())
            restoring, unsure = from_parent and node.restoring, not node.reference.sure
            may = node.acks.may(identity, from_parent) if node.acks is not None else None
            place = (from_parent, node.now_ms(), "sim", restoring, unsure)
            entry = admission.enter(node.writer, identity, hello, *place, may=may)
        except FednodeError as error:
            node.watch_alarms()
            self.handle(self.exchange.refuse(error, now))
            return
        except Crash:
            node.crash("inside admission")
            return
        if not from_parent:
            self.exchange.half = entry.half
        self.link, self._child = entry.link, identity
        self._feed, self._again = admission.feeds(node.store, node.trust, entry.link)
        self._hurried = admission.hurry(node.store, node.trust, entry.link)
        renew = node.recovery.asks() if restoring else None
        self.handle(self.exchange.admitted(replace(entry.admission, renew=renew), now))
        if node.acks is not None and self.session.open:
            node.acks.begun(self.talk, entry.owed)  # type: ignore[arg-type]
        node.watch_alarms()

    def _pull(self, effect: fx.Pull) -> None:
        assert self._feed is not None
        items, drained = self._feed(effect.after, effect.bytes_max)
        self.handle(self.exchange.feed(items, drained, self.now_ms()))

    def _hurry(self, effect: fx.Hurry) -> None:
        assert self._hurried is not None
        items, seen, more = self._hurried(effect.after, effect.beyond)
        self.session.world.hurried += len(items)
        self.handle(self.exchange.hurried(items, seen, more, self.now_ms()))

    def _resend(self, effect: fx.Again) -> None:
        assert self._again is not None
        items = self._again(effect.log, effect.first, effect.until)
        self.handle(self.exchange.resend(effect.log, effect.first, items, self.now_ms()))

    def _pullwitnessed(self, effect: fx.PullWitnessed) -> None:
        assert self._child is not None
        found, ripe = witness.owed(self.node.store, self.node.trust, self._child, effect.after)
        self.handle(self.exchange.tell(found, ripe, self.now_ms()))

    def _learn(self, effect: fx.Learn) -> None:
        link, world = self.link, self.session.world
        assert link is not None
        if world.burnt and any(end is self for end, _ in self.node._queue):  # the writer takes things in their order
            world.clock.at(1, partial(self._learn, effect))
            return
        if not self.session.open or not self.node.up:
            return
        if self.node.guarded(lambda: self.node.writer.witnessed(link, effect.told) or True):
            self.session.world.note("learnt", self.node.id, len(effect.told.heads))
            self.node._watch_refusals()
            self.handle(self.exchange.learnt(effect.told, self.now_ms()))

    def _pullholdings(self, effect: fx.PullHoldings) -> None:
        assert self.link is not None
        held = refill.holdings(self.node.writer, self.link, self.node.now_ms())
        self.handle(self.exchange.hold(held, self.node.now_ms()))

    def _compare(self, effect: fx.Compare) -> None:
        link = self.link
        assert link is not None
        if self.node.guarded(lambda: refill.compare(self.node.writer, link, effect) or True) and effect.last:
            self.session.world.note("refill", self.node.id, len(link.refill.missing) if link.refill else -1)
            self.handle(self.exchange.compared(self.node.now_ms()))

    def _commit(self, effect: fx.Commit) -> None:
        assert self.link is not None
        if effect.data and not rewrap.is_rewrap(effect.data):
            header = seg.parse(effect.data).header
            self.commits[effect.lsn] = (str(header.log), header.end)
        self.node.enqueue(self, effect)

    def _acked(self, effect: fx.Acked) -> None:
        self.node.acknowledged(self, effect)

    def _peerclock(self, effect: fx.PeerClock) -> None:
        off_ms = self.node.now_ms() - self.now_ms()
        delta = hlc.correction(effect.sent_ms + off_ms, effect.received_ms + off_ms, effect.remote_ms)
        if self.node.reference.learn(delta, unsure=effect.unsure):
            self.node.guarded(self.node.keep_time)

    def _alert(self, effect: fx.Alert) -> None:
        self.session.world.note("alert", self.node.id, effect.code)

    def _peerfenced(self, effect: fx.PeerFenced) -> None:
        self.session.world.note("fenced", self.peer.node.id, effect.code)
        if self.link is not None:
            self.node.writer.peer_fenced(self.link, effect.code, effect.heads)
            self.node.watch_alarms()

    def _renewasked(self, effect: fx.RenewAsked) -> None:
        chain, code = recovery.renew(self.node, self.peer.node.id, effect)
        if self.session.open:
            self.handle(self.exchange.answer_renewal(chain, code, self.now_ms()))

    def _renewanswered(self, effect: fx.RenewAnswered) -> None:
        if effect.chain:
            self.node.adopt(effect.chain)

    def _close(self, effect: fx.Close) -> None:
        code = getattr(effect.error, "code", "")
        self.session.world.note("close", self.node.id, code)
        if code and not isinstance(effect.error, Unavailable):
            self.session.world.refusals.append((self.node.id, self.peer.node.id, code, str(effect.error)))
        dialled, given = self is self.session.ends[0], getattr(effect.error, "params", {}).get("code", "")
        if dialled and given in fence.PARENTS_WORD and not self.node.restoring:
            self.node.guarded(lambda: self.node.writer.fence(given))
            if self.node.up and fence.superseded(self.node.store):
                self.node.pass_on()
        if dialled and self.node.restoring and effect.error is None:
            self.session.world.clock.at(1, self.node.recovery.finish)
        if self.session.world.promoting and code and not dialled:  # so that the child hears why
            self.session.world.clock.at(BYE_MS, self.session.end)
        else:
            self.session.end()

    def keep_half(self) -> None:
        """What a cut left, for the next session."""
        if self.link is not None and self.node.up:
            half = self.exchange.half
            with self.node.store.write() as tx:
                tx.set_partial(self.link.peer.node, half)


_DO: dict[type, Callable[[End, Any], None]] = {
    fx.Send: End._send,
    fx.Admit: End._admit,
    fx.Pull: End._pull,
    fx.Hurry: End._hurry,
    fx.Again: End._resend,
    fx.Commit: End._commit,
    fx.PullWitnessed: End._pullwitnessed,
    fx.Learn: End._learn,
    fx.PullHoldings: End._pullholdings,
    fx.Compare: End._compare,
    fx.Acked: End._acked,
    fx.PeerClock: End._peerclock,
    fx.PeerFenced: End._peerfenced,
    fx.RenewAsked: End._renewasked,
    fx.RenewAnswered: End._renewanswered,
    fx.Alert: End._alert,
    fx.Close: End._close,
}


class SimSession:
    """A connection between a child (end 0) and its parent (end 1)."""

    def __init__(self, world: World, child: SimNode, parent: SimNode) -> None:
        self.world, self.open = world, True
        self.slow = world.clock.chance(0.5)  # a line that takes a little at a time
        half = child.store.partial(parent.id)
        back = child.restoring
        place = (child.trust, child.store, child.now_ms(), "sim", child.store.peer(parent.id), half)
        wants, unsure = not child.recovery.in_old_life, not child.reference.sure
        child.recovery.wanted = wants
        to = admission.to_parent(child.trust) if world.burnt or world.promoting else None
        hello = admission.hello(*place, feeds=not back, wants=wants, restore=back, unsure=unsure, to=to)
        self.ends = [
            End(child, Exchange(dials=True, hello=hello, half=half, once=back), self),
            End(parent, Exchange(dials=False), self),
        ]
        for end, other in (self.ends, self.ends[::-1]):
            end.out = Wire(world.clock, world.links, other.receive, self.end)
            end.node.sessions.append(end)
        self.ends[1].handle(self.ends[1].exchange.start(self.ends[1].now_ms()))
        self.ends[0].handle(self.ends[0].exchange.start(self.ends[0].now_ms()))
        self._tick()

    def _tick(self) -> None:
        for end in self.ends:
            if self.open:
                end.handle(end.exchange.tick(end.now_ms()))
        if self.open:
            self.world.clock.at(TICK_MS, self._tick)

    def end(self) -> None:
        """The connection is gone; both sides keep what is half here, and the child dials again."""
        if not self.open:
            return
        self.open = False
        for end in self.ends:
            if end.node.acks is not None:
                end.node.acks.ended(end.talk)  # type: ignore[arg-type]
            if end.out is not None:
                end.out.open = False
            if end in end.node.sessions:
                end.node.sessions.remove(end)
            try:
                end.keep_half()
            except Crash:
                end.node.crash("while parting")
        child = self.ends[0].node
        child.tries += 1
        self.world.clock.at(self.world.clock.rng.randint(*REDIAL_MS), child.dial)


class SimNode:
    """One machine: a disk (real files) and, while it is up, a Store, Trust, Writer and Projector on it."""

    def __init__(self, world: World, member: Member) -> None:
        self.world, self.member, self.id = world, member, member.node
        self.folder = world.folder / member.node
        self.recovery = recovery.SimRecovery(self)
        self.up = self.gone = self.off = False
        self.config = Config()
        self.acks: Acks | None = None
        self.tries = 0
        self.skew_ms = self.stamped = self.boots = self._heard = 0
        self.frozen_ms: int | None = None
        self.sessions: list[End] = []
        self._queue: list[tuple[End, fx.Commit]] = []
        self._writing = False
        self.boot()

    # ------------------------------------------------------------ power

    def boot(self) -> None:
        """Load everything from disk."""
        if self.up or self.gone or self.off:
            return
        self.store = CrashingStore.open(self.folder / "log.db", stash_key=self.member.keys.stash_key)
        self.store.doomed = lambda: self.world.clock.chance(self.world.faults.crash_inside)
        self.trust = Trust.load(self.store, self.member.chain, self.id)
        self.writer = Writer(self.store, self.trust, self.member.keys, self.now_ms, self.world.clock.rng.randbytes)
        self.writer.on_late = lambda lsns: succession.late_writes(SimApp(self), self.writer, lsns)
        self.projector = Projector(self.folder / "state.db", self.store, self.trust)
        self.boots += 1
        place = (self.wall_ms, lambda: self.world.clock.now_ms, f"{self.id}/{self.boots}")
        self.reference = Reference.load(self.store, self.trust, *place)
        self.up, self._heard = True, self.trust.heard
        self.world.note("boot", self.id, self.store.lsn)
        if self.store.meta(STOOD_FOR) is not None or (self.store.to_make_again() and not self.restoring):
            again = self.guarded(lambda: succession.settle(SimApp(self)))
            self.world.note("settled", self.id, again)
            if not self.up:
                return
        self.acks = promotion.acks_of(self)
        self.world.clock.at(self.world.clock.rng.randint(*REDIAL_MS), self.dial)

    def crash(self, why: str) -> None:
        """All that is in memory is gone. `state.db` (synchronous=NORMAL) may lose its tail: an older copy comes
        back."""
        if not self.up:
            return
        self.up = False
        self.world.note("crash", self.id, why)
        self._queue.clear()
        self._writing = False
        for end in list(self.sessions):
            end.session.end()
        self.projector.close()
        self.store.close()
        old, state = self.folder / "state.old", self.folder / "state.db"
        if old.exists() and self.world.clock.chance(self.world.faults.lose_state):
            shutil.copyfile(old, state)
        shutil.copyfile(state, old)
        self.world.clock.at(self.world.clock.rng.randint(*BOOT_MS), self.boot)

    @property
    def restoring(self) -> bool:
        """Whether it takes its history back at the moment."""
        return self.recovery.under_way

    def adopt(self, chain: tuple[bytes, ...]) -> None:
        """A fresh certificate, kept on disk."""
        certs.check_chain(chain, self.trust.root_sha256)
        self.member = replace(self.member, chain=chain)
        self.trust.adopt(chain)
        self.recovery.adopted()

    def wall_ms(self) -> int:
        """This machine's clock: it may be years off, and stand still."""
        return max(0, self.world.clock.now_ms + self.skew_ms) if self.frozen_ms is None else self.frozen_ms

    def now_ms(self) -> int:
        """The reference clock of this node."""
        return self.reference.now_ms()

    def judge(self) -> Judge:
        """Who says whether certificates hold."""
        directory = self.trust.directory
        return self.reference.judge((*directory.path(self.id), directory.root))

    def keep_time(self) -> None:
        with self.store.write() as tx:
            self.reference.keep(tx)

    def guarded(self, job: Callable[[], Any]) -> Any:
        """Run something that writes; the machine may lose power in it. None when it did."""
        try:
            return job()
        except Crash:
            self.crash("inside a transaction")
            return None

    # ------------------------------------------------------------ exchange

    def dial(self) -> None:
        parent = self.world.parent_of(self)
        if parent is None or not self.up or any(end is end.session.ends[0] for end in self.sessions):
            return
        if not parent.up or parent.restoring or self.world.parted(self, parent):
            self.tries += 1
            self.world.clock.at(self.world.clock.rng.randint(*REDIAL_MS), self.dial)
            return
        self.world.note("dial", self.id)
        SimSession(self.world, self, parent)

    def enqueue(self, end: End, commit: fx.Commit) -> None:
        self._queue.append((end, commit))
        if not self._writing:
            self._writing = True
            self.world.clock.at(self.world.clock.rng.randint(1, 30), self._write)

    def _write(self) -> None:
        """The writer's turn: everything that waits is one transaction."""
        self._writing = False
        group, self._queue = [one for one in self._queue if one[0].session.open], []
        if not self.up or not group:
            return
        if self.world.clock.chance(self.world.faults.crash_before):
            self.crash("before a commit")
            return
        jobs = [(end.link, commit) for end, commit in group if end.link is not None]
        reports = self.guarded(lambda: self.writer.incoming(jobs))
        if reports is None:
            return
        for (end, commit), (_, done) in zip(group, reports, strict=True):
            log, end_size = end.commits.get(commit.lsn, ("late", 0))
            self.world.note("stored", self.id, log, end_size, done.refused, done.gap is not None)
        self._watch_refusals()
        if self.world.clock.chance(self.world.faults.crash_after):
            self.crash("after a commit, before its acks")
            return
        for end in dict.fromkeys(end for end, _ in group):
            mine = [done for (other, _), (_, done) in zip(group, reports, strict=True) if other is end]
            if self.acks is not None:
                mine = list(self.acks.take(end.talk, mine))  # type: ignore[arg-type]
            end.handle(end.exchange.committed(mine, end.now_ms()))
        self.moved()

    def _watch_refusals(self) -> None:
        for one in self.writer.refusals:
            self.world.refusals.append((self.id, one.peer, one.code, one.log))
        self.writer.refusals.clear()
        self.watch_alarms()

    def watch_alarms(self) -> None:
        """What the writer found goes up as alerts, as the daemon does it, and ends the session where it must."""
        alarms, self.writer.alarms = self.writer.alarms, []
        for one in alarms:
            self.world.alarms.add((one.code, one.node))
            self.world.note("alarm", self.id, one.code, one.node)
            journal = Journal(self.writer, self.now_ms, "sim", "sim")
            with suppress(Refused):  # fenced itself
                self.guarded(partial(journal.alert, one.code, one.node, one.params, one.evidence))
            if not self.up:
                return
            for end in list(self.sessions):
                if end.link is one.ends and one.ends is not None:
                    end.handle(end.exchange.refuse(PeerError(one.code, **one.params), end.now_ms()))
        if alarms:
            self.world.clock.at(1, self.moved)

    def acknowledged(self, end: End, effect: fx.Acked) -> None:
        if end.link is None:
            return
        for outcome in effect.outcomes:
            place = self.store.place(outcome.lsn)
            if place is not None and not outcome.refused:
                name, size, _ = place
                self.world.acked.add((end.peer.node.id, str(name), size))
        outcomes = [(one.lsn, one.cosignature, one.refused) for one in effect.outcomes]
        link = end.link
        self.guarded(lambda: self.writer.acknowledged(link.peer_id, outcomes, link.peer, link.holds(effect.upto)))
        if self.acks is not None and self.up:
            self.acks.heard(end.talk, effect)  # type: ignore[arg-type]
        self._watch_refusals()

    def moved(self) -> None:
        """The store has grown: whoever is owed more is told; the projection follows, sometimes."""
        self.pass_on_what_was_heard()
        for end in list(self.sessions):
            if self.up and (error := self._out_of_force(end)) is not None:
                end.handle(end.exchange.refuse(error, end.now_ms()))
            elif self.up:
                end.handle(end.exchange.wake(end.now_ms()))
        if self.up and self.world.clock.chance(0.3):
            self.projector.catch_up(steps=1)
            if self.projector.unclean and self.world.clock.chance(0.5):
                self.clean()

    def _out_of_force(self, end: End) -> PeerError | None:
        """As the daemon has it: another installation took the place of this child."""
        link = end.link
        if link is None or link.from_parent or link.restoring:
            return None
        now = self.trust.directory.get(link.peer.node)
        if now is None or now.incarnation == link.peer.incarnation:
            return None
        return PeerError("FN-5513", node=now.node, theirs=link.peer.incarnation, ours=now.incarnation)

    def pass_on_what_was_heard(self) -> None:
        """As the daemon has it: those below hear of a later life of somebody above before they get what was written in
        it, in a new greeting."""
        if self.up and self.trust.heard != self._heard:
            self._heard = self.trust.heard
            self.pass_on()

    def pass_on(self) -> None:
        """Part from those below."""
        for end in list(self.sessions):
            if end is end.session.ends[1]:
                end.session.end()

    def clean(self) -> None:
        """Nothing stays of what was erased; the power may go while it is done."""
        self.guarded(lambda: erasing.clean(self.store, self.projector))

    # ------------------------------------------------------------ operators

    def write(self, dataset: str, area: str, changes: list[Change]) -> bool:
        """An operator's change; False when the power went, or it was refused."""
        if not self.up or self.restoring or self.trust.dataset(dataset) is None:
            return False
        try:
            done = self.guarded(lambda: self.writer.local(dataset, area, changes))
        except Refused as error:
            if error.code not in ("FN-5303", "FN-5306"):
                raise
            return False
        if done is None:
            return False
        name = self.trust.log_name(dataset, area)
        state = self.store.log_state(name)
        self.world.written.add((self.id, str(name), state.size))
        assert state.last_hlc > self.stamped, f"{self.id}: a stamp of {name} went back"
        self.stamped = state.last_hlc
        self.world.note("wrote", self.id, dataset, area, len(changes), state.last_hlc)
        self.moved()
        return True

    def versions(self, dataset: str, area: str) -> dict[str, list[tuple[LogName, int]]]:
        """Key -> the places of all versions of a record, the current one first."""
        c = self.projector.connection
        names = {number: name for number, name, _ in self.store.logs()}
        rows = c.execute(
            """with place as (
                   select (select id from dataset where name = ?) as d, (select id from area where code = ?) as a)
               select key, log, seq, 0 from record join place on dataset = d and area = a union all
               select key, log, seq, 1 from superseded join place on dataset = d and area = a order by 4, 2, 3""",
            (dataset, area),
        ).fetchall()
        found: dict[str, list[tuple[LogName, int]]] = {}
        for key, log, seq, _ in rows:
            found.setdefault(key, []).append((names[log], seq))
        return found

    def erase(self, dataset: str, area: str, places: list[tuple[LogName, int]], *, for_good: bool = False) -> None:
        """An operator erases these versions. `for_good`: nobody writes the same again, so that their contents are to be
        nowhere in the end."""
        contents = [self._content(log, seq) for log, seq in places]
        if self.write(dataset, area, [erase_change(log, seq, "by order") for log, seq in places]):
            self.world.erased |= {(self.id, str(log), seq) for log, seq in places}
            self.world.note("erased", self.id, [(str(log), seq) for log, seq in places])
            if for_good:
                self.world.gone |= {
                    (self.id, str(log), seq): one for (log, seq), one in zip(places, contents, strict=True) if one
                }

    def _content(self, log: LogName, seq: int) -> bytes | None:
        """The payload of a version; None for a deletion, and for what is stripped already."""
        log_id = self.store.log_id(log)
        held = self.store.segment_at(log_id, seq) if log_id is not None else None
        columns = self.store.columns(held) if held is not None else None
        return (columns.payloads[seq - held.first] or None) if held is not None and columns is not None else None


class World:
    """All of it. Close it: the files of a run are deleted."""

    def __init__(self, seed: int, faults: Faults | None = None, shape: Shape = LARGE) -> None:
        self.seed, self.shape = seed, shape
        self.clock = Clockwork(seed, START_MS)
        self.faults = faults or Faults()
        self.folder = Path(tempfile.mkdtemp(prefix=f"fednode-sim-{seed}-", dir=fast_folder()))
        copy_to(self.folder, shape)
        self.refusals: list[tuple[str, str, str, str]] = []
        self.acked: set[tuple[str, str, int]] = set()
        self.written: set[tuple[str, str, int]] = set()
        self.revoked: set[str] = set()
        self.alarms: set[tuple[str, str]] = set()
        self.restored: set[str] = set()
        self.burnt: set[str] = set()
        self.promoting = False
        self.promoted: set[str] = set()
        self.failed: set[str] = set()
        self.became: dict[str, str] = {}  # a standby's id -> whom it succeeded
        self.former: dict[str, list[SimNode]] = {}  # old primaries that did not come back yet
        self.island: set[int] = set()  # machines that reach each other, and nobody else
        self.erased: set[tuple[str, str, int]] = set()
        self.gone: dict[tuple[str, str, int], bytes] = {}  # of what was erased: contents that nobody writes again
        self.resumed = self.hurried = self.sticks = self.brought = 0
        self.rollbacks: dict[str, int] = {}
        self._parted: set[str] = set()
        self.nodes: dict[str, SimNode] = {}
        for member in members(shape).values():
            self.nodes[member.node] = SimNode(self, member)

    def note(self, *what: object) -> None:
        self.clock.note(*what)

    def links(self) -> Faults:
        return self.faults

    def part(self, node: str, until_ms: int) -> None:
        """Cut a node off from its parent for a while."""
        self._parted.add(node)
        self.note("part", node)
        for end in list(self.nodes[node].sessions):
            if end is end.session.ends[0]:
                end.session.end()
        self.clock.at(until_ms, partial(self._parted.discard, node))

    def parted(self, child: SimNode, parent: SimNode) -> bool:
        return child.id in self._parted or (id(child) in self.island) != (id(parent) in self.island)

    def parent_of(self, node: SimNode) -> SimNode | None:
        """Whom a node dials: its parent, or, at the next try, another installation that goes by that name."""
        first = self.nodes.get(node.member.parent)
        others = self.former.get(node.member.parent)
        if first is None or not others:
            return first
        found = [first, *(one for one in others if one.up and not fence.superseded(one.store))]
        return found[node.tries % len(found)]

    def parted_now(self) -> list[str]:
        """Who has no link at the moment."""
        return sorted(self._parted)

    def close(self) -> None:
        for node in self.nodes.values():
            if node.up:
                node.projector.close()
                node.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)
