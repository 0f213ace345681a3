"""What children are told to be durable, where that is to mean: at a standby, too (`ack = "standby"`). Without I/O and
without a clock.

Rules
1. An outcome waits until a standby has acknowledged what it is about, by this node's arrival numbers. What a standby
   has refused it does not hold, whatever it acknowledged after that.
2. What is about nothing that was stored here (a refusal, a gap) waits for nobody.
3. A standby that has not acknowledged what waits for `wait_ms` is away. `hold`: whoever waits for it is told to come
   again later (`Due.ends`), and is acknowledged when a standby has it. Otherwise this node's word alone counts until a
   standby has everything that was given out without it.
4. Memory is bounded: a child sends no more than its window, and waits.

>>> gate = AckGate(wait_ms=10_000, hold=False)
>>> [one.lsn for one in gate.take("village", [Done(1, at=7), Done(2, refused="FN-6406")], 0)]
[2]
>>> [(one.who, one.reports[0].lsn) for one in gate.reached("county-s1", 7)]
[('village', 1)]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fednode.sync.effects import Done

HOLD, ALONE = "hold", "alone"


@dataclass(slots=True)
class Go:
    """What may be told to one session. `unheard`: also, and first, what it had not heard of when it began."""

    who: Hashable
    reports: list[Done] = field(default_factory=list)
    unheard: bool = False


@dataclass(slots=True)
class Due:
    """What comes of the time that has passed. `ends`: sessions to be told to come again later."""

    go: list[Go] = field(default_factory=list)
    ends: list[Hashable] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """`done` None: what a session had not heard of when it began, up to `at`."""

    at: int
    since_ms: int
    done: Done | None


@dataclass(frozen=True, slots=True)
class Standby:
    """Up to which arrival number a standby has answered, and what of that it refused."""

    upto: int = 0
    refused: frozenset[int] = frozenset()

    def has(self, at: int) -> bool:
        return at <= self.upto and at not in self.refused


class AckGate:
    """`standbys`: by id, as far as is known. `away`: none acknowledges what waits; it ends when one has acknowledged up
    to `highest`, the last number that anything was about."""

    def __init__(
        self,
        wait_ms: int,
        hold: bool,
        standbys: Mapping[str, Standby] | None = None,
        away: bool = False,
        highest: int = 0,
    ) -> None:
        self._wait_ms, self.hold = wait_ms, hold
        self._standbys = dict(standbys or {})
        self._waiting: dict[Hashable, list[_Waiting]] = {}
        self.away, self._highest = away, highest

    @property
    def alone(self) -> bool:
        """Whether this node's word counts without a standby's."""
        return self.away and not self.hold

    def may(self, upto: int) -> Callable[[int], bool]:
        """What says, in any thread, whether it may be told that an arrival number is durable, as things stand. `upto`:
        the last one there is: where nobody is asked, all of it is given out."""
        if self.alone:
            self._highest = max(self._highest, upto)
            return lambda _at: True
        standbys = tuple(self._standbys.values())
        return lambda at: not at or any(one.has(at) for one in standbys)

    # ------------------------------------------------------------ what comes in

    def take(self, who: Hashable, reports: Sequence[Done], now_ms: int) -> list[Done]:
        """The writer's reports for a session: those that may be told now. The others wait."""
        self._highest = max(self._highest, *(one.at for one in reports), 0)
        may, behind = self.may(0), self._owed(who)
        goes = [one.gap is not None if behind else may(one.at) for one in reports]
        waits = [_Waiting(one.at, now_ms, one) for one, now in zip(reports, goes, strict=True) if not now]
        if waits:
            self._waiting.setdefault(who, []).extend(waits)
        return [one for one, now in zip(reports, goes, strict=True) if now]

    def _owed(self, who: Hashable) -> bool:
        """Whether a session has yet to hear of what was sent before it began. Nothing that was sent later is told
        first: its sender takes all before that for told, and would never hear of the rest, were the line cut then."""
        return any(one.done is None for one in self._waiting.get(who, ()))

    def owe(self, who: Hashable, at: int, now_ms: int) -> None:
        """A session began that is yet to hear of what it sent before, the last of it stored at this number."""
        self._highest = max(self._highest, at)
        if not self.may(0)(at):
            self._waiting.setdefault(who, []).append(_Waiting(at, now_ms, None))

    def forget(self, who: Hashable) -> None:
        """A session is over."""
        self._waiting.pop(who, None)

    def only(self, standbys: Collection[str]) -> None:
        """These are the standbys that there are."""
        self._standbys = {node: one for node, one in self._standbys.items() if node in standbys}

    # ------------------------------------------------------------ what goes out

    def reached(self, standby: str, upto: int, refused: Iterable[int] = ()) -> list[Go]:
        """A standby has acknowledged all up to a number. What may be told now."""
        before = self._standbys.get(standby, Standby())
        now = Standby(max(upto, before.upto), before.refused.union(refused))
        self._standbys[standby] = now
        if now.upto >= self._highest:
            self.away = False
        return self._release(lambda one: now.has(one.at))

    def due(self, now_ms: int) -> Due:
        """Call every second or so."""

        def late(one: _Waiting) -> bool:
            return now_ms - one.since_ms >= self._wait_ms

        waiting = [(who, one) for who, each in self._waiting.items() for one in each if late(one)]
        if not waiting:
            return Due()
        reached = max((one.upto for one in self._standbys.values()), default=0)
        self.away = self.away or any(one.at > reached for _, one in waiting)
        if self.hold:
            return Due(ends=list(dict.fromkeys(who for who, _ in waiting)))
        return Due(go=self._release(lambda one: self.away or late(one)))

    def _release(self, free: Callable[[_Waiting], bool]) -> list[Go]:
        found = []
        for who in list(self._waiting):
            waiting = self._waiting[who]
            freed = [one for one in waiting if free(one)]
            if not freed or any(one.done is None and not free(one) for one in waiting):
                continue
            self._waiting[who] = [one for one in waiting if not free(one)]
            if not self._waiting[who]:
                del self._waiting[who]
            reports = [one.done for one in freed if one.done is not None]
            found.append(Go(who, reports, len(reports) < len(freed)))
        return found
