"""scripts/bench turns: 5,000 children whose window opens at 02:00, in virtual time. Prints one JSON document.

No clock is measured: the figures are the same on every machine. An exchange takes a child 0.5, 2 or 8 s of a seat,
letting it in 50 ms.

    ideal_s       work / seats: no seat ever empty
    last_s        when the last one was done
    wait_...      from the first time that a child asks until it has a seat
    asks          how often a child asks, on average
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lib"))

from night import Child, Night, village

CHILDREN = 5_000


def figures(seats: int) -> dict[str, float]:
    """One night."""
    rng = random.Random(1)
    children = {village(n): Child(rng.choice((500, 2_000, 8_000))) for n in range(CHILDREN)}
    work_ms = sum(child.work_ms + 50 for child in children.values())
    night = Night(seats, 60_000, children)
    night.run(36_000_000)
    waits = sorted(child.seated_ms - child.first_ms for child in children.values())
    return {
        "seats": seats,
        "served": sum(child.done_ms >= 0 for child in children.values()),
        "most_at_once": night.most,
        "most_let_in_at_once": night.most_admitting,
        "ideal_s": round(work_ms / seats / 1000, 1),
        "last_s": round(max(child.done_ms for child in children.values()) / 1000, 1),
        "wait_p50_s": waits[len(waits) // 2] / 1000,
        "wait_max_s": waits[-1] / 1000,
        "asks": round(night.asks / CHILDREN, 2),
    }


if __name__ == "__main__":
    print(json.dumps([figures(seats) for seats in (50, 200, 2_000)], indent=1))
