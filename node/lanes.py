"""What waits for the writer: each peer's in its order, and whoever has had least of the writer's time comes first.

Rules
1. A lane is a peer ("": this node's own work). What is put into a lane comes out in the order in which it was put in.
2. The lane that has had the least comes next (start-time fair queueing): each job counts `LEAST_S`, and what it took
   beyond that (`charge`). So a peer that sends much, or what costs much, waits for itself, and one that sends now and
   then waits for the job that is at work, however many others have a backlog.
3. Who had nothing here for a while has saved nothing up: it starts `AHEAD_S` before the others, so that of those that
   have had as much it comes first. One job counts `CHARGE_S_MAX` at most: nobody waits for long for having been given
   much once.
4. In the time in which a lane has nothing here it pays back what it has had, `PAID_BACK` of it: so who sends now and
   then, and that may cost (a commit waits for the disk), does not stand behind many who have had less because they are
   many. All together `SHARE` of the time can be paid back, so that those who always have something here come, too.
5. Lanes that are doubted (`node.doubts`) are set aside: all together they have `ASIDE` of the time, whether anybody
   else waits or not, and up to `ASIDE_JOBS` of theirs come at once, since they may share a transaction. So who has just
   come waits for one of theirs rarely, and not for long, however many they are.
6. After `end` nothing goes in; what is there comes out, then None, for ever.

>>> lanes = Lanes()
>>> for lane, job in (("a", 1), ("a", 2), ("a", 3), ("b", 4)): lanes.put(lane, job)
>>> lanes.end(); [lanes.get() for _ in range(5)]
[1, 4, 2, 3, None]
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

LEAST_S = 0.0001
CHARGE_S_MAX = 0.1
AHEAD_S = 0.001
PAID_BACK, SHARE, PURSE_S = 0.1, 0.5, 0.25
IDLE_MAX = 1_000  # lanes that are remembered though nothing of theirs waits
ASIDE, ASIDE_JOBS = 0.01, 4


class Lanes:
    """A queue between threads. `clock_s`: one that never jumps; without it nothing is paid back. `doubted`: of a lane,
    asked in any of them."""

    def __init__(
        self, clock_s: Callable[[], float] = lambda: 0.0, doubted: Callable[[str], bool] = lambda lane: False
    ) -> None:
        self._clock_s, self._doubted = clock_s, doubted
        self._lanes: dict[str, deque[Any]] = {}
        self._had: dict[str, float] = {}  # of the writer's time
        self._left_s: dict[str, float] = {}  # since when a lane has had nothing here
        self._purse_s, self._filled_s = PURSE_S, clock_s()  # what may be paid back now
        self._order: list[tuple[float, int, str]] = []  # of the lanes in which something waits
        self._aside: list[tuple[float, int, str]] = []  # of those that are set aside
        self._aside_s = 0.0  # when they come next
        self._out: list[str] = []  # of those that have come, and were not charged yet
        self._now, self._number = 0.0, 0
        self._more = threading.Condition()
        self._ended = False

    def put(self, lane: str, job: Any) -> None:
        """Add a job."""
        with self._more:
            if lane in self._lanes:
                self._lanes[lane].append(job)
            else:
                self._lanes[lane] = deque((job,))
                self._pay_back(lane)
                self._had[lane] = max(self._had.get(lane, 0.0), self._now - AHEAD_S)
                self._line_up(lane)
            self._more.notify()

    def end(self) -> None:
        """There is no more to come."""
        with self._more:
            self._ended = True
            self._more.notify()

    def get(self) -> Any:
        """The next job, when there is one; None at the end."""
        with self._more:
            while (job := self._next()) is None and not (self._ended and not self._lanes):
                self._more.wait(max(0.0, self._aside_s - self._clock_s()) if self._aside else None)
            return job

    def look(self) -> Any:
        """The next job; None where there is none now."""
        with self._more:
            return self._next()

    def charge(self, lane: str, seconds: float) -> None:
        """A job of this lane has taken so long."""
        with self._more:
            if lane in self._left_s:
                self._left_s[lane] = self._clock_s()
            if lane in self._out:
                self._out = [one for one in self._out if one != lane]
                self._aside_s = max(self._aside_s, self._clock_s()) + seconds / ASIDE
            more = min(seconds, CHARGE_S_MAX) - LEAST_S
            if more > 0:
                self._had[lane] = max(self._had.get(lane, 0.0), self._now - AHEAD_S) + more

    def _pay_back(self, lane: str) -> None:
        now_s, had_s = self._clock_s(), self._had.get(lane, 0.0)
        self._purse_s = min(PURSE_S, self._purse_s + (now_s - self._filled_s) * SHARE)
        self._filled_s = now_s
        idle_s = now_s - self._left_s.pop(lane, now_s)
        back_s = min(had_s - (self._now - AHEAD_S), idle_s * PAID_BACK, self._purse_s)
        if back_s > 0:
            self._had[lane] = had_s - back_s
            self._purse_s -= back_s

    def _line_up(self, lane: str) -> None:
        self._number += 1
        order = self._aside if self._doubted(lane) else self._order
        heapq.heappush(order, (self._had[lane], self._number, lane))

    def _next(self) -> Any:
        if self._ended or (len(self._out) < ASIDE_JOBS and self._clock_s() >= self._aside_s):
            lane = self._first(self._aside)
            if lane is not None:
                self._out += () if self._ended else (lane,)
                return self._taken(lane)
        lane = self._first(self._order)
        if lane is None:
            return None
        self._now = max(self._now, self._had[lane])
        return self._taken(lane)

    def _first(self, order: list[tuple[float, int, str]]) -> str | None:
        """The lane that has had least of those that stand there."""
        while order:
            had, _, lane = heapq.heappop(order)
            if had == self._had[lane] and (order is self._aside or not self._doubted(lane)):
                return lane
            self._line_up(lane)  # it was charged since it stood in line, or is doubted since
        return None

    def _taken(self, lane: str) -> Any:
        self._had[lane] += LEAST_S
        jobs = self._lanes[lane]
        job = jobs.popleft()
        if jobs:
            self._line_up(lane)
        else:
            del self._lanes[lane]
            self._left_s[lane] = self._clock_s()
            self._forget()
        return job

    def _forget(self) -> None:
        """Lanes in which nothing waits, and that would start with the others; all where nobody waits at all."""
        if len(self._had) > len(self._lanes) + IDLE_MAX:
            after = self._now - AHEAD_S if self._lanes else float("inf")
            self._had = {one: had for one, had in self._had.items() if one in self._lanes or had > after}
            self._left_s = {one: left_s for one, left_s in self._left_s.items() if one in self._had}

    @property
    def empty(self) -> bool:
        """Whether nothing waits but for what is set aside."""
        return not self._order
