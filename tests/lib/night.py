"""A night at a parent: thousands of children whose window opens at the same minute, in virtual time, with the turns
that the daemon takes (`fednode.node.turns`). A child that is told to wait waits that long, and a tenth more at random,
as with tenacity.

>>> night = Night(2, 60_000, {village(n): Child(1_000) for n in range(5)})
>>> night.run(600_000); night.all_done(), night.most
(True, 2)
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from fednode.node.turns import Turns, Wait


@dataclass
class Child:
    """`work_ms`: how long its exchange takes altogether; endless for one whose backlog never ends; `stays`: it keeps
    its session when it is done, as daemons do, and is not back before morning when that ends."""

    work_ms: int
    endless: bool = False
    stays: bool = False
    first_ms: int = -1
    seated_ms: int = -1
    done_ms: int = -1
    asked: int = 0
    sat: int = 0
    began_ms: int = 0
    ends: int = 0  # the generation of its end that counts


@dataclass
class Night:
    """A parent at 02:00, and its children, as events in the order of time. `most...`: of what there was at once."""

    seats: int
    quantum_ms: int
    children: dict[str, Child]
    seed: int = 7
    let_in_ms: int = 50
    events: list[tuple[int, int, str, str]] = field(default_factory=list)
    most: int = 0
    most_admitting: int = 0
    most_waiting: int = 0
    asks: int = 0

    def run(self, until_ms: int) -> None:
        self.turns, self.rng = Turns(self.seats, self.quantum_ms), random.Random(self.seed)
        self.seat_of: dict[str, int] = {}
        self.count = 0
        for name in self.children:
            self.at(self.rng.randrange(5_000), "ask", name)  # the jitter of clocks on the wall
        self.at(1_000, "look", "")
        while self.events:
            now_ms, _, what, name = heapq.heappop(self.events)
            if now_ms > until_ms or self.all_done():
                return
            getattr(self, f"on_{what}")(now_ms, name)
            self.most = max(self.most, self.turns.taken)
            self.most_admitting = max(self.most_admitting, self.turns.admitting)
            self.most_waiting = max(self.most_waiting, self.turns.waiting)

    def at(self, when_ms: int, what: str, name: str) -> None:
        self.count += 1
        heapq.heappush(self.events, (when_ms, self.count, what, name))

    def all_done(self) -> bool:
        return all(child.done_ms >= 0 for child in self.children.values() if not child.endless)

    def retry(self, now_ms: int, name: str, asked_ms: int) -> None:
        """What a child does that is told to wait: never earlier, a little later."""
        self.at(now_ms + asked_ms + self.rng.randrange(asked_ms // 10 + 500), "ask", name)

    def on_ask(self, now_ms: int, name: str) -> None:
        child = self.children[name]
        child.first_ms = now_ms if child.first_ms < 0 else child.first_ms
        child.asked += 1
        self.asks += 1
        got = self.turns.ask(name, now_ms)
        if isinstance(got, Wait):
            self.retry(now_ms, name, got.retry_ms)
            return
        child.seated_ms = now_ms if child.seated_ms < 0 else child.seated_ms
        child.sat += 1
        child.began_ms = now_ms
        self.seat_of[name] = got
        self.at(now_ms + self.let_in_ms, "in", name)

    def on_in(self, now_ms: int, name: str) -> None:
        child = self.children[name]
        self.turns.let_in(self.seat_of[name], now_ms)
        child.ends += 1
        if not child.endless:
            self.at(now_ms + child.work_ms, "end", f"{name} {child.ends}")

    def on_end(self, now_ms: int, what: str) -> None:
        name, generation = what.split()
        child = self.children[name]
        if child.ends == int(generation):
            child.done_ms = now_ms
            if not child.stays:
                self.turns.leave(self.seat_of.pop(name), now_ms)

    def on_look(self, now_ms: int, _: str) -> None:
        at = {seat: name for name, seat in self.seat_of.items()}
        for seat, retry_ms in self.turns.over(now_ms, lambda one: self.children[at[one]].done_ms >= 0):
            child = self.children[at[seat]]
            self.turns.leave(self.seat_of.pop(at[seat]), now_ms)
            if child.done_ms < 0:
                child.work_ms -= now_ms - child.began_ms
                child.ends += 1
                self.retry(now_ms, at[seat], retry_ms)
        self.at(now_ms + 1_000, "look", "")


def village(number: int) -> str:
    return f"1301{number:08}"
