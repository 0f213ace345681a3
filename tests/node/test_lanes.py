"""What waits for the writer comes out in turns, and nothing is lost."""

from __future__ import annotations

import threading
from typing import Any

from fednode.node.lanes import CHARGE_S_MAX, IDLE_MAX, Lanes


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


def test_regression_who_sends_now_and_then_waits_for_one_job_whatever_others_have_cost() -> None:
    """One job of each in turn: an honest child waited for one of each of 200 thieves, each a transaction of its own."""
    lanes = Lanes()
    for thief in range(200):
        for number in range(10):
            lanes.put(f"thief{thief}", (f"thief{thief}", number))
    for _ in range(400):
        lane, _ = lanes.get()
        lanes.charge(lane, 0.002)
    for number in range(3):
        lanes.put("honest", ("honest", number))
        assert lanes.get()[0] == "honest"
        lanes.charge("honest", 0.0005)
        lane, _ = lanes.get()
        lanes.charge(lane, 0.002)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def busy(lanes: Lanes, clock: Clock, thieves: int) -> None:
    """So many always have something here; one job of each."""
    for thief in range(thieves):
        for number in range(1_000):
            lanes.put(f"thief{thief}", number)
    for _ in range(thieves):
        worked(lanes, clock, 0.015)


def worked(lanes: Lanes, clock: Clock, cost_s: float) -> Any:
    """The writer does a job."""
    at = set(lanes._lanes)
    before = {one: len(lanes._lanes[one]) for one in at}
    job = lanes.get()
    (lane,) = [one for one in at if len(lanes._lanes.get(one, ())) < before[one]]
    clock.now_s += cost_s
    lanes.charge(lane, cost_s)
    return job


def test_regression_who_sends_now_and_then_waits_for_one_job_though_its_own_cost_as_much() -> None:
    """A commit costs what the disk takes: an honest child's put it behind 50 thieves, each of whom had had less, for
    seconds."""
    clock = Clock()
    lanes = Lanes(clock)
    busy(lanes, clock, 50)
    for number in range(20):
        lanes.put("honest", ("honest", number))
        assert worked(lanes, clock, 0.03) == ("honest", number)
        for _ in range(66):
            worked(lanes, clock, 0.015)


def test_those_who_always_have_something_come_however_many_send_now_and_then() -> None:
    clock = Clock()
    lanes = Lanes(clock)
    busy(lanes, clock, 1)
    came, due_s = 0, dict.fromkeys((f"now and then {number}" for number in range(150)), 0.0)
    for _ in range(4_000):
        for lane in [one for one, at_s in due_s.items() if at_s <= clock.now_s]:  # more than the writer can do
            lanes.put(lane, lane)
            del due_s[lane]
        job = worked(lanes, clock, 0.01)
        if job in lanes._left_s:
            due_s[job] = clock.now_s + 1.0
        came += isinstance(job, int)
    assert came >= 4_000 / 151 / 3


def test_what_costs_more_comes_more_rarely() -> None:
    lanes, times = Lanes(), {"dear": 0, "cheap": 0}
    for number in range(1_000):
        for lane in times:
            lanes.put(lane, (lane, number))
    for _ in range(550):
        lane, _ = lanes.get()
        times[lane] += 1
        lanes.charge(lane, 0.01 if lane == "dear" else 0.001)
    assert 48 <= times["dear"] <= 52


def test_one_long_job_does_not_put_its_lane_back_for_long() -> None:
    lanes = Lanes()
    lanes.put("", "long")
    lanes.get()
    lanes.charge("", 3_600.0)
    lanes.put("", "next")
    for number in range(1_000):
        lanes.put("other", number)
    waited = 0
    while lanes.get() != "next":
        lanes.charge("other", 0.001)
        waited += 1
    assert CHARGE_S_MAX / 0.001 - 2 <= waited <= CHARGE_S_MAX / 0.001 + 2


def test_lanes_in_which_nothing_waits_are_forgotten() -> None:
    lanes = Lanes()
    for number in range(10 * IDLE_MAX):
        lanes.put(f"{number}", number)
        lanes.get()
    assert len(lanes._had) <= IDLE_MAX + 1
    assert lanes.empty
