"""Whole exchanges between two nodes of `chain`, in one process: real stores, real verification, the real engine; every
frame passes by, so that it can be recorded, or come from a recording.

>>> # child, parent = meet(chain[VILLAGE], chain[TOWNSHIP]); settle(child, parent); child.frames
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from chain import WORLD, Node
from fednode.node import admission, mending, refill, witness
from fednode.node.clocks import Judge
from fednode.node.link import Link
from fednode.sync import effects as fx
from fednode.sync import versions, wire
from fednode.sync.exchange import Exchange
from fednode.sync.versions import Versions
from world import NOW_S

NOW_MS = NOW_S * 1000


class Party:
    """One side: its engine, and what its driver does. `renew`: what a child asks for; `answer`: what a parent gives."""

    def __init__(
        self, node: Node, peer: str, *, dials: bool, renew: wire.Renew | None = None, answer: tuple[bytes, ...] = (),
        software: str = "fednode/0.1.0", once: bool = True, speaks: Versions | None = None,
    ) -> None:  # fmt: skip
        self.node, self.peer, self.dials, self.renew, self.answer = node, peer, dials, renew, answer
        self.software, self.speaks = software, speaks or versions.SPOKEN
        greeting = admission.hello(node.trust, node.store, NOW_MS, software, node.store.peer(peer), None)
        self.exchange = Exchange(dials=dials, hello=self._spoken(greeting) if dials else None, once=once, speaks=speaks)
        self.other: Party | None = None
        self.inbox: deque[bytes] = deque()
        self.frames: list[bytes] = []
        self.happened: list[fx.Effect] = []
        self.link: Link | None = None
        self.take_acks: Callable[[tuple[wire.Outcome, ...]], object] | None = None  # in place of the writer

    def _spoken(self, hello: wire.Hello) -> wire.Hello:
        """As a program says it that speaks these versions."""
        return replace(hello, version_min=self.speaks.low, version_max=self.speaks.high)

    @property
    def sent(self) -> list[wire.Message]:
        return [wire.decode(one)[1] for one in self.frames]

    @property
    def closed(self) -> fx.Close | None:
        return next((one for one in self.happened if isinstance(one, fx.Close)), None)

    def of_kind(self, kind: type) -> list[fx.Effect]:
        """What has happened of a kind."""
        return [one for one in self.happened if isinstance(one, kind)]

    def start(self) -> None:
        self.do(self.exchange.start(NOW_MS))

    def receive(self, frame: bytes) -> None:
        self.do(self.exchange.receive(frame, NOW_MS))

    def do(self, effects: Iterable[fx.Effect]) -> None:
        for effect in effects:
            self.happened.append(effect)
            match effect:
                case fx.Send(data):
                    self.frames.append(data)
                    if self.other is not None:
                        self.other.inbox.append(data)
                case fx.Admit(greeting):
                    self._admit(greeting)
                case fx.Pull(after, size):
                    self.do(self.exchange.feed(*self._feed(after, size), NOW_MS))
                case fx.Again():
                    fetch = self._one if effect.restore else partial(self._again, until=effect.until)
                    self.do(self.exchange.resend(effect.log, effect.first, fetch(effect.log, effect.first), NOW_MS))
                case fx.Commit():
                    assert self.link is not None
                    reports = [done for _, done in self.node.writer.incoming([(self.link, effect)])]
                    self.do(self.exchange.committed(reports, NOW_MS))
                case fx.PullWitnessed(after):
                    found = witness.owed(self.node.store, self.node.trust, WORLD.identity(self.peer), after)
                    self.do(self.exchange.tell(*found, NOW_MS))
                case fx.PullHoldings():
                    assert self.link is not None
                    held = refill.holdings(self.node.writer, self.link, NOW_MS)
                    self.do(self.exchange.hold(held, NOW_MS))
                case fx.Compare():
                    assert self.link is not None
                    refill.compare(self.node.writer, self.link, effect)
                    if effect.last:
                        self.do(self.exchange.compared(NOW_MS))
                case fx.Learn(told):
                    assert self.link is not None
                    self.node.writer.witnessed(self.link, told)
                    self.do(self.exchange.learnt(told, NOW_MS))
                case fx.Acked(outcomes, _) if self.take_acks is not None:
                    self.take_acks(outcomes)
                case fx.Acked(outcomes, upto):
                    assert self.link is not None
                    told = [(one.lsn, one.cosignature, one.refused) for one in outcomes]
                    self.node.writer.acknowledged(
                        self.link.peer_id, told, WORLD.identity(self.peer), self.link.holds(upto)
                    )
                case fx.RenewAsked():
                    self.do(self.exchange.answer_renewal(self.answer, "", NOW_MS))
                case _:
                    pass

    def _admit(self, greeting: wire.Hello) -> None:
        trust = self.node.trust
        check = admission.check_parent(trust, greeting, Judge(NOW_S)) if self.dials else None
        identity = check or admission.check_child(trust, WORLD.identity(self.peer), greeting, Judge(NOW_S))
        entry = admission.enter(self.node.writer, identity, greeting, self.dials, NOW_MS, self.software)
        self.link = entry.link
        self._feed, self._again = admission.feeds(self.node.store, trust, entry.link)
        self._one = mending.one(self.node.store, trust, entry.link)
        reply = entry.admission.reply
        granted = replace(entry.admission, renew=self.renew, reply=self._spoken(reply) if reply else None)
        self.do(self.exchange.admitted(granted, NOW_MS))


def meet(child: Node, parent: Node, **of_child: Any) -> tuple[Party, Party]:
    """Both sides of an exchange, nothing sent yet. `of_child` goes to the child's side; `answer`, and `above` as its
    `speaks`, to the parent's."""
    answer, speaks = of_child.pop("answer", ()), of_child.pop("above", None)
    below = Party(child, parent.node, dials=True, **of_child)
    above = Party(parent, child.node, dials=False, answer=answer, once=bool(of_child.get("once", True)), speaks=speaks)
    below.other, above.other = above, below
    above.start()
    below.start()
    return below, above


def settle(*parties: Party) -> None:
    """Until nothing moves."""
    while any(one.inbox for one in parties):
        for one in parties:
            while one.inbox:
                one.receive(one.inbox.popleft())
