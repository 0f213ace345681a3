"""What waits for the writer comes out in turns, and nothing is lost."""

from __future__ import annotations

import threading
from typing import Any

from fednode.node.lanes import Lanes


def drained(lanes: Lanes) -> list[Any]:
    found = []
    while (job := lanes.look()) is not None:
        found.append(job)
    return found


def test_regression_nobody_waits_behind_all_that_another_has_sent() -> None:
    """It was one queue: what an honest child sent waited behind the 50,000 things that hostile ones had sent before."""
    lanes = Lanes()
    for number in range(10_000):
        lanes.put("hostile", ("hostile", number))
    for number in range(3):
        lanes.put("honest", ("honest", number))
    lanes.put("", ("own", 0))
    assert [lanes.get()[0] for _ in range(8)] == [
        *("hostile", "honest", "own", "hostile", "honest", "hostile", "honest", "hostile")
    ]


def test_each_lane_keeps_its_order_and_nothing_is_lost() -> None:
    lanes = Lanes()
    jobs = [(name, number) for number in range(50) for name in ("a", "b", "c")[: number % 3 + 1]]
    for name, number in jobs:
        lanes.put(name, (name, number))
    found = drained(lanes)
    assert sorted(found) == sorted(jobs)
    for name in "abc":
        assert [one for one in found if one[0] == name] == [one for one in jobs if one[0] == name]
    assert lanes.empty


def test_who_waits_is_woken_and_the_end_comes_after_all_that_was_put_in() -> None:
    lanes, found = Lanes(), list[Any]()

    def run() -> None:
        while (job := lanes.get()) is not None:
            found.append(job)

    thread = threading.Thread(target=run)
    thread.start()
    for number in range(100):
        lanes.put(str(number % 3), number)
    lanes.end()
    thread.join(60)
    assert sorted(found) == list(range(100))
    assert lanes.get() is None
