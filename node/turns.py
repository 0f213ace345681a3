"""Whose turn it is to exchange, when more children want to than this node can serve at once. Without I/O and without a
clock.

Rules
1. At most so many sessions are open (`seats`), and at most `ADMITTING_MAX` of them are still being let in: each of
   those costs the writer a transaction, and what is to be stored must not wait behind thousands.
2. Who cannot be seated is told when to come again, and has a number. Numbers are served in their order: a seat that is
   free is kept for whoever has a lower number and is due. Who does not come in time loses it. Where more seats are free
   than children can be let in within a second, none is kept, and nobody gives one up: whoever comes is served.
3. The delays space those who wait: the n-th is told to come when n seats will have been given up, as far as the last
   sessions tell. It grows with the queue, and nobody asks in vain again and again. That letting in was slow in the rush
   at the beginning says little of what comes after it (`LET_IN_MS_MAX`): a node that has time must not wait for those
   it has sent away.
4. While somebody waits who is due, whoever has had a seat for a quantum gives it up, the longest first, and gets a
   number for what it has left; a session in which nothing moves, at once, but not before it could have said something
   (`QUIET_MS` after it was let in): it has nothing left, and keeps no seat free.
   So an endless backlog delays nobody for long.
5. Children that are doubted (`node.doubts`) have `DOUBTED_MAX` of the places of those who are being let in: who says
   nothing there keeps nobody else out.
6. Memory is bounded: at most `WAITING_MAX` numbers; who comes after that is told the longest delay, and has none.

>>> turns = Turns(seats=1, quantum_ms=60_000)
>>> turns.ask("1301", 0), turns.ask("1302", 0)
(1, Wait(retry_ms=10000))
>>> turns.leave(1, 9_000), turns.ask("1303", 10_000), turns.ask("1302", 10_000)
(None, Wait(retry_ms=19800), 2)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ADMITTING_MAX, DOUBTED_MAX = 32, 8
WAITING_MAX = 10_000
OF_ONE_MAX = 3  # sessions of one child: a daemon, `fednode sync` beside it, and one that a dead line has left
RETRY_MS_MIN = 1_000
RETRY_MS_MAX = 15 * 60_000
GRACE_MS = 30_000
FIRST_HOLD_MS = 10_000
FIRST_LET_IN_MS = 200
LET_IN_MS_MAX = 640  # 20 ms a child
QUIET_MS = 2_000
SMOOTH = 0.1


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; come again after so many milliseconds."""

    retry_ms: int


@dataclass(slots=True)
class _Seat:
    child: str
    since_ms: int
    doubted: bool
    let_in: bool = False
    let_in_ms: int = 0
    ending: bool = False


@dataclass(slots=True)
class _Ticket:
    number: int
    due_ms: int
    lost_ms: int


class Turns:
    """The seats of one node, and who waits for one. `now_ms`, in every call: a clock that never jumps."""

    def __init__(self, seats: int, quantum_ms: int) -> None:
        self.seats, self.quantum_ms = seats, quantum_ms
        self._taken: dict[int, _Seat] = {}
        self._of: dict[str, int] = {}
        self._admitting = {True: 0, False: 0}  # of those that are doubted, and of the others
        self._waiting: dict[str, _Ticket] = {}  # in the order of their numbers
        self._numbers: list[int] = []
        self._last_seat = self._last_number = 0
        self._hold_ms, self._let_in_ms = float(FIRST_HOLD_MS), float(FIRST_LET_IN_MS)

    @property
    def taken(self) -> int:
        """Seats that are taken."""
        return len(self._taken)

    @property
    def admitting(self) -> int:
        """Seats whose sessions are still being let in."""
        return sum(self._admitting.values())

    @property
    def waiting(self) -> int:
        """Who waits."""
        return len(self._waiting)

    # ------------------------------------------------------------ seats

    def ask(self, child: str, now_ms: int, *, doubted: bool = False) -> int | Wait:
        """A child wants a session: the number of its seat, or how long to wait."""
        if self._of.get(child, 0) >= OF_ONE_MAX:
            return Wait(RETRY_MS_MIN * 5)
        place = self.admitting < ADMITTING_MAX and not (doubted and self._admitting[True] >= DOUBTED_MAX)
        if place and (self._plenty or self._due_before(child, now_ms) < self.seats - len(self._taken)):
            self._drop(child)
            return self._sit(child, now_ms, doubted)
        return Wait(self._queue(child, now_ms))

    @property
    def _plenty(self) -> bool:
        """Whether more seats are free than children can be let in within a second: those who are due may come late."""
        return self.seats - len(self._taken) > ADMITTING_MAX * max(1.0, 1_000 / max(1.0, self._let_in_ms))

    def _sit(self, child: str, now_ms: int, doubted: bool) -> int:
        self._last_seat += 1
        self._taken[self._last_seat] = _Seat(child, now_ms, doubted)
        self._of[child] = self._of.get(child, 0) + 1
        self._admitting[doubted] += 1
        return self._last_seat

    def let_in(self, seat: int, now_ms: int) -> None:
        """The session at this seat is open."""
        found = self._taken.get(seat)
        if found is not None and not found.let_in:
            found.let_in, found.let_in_ms = True, now_ms
            self._admitting[found.doubted] -= 1
            self._let_in_ms += (min(now_ms - found.since_ms, LET_IN_MS_MAX) - self._let_in_ms) * SMOOTH

    def leave(self, seat: int, now_ms: int) -> None:
        """The session at this seat has ended."""
        found = self._taken.pop(seat, None)
        if found is None:
            return
        if not found.let_in:
            self._admitting[found.doubted] -= 1
        self._of[found.child] -= 1
        if not self._of[found.child]:
            del self._of[found.child]
        self._hold_ms += (min(now_ms - found.since_ms, self.quantum_ms) - self._hold_ms) * SMOOTH

    # ------------------------------------------------------------ who waits

    def _due_before(self, child: str, now_ms: int) -> int:
        """How many come before this child and are due, counted no further than there are free seats."""
        free, found = self.seats - len(self._taken), 0
        for one in self._in_time(now_ms):
            if one == child or found >= free:
                break
            found += self._waiting[one].due_ms <= now_ms
        return found

    def _in_time(self, now_ms: int) -> Iterator[str]:
        """Who waits, in order; whoever did not come in time is forgotten on the way."""
        late = []
        try:
            for child, ticket in self._waiting.items():
                if ticket.lost_ms < now_ms:
                    late.append(child)
                else:
                    yield child
        finally:  # the caller may have heard enough
            for child in late:
                self._drop(child)

    def _drop(self, child: str) -> None:
        ticket = self._waiting.pop(child, None)
        if ticket is not None:
            del self._numbers[bisect_left(self._numbers, ticket.number)]

    def _queue(self, child: str, now_ms: int) -> int:
        """Give a child a number, or let it keep the one that it has. When it is to come."""
        ticket = self._waiting.get(child)
        if ticket is None and len(self._waiting) >= WAITING_MAX:
            return RETRY_MS_MAX
        if ticket is None:
            self._last_number += 1
            ticket = self._waiting[child] = _Ticket(self._last_number, 0, 0)
            self._numbers.append(ticket.number)
        retry_ms = self._delay(bisect_left(self._numbers, ticket.number) + 1)
        ticket.due_ms = now_ms + retry_ms
        ticket.lost_ms = ticket.due_ms + retry_ms + GRACE_MS
        return retry_ms

    def _delay(self, place: int) -> int:
        """When the one at this place of the queue is to come: as soon as so many seats are given up, or let in."""
        wait_ms = place * max(self._hold_ms / self.seats, self._let_in_ms / ADMITTING_MAX)
        return round(min(max(wait_ms, RETRY_MS_MIN), RETRY_MS_MAX))

    # ------------------------------------------------------------ giving up a seat

    def over(self, now_ms: int, quiet: Callable[[int], bool]) -> list[tuple[int, int]]:
        """Who is to give up its seat for those who are due: (seat, when its child is to come again). `quiet`: whether
        nothing moves at a seat."""
        if self._plenty:
            return []
        soon_ms = now_ms + RETRY_MS_MIN
        due = sum(one.due_ms <= soon_ms and one.lost_ms >= now_ms for one in self._waiting.values())
        wanted = due - (self.seats - len(self._taken)) - sum(seat.ending for seat in self._taken.values())
        if wanted <= 0:
            return []
        could = [
            (not still, seat.since_ms, number)
            for number, seat in self._taken.items()
            if seat.let_in
            and not seat.ending
            and (
                (still := now_ms - seat.let_in_ms >= QUIET_MS and quiet(number))
                or now_ms - seat.since_ms >= self.quantum_ms
            )
        ]
        found = []
        for busy, _, number in sorted(could)[:wanted]:
            seat = self._taken[number]
            seat.ending = True
            found.append((number, self._queue(seat.child, now_ms) if busy else self._delay(len(self._waiting) + 1)))
        return found
