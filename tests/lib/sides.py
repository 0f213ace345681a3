"""Two exchanges joined without a network, each with what its driver would have."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from typing import Any

from fednode.sync import exchange as ex
from fednode.sync import wire
from fednode.sync.effects import (
    Acked,
    Admission,
    Admit,
    Again,
    Close,
    Commit,
    Compare,
    Done,
    Effect,
    HearHealth,
    Item,
    Learn,
    Pull,
    PullHealth,
    PullHoldings,
    PullWitnessed,
    Send,
)
from fednode.sync.exchange import Exchange
from fednode.sync.states import State
from world import Stream

NOW = 1_780_000_000_000
WINDOW = ex.WINDOW_BYTES


def hello(node: str, **changed: Any) -> wire.Hello:
    """By default of one that has met the peer's store before."""
    given_: dict[str, Any] = {"node": node, "chain": (b"c",), "now_ms": NOW, "store": bytes(16), "window": WINDOW}
    return wire.Hello(**{**given_, "have": wire.Cursor(bytes(16), 1), **changed})


def item(lsn: int, size: int = 1000) -> Item:
    data = Stream("item", lsn)(size)
    return Item(lsn, data, digest=hashlib.sha256(data).digest())


def late(lsn: int) -> Item:
    return Item(lsn, b"", late=wire.Late(lsn, "hebei/13/1/x", 1, bytes(32), wire.Cosignature(1, bytes(64))))


class Side:
    """An exchange with what its driver would have: a feed, a store that commits when told, a list of what happened."""

    ahead: tuple[Item, ...] = ()  # what goes before all else

    def __init__(self, *, dials: bool, feed: Iterable[Item] = (), start: int = 0, **more: Any) -> None:
        fields = ("partial", "window", "feeds", "wants", "have", "witnessed", "version_max", "restore", "health")
        mine = {name: more.pop(name) for name in fields if name in more}
        self.to_tell: list[tuple[wire.Witnessed, bool]] = list(more.pop("to_tell", ()))
        self.told: int | None = more.pop("told", None)
        self.learning: list[wire.Witnessed] = []
        self.reports: list[wire.Health] = list(more.pop("reports", ()))
        tells = more.pop("tells_health", True)
        self.hearing: list[wire.Health] = []
        self.holdings: list[wire.Holding] = list(more.pop("holdings", ()))
        self.compared: list[wire.Holding] = []
        self.now_ms = NOW
        self.hello = hello("1301" if dials else "13", **mine)
        self.exchange = Exchange(dials=dials, hello=self.hello if dials else None, **more)
        self.exchange.tells_health = tells
        self.dials, self.items, self.start = dials, list(feed), start
        self.inbox: deque[bytes] = deque()
        self.commits: list[Commit] = []
        self.happened: list[Effect] = []
        self.held: dict[int, bytes] = {}
        self.acked: list[wire.Outcome] = []
        self.answered = 0
        self.sent: list[wire.Message] = []
        self.hold_admission = self.hold_comparison = False
        self.other: Side

    def do(self, effects: Iterable[Effect]) -> None:
        """Carry out effects as a driver does; commits wait for `commit`."""
        for effect in effects:
            self.happened.append(effect)
            match effect:
                case Send(data):
                    self.sent.append(wire.decode(data)[1])
                    self.other.inbox.append(data)
                case Admit():
                    if not self.hold_admission:
                        self.admit()
                case Pull(after, bytes_max):
                    self.pull(after, bytes_max)
                case Again(log, first, until):
                    again = [one for one in self.items if first <= one.lsn <= until]
                    self.do(self.exchange.resend(log, first, again, NOW))
                case Commit():
                    self.commits.append(effect)
                case PullWitnessed(after):
                    found = next(((one, ripe) for one, ripe in self.to_tell if one.upto > after), (None, False))
                    self.do(self.exchange.tell(*found, self.now_ms))
                case PullHealth(place, _):
                    report = next((one for one in self.reports if one.upto > place.upto), None)
                    self.do(self.exchange.tell_health(report, self.now_ms))
                case HearHealth(report):
                    self.hearing.append(report)
                case PullHoldings():
                    self.do(self.exchange.hold(self.holdings, NOW))
                case Compare(entries, last):
                    self.compared += entries
                    if last and not self.hold_comparison:
                        self.do(self.exchange.compared(NOW))
                case Learn(told):
                    self.learning.append(told)
                case Acked(outcomes, upto):
                    self.acked += outcomes
                    self.answered = upto
                case _:
                    pass

    def admit(self, **more: Any) -> None:
        reply = None if self.dials else self.hello
        admission = Admission(self.start, reply=reply, told=self.told, ahead=self.ahead, **more)
        self.do(self.exchange.admitted(admission, NOW))

    def pull(self, after: int, bytes_max: int) -> None:
        found, size = [], 0
        for one in self.items:
            if one.lsn > after and size < bytes_max:
                found.append(one)
                size += len(one.data)
        drained = not found or found[-1] is self.items[-1]
        self.do(self.exchange.feed(found, drained, NOW))

    def read(self) -> None:
        """Take one frame."""
        self.do(self.exchange.receive(self.inbox.popleft(), NOW))

    def commit(self, count: int | None = None) -> None:
        """The writer has made the oldest commits durable."""
        done, self.commits = self.commits[:count], self.commits[len(self.commits) if count is None else count :]
        for one in done:
            self.held[one.lsn] = one.data
        self.do(self.exchange.committed([Done(one.lsn) for one in done], NOW))

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.happened if isinstance(one, kind)]

    def messages(self, kind: type) -> list[Any]:
        return [one for one in self.sent if isinstance(one, kind)]

    def idles(self) -> list[int]:
        """Where this side said that its feed is drained: by itself, or with a last chunk."""
        return [
            one.lsn for one in self.sent if isinstance(one, wire.Idle) or (isinstance(one, wire.Chunk) and one.idle)
        ]

    @property
    def closed(self) -> Close | None:
        found = self.of(Close)
        assert len(found) <= 1
        return found[0] if found else None


def join(child: Side, parent: Side) -> None:
    child.other, parent.other = parent, child


def settle(child: Side, parent: Side, *, commits: bool = True) -> None:
    """Until nothing moves."""
    while child.inbox or parent.inbox or (commits and (child.commits or parent.commits)):
        for side in (child, parent):
            while side.inbox:
                side.read()
            if commits and side.commits:
                side.commit()


def pair(
    up: Iterable[Item] = (), down: Iterable[Item] = (), child: Any = None, parent: Any = None
) -> tuple[Side, Side]:
    """Both sides, greeted and admitted, nothing committed yet."""
    one, other = Side(dials=True, feed=up, **(child or {})), Side(dials=False, feed=down, **(parent or {}))
    join(one, other)
    other.do(other.exchange.start(NOW))
    one.do(one.exchange.start(NOW))
    return one, other


def broken(side: Side, code: str) -> None:
    """The session ended with this code, told to the peer as well."""
    assert side.exchange.state is State.CLOSED
    closing = side.closed
    assert closing is not None
    assert getattr(closing.error, "code", None) == code
    assert side.sent[-1].code == code  # type: ignore[union-attr]


def gap(side: Side, lsn: int, want: wire.Want, *durable: int) -> None:
    """The writer found that something precedes `lsn`; the others are durable."""
    for one in side.commits:
        if one.lsn in durable:
            side.held[one.lsn] = one.data
    side.commits.clear()
    side.do(side.exchange.committed([*(Done(one) for one in durable), Done(lsn, gap=want)], NOW))
