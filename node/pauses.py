"""Which children a node does not serve for a while: those whose sessions end, again and again, in what no program of
ours does. Without I/O and without a clock.

Rules
1. What counts (`breach`): a message that breaks the rules of the exchange, a session in which this side waited for a
   greeting in vain, one of which more than `REFUSED_MAX` items were refused, and more than were taken, one in which
   the peer refused what it was never sent: a transaction each. A line that is cut does not count, nor do words that
   are this side's (revoked, an earlier life, no room): who is told them comes back with something better.
2. `FREE` of them are nothing: lines are cut, programs have faults. Each one more doubles the pause, from `PAUSE_MS_MIN`
   to `PAUSE_MS_MAX`. An hour without one, and all is forgotten. It is in memory alone.
3. Who comes too early is held for `HOLD_S` before it is told when to come, so that it costs a handshake of TLS no more
   often than that; of one child no more than `HELD_MAX`. An honest one waits so long, comes when it was told to, and
   is served.
4. At most `CHILDREN_MAX` are remembered; beyond that the one that was seen first is forgotten.

>>> pauses = Pauses()
>>> for _ in range(FREE + 2): pauses.broke("1301", 0)
>>> pauses.left_ms("1301", 500), pauses.left_ms("1302", 0)
(1500, 0)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fednode.sync.effects import Done
from fednode.sync.wire import Outcome

FREE = 8
PAUSE_MS_MIN = 1_000
PAUSE_MS_MAX = 15 * 60_000
FORGET_MS = 3_600_000
CHILDREN_MAX = 10_000
HOLD_S = 15.0
HELD_MAX = 3
REFUSED_MAX = 100
FOLLOWS = "FN-6413"  # refused because what precedes it in its log was
SILENT = "FN-4502"
TOO_MUCH = "FN-4528"
NEVER_SENT = "FN-4530"
BREACHES = frozenset(
    {TOO_MUCH, NEVER_SENT, "FN-5501", "FN-5502", "FN-5503", "FN-5504", "FN-5506", "FN-5507", "FN-6401", "FN-6405"}
)


@dataclass(slots=True)
class _Broken:
    times: int
    at_ms: int
    until_ms: int


class Pauses:
    """Of one node. `now_ms`, in every call: a clock that never jumps."""

    def __init__(self) -> None:
        self._broken: dict[str, _Broken] = {}

    def broke(self, child: str, now_ms: int) -> None:
        """A session of a child's ended in a breach."""
        known = self._broken.pop(child, None)
        times = 1 if known is None or now_ms - known.at_ms >= FORGET_MS else known.times + 1
        exponent = min(times - FREE - 1, 30)
        pause_ms = min(PAUSE_MS_MIN << exponent, PAUSE_MS_MAX) if exponent >= 0 else 0
        while len(self._broken) >= CHILDREN_MAX:
            del self._broken[next(iter(self._broken))]
        self._broken[child] = _Broken(times, now_ms, now_ms + pause_ms)

    def left_ms(self, child: str, now_ms: int) -> int:
        """How long a child is not served yet."""
        known = self._broken.get(child)
        return 0 if known is None else max(0, known.until_ms - now_ms)


def breach(code: str, greeted: bool) -> bool:
    """Whether the end of a session is one. `code`: this side's; "" where the peer ended it."""
    return code in BREACHES or (code == SILENT and not greeted)


def too_much(refused: Collection[str], received: int) -> bool:
    """Whether nothing will come of a session. `refused`: the codes of what was refused of it, `received`: all items."""
    count = sum(code != FOLLOWS for code in refused)
    return count > REFUSED_MAX and 2 * count > received


def judged(outcomes: Sequence[Done] | Sequence[Outcome]) -> tuple[int, int]:
    """How much was refused, and how much was kept (`node.doubts`)."""
    refused = sum(bool(one.refused) and one.refused != FOLLOWS for one in outcomes)
    return refused, sum(not one.refused and getattr(one, "gap", None) is None for one in outcomes)


def never_sent(declined: int, sent: int) -> bool:
    """Whether a peer has refused what it cannot have. `sent`: items of the feed, in this session. Some of the others
    were sent ahead of their turn, or again, or in the session before."""
    return declined > REFUSED_MAX + 2 * sent
