"""Sessions of the simulated world: both sides' effects are carried out here, as the daemon's driver does it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node import admission, fence, mending, refill, urgent, witness
from fednode.node.link import Link
from fednode.sync import clock as hlc
from fednode.sync import effects as fx
from fednode.sync import rewrap, wire
from fednode.sync import segment as seg
from fednode.sync.errors import PeerError, StoreError, Unavailable
from fednode.sync.exchange import Exchange
from sim import promotion, recovery
from sim.disk import Crash
from sim.network import Wire

if TYPE_CHECKING:
    from sim.world import SimNode, World

TICK_MS = 20_000
REST_MS = 100_000  # after so long without a word but beats
SLOW_ROOM_BYTES, SLOW_MS = 1_000, 100
BYE_MS, HUNG_UP_MS = 500, 60_000
HEED_MS = 60_000  # until somebody does what the text of a refusal says: at first it is only tried again


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
        number, message = wire.decode(effect.data)
        if isinstance(message, wire.Ack):
            self._check_durable(message)
        if isinstance(message, wire.Chunk) and message.total and message.offset:
            self.session.world.resumed += 1
        if not isinstance(message, wire.Beat):
            self.session.stir()
        data, liar = effect.data, self.node.liar
        if liar is not None and (said := liar.says(self, number, message)) is not message:
            data = wire.encode(number, said)
        if self.out is not None:
            self.out.send(data)
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
                node.take_after_all()
            else:
                shown = certs.parse(self.peer.node.member.chain[0])
                identity = admission.check_child(node.trust, shown, hello, node.judge())
                if not hello.restore:
                    node.reconsider(identity.node)
            restoring, unsure = from_parent and node.restoring, not node.reference.sure
            may = node.acks.may(identity, from_parent) if node.acks is not None else None
            place = (from_parent, node.now_ms(), "sim", restoring, unsure)
            entry = admission.enter(node.writer, identity, hello, *place, may=may)
        except StoreError as error:
            node.ailed(error)
            return
        except FednodeError as error:
            node.watch_alarms()
            self.handle(self.exchange.refuse(error, now))
            return
        except Crash:
            node.crash("inside admission")
            return
        if not self.session.open:  # it is met anew
            return
        if not from_parent:
            self.exchange.half = entry.half
        self.link, self._child = entry.link, identity
        self._feed, self._again = admission.feeds(node.store, node.trust, entry.link)
        self._hurried = admission.hurry(node.store, node.trust, entry.link)
        renew = node.recovery.asks() if restoring else None
        self.handle(self.exchange.admitted(replace(entry.admission, renew=renew), now))
        if self.session.open:
            node.mender.ask(self)  # type: ignore[arg-type]
        if node.acks is not None and self.session.open:
            node.acks.begun(self.talk, entry.owed)  # type: ignore[arg-type]
        node.watch_alarms()

    def ask_segment(self, log: str, first: int) -> None:
        """For what is damaged here."""
        self.handle(self.exchange.ask_segment(log, first, self.now_ms()))

    def _pull(self, effect: fx.Pull) -> None:
        assert self._feed is not None
        items, drained = self._feed(effect.after, effect.bytes_max)
        self.node.mender.look()
        self.handle(self.exchange.feed(items, drained, self.now_ms()))

    def _hurry(self, effect: fx.Hurry) -> None:
        assert self._hurried is not None
        items, seen, more = self._hurried(effect.after, effect.beyond)
        self.session.world.hurried += len(items)
        self.handle(self.exchange.hurried(items, seen, more, self.now_ms()))

    def _resend(self, effect: fx.Again) -> None:
        assert self._again is not None
        if effect.restore and self.link is not None:
            items = mending.one(self.node.store, self.node.trust, self.link)(effect.log, effect.first)
        else:
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
        if self._taken(lambda: self.node.writer.witnessed(link, effect.told)):
            self.session.world.note("learnt", self.node.id, len(effect.told.heads))
            self.node._watch_refusals()
            self.handle(self.exchange.learnt(effect.told, self.now_ms()))

    def _taken(self, job: Callable[[], object]) -> bool:
        """Whether the writer took what the peer told: a lie ends the session."""
        try:
            return bool(self.node.guarded(lambda: job() or True))
        except PeerError as error:
            self.handle(self.exchange.refuse(error, self.now_ms()))
            return False

    def _pullholdings(self, effect: fx.PullHoldings) -> None:
        assert self.link is not None
        held = refill.holdings(self.node.writer, self.link, self.node.now_ms())
        self.handle(self.exchange.hold(held, self.node.now_ms()))

    def _compare(self, effect: fx.Compare) -> None:
        link = self.link
        assert link is not None
        if self._taken(lambda: refill.compare(self.node.writer, link, effect)) and effect.last:
            self.session.world.note("refill", self.node.id, len(link.refill.missing) if link.refill else -1)
            self.handle(self.exchange.compared(self.node.now_ms()))

    def _commit(self, effect: fx.Commit) -> None:
        assert self.link is not None
        if effect.data and not rewrap.is_rewrap(effect.data):
            with suppress(PeerError):  # the writer will say so
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
        if code == "FN-5519":
            heed = partial(promotion.not_heard_of, self.session.world, self.node.id, self.peer.node)
            self.session.world.clock.at(HEED_MS, heed)
        self.session.clean = not code
        dialled, given = self is self.session.ends[0], getattr(effect.error, "params", {}).get("code", "")
        if dialled and given in fence.PARENTS_WORD and not self.node.restoring:
            self.node.guarded(lambda: self.node.writer.fence(given))
            if self.node.up and fence.superseded(self.node.store):
                self.node.pass_on()
        if dialled and self.node.restoring and effect.error is None:
            self.session.world.clock.at(1, self.node.recovery.finish)
        if self.session.world.promoting and code and not dialled:  # so that the child hears why
            self.session.world.clock.at(BYE_MS, self.session.end)
        elif self.session.world.shape.open_max and dialled and not code:  # what it has said is on the way yet
            self.session.world.clock.at(HUNG_UP_MS, self.session.end)
        else:
            self.session.end()

    def keep_half(self) -> None:
        """What a cut left, for the next session."""
        if self.link is not None and self.node.up:
            with suppress(StoreError):
                self.node.writer.keep_half(self.link.peer.node, self.exchange.half)


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
        self.world, self.open, self.clean = world, True, False
        self.slow = world.clock.chance(0.5)  # a line that takes a little at a time
        half = child.store.partial(parent.id)
        back, windows = child.restoring, bool(world.shape.open_max)
        place = (child.trust, child.store, child.now_ms(), "sim", child.store.peer(parent.id), half)
        wants, unsure = not child.recovery.in_old_life, not child.reference.sure
        child.recovery.wanted = wants
        to = admission.to_parent(child.trust) if world.burnt or world.promoting else None
        hello = admission.hello(*place, feeds=not back, wants=wants, restore=back, unsure=unsure, to=to)
        self.ends = [
            End(child, Exchange(dials=True, hello=hello, half=half, once=back or windows), self),
            End(parent, Exchange(dials=False), self),
        ]
        for end, other in (self.ends, self.ends[::-1]):
            up = end is self.ends[0]
            end.out = Wire(world.clock, partial(world.line, child.id, up), other.receive, self.end)
            end.node.sessions.append(end)
        self._rests, self._stirred_ms = False, world.clock.now_ms
        self.ends[1].handle(self.ends[1].exchange.start(self.ends[1].now_ms()))
        self.ends[0].handle(self.ends[0].exchange.start(self.ends[0].now_ms()))
        self._tick()

    def _tick(self) -> None:
        for end in self.ends:
            if self.open:
                end.handle(end.exchange.tick(end.now_ms()))
                end.node.mender.ask_again()
        self._rests = self.world.stretch > 1 and self.world.clock.now_ms - self._stirred_ms > REST_MS
        if self.open and not self._rests:
            self.world.clock.at(TICK_MS, self._tick)

    def stir(self) -> None:
        """Somebody has something to say, or is asked whether. Beats went to and fro meanwhile."""
        self._stirred_ms = self.world.clock.now_ms
        if not self._rests or not self.open:
            return
        self._rests = False
        for end in self.ends:
            end.exchange._last_sent_ms = end.exchange._last_received_ms = end.now_ms()
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
        child.dial_again(self.clean)
