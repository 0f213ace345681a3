"""The simulated world's time and links: a queue of events, and sessions whose frames take time and get lost."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import count

LARGE_BYTES = 32 * 1024  # such a frame is long on the way: more likely to be cut


@dataclass(slots=True)
class Faults:
    """How bad the links are. Chances are for each frame, times in milliseconds."""

    latency_ms: tuple[int, int] = (5, 400)
    lose: float = 0.004
    duplicate: float = 0.01
    reorder: float = 0.004
    cut: float = 0.004
    cut_large: float = 0.1
    crash_before: float = 0.004
    crash_inside: float = 0.01
    crash_after: float = 0.01
    lose_state: float = 0.3
    io_error: float = 0.002

    @classmethod
    def none(cls) -> Faults:
        """Links that work."""
        return cls((5, 40), *[0] * (len(fields(cls)) - 1))

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """The names of what may go wrong by chance."""
        return tuple(one.name for one in fields(cls) if one.name != "latency_ms")

    def without(self, kinds: frozenset[str]) -> Faults:
        """The same, but these never happen."""
        return replace(self, **dict.fromkeys(kinds, 0.0))

    def rarer(self, times: int) -> Faults:
        """The same, but each so many times less likely: where there are many nodes, all the same some befall each
        day."""
        return replace(self, **{kind: getattr(self, kind) / times for kind in self.kinds()})


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing that a story has happen: an operator's act or a fault."""

    number: int
    at_ms: int
    what: Callable[[], None]

    def __str__(self) -> str:
        func, given = getattr(self.what, "func", self.what), getattr(self.what, "args", ())
        words = [str(getattr(one, "id", one)) for one in given if isinstance(getattr(one, "id", one), str | int)]
        return f"{self.number}: {self.at_ms / 1000:.1f} s {getattr(func, '__name__', '?').strip('_')} {' '.join(words)}"


class Clockwork:
    """Virtual time. Everything that happens goes through `at`; `trace` digests what did."""

    def __init__(self, seed: int, start_ms: int) -> None:
        self.rng = random.Random(seed)
        self.now_ms = start_ms
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = count()
        self._plan: list[Planned] | None = None
        self._trace = hashlib.sha256()
        self.happened = 0

    def at(self, delay_ms: int, what: Callable[[], None]) -> None:
        """Do something later; what is due at one time is done in the order in which it was asked for."""
        if self._plan is not None:
            self._plan.append(Planned(len(self._plan), delay_ms, what))
            return
        heapq.heappush(self._queue, (self.now_ms + max(0, delay_ms), next(self._number), what))

    @contextmanager
    def planning(self) -> Iterator[list[Planned]]:
        """What is asked for meanwhile is only written down: whoever asked decides what of it will happen."""
        self._plan = plan = []
        try:
            yield plan
        finally:
            self._plan = None

    def run_until(self, end_ms: int) -> None:
        """Let time pass."""
        while self._queue and self._queue[0][0] <= end_ms:
            self.now_ms, _, what = heapq.heappop(self._queue)
            self.happened += 1
            what()
        self.now_ms = end_ms

    def note(self, *what: object) -> None:
        """Put an event into the trace."""
        self._trace.update(repr((self.now_ms, *what)).encode())

    def digest(self) -> str:
        """Of all that was noted."""
        return self._trace.hexdigest()

    def chance(self, share: float) -> bool:
        """True for this share of calls."""
        return share > 0 and self.rng.random() < share


@dataclass(slots=True)
class Wire:
    """One direction of a session. Frames arrive in order unless a fault has it otherwise."""

    clock: Clockwork
    faults: Callable[[], Faults]
    deliver: Callable[[bytes], None]
    broken: Callable[[], None]
    open: bool = True
    last_ms: int = field(default=0)

    def send(self, data: bytes) -> None:
        """A frame leaves; it may never arrive, arrive twice, or late; the link may break under it."""
        if not self.open:
            return
        clock, faults = self.clock, self.faults()
        if clock.chance(faults.cut_large if len(data) > LARGE_BYTES else faults.cut):
            clock.at(0, self.broken)
            return
        if clock.chance(faults.lose):
            return
        due = max(self.last_ms, clock.now_ms + clock.rng.randint(*faults.latency_ms))
        if clock.chance(faults.reorder):
            due += faults.latency_ms[1]  # overtaken by what follows
        else:
            self.last_ms = due
        clock.at(due - clock.now_ms, lambda: self._arrive(data))
        if clock.chance(faults.duplicate):
            clock.at(due - clock.now_ms + clock.rng.randint(0, 50), lambda: self._arrive(data))

    def _arrive(self, data: bytes) -> None:
        if self.open:
            self.deliver(data)
