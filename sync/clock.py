"""The hybrid logical clock and the effective time of a change. Pure: the wall clock is an argument.

Rules
1. A stamp is a u64: 48 bits of Unix milliseconds, 16 bits of counter (Kulkarni et al., "Logical Physical Clocks",
   2014).
2. A node's stamps never go back, and are greater than every effective stamp that it has seen.
3. A node stamps with its own clock corrected by the offset to its parent's (`offset`); the province trusts its own.
4. The *effective* stamp of a change is the earlier of its own and the bound that its first parent's cosignature sets:
   the
   same at every node, so a clock in 2036 wins nothing. A witness signs with a time not before anything it has seen
   (`witness_time`), so a change made after its author had seen another still beats it.
5. What a child sends is observed only after clamping, so its clock cannot carry its parent's away.

>>> clock = HybridClock(last=0)
>>> a = clock.next(now_ms=1_700_000_000_000); b = clock.next(now_ms=1_600_000_000_000)
>>> b - a, milliseconds(b)
(1, 1700000000000)
>>> effective(stamp(2_082_758_400_000), bound(1_700_000_001)) == bound(1_700_000_001)
True
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COUNTER_BITS = 16
COUNTER_MAX = (1 << COUNTER_BITS) - 1
STAMP_MAX = (1 << 63) - 1  # SQLite's integers are signed
SKEW_MS_MAX = 5 * 60 * 1000  # beyond this an operator is warned
CORRECTION_MS_MIN = 50
NO_BOUND = STAMP_MAX
WALL_MS_MAX = (1 << 46) - 1  # the year 4199: a clock beyond it is broken, and its stamps would not fit


def stamp(ms: int, counter: int = 0) -> int:
    """The stamp of a moment in Unix milliseconds."""
    return (ms << COUNTER_BITS) | counter


def milliseconds(hlc: int) -> int:
    """Unix milliseconds of a stamp."""
    return hlc >> COUNTER_BITS


def bound(time_s: int) -> int:
    """The largest effective stamp under a first-parent cosignature made at `time_s` (Unix seconds)."""
    return (time_s * 1000 << COUNTER_BITS) | COUNTER_MAX


def effective(hlc: int, limit: int | None) -> int:
    """The effective stamp; `limit` is the lowest bound known, or None before any cosignature."""
    return hlc if limit is None or hlc <= limit else limit


def lowest(bounds: Iterable[int | None]) -> int | None:
    """The lowest of the bounds that are known, None when there is none."""
    known = [one for one in bounds if one is not None]
    return min(known) if known else None


def _wall(now_ms: int) -> int:
    return stamp(min(max(now_ms, 0), WALL_MS_MAX))


@dataclass(slots=True)
class HybridClock:
    """Makes stamps. `last` is the greatest stamp made or seen; whoever owns the clock stores it with what was
    stamped.
    """

    last: int = 0

    def next(self, now_ms: int) -> int:
        """One stamp, greater than all before. `now_ms`: the corrected wall clock."""
        self.last = max(_wall(now_ms), self.last + 1)
        return self.last

    def run(self, now_ms: int, count: int) -> range:
        """`count` consecutive stamps."""
        first = max(_wall(now_ms), self.last + 1)
        self.last = first + count - 1
        return range(first, first + count)

    def observe(self, seen: int) -> None:
        """Follow an effective stamp that was seen (rule 2)."""
        if seen > self.last:
            self.last = seen

    def witness_time(self, now_ms: int, given: int = 0) -> int:
        """Unix seconds for a cosignature of what ends with the stamp `given`: not before the wall clock, nor before
        anything stamped or seen (rule 4).

        `bound(witness_time)` is at least `last`; a clamped stamp that is then observed does not raise the next one,
        so a
        child with a clock in the future moves this node by one second for each stamp that this node makes, no more.

        A stamp that may be of an author who follows what it has seen, as it must, is not cut down to what it came
        after: the next second is signed instead, as long as that is not too far from the wall clock. It may be, where
        it is ahead by less than a second; and where its author's clock is ahead by no more than a clock may be, and it
        would be cut down to the very last that was seen here."""
        time_s = -(-max(now_ms, milliseconds(self.last)) // 1000)
        follows = bound(time_s) < given <= bound(time_s + 1)
        follows = follows or bound(time_s) <= self.last < given <= _wall(now_ms + SKEW_MS_MAX)
        return time_s + 1 if follows and (time_s + 1) * 1000 <= now_ms + SKEW_MS_MAX else time_s


def offset(sent_ms: int, received_ms: int, remote_ms: int) -> int:
    """Milliseconds to add to the local clock to get the remote one's, from one round trip (Cristian, 1989)."""
    return remote_ms - (sent_ms + received_ms) // 2


def correction(sent_ms: int, received_ms: int, remote_ms: int) -> int:
    """How much to put the local reference clock right after one round trip: 0 where half the trip explains the
    difference."""
    delta = offset(sent_ms, received_ms, remote_ms)
    return delta if abs(delta) > max(CORRECTION_MS_MIN, (received_ms - sent_ms) // 2) else 0
