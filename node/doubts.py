"""Of which children a node expects little good: those of whom more is refused than kept, lately. Without I/O.

Rules
1. What is refused counts one, and so does a question for what was never here; how a session ended may count `BREACH`
   (`node.pauses`). What is kept makes up for one, `FORGIVEN_S` do, and nobody has more than `AMISS_MAX` against it.
2. From `DOUBTED` on a child is doubted. It is served as everybody else, but after them: all the doubted together have a
   small share of the writer (`node.lanes`), of the event loop (`node.shares`) and of the places of those who are let in
   (`node.turns`). Nobody else's work waits for theirs, however many they are.
3. It goes by the child's certificate: who shares an address with one of them is not touched by it.

>>> doubts = Doubts(lambda: 0.0)
>>> doubts.judged("1301", refused=4, kept=1); doubts.doubted("1301"), doubts.doubted("1302")
(True, False)
"""

from __future__ import annotations

from collections.abc import Callable

DOUBTED, AMISS_MAX = 3, 10
BREACH = 5
FORGIVEN_S = 10.0
CHILDREN_MAX = 10_000


class Doubts:
    """Of one node; `judged` by one thread, asked by any. `clock_s`: one that never jumps."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._amiss: dict[str, tuple[float, float]] = {}  # what was refused beyond what was kept; as of when

    def judged(self, child: str, refused: int, kept: int) -> None:
        """What became of what a child sent."""
        if not refused and child not in self._amiss:
            return
        amiss = min(self._against(child) + refused - kept, float(AMISS_MAX))
        self._amiss.pop(child, None)
        if amiss > 0:
            while len(self._amiss) >= CHILDREN_MAX:
                del self._amiss[next(iter(self._amiss))]
            self._amiss[child] = amiss, self._clock_s()

    def doubted(self, child: str) -> bool:
        """Whether it is served after the others."""
        return self._against(child) >= DOUBTED

    def _against(self, child: str) -> float:
        amiss, at_s = self._amiss.get(child, (0.0, 0.0))
        return max(0.0, amiss - (self._clock_s() - at_s) / FORGIVEN_S) if amiss else 0.0

    @property
    def remembered(self) -> int:
        """How many have something against them."""
        return len(self._amiss)
