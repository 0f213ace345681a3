"""A seed that fails, made small: which of what was planned, and of what happens by chance, it takes.

Delta debugging (Zeller and Hildebrandt, 2002) over the things of a story's plan and the kinds of chance faults. Without
one of them all dice fall otherwise from there on, so a smaller story is another one, which fails in the same way: the
complaint is the same but for names and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from fednode.crypto.errors import FednodeError
from sim.network import Faults
from sim.story import Told, planned, tell

FAILURES = (AssertionError, FednodeError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, OSError)
Item = int | str  # a number of the plan, or a kind of fault


def shrink(seed: int, told: Told, failed: str, runs_max: int) -> str:
    """What is left of a seed that failed with this complaint, and how to replay that, as words for people. At most so
    many runs."""
    plan = planned(seed, told)
    chosen = told.only if told.only is not None else frozenset(one.number for one in plan)
    kinds = [kind for kind in Faults.kinds() if kind not in told.without]
    runs, tried = 0, dict[frozenset[Item], bool]()

    def some(items: frozenset[Item]) -> Told:
        numbers = frozenset(one for one in items if isinstance(one, int))
        return replace(told, only=numbers, without=told.without | {one for one in kinds if one not in items})

    def fails(items: frozenset[Item]) -> bool:
        nonlocal runs
        if items not in tried and runs < runs_max:
            runs += 1
            tried[items] = _failure(seed, some(items)) == failed
        return tried.get(items, False)

    left = minimal([*kinds, *sorted(chosen)], fails)
    small = some(frozenset(left))
    things = [str(one) for one in plan if one.number in (small.only or ())]
    faults = [one for one in left if isinstance(one, str)]
    return "\n".join(
        (
            f"shrunk in {runs} runs from {len(chosen)} planned things to {len(things)}, "
            f"by chance {', '.join(faults) or 'nothing'}:",
            *(f"  {one}" for one in things),
            f"replay: {small.replay(seed)}",
        )
    )


def minimal(items: Sequence[Item], fails: Callable[[frozenset[Item]], bool]) -> list[Item]:
    """A subset that still fails, and of which no part that was tried could be left out."""
    left, parts = list(items), 1
    while left:
        size = -(-len(left) // parts)
        for start in range(0, len(left), size):
            rest = left[:start] + left[start + size :]
            if fails(frozenset(rest)):
                left, parts = rest, max(parts - 1, 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(left), parts * 2)
    return left


def complaint(error: Exception) -> str:
    """What failed, without what differs from story to story."""
    if not isinstance(error, AssertionError):
        return type(error).__name__
    first = str(error).splitlines()[0].partition(": ")[2]
    return re.sub(r"[^\s:]*\d[^\s:]*", "N", first)[:60]


def _failure(seed: int, told: Told) -> str:
    try:
        tell(seed, told)
    except FAILURES as error:
        return complaint(error)
    return ""
